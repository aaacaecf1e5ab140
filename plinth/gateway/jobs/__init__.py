"""Jobs: what callers ask for now and workers do later.

A job's row and its entry in the outbox are one transaction of Postgres, which alone knows what is to be done. A
dispatcher sends what is in the outbox to a queue in Redis, and a worker that gets it claims the row for a while (a
lease), embeds batch after batch and writes the points. Whatever is killed, the lease of its job expires or its message
stays away, and the dispatcher sends the job again; it goes on with the batches that are left, and its points have the
ids that they had before.
"""

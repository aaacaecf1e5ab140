-- The jobs that wait, which the dispatcher counts.

CREATE INDEX jobs_pending ON jobs (id) WHERE status = 'pending';

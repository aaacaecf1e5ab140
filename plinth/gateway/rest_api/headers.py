"""Headers of the gateway's REST, for its server and its client."""

# Milliseconds within which the caller wants the answer.
DEADLINE = "x-request-timeout-ms"
# The same key is the same job.
IDEMPOTENCY_KEY = "idempotency-key"

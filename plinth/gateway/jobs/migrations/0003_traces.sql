-- The trace of the request that asked for a job, as W3C writes it; its worker goes on with it.

ALTER TABLE outbox ADD COLUMN traceparent text;

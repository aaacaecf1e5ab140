-- Jobs, the batches that they have yet to do, and the outbox that the dispatcher sends from.

CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    org_id text NOT NULL,
    user_id text NOT NULL,
    kind text NOT NULL,
    -- As the caller names it, and as Qdrant does.
    collection text NOT NULL,
    qdrant_collection text NOT NULL,
    parameters jsonb NOT NULL,
    status text NOT NULL,
    stage text NOT NULL,
    items integer NOT NULL,
    items_done integer NOT NULL DEFAULT 0,
    -- Of these, the ones that a newer job wrote, or is to write, with other content.
    items_superseded integer NOT NULL DEFAULT 0,
    result jsonb,
    error text,
    -- Since a batch was last done.
    attempts integer NOT NULL DEFAULT 0,
    lease_id uuid,
    lease_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX jobs_leased ON jobs (lease_until) WHERE status = 'processing';
CREATE INDEX jobs_failed ON jobs (org_id, updated_at) WHERE status = 'failed';
CREATE INDEX jobs_ended ON jobs (updated_at) WHERE status IN ('completed', 'failed', 'cancelled');

CREATE TABLE job_batches (
    job_id uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    position integer NOT NULL,
    items bytea NOT NULL,
    PRIMARY KEY (job_id, position)
);

-- The job that a point's content comes from: the one that was asked for last.
CREATE TABLE point_sources (
    qdrant_collection text NOT NULL,
    point_id uuid NOT NULL,
    job_id uuid NOT NULL,
    PRIMARY KEY (qdrant_collection, point_id)
);
CREATE INDEX point_sources_job ON point_sources (job_id);

CREATE TABLE idempotency_keys (
    org_id text NOT NULL,
    user_id text NOT NULL,
    key text NOT NULL,
    job_id uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    PRIMARY KEY (org_id, user_id, key)
);
CREATE INDEX idempotency_keys_job ON idempotency_keys (job_id);

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id uuid NOT NULL UNIQUE REFERENCES jobs ON DELETE CASCADE,
    task_name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    available_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    sends integer NOT NULL DEFAULT 0
);
CREATE INDEX outbox_unsent ON outbox (available_at) WHERE sent_at IS NULL;

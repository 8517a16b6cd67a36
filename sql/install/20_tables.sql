-- Tables. Hot tables (runs, run_phases, run_events, effects, run_queue, run_slots) have no foreign keys among each other:
-- they are written only by the functions and the worker of this extension, and row-by-row checks halve throughput. Triggers of
-- runs (30_queue.sql) keep them together.
-- Keys are text COLLATE "C": run ids are random in time order (UUID version 7), so index inserts stay at the right edge.

CREATE TABLE ops.projects (
  project_id   text COLLATE "C" PRIMARY KEY,
  name         text NOT NULL,
  repo_slug    text NOT NULL,
  odoo_version text NOT NULL,
  metadata     jsonb NOT NULL DEFAULT '{}',
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT project_id_is_a_name CHECK (ops._is_name(project_id)),
  CONSTRAINT project_name_is_short CHECK (octet_length(name) BETWEEN 1 AND 200),
  CONSTRAINT repo_slug_is_owner_slash_name
    CHECK (repo_slug ~ '^[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})/[A-Za-z0-9._-]{1,100}$' AND repo_slug !~ '/\.{1,2}$'),
  CONSTRAINT odoo_version_is_major_dot_minor CHECK (odoo_version ~ '^[0-9]{1,2}\.[0-9]{1,2}$'),
  CONSTRAINT project_metadata_is_an_object CHECK (jsonb_typeof(metadata) = 'object')
);

CREATE TABLE ops.environments (
  env_id         text COLLATE "C" PRIMARY KEY,
  project_id     text COLLATE "C" NOT NULL REFERENCES ops.projects,
  env_type       text NOT NULL,
  branch_pattern text,
  db_name        text,
  config         jsonb NOT NULL DEFAULT '{}',
  -- Tolerant, so that a wrong value meets the constraint below and its message.
  max_active_runs int GENERATED ALWAYS AS
    (CASE WHEN config ->> 'max_active_runs' ~ '^[0-9]{1,3}$' THEN (config ->> 'max_active_runs')::int ELSE 1 END) STORED,
  created_at     timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT env_id_is_a_name CHECK (ops._is_name(env_id)),
  CONSTRAINT env_type_is_known CHECK (env_type IN ('dev', 'staging', 'prod')),
  CONSTRAINT branch_pattern_is_short CHECK (octet_length(branch_pattern) BETWEEN 1 AND 200),
  CONSTRAINT db_name_is_short CHECK (octet_length(db_name) BETWEEN 1 AND 63),
  -- Raises its own error, which names the JSON path.
  CONSTRAINT config_is_valid CHECK (ops._check_environment_config(config))
);
CREATE INDEX environments_project_id ON ops.environments (project_id);

CREATE TABLE ops.runs (
  run_id          text COLLATE "C" PRIMARY KEY DEFAULT ops._new_run_id(),
  project_id      text COLLATE "C" NOT NULL,
  env_id          text COLLATE "C" NOT NULL REFERENCES ops.environments,
  git_sha         text NOT NULL,
  git_ref         text NOT NULL,
  status          text NOT NULL DEFAULT 'queued',
  claimed_by      text,
  queued_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at      timestamptz,
  finished_at     timestamptz,
  metadata        jsonb NOT NULL DEFAULT '{}',
  attempt         int NOT NULL DEFAULT 0,
  priority        int NOT NULL DEFAULT 0,
  available_at    timestamptz,
  idempotency_key text,
  -- What the key stands for: hash of environment, commit, ref and metadata. Null without a key.
  request_hash    bytea,
  requested_by    name NOT NULL DEFAULT session_user,
  waiting_for     text,
  claimed_at      timestamptz,
  -- Role that claimed through claim_next_run; null for the worker of this server.
  claimed_role    name,
  claim_token     uuid,
  -- Only for workers outside the server: end of the lease.
  lease_until     timestamptz,
  cancel_requested_at timestamptz,
  cancel_requested_by name,
  cancel_reason   text,
  -- Run that this one retries or rolls back to.
  origin_run_id   text COLLATE "C",
  origin_kind     text,
  -- Transaction start. A row inserted with another value is restored history: it queues nothing.
  created_at      timestamptz NOT NULL DEFAULT now(),
  -- How often the worker ended while it was resuming this run; see ops._note_crash.
  crashes         int NOT NULL DEFAULT 0,
  -- The newest commits of this run may be lost (promotion of a standby, restored backup): effects are looked for first.
  look_first      boolean NOT NULL DEFAULT false
  -- Values and status are checked by ops._guard_run: each constraint is read and compiled anew by every statement, which took
  -- a third of the time of a statement that changes one run. For the same reason run_phases, run_events and run_queue, which
  -- nobody else writes, have no constraints on their state and level.
) WITH (fillfactor = 45);
-- No index holds a column that changes while a run is worked on: its updates stay on their page (HOT).
CREATE UNIQUE INDEX runs_idempotency_key ON ops.runs (project_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_env_id_queued_at ON ops.runs (env_id, queued_at);
CREATE INDEX runs_origin_run_id ON ops.runs (origin_run_id) WHERE origin_run_id IS NOT NULL;
CREATE INDEX runs_waiting_for ON ops.runs (waiting_for) WHERE waiting_for IS NOT NULL;

CREATE TABLE ops.run_phases (
  run_id      text COLLATE "C" NOT NULL,
  phase_no    int NOT NULL,
  phase       text NOT NULL,
  kind        text NOT NULL,
  needs       text[] NOT NULL DEFAULT '{}',
  config      jsonb NOT NULL DEFAULT '{}',
  timeout     interval NOT NULL,
  state       text NOT NULL DEFAULT 'pending',
  attempt     int NOT NULL DEFAULT 0,
  started_at  timestamptz,
  finished_at timestamptz,
  remembered  jsonb NOT NULL DEFAULT '{}',
  outcome     jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (run_id, phase_no)
) WITH (fillfactor = 45);  -- all phases of a run change in one turn: their new versions fit on the same page

CREATE TABLE ops.run_events (
  run_id     text COLLATE "C" NOT NULL,
  seq        int NOT NULL,
  level      text NOT NULL,
  message    text NOT NULL,
  payload    jsonb NOT NULL DEFAULT '{}',
  phase      text,
  -- The moment of the event, not of the transaction.
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Not null: at most one event of the phase carries this key.
  event_key  text,
  PRIMARY KEY (run_id, seq)
);

CREATE TABLE ops.effects (
  run_id       text COLLATE "C" NOT NULL,
  phase        text NOT NULL,
  effect_key   text NOT NULL,
  kind         text NOT NULL,
  state        text NOT NULL,
  attempt      int NOT NULL,
  target       text NOT NULL,
  request_hash text NOT NULL,
  outcome      jsonb,
  intended_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  settled_at   timestamptz,
  PRIMARY KEY (run_id, phase, effect_key),
  CONSTRAINT effect_kind_is_known CHECK (kind IN ('repeatable', 'keyed', 'unkeyed')),
  CONSTRAINT effect_state_is_known CHECK (state IN ('intended', 'done', 'absent', 'uncertain', 'needs_decision'))
) WITH (fillfactor = 70);

CREATE TABLE ops.artifacts (
  artifact_id   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  run_id        text COLLATE "C" NOT NULL,
  artifact_type text NOT NULL,
  storage_path  text NOT NULL,
  digest        text NOT NULL,
  size_bytes    bigint NOT NULL,
  metadata      jsonb NOT NULL DEFAULT '{}',
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT artifact_is_unique UNIQUE (run_id, artifact_type, storage_path),
  CONSTRAINT digest_is_sha256 CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
  CONSTRAINT size_is_not_negative CHECK (size_bytes >= 0)
);

-- Which runs may be claimed. A row exists exactly while its run is queued.
-- ready: not yet examined or its turn has come · blocked: its environment has no free slot; made ready when one is given
-- back, so that a claim never walks over blocked runs · later: available_at lies in the future.
CREATE TABLE ops.run_queue (
  run_id       text COLLATE "C" PRIMARY KEY,
  env_id       text COLLATE "C" NOT NULL,
  priority     int NOT NULL,
  available_at timestamptz NOT NULL,
  state        text NOT NULL
);
CREATE INDEX run_queue_ready ON ops.run_queue (priority DESC, available_at, run_id) WHERE state = 'ready';
CREATE INDEX run_queue_blocked ON ops.run_queue (env_id, priority DESC, available_at, run_id) WHERE state = 'blocked';
CREATE INDEX run_queue_later ON ops.run_queue (available_at) WHERE state = 'later';

-- Active runs. A row exists exactly while its run is claimed or running; slot numbers 1..max_active_runs of an environment
-- hold "one active run per environment" by the primary key.
CREATE TABLE ops.run_slots (
  env_id    text COLLATE "C" NOT NULL,
  slot_no   int NOT NULL,
  run_id    text COLLATE "C" NOT NULL,
  worker_id text NOT NULL,
  -- Told to the worker of this server; rung by cancel_run.
  cancel_requested boolean NOT NULL DEFAULT false,
  PRIMARY KEY (env_id, slot_no),
  CONSTRAINT run_has_one_slot UNIQUE (run_id)
);

CREATE TABLE ops.workers (
  worker_id  text PRIMARY KEY,
  -- server: background worker of this server; its life is proven by an advisory lock on lock_key. external: claims by SQL.
  kind       text NOT NULL,
  lock_key   bigint,
  pid        int,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  stopped_at timestamptz,
  -- Of a worker of this server: end of its lease. One that hangs loses its runs to workers outside when it is over.
  lease_until timestamptz,
  CONSTRAINT worker_kind_is_known CHECK (kind IN ('server', 'external')),
  CONSTRAINT server_worker_has_lock CHECK (kind <> 'server' OR lock_key IS NOT NULL)
);

-- Where the worker may act (rule R8). One row; a copy of this database finds another identity than its own and stays idle.
CREATE TABLE ops.armed_identity (
  only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  system_identifier bigint NOT NULL,
  database_oid      oid NOT NULL,
  data_directory    text NOT NULL,
  timeline          int NOT NULL,
  armed_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
  armed_by          name NOT NULL DEFAULT session_user,
  -- Set when history was restored into this database: pg_dump | pg_restore creates the extension anew.
  disarmed_because  text
);

-- The kind of functions that this product replaces: row at a time, keys checked row by row, claims over the table of runs.
CREATE SCHEMA old;
CREATE TABLE old.runs (
  run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project_id text NOT NULL, env_id text NOT NULL,
  git_sha text NOT NULL, git_ref text NOT NULL, status text NOT NULL DEFAULT 'queued', claimed_by text,
  queued_at timestamptz NOT NULL DEFAULT now(), claimed_at timestamptz, started_at timestamptz, finished_at timestamptz,
  metadata jsonb NOT NULL DEFAULT '{}');
CREATE INDEX ON old.runs (status, queued_at);
CREATE TABLE old.run_events (
  event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run_id bigint NOT NULL REFERENCES old.runs, level text NOT NULL,
  message text NOT NULL, payload jsonb NOT NULL DEFAULT '{}', created_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON old.run_events (run_id, created_at);

CREATE FUNCTION old.claim_next_run(p_worker_id text) RETURNS SETOF old.runs LANGUAGE plpgsql AS $$
DECLARE
  v_run_id bigint;
BEGIN
  SELECT run_id INTO v_run_id FROM old.runs WHERE status = 'queued' ORDER BY queued_at FOR UPDATE SKIP LOCKED LIMIT 1;
  RETURN QUERY UPDATE old.runs SET status = 'claimed', claimed_by = p_worker_id, claimed_at = now()
                WHERE run_id = v_run_id RETURNING *;
END
$$;

CREATE FUNCTION old.append_event(p_run_id bigint, p_level text, p_message text, p_payload jsonb) RETURNS bigint
  LANGUAGE plpgsql AS $$
DECLARE
  v_event_id bigint;
BEGIN
  INSERT INTO old.run_events (run_id, level, message, payload) VALUES (p_run_id, p_level, p_message, p_payload)
  RETURNING event_id INTO v_event_id;
  UPDATE old.runs SET status = 'running', started_at = coalesce(started_at, now()) WHERE run_id = p_run_id AND status = 'claimed';
  RETURN v_event_id;
END
$$;

CREATE FUNCTION old.finish_run(p_run_id bigint, p_status text, p_metadata jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  UPDATE old.runs SET status = p_status, finished_at = now(), metadata = metadata || p_metadata WHERE run_id = p_run_id;
  RETURN FOUND;
END
$$;

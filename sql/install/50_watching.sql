-- Watching runs and the worker.

CREATE FUNCTION ops.wait_for_run(p_run_id text, p_timeout interval DEFAULT '1 hour') RETURNS ops.runs
  LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
  AS 'MODULE_PATHNAME', 'ops_wait_for_run';
COMMENT ON FUNCTION ops.wait_for_run(text, interval) IS
  'Sleeps until the run is over and returns its row; error OP001 when the time is up, 25001 where the isolation level hides changes';

-- No SET and no definer rights: a procedure that has them may not commit. Its statements name every schema and operator.
CREATE PROCEDURE ops.tail(p_run_id text) LANGUAGE c AS 'MODULE_PATHNAME', 'ops_tail';
COMMENT ON PROCEDURE ops.tail(text) IS 'Prints the events of a run as they happen until it is over; holds nothing open while it waits';

CREATE FUNCTION ops.timeline(p_run_id text) RETURNS SETOF text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_run ops.runs;
  v_begin timestamptz;
  v_seconds numeric;
  v_width CONSTANT int := 40;
BEGIN
  IF p_run_id IS NULL THEN
    RAISE EXCEPTION 'p_run_id must not be null' USING ERRCODE = '22004';
  END IF;
  SELECT * INTO v_run FROM ops.runs r WHERE r.run_id = p_run_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'run "%" does not exist', left(p_run_id, 200)
      USING ERRCODE = '42704', HINT = 'Run ids are in ops.runs.run_id and look like run-<uuid>.';
  END IF;
  v_begin := v_run.queued_at;
  v_seconds := greatest(extract(epoch FROM coalesce(v_run.finished_at, clock_timestamp()) - v_begin), 0.001);
  RETURN NEXT format('%s  %s %s -> %s  %s after %s s', v_run.run_id, v_run.git_ref, left(v_run.git_sha, 12), v_run.env_id,
                     v_run.status, round(v_seconds, 1));
  RETURN QUERY
    SELECT format('%s |%s| %s %s s  attempt %s  %s', rpad(left(p.phase, 20), 20),
                  rpad(repeat(' ', b.at) || repeat(CASE p.state WHEN 'failed' THEN 'x' WHEN 'running' THEN '>' ELSE '#' END, b.long),
                       v_width),
                  coalesce(to_char(p.started_at, 'HH24:MI:SS'), '--:--:--'),
                  lpad(coalesce(round(extract(epoch FROM b.ended - p.started_at), 1)::text, '-'), 7), p.attempt, p.state)
      FROM ops.run_phases p
     CROSS JOIN LATERAL (SELECT coalesce(p.finished_at, CASE WHEN p.state = 'running' THEN clock_timestamp() END) AS ended) e
     CROSS JOIN LATERAL (
       SELECT e.ended,
              CASE WHEN p.started_at IS NULL THEN 0
                   ELSE least(v_width - 1, floor(extract(epoch FROM p.started_at - v_begin) / v_seconds * v_width))::int END AS at,
              CASE WHEN p.started_at IS NULL OR e.ended IS NULL THEN 0
                   ELSE greatest(1, round(extract(epoch FROM e.ended - p.started_at) / v_seconds * v_width))::int END AS long) b
     WHERE p.run_id = p_run_id ORDER BY p.phase_no;
END
$$;
COMMENT ON FUNCTION ops.timeline(text) IS 'The run as lines of text: a bar, times, attempts and result for each phase';

CREATE VIEW ops.worker_status WITH (security_barrier) AS
  SELECT s.worker_id, s.pid, s.database, s.state, s.since, s.running_runs, s.requests_in_flight, s.claimed, s.finished,
         s.last_error, s.last_error_at
    FROM ops._worker_status() s;
COMMENT ON VIEW ops.worker_status IS 'The worker of this database: what it is, what it does, its last error';
COMMENT ON COLUMN ops.worker_status.worker_id IS 'Identity of this life of the worker';
COMMENT ON COLUMN ops.worker_status.pid IS 'Process, as in pg_stat_activity';
COMMENT ON COLUMN ops.worker_status.database IS 'This database';
COMMENT ON COLUMN ops.worker_status.state IS 'working, or why it is not';
COMMENT ON COLUMN ops.worker_status.since IS 'Since when it is in that state';
COMMENT ON COLUMN ops.worker_status.running_runs IS 'Runs in progress';
COMMENT ON COLUMN ops.worker_status.requests_in_flight IS 'HTTP requests without an answer yet';
COMMENT ON COLUMN ops.worker_status.claimed IS 'Runs claimed by this life';
COMMENT ON COLUMN ops.worker_status.finished IS 'Runs brought to their end by this life';
COMMENT ON COLUMN ops.worker_status.last_error IS 'Last error that the worker survived; secrets are masked';
COMMENT ON COLUMN ops.worker_status.last_error_at IS 'When that was';

CREATE FUNCTION ops._is_armed() RETURNS boolean
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(bool_or(i.disarmed_because IS NULL AND i.system_identifier = ops._system_identifier()
                          AND i.database_oid = d.oid AND i.data_directory = ops._data_directory()
                          AND i.timeline = ops._timeline()), false)
    FROM ops.armed_identity i, pg_database d WHERE d.datname = current_database()
$$;
COMMENT ON FUNCTION ops._is_armed() IS 'Whether the worker may act here: this is the database that was armed and not a copy of it';

-- What was stored last may be lost, and with it the record of effects that are out there.
CREATE FUNCTION ops._distrust_records() RETURNS void
  LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  UPDATE ops.runs SET look_first = true WHERE status NOT IN ('success', 'failed', 'cancelled') AND NOT look_first;
  UPDATE ops.effects e SET state = 'uncertain', settled_at = NULL
    FROM ops.runs r WHERE r.run_id = e.run_id AND r.status NOT IN ('success', 'failed', 'cancelled')
     AND e.state IN ('intended', 'absent')
$$;
COMMENT ON FUNCTION ops._distrust_records() IS
  'After a restore or a promotion: every effect of a run that is not over is looked for before it is sent';

CREATE FUNCTION ops._adopt_identity() RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE ops.armed_identity i SET data_directory = ops._data_directory(), timeline = ops._timeline()
    FROM pg_database d
   WHERE d.datname = current_database() AND i.disarmed_because IS NULL AND i.database_oid = d.oid
     AND i.system_identifier = ops._system_identifier() AND i.timeline < ops._timeline();
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  PERFORM ops._distrust_records();
  RETURN true;
END
$$;
COMMENT ON FUNCTION ops._adopt_identity() IS
  'Called by the worker of a standby that was promoted: the database stays armed there. False: it was not armed before';

CREATE FUNCTION ops.arm() RETURNS text
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_before ops.armed_identity;
  v_database oid := (SELECT oid FROM pg_database WHERE datname = current_database());
BEGIN
  IF NOT current_setting('is_superuser')::boolean THEN
    RAISE EXCEPTION 'ops.arm() must be called by a superuser' USING ERRCODE = '42501';
  END IF;
  SELECT * INTO v_before FROM ops.armed_identity;
  DELETE FROM ops.armed_identity;
  INSERT INTO ops.armed_identity (system_identifier, database_oid, data_directory, timeline)
  VALUES (ops._system_identifier(), v_database, ops._data_directory(), ops._timeline());
  PERFORM ops._distrust_records();

  -- Restored history: claims of workers elsewhere are void, and the queue is made anew from the runs.
  UPDATE ops.runs r SET status = 'queued', claimed_by = NULL, claim_token = NULL, claimed_role = NULL, lease_until = NULL
   WHERE r.status IN ('claimed', 'running') AND NOT EXISTS (SELECT FROM ops.run_slots s WHERE s.run_id = r.run_id);
  INSERT INTO ops.run_queue (run_id, env_id, priority, available_at, state)
  SELECT r.run_id, r.env_id, r.priority, coalesce(r.available_at, r.queued_at), 'later'
    FROM ops.runs r WHERE r.status = 'queued'
  ON CONFLICT DO NOTHING;
  PERFORM ops._ring(true, true, true);
  RETURN format('armed for server %s, database %s (was: server %s, database %s%s)', ops._system_identifier(), v_database,
                coalesce(v_before.system_identifier::text, 'none'), coalesce(v_before.database_oid::text, 'none'),
                coalesce(', disarmed because ' || v_before.disarmed_because, ''));
END
$$;
COMMENT ON FUNCTION ops.arm() IS
  'Superuser: lets the worker act in this database. Needed once in a copy (template, restored dump, restored backup), which comes up disarmed';

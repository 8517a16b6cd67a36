-- The queue: what a new row of ops.runs and a change of its status do to run_phases, run_queue, run_slots and run_events,
-- whoever writes them. Lock order everywhere: run, then slots, then queue, then events (rule R11).

-- Written in src/pg/run_triggers.cpp.

CREATE FUNCTION ops._transition_allowed(p_from text, p_to text) RETURNS boolean
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
  AS 'MODULE_PATHNAME', 'ops_transition_allowed';
COMMENT ON FUNCTION ops._transition_allowed(text, text) IS 'The table of allowed status changes of a run';

CREATE FUNCTION ops._guard_run() RETURNS trigger
  LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_guard_run';
COMMENT ON FUNCTION ops._guard_run() IS
  'Refuses runs with values out of bounds, what does not go together with the status, status changes outside ops._transition_allowed, changes of what a run was queued for, every change of a final run, and metadata that is not valid';

CREATE TRIGGER guard_run BEFORE INSERT OR UPDATE ON ops.runs FOR EACH ROW EXECUTE FUNCTION ops._guard_run();
COMMENT ON TRIGGER guard_run ON ops.runs IS 'Terminal is final; other changes follow ops._transition_allowed';

-- Insert -------------------------------------------------------------------------------------------------------------

CREATE FUNCTION ops._runs_inserted() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_wrong record;
  v_later boolean;
BEGIN
  SELECT n.run_id, n.status, n.project_id, n.env_id, e.project_id AS env_project INTO v_wrong
    FROM new_runs n LEFT JOIN ops.environments e ON e.env_id = n.env_id
   WHERE n.created_at = now() AND (n.status NOT IN ('queued', 'waiting') OR n.attempt <> 0
                                   OR e.project_id IS DISTINCT FROM n.project_id)
   LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'run "%" cannot be queued', v_wrong.run_id
      USING ERRCODE = '22023',
            DETAIL = CASE WHEN v_wrong.env_project IS DISTINCT FROM v_wrong.project_id
                          THEN format('Environment "%s" does not belong to project "%s".', v_wrong.env_id, v_wrong.project_id)
                          ELSE format('A new run is queued or waiting and has no attempts and no events; this one is %s.',
                                      v_wrong.status) END,
            HINT = 'Queue runs with ops.queue_run(project, environment, git_sha, git_ref).';
  END IF;

  INSERT INTO ops.run_phases (run_id, phase_no, phase, kind, needs, config, timeout, state)
  SELECT n.run_id, p.phase_no, p.phase, p.kind, p.needs, p.config, p.timeout, p.state
    FROM new_runs n
    JOIN ops.environments e ON e.env_id = n.env_id
   CROSS JOIN LATERAL ops._plan_phases(e.config, n.metadata, e.env_type, n.git_ref) p
   WHERE n.created_at = now();
  IF FOUND THEN
    WITH queued AS (
      INSERT INTO ops.run_queue (run_id, env_id, priority, available_at, state)
      SELECT n.run_id, n.env_id, n.priority, coalesce(n.available_at, n.queued_at),
             CASE WHEN n.available_at > clock_timestamp() THEN 'later' ELSE 'ready' END
        FROM new_runs n WHERE n.created_at = now() AND n.status = 'queued'
      RETURNING priority, available_at, state)
    SELECT coalesce(bool_or(q.later), false) INTO v_later
      FROM (SELECT ops._note_later(min(q.available_at) FILTER (WHERE q.state = 'later')) AS later,
                   ops._note_ready(q.priority, min(q.available_at) FILTER (WHERE q.state = 'ready'))
              FROM queued q GROUP BY q.priority) q;
    INSERT INTO ops.run_events (run_id, seq, level, message, payload)
    SELECT n.run_id, 1, 'info', ops._redact(n.status || ' by ' || n.requested_by || ': ' || n.git_ref || ' for ' || n.env_id),
           jsonb_build_object('git_sha', n.git_sha, 'git_ref', n.git_ref)
      FROM new_runs n WHERE n.created_at = now();
    -- A check lets the worker learn when the next run is due.
    PERFORM ops._ring(true, false, v_later);
    IF NOT ops._worker_present() THEN
      RAISE WARNING 'no worker of this server will claim this run'
        USING HINT = 'Add ops_runner to shared_preload_libraries and restart the server; the run stays queued until then.';
    END IF;
  END IF;

  -- Restored history that is not over: this database was made from a dump. It shall not act by itself (ops.arm).
  IF EXISTS (SELECT FROM new_runs n WHERE n.created_at <> now() AND n.status NOT IN ('success', 'failed', 'cancelled')) THEN
    UPDATE ops.armed_identity SET disarmed_because = 'history was restored into this database' WHERE disarmed_because IS NULL;
    PERFORM ops._ring(false, false, true);
  END IF;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION ops._runs_inserted() IS 'Freezes the phases of new runs, queues them and wakes the worker';

CREATE TRIGGER queue_new_runs AFTER INSERT ON ops.runs REFERENCING NEW TABLE AS new_runs
  FOR EACH STATEMENT EXECUTE FUNCTION ops._runs_inserted();
COMMENT ON TRIGGER queue_new_runs ON ops.runs IS 'New rows are queued, whoever writes them';

-- Update -------------------------------------------------------------------------------------------------------------

CREATE FUNCTION ops._leave_slots(p_queued text[], p_stopped text[]) RETURNS void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_freed text[];
  v_unqueued text[];
  v_later boolean;
  v_promoted int;
BEGIN
  WITH leaving AS MATERIALIZED (
    SELECT s.env_id, s.slot_no FROM ops.run_slots s WHERE s.run_id = ANY (p_queued || p_stopped)
     ORDER BY s.env_id, s.slot_no FOR UPDATE),
  freed AS (
    DELETE FROM ops.run_slots s USING leaving l WHERE s.env_id = l.env_id AND s.slot_no = l.slot_no RETURNING s.env_id)
  SELECT array_agg(f.env_id) INTO v_freed FROM freed f;

  -- A ready run that goes gives its turn to a blocked one.
  WITH gone AS (DELETE FROM ops.run_queue q WHERE q.run_id = ANY (p_stopped) RETURNING q.env_id, q.state)
  SELECT array_agg(g.env_id) FILTER (WHERE g.state = 'ready') INTO v_unqueued FROM gone g;

  IF cardinality(p_queued) > 0 THEN
    WITH queued AS (
      INSERT INTO ops.run_queue (run_id, env_id, priority, available_at, state)
      SELECT n.run_id, n.env_id, n.priority, coalesce(n.available_at, n.queued_at),
             CASE WHEN n.available_at > clock_timestamp() THEN 'later' ELSE 'ready' END
        FROM ops.runs n WHERE n.run_id = ANY (p_queued)
      RETURNING priority, available_at, state)
    SELECT bool_or(q.later) INTO v_later
      FROM (SELECT ops._note_later(min(q.available_at) FILTER (WHERE q.state = 'later')) AS later,
                   ops._note_ready(q.priority, min(q.available_at) FILTER (WHERE q.state = 'ready'))
              FROM queued q GROUP BY q.priority) q;
  END IF;

  -- A statement of its own, so that it sees what was committed while the slots were locked. Each occurrence of an environment
  -- stands for one slot that was given back. Too many are harmless: what finds no slot is blocked again by the claim that
  -- examines it.
  IF v_freed IS NOT NULL OR v_unqueued IS NOT NULL THEN
    WITH promoted AS (
      UPDATE ops.run_queue q SET state = 'ready'
        FROM (SELECT u.env_id, count(*) AS slots FROM unnest(v_freed || v_unqueued) AS u(env_id) GROUP BY u.env_id) f
       CROSS JOIN LATERAL (
         SELECT b.run_id FROM ops.run_queue b WHERE b.env_id = f.env_id AND b.state = 'blocked'
          ORDER BY b.priority DESC, b.available_at, b.run_id LIMIT f.slots FOR UPDATE SKIP LOCKED) next_run
       WHERE q.run_id = next_run.run_id
      RETURNING q.priority, q.available_at)
    SELECT count(*) INTO v_promoted
      FROM (SELECT ops._note_ready(p.priority, min(p.available_at)) FROM promoted p GROUP BY p.priority) p;
  END IF;
  PERFORM ops._ring(true, false, coalesce(v_later, false));
END
$$;
COMMENT ON FUNCTION ops._leave_slots(text[], text[]) IS
  'Gives back slots of runs that are queued again or stopped and lets the next run of the environment be claimed';

CREATE FUNCTION ops._follow_status() RETURNS trigger
  LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
  AS 'MODULE_PATHNAME', 'ops_follow_status';
COMMENT ON FUNCTION ops._follow_status() IS 'Queue and slots follow the status: ops._leave_slots for runs that are no longer active, and no claim without a slot';

CREATE TRIGGER follow_status AFTER UPDATE ON ops.runs REFERENCING OLD TABLE AS old_runs NEW TABLE AS new_runs
  FOR EACH STATEMENT EXECUTE FUNCTION ops._follow_status();
COMMENT ON TRIGGER follow_status ON ops.runs IS 'Queue and slots follow the status, whoever changes it';

-- Delete -------------------------------------------------------------------------------------------------------------

CREATE FUNCTION ops._runs_deleted() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_freed text[];
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    TRUNCATE ops.run_slots, ops.run_queue, ops.run_phases, ops.run_events, ops.effects, ops.artifacts;
    RETURN NULL;
  END IF;
  WITH freed AS (DELETE FROM ops.run_slots s USING old_runs o WHERE s.run_id = o.run_id RETURNING s.env_id)
  SELECT array_agg(f.env_id) INTO v_freed FROM freed f;
  DELETE FROM ops.run_queue q USING old_runs o WHERE q.run_id = o.run_id;
  IF v_freed IS NOT NULL THEN
    PERFORM ops._promote_free_slots();
  END IF;
  DELETE FROM ops.run_phases p USING old_runs o WHERE p.run_id = o.run_id;
  DELETE FROM ops.run_events e USING old_runs o WHERE e.run_id = o.run_id;
  DELETE FROM ops.effects e USING old_runs o WHERE e.run_id = o.run_id;
  DELETE FROM ops.artifacts a USING old_runs o WHERE a.run_id = o.run_id;
  PERFORM ops._ring(true, false, false);
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION ops._runs_deleted() IS 'What belongs to a run goes with it';

CREATE TRIGGER delete_with_run AFTER DELETE ON ops.runs REFERENCING OLD TABLE AS old_runs
  FOR EACH STATEMENT EXECUTE FUNCTION ops._runs_deleted();
COMMENT ON TRIGGER delete_with_run ON ops.runs IS 'There are no foreign keys to do it';
CREATE TRIGGER truncate_with_runs AFTER TRUNCATE ON ops.runs FOR EACH STATEMENT EXECUTE FUNCTION ops._runs_deleted();
COMMENT ON TRIGGER truncate_with_runs ON ops.runs IS 'There are no foreign keys to do it';

-- Also where a session or a database has session_replication_role = replica: rows without their queue would wait for ever.
ALTER TABLE ops.runs ENABLE ALWAYS TRIGGER guard_run;
ALTER TABLE ops.runs ENABLE ALWAYS TRIGGER queue_new_runs;
ALTER TABLE ops.runs ENABLE ALWAYS TRIGGER follow_status;
ALTER TABLE ops.runs ENABLE ALWAYS TRIGGER delete_with_run;
ALTER TABLE ops.runs ENABLE ALWAYS TRIGGER truncate_with_runs;

-- Replication --------------------------------------------------------------------------------------------------------

-- Replicated runs are history: they shall not be worked on here, even where all tables of another server are replicated.
CREATE FUNCTION ops._keep_local() RETURNS trigger
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION ops._keep_local() IS 'Drops what arrives by logical replication: the table tells of this server alone';

CREATE TRIGGER keep_local BEFORE INSERT OR UPDATE OR DELETE ON ops.run_queue FOR EACH ROW WHEN (ops._is_replicated())
  EXECUTE FUNCTION ops._keep_local();
CREATE TRIGGER keep_local BEFORE INSERT OR UPDATE OR DELETE ON ops.run_slots FOR EACH ROW WHEN (ops._is_replicated())
  EXECUTE FUNCTION ops._keep_local();
CREATE TRIGGER keep_local BEFORE INSERT OR UPDATE OR DELETE ON ops.workers FOR EACH ROW WHEN (ops._is_replicated())
  EXECUTE FUNCTION ops._keep_local();
CREATE TRIGGER keep_local BEFORE INSERT OR UPDATE OR DELETE ON ops.armed_identity FOR EACH ROW WHEN (ops._is_replicated())
  EXECUTE FUNCTION ops._keep_local();
ALTER TABLE ops.run_queue ENABLE REPLICA TRIGGER keep_local;
ALTER TABLE ops.run_slots ENABLE REPLICA TRIGGER keep_local;
ALTER TABLE ops.workers ENABLE REPLICA TRIGGER keep_local;
ALTER TABLE ops.armed_identity ENABLE REPLICA TRIGGER keep_local;
COMMENT ON TRIGGER keep_local ON ops.run_queue IS 'Fires only where changes of another server are applied';
COMMENT ON TRIGGER keep_local ON ops.run_slots IS 'Fires only where changes of another server are applied';
COMMENT ON TRIGGER keep_local ON ops.workers IS 'Fires only where changes of another server are applied';
COMMENT ON TRIGGER keep_local ON ops.armed_identity IS 'Fires only where changes of another server are applied';

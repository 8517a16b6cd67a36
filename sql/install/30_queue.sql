-- The queue: what a new row of ops.runs and a change of its status do to run_phases, run_queue, run_slots and run_events,
-- whoever writes them. Lock order everywhere: run, then slots, then queue, then events (rule R11).

-- Written in src/pg/run_guard.cpp.

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

-- Written in src/pg/queue_triggers.cpp. enable_seqscan: tables are small at one time and large at another; a plan made when
-- they were small must not read them whole.

CREATE FUNCTION ops._queue_new_runs() RETURNS trigger
  LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
  AS 'MODULE_PATHNAME', 'ops_queue_new_runs';
COMMENT ON FUNCTION ops._queue_new_runs() IS
  'Freezes the phases of new runs, queues them and wakes the worker; history that is restored queues nothing';

CREATE TRIGGER queue_new_runs AFTER INSERT ON ops.runs REFERENCING NEW TABLE AS new_runs
  FOR EACH STATEMENT EXECUTE FUNCTION ops._queue_new_runs();
COMMENT ON TRIGGER queue_new_runs ON ops.runs IS 'New rows are queued, whoever writes them';

CREATE FUNCTION ops._follow_status() RETURNS trigger
  LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
  AS 'MODULE_PATHNAME', 'ops_follow_status';
COMMENT ON FUNCTION ops._follow_status() IS
  'Gives back slots of runs that are no longer active, queues them again or lets the next run of the environment be claimed; refuses a claim without a slot';

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

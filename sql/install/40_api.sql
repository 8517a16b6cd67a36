-- Functions for users: queue, claim, tell, finish, cancel. They act with the rights of ops_runner_owner; who may call them is
-- in 90_privileges.sql. Errors carry SQLSTATE, the value, and what to do; codes are listed in docs/errors.md.

-- The only writer of events on the SQL side; the caller holds the run's row lock and changes the row in the same transaction, by
-- which the worker of an active run sees that others have told something (src/pg/run_store.hpp). Returns seq.
CREATE FUNCTION ops._write_event(p_run_id text, p_level text, p_message text, p_payload jsonb) RETURNS int
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_seq int;
BEGIN
  INSERT INTO ops.run_events (run_id, seq, level, message, payload)
  SELECT p_run_id, (SELECT coalesce(max(e.seq), 0) + 1 FROM ops.run_events e WHERE e.run_id = p_run_id), p_level, ops._redact(p_message),
         ops._redact_json(p_payload)
  RETURNING seq INTO v_seq;
  RETURN v_seq;
END
$$;
COMMENT ON FUNCTION ops._write_event(text, text, text, jsonb) IS 'Appends an event with the next seq; secrets are masked';

CREATE FUNCTION ops._require(p_value anyelement, p_name text) RETURNS void
  LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF p_value IS NULL THEN
    RAISE EXCEPTION '% must not be null', p_name USING ERRCODE = '22004';
  END IF;
END
$$;
COMMENT ON FUNCTION ops._require(anyelement, text) IS 'Error 22004 naming the argument when it is null';

CREATE FUNCTION ops._lock_run(p_run_id text) RETURNS ops.runs
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_run ops.runs;
BEGIN
  PERFORM ops._require(p_run_id, 'p_run_id');
  SELECT * INTO v_run FROM ops.runs WHERE run_id = p_run_id FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'run "%" does not exist', left(p_run_id, 200)
      USING ERRCODE = '42704', HINT = 'Run ids are in ops.runs.run_id and look like run-<uuid>.';
  END IF;
  RETURN v_run;
END
$$;
COMMENT ON FUNCTION ops._lock_run(text) IS 'The run with its row locked, or error 42704';

CREATE FUNCTION ops._find_environment(p_project_id text, p_env text) RETURNS text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_found text[];
  v_known text;
  v_env_id text;
BEGIN
  SELECT e.env_id INTO v_env_id FROM ops.environments e WHERE e.env_id = p_env AND e.project_id = p_project_id;
  IF FOUND THEN
    RETURN v_env_id;
  END IF;
  PERFORM ops._require(p_project_id, 'p_project_id');
  PERFORM ops._require(p_env, 'p_env');
  IF octet_length(p_project_id) > 63 OR octet_length(p_env) > 63 THEN
    RAISE EXCEPTION '% has % bytes', CASE WHEN octet_length(p_project_id) > 63 THEN 'p_project_id' ELSE 'p_env' END,
                    greatest(octet_length(p_project_id), octet_length(p_env))
      USING ERRCODE = '22023', HINT = 'Names have at most 63 bytes.';
  END IF;
  IF NOT EXISTS (SELECT FROM ops.projects WHERE project_id = p_project_id) THEN
    SELECT string_agg(project_id, ', ' ORDER BY project_id) INTO v_known
      FROM (SELECT project_id FROM ops.projects ORDER BY project_id LIMIT 10) p;
    RAISE EXCEPTION 'project "%" does not exist', p_project_id
      USING ERRCODE = '42704', HINT = coalesce('Known projects: ' || v_known || '.', 'Register it in ops.projects first.');
  END IF;
  SELECT array_agg(env_id ORDER BY env_id) INTO v_found FROM ops.environments
   WHERE project_id = p_project_id AND env_type = p_env;
  IF v_found IS NULL THEN
    SELECT string_agg(env_id || ' (' || env_type || ')', ', ' ORDER BY env_id) INTO v_known
      FROM ops.environments WHERE project_id = p_project_id;
    RAISE EXCEPTION 'project "%" has no environment "%"', p_project_id, p_env
      USING ERRCODE = '42704',
            HINT = coalesce('Its environments: ' || v_known || '.', 'Register it in ops.environments first.');
  END IF;
  IF cardinality(v_found) > 1 THEN
    RAISE EXCEPTION 'project "%" has % environments of type "%"', p_project_id, cardinality(v_found), p_env
      USING ERRCODE = '22023', HINT = 'Name one of them: ' || array_to_string(v_found, ', ') || '.';
  END IF;
  RETURN v_found[1];
END
$$;
COMMENT ON FUNCTION ops._find_environment(text, text) IS 'env_id of the project''s environment by env_id or env_type';

-- Written in src/pg/queue_run.cpp.
CREATE FUNCTION ops.queue_run(
    p_project_id text, p_env text, p_git_sha text, p_git_ref text, p_metadata jsonb DEFAULT '{}',
    p_idempotency_key text DEFAULT NULL, p_priority int DEFAULT 0, p_not_before timestamptz DEFAULT NULL)
  RETURNS TABLE (run_id text, status text, queued_at timestamptz)
  LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_queue_run';
COMMENT ON FUNCTION ops.queue_run(text, text, text, text, jsonb, text, int, timestamptz) IS
  'Queues a run of a project in an environment (env_id or env_type). The same idempotency key returns the same run';

CREATE FUNCTION ops.claim_next_run(p_worker_id text)
  RETURNS TABLE (run_id text, project_id text, env_id text, git_sha text, git_ref text, metadata jsonb, attempt int,
                 claim_token uuid)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_run ops.runs;
BEGIN
  PERFORM ops._require(p_worker_id, 'p_worker_id');
  IF octet_length(p_worker_id) NOT BETWEEN 1 AND 200 OR p_worker_id ~ '[[:cntrl:]]' OR btrim(p_worker_id) = '' THEN
    RAISE EXCEPTION 'p_worker_id is not a name' USING ERRCODE = '22023', HINT = 'It has 1 to 200 bytes and no control characters.';
  END IF;
  IF EXISTS (SELECT FROM ops.workers w WHERE w.worker_id = p_worker_id AND w.kind = 'server') THEN
    RAISE EXCEPTION 'worker "%" is a worker of this server', p_worker_id
      USING ERRCODE = '22023', HINT = 'Choose another name for a worker outside the server.';
  END IF;
  -- The worker of this server stays idle in a copy by itself; one outside cannot know that it is one.
  IF NOT ops._is_armed() THEN
    RAISE EXCEPTION 'this database is a copy and gives out no runs'
      USING ERRCODE = '55000', HINT = 'If it shall build and deploy, a superuser calls ops.arm() in it.';
  END IF;
  INSERT INTO ops.workers (worker_id, kind) VALUES (p_worker_id, 'external') ON CONFLICT DO NOTHING;
  FOR v_try IN 1 .. 2 LOOP
    SELECT * INTO v_run
      FROM ops._claim_runs(p_worker_id, 1, ops._caller(), current_setting('ops_runner.lease')::interval);
    EXIT WHEN FOUND;
    -- Nothing is free: perhaps somebody holds a run whose lease is over.
    PERFORM ops._rescue_expired_claims(p_worker_id);
  END LOOP;
  IF v_run.run_id IS NOT NULL THEN
    PERFORM ops._write_event(v_run.run_id, 'info', 'claimed by worker ' || p_worker_id,
                             jsonb_build_object('worker', p_worker_id, 'attempt', v_run.attempt));
    -- The worker of this server has passed over what this transaction holds.
    PERFORM ops._ring(true, false, false);
    RETURN QUERY SELECT v_run.run_id, v_run.project_id, v_run.env_id, v_run.git_sha, v_run.git_ref, v_run.metadata,
                        v_run.attempt, v_run.claim_token;
  END IF;
END
$$;
COMMENT ON FUNCTION ops.claim_next_run(text) IS
  'For workers outside the server: claims the next run, or returns no row. Keep the claim_token for append_event and finish_run';

-- The run that a worker outside the server may write to, with its row locked.
CREATE FUNCTION ops._claimed_run(p_run_id text, p_claim_token uuid) RETURNS ops.runs
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_run ops.runs := ops._lock_run(p_run_id);
BEGIN
  IF v_run.status IN ('success', 'failed', 'cancelled') THEN
    RAISE EXCEPTION 'run "%" is already %', p_run_id, v_run.status
      USING ERRCODE = '55000', HINT = 'A final status does not change any more.';
  END IF;
  IF v_run.status NOT IN ('claimed', 'running') THEN
    RAISE EXCEPTION 'run "%" is % and not claimed', p_run_id, v_run.status
      USING ERRCODE = 'OP002', HINT = 'Claim a run with ops.claim_next_run(worker) first.';
  END IF;
  IF p_claim_token IS NOT NULL THEN
    IF v_run.claimed_role IS NULL OR v_run.claim_token <> p_claim_token THEN
      RAISE EXCEPTION 'the claim of run "%" is no longer valid', p_run_id
        USING ERRCODE = 'OP002', DETAIL = 'The run was given to another worker.',
              HINT = 'Stop working on it; claim another run.';
    END IF;
  ELSIF v_run.claimed_role IS DISTINCT FROM ops._caller() THEN
    RAISE EXCEPTION 'run "%" was not claimed by role "%"', p_run_id, ops._caller()
      USING ERRCODE = 'OP002', HINT = 'Pass p_claim_token as claim_next_run returned it.';
  END IF;
  RETURN v_run;
END
$$;
COMMENT ON FUNCTION ops._claimed_run(text, uuid) IS 'Fences writers: the claim token must be the current one, or the role the claiming one';

CREATE FUNCTION ops.append_event(p_run_id text, p_level text, p_message text, p_payload jsonb DEFAULT '{}',
                                 p_claim_token uuid DEFAULT NULL) RETURNS int
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_run ops.runs;
BEGIN
  PERFORM ops._require(p_level, 'p_level');
  PERFORM ops._require(p_message, 'p_message');
  PERFORM ops._require(p_payload, 'p_payload');
  IF p_level NOT IN ('debug', 'info', 'warn', 'error') THEN
    RAISE EXCEPTION 'p_level is "%"', left(p_level, 80) USING ERRCODE = '22023', HINT = 'It is debug, info, warn or error.';
  END IF;
  IF btrim(p_message) = '' THEN
    RAISE EXCEPTION 'p_message is empty' USING ERRCODE = '22023', HINT = 'Say in a few words what has happened.';
  END IF;
  IF octet_length(p_message) > 8192 THEN
    RAISE EXCEPTION 'p_message has % bytes', octet_length(p_message)
      USING ERRCODE = '22023', HINT = 'The limit is 8192; long texts belong into object storage.';
  END IF;
  IF jsonb_typeof(p_payload) <> 'object' THEN
    RAISE EXCEPTION 'p_payload is a JSON %', jsonb_typeof(p_payload)
      USING ERRCODE = '22023', DETAIL = 'JSON path: $', HINT = 'Pass an object, such as {"step": 3}.';
  END IF;
  IF octet_length(p_payload::text) > 1048576 THEN
    RAISE EXCEPTION 'p_payload has % bytes', octet_length(p_payload::text) USING ERRCODE = '22023', HINT = 'The limit is 1 MB.';
  END IF;
  v_run := ops._claimed_run(p_run_id, p_claim_token);
  UPDATE ops.runs SET status = 'running',
                      lease_until = CASE WHEN claimed_role IS NULL THEN NULL
                                         ELSE clock_timestamp() + current_setting('ops_runner.lease')::interval END
   WHERE run_id = p_run_id;
  PERFORM ops._ring(false, false, false);
  RETURN ops._write_event(p_run_id, p_level, p_message, p_payload);
END
$$;
COMMENT ON FUNCTION ops.append_event(text, text, text, jsonb, uuid) IS
  'Appends an event to a claimed run and returns its seq; the first one makes it running; extends the lease';

CREATE FUNCTION ops.finish_run(p_run_id text, p_status text, p_metadata jsonb DEFAULT '{}', p_claim_token uuid DEFAULT NULL)
  RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_run ops.runs;
BEGIN
  PERFORM ops._require(p_status, 'p_status');
  PERFORM ops._require(p_metadata, 'p_metadata');
  IF p_status NOT IN ('success', 'failed', 'cancelled') THEN
    RAISE EXCEPTION 'p_status is "%"', left(p_status, 80) USING ERRCODE = '22023', HINT = 'It is success, failed or cancelled.';
  END IF;
  IF jsonb_typeof(p_metadata) <> 'object' THEN
    RAISE EXCEPTION 'p_metadata is a JSON %', jsonb_typeof(p_metadata)
      USING ERRCODE = '22023', DETAIL = 'JSON path: $', HINT = 'Pass an object; its keys are merged into the run''s.';
  END IF;
  v_run := ops._claimed_run(p_run_id, p_claim_token);
  PERFORM ops._write_event(p_run_id, CASE p_status WHEN 'failed' THEN 'error' ELSE 'info' END,
                           'finished as ' || p_status || ' by ' || v_run.claimed_by, '{}');
  UPDATE ops.run_phases SET state = 'skipped' WHERE run_id = p_run_id AND state IN ('pending', 'running');
  UPDATE ops.runs SET status = p_status, finished_at = clock_timestamp(), metadata = metadata || p_metadata,
                      lease_until = NULL
   WHERE run_id = p_run_id;
  RETURN true;
END
$$;
COMMENT ON FUNCTION ops.finish_run(text, text, jsonb, uuid) IS
  'Ends a claimed run as success, failed or cancelled and merges metadata';

CREATE FUNCTION ops._give_back(p_run ops.runs, p_reason text) RETURNS void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM ops._write_event(p_run.run_id, 'warn', 'given back to the queue' || coalesce(': ' || p_reason, ''),
                           jsonb_build_object('worker', p_run.claimed_by, 'attempt', p_run.attempt));
  UPDATE ops.runs SET status = 'queued', waiting_for = NULL, claimed_by = NULL, claim_token = NULL, claimed_role = NULL,
                      lease_until = NULL, crashes = CASE WHEN p_run.status = 'waiting' THEN 0 ELSE crashes END
   WHERE run_id = p_run.run_id;
END
$$;
COMMENT ON FUNCTION ops._give_back(ops.runs, text) IS 'Takes the claim away and queues the run again';

CREATE FUNCTION ops._rescue_expired_claims(p_worker_id text, p_older_than interval DEFAULT '0') RETURNS SETOF text
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_run ops.runs;
BEGIN
  FOR v_run IN
    SELECT r.* FROM ops.runs r
      JOIN ops.run_slots s ON s.run_id = r.run_id
      LEFT JOIN ops.workers w ON w.worker_id = s.worker_id AND w.kind = 'server'
     WHERE s.worker_id <> p_worker_id AND r.status IN ('claimed', 'running')
       AND CASE WHEN r.claimed_role IS NULL THEN w.lease_until ELSE r.lease_until END < clock_timestamp() - p_older_than
     ORDER BY r.run_id LIMIT 1000 FOR UPDATE OF r SKIP LOCKED
  LOOP
    PERFORM ops._give_back(v_run, 'its worker shows no sign of life');
    RETURN NEXT v_run.run_id;
  END LOOP;
END
$$;
COMMENT ON FUNCTION ops._rescue_expired_claims(text, interval) IS
  'Gives back runs of other workers than p_worker_id whose lease ended longer ago than p_older_than';

-- Attribution is exact: the worker leaves a mark outside of its memory while it resumes a run (rule R9, fault F16).
CREATE FUNCTION ops._note_crash(p_run_id text) RETURNS int
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_most CONSTANT int := 3;
  v_crashes int;
BEGIN
  UPDATE ops.runs SET crashes = crashes + 1 WHERE run_id = p_run_id AND status IN ('queued', 'claimed', 'running')
  RETURNING crashes INTO v_crashes;
  IF NOT FOUND THEN
    RETURN 0;
  END IF;
  PERFORM ops._write_event(p_run_id, 'error', format('the worker ended while it was resuming this run (%s of %s)', v_crashes, v_most),
                           jsonb_build_object('code', 'worker_crashed', 'crashes', v_crashes, 'hint',
                             'Look at the server log. After the third time the run waits; ops.reset_run(run) lets it go on.'));
  IF v_crashes >= v_most THEN
    UPDATE ops.runs SET status = 'waiting', waiting_for = 'poisoned', claimed_by = NULL, claim_token = NULL,
                        claimed_role = NULL, lease_until = NULL
     WHERE run_id = p_run_id;
  END IF;
  RETURN v_crashes;
END
$$;
COMMENT ON FUNCTION ops._note_crash(text) IS
  'Counts a death of the worker to the run it was resuming; the third one parks the run as poisoned. Returns the count';

CREATE FUNCTION ops.reset_run(p_run_id text, p_reason text DEFAULT NULL)
  RETURNS TABLE (run_id text, status text, queued_at timestamptz)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_run ops.runs := ops._lock_run(p_run_id);
BEGIN
  IF v_run.status NOT IN ('claimed', 'running') AND v_run.waiting_for IS DISTINCT FROM 'poisoned' THEN
    RAISE EXCEPTION 'run "%" is %', p_run_id, v_run.status
      USING ERRCODE = '55000', HINT = 'Only a claimed or running run can be given back; a final one is repeated with ops.retry_run(run).';
  END IF;
  PERFORM ops._give_back(v_run, left(p_reason, 1000));
  RETURN QUERY SELECT v_run.run_id, 'queued'::text, v_run.queued_at;
END
$$;
COMMENT ON FUNCTION ops.reset_run(text, text) IS
  'Gives a claimed, running or poisoned run back to the queue; its next claim is a new attempt and goes on from the checkpoints';

CREATE FUNCTION ops.reset_stuck_runs(p_older_than interval DEFAULT '30 minutes') RETURNS SETOF text
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM ops._require(p_older_than, 'p_older_than');
  IF p_older_than < interval '0' OR p_older_than > interval '1 year' THEN
    RAISE EXCEPTION 'p_older_than is %', p_older_than USING ERRCODE = '22023', HINT = 'It must lie between 0 and 1 year.';
  END IF;
  RETURN QUERY SELECT ops._rescue_expired_claims('', p_older_than);
END
$$;
COMMENT ON FUNCTION ops.reset_stuck_runs(interval) IS
  'Gives runs back whose worker has let its lease run out longer ago than p_older_than';

CREATE FUNCTION ops.cancel_run(p_run_id text, p_reason text DEFAULT NULL) RETURNS ops.runs
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_run ops.runs := ops._lock_run(p_run_id);
  v_at_once boolean;
  v_unsettled jsonb;
BEGIN
  IF octet_length(p_reason) > 1000 THEN
    RAISE EXCEPTION 'p_reason has % bytes', octet_length(p_reason) USING ERRCODE = '22023', HINT = 'The limit is 1000.';
  END IF;
  IF v_run.status IN ('success', 'failed', 'cancelled') THEN
    RAISE EXCEPTION 'run "%" is already %', p_run_id, v_run.status
      USING ERRCODE = '55000', HINT = 'A final status does not change any more.';
  END IF;
  IF v_run.cancel_requested_at IS NOT NULL AND v_run.status <> 'waiting' THEN
    RAISE EXCEPTION 'run "%" is already being cancelled, asked for by %', p_run_id, v_run.cancel_requested_by
      USING ERRCODE = '55000', HINT = 'Follow it with CALL ops.tail(run).';
  END IF;
  -- A run that was given back or parked in the middle of a phase has begun something outside: the worker claims it once more
  -- to stop that, and so it is where records of that may be lost. Where it cannot, the run waits again, and whoever cancels it
  -- a second time ends it as it is.
  v_at_once := v_run.status = 'waiting' AND v_run.cancel_requested_at IS NOT NULL
            OR v_run.status IN ('waiting', 'queued') AND NOT v_run.look_first
               AND NOT EXISTS (SELECT FROM ops.run_phases WHERE run_id = p_run_id AND state = 'running');
  SELECT jsonb_agg(e.phase || ': ' || e.target ORDER BY e.intended_at) INTO v_unsettled
    FROM ops.effects e WHERE e.run_id = p_run_id AND e.state IN ('uncertain', 'needs_decision');
  PERFORM ops._write_event(p_run_id, 'warn',
                           CASE WHEN v_at_once THEN 'cancelled by ' ELSE 'cancel requested by ' END || ops._caller()
                           || coalesce(': ' || p_reason, ''),
                           CASE WHEN v_unsettled IS NULL THEN '{}' ELSE jsonb_build_object('look_at', v_unsettled) END);
  UPDATE ops.runs SET cancel_requested_at = clock_timestamp(), cancel_requested_by = ops._caller(),
                      cancel_reason = ops._redact(p_reason)
   WHERE run_id = p_run_id;
  IF v_at_once THEN
    UPDATE ops.run_phases SET state = CASE WHEN started_at IS NULL THEN 'skipped' ELSE 'cancelled' END
     WHERE run_id = p_run_id AND state IN ('pending', 'running');
    UPDATE ops.runs SET status = 'cancelled', waiting_for = NULL, finished_at = clock_timestamp() WHERE run_id = p_run_id;
  ELSE
    UPDATE ops.runs SET status = 'queued', waiting_for = NULL WHERE run_id = p_run_id AND status = 'waiting';
    UPDATE ops.run_slots SET cancel_requested = true WHERE run_id = p_run_id;
    PERFORM ops._ring(true, true, false);
  END IF;
  SELECT * INTO v_run FROM ops.runs WHERE run_id = p_run_id;
  RETURN v_run;
END
$$;
COMMENT ON FUNCTION ops.cancel_run(text, text) IS
  'Cancels a run at once that has begun nothing outside; another one when everything it began has been stopped. A worker outside the server sees runs.cancel_requested_at and answers with finish_run(run, ''cancelled'')';

CREATE FUNCTION ops.retry_run(p_run_id text) RETURNS ops.runs
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_run ops.runs := ops._lock_run(p_run_id);
  v_new ops.runs;
  v_other text;
BEGIN
  IF v_run.status NOT IN ('success', 'failed', 'cancelled') THEN
    RAISE EXCEPTION 'run "%" is %', p_run_id, v_run.status
      USING ERRCODE = '55000', HINT = 'Only a run that is over is retried; cancel it first, or give it back with ops.reset_run(run).';
  END IF;
  IF v_run.status = 'success' THEN
    RAISE EXCEPTION 'run "%" succeeded: there is nothing to retry', p_run_id
      USING ERRCODE = '55000', HINT = 'Queue a new run with ops.queue_run(project, environment, git_sha, git_ref).';
  END IF;
  SELECT r.run_id INTO v_other FROM ops.runs r
   WHERE r.origin_run_id = p_run_id AND r.origin_kind = 'retry' AND r.status NOT IN ('success', 'failed', 'cancelled');
  IF FOUND THEN
    RAISE EXCEPTION 'run "%" is already being retried by run "%"', p_run_id, v_other
      USING ERRCODE = '55000', HINT = 'Follow that run with CALL ops.tail(run).';
  END IF;
  INSERT INTO ops.runs AS r (project_id, env_id, git_sha, git_ref, metadata, priority, requested_by, origin_run_id, origin_kind)
  VALUES (v_run.project_id, v_run.env_id, v_run.git_sha, v_run.git_ref, v_run.metadata, v_run.priority, ops._caller(),
          v_run.run_id, 'retry')
  RETURNING r.* INTO v_new;
  RETURN v_new;
END
$$;
COMMENT ON FUNCTION ops.retry_run(text) IS 'Queues a failed or cancelled run again: a new run with the same content that points to its origin';

CREATE FUNCTION ops.resolve_effect(p_run_id text, p_effect_key text, p_state text, p_reason text DEFAULT NULL,
                                   p_outcome jsonb DEFAULT '{}')
  RETURNS ops.runs
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_run ops.runs := ops._lock_run(p_run_id);
  v_resolved ops.effects;
  v_open text;
BEGIN
  PERFORM ops._require(p_effect_key, 'p_effect_key');
  PERFORM ops._require(p_state, 'p_state');
  PERFORM ops._require(p_outcome, 'p_outcome');
  IF p_state NOT IN ('done', 'absent') THEN
    RAISE EXCEPTION 'p_state is "%"', left(p_state, 80)
      USING ERRCODE = '22023', HINT = 'It is done (the service has done it) or absent (it has not; it will be sent again).';
  END IF;
  IF jsonb_typeof(p_outcome) <> 'object' THEN
    RAISE EXCEPTION 'p_outcome is a JSON %', jsonb_typeof(p_outcome)
      USING ERRCODE = '22023', DETAIL = 'JSON path: $', HINT = 'Pass an object with what the service answered.';
  END IF;
  IF octet_length(p_reason) > 1000 THEN
    RAISE EXCEPTION 'p_reason has % bytes', octet_length(p_reason) USING ERRCODE = '22023', HINT = 'The limit is 1000.';
  END IF;
  IF v_run.status <> 'waiting' OR v_run.waiting_for <> 'decision' THEN
    RAISE EXCEPTION 'run "%" is % and does not wait for a decision', p_run_id, v_run.status
      USING ERRCODE = '55000', HINT = 'Only effects of a run that waits for a decision are decided by a person.';
  END IF;
  UPDATE ops.effects e
     SET state = p_state, settled_at = clock_timestamp(),
         outcome = CASE p_state WHEN 'done' THEN ops._redact_json(p_outcome) END
   WHERE e.run_id = p_run_id AND e.effect_key = p_effect_key AND e.state IN ('intended', 'uncertain', 'needs_decision')
  RETURNING e.* INTO v_resolved;
  IF NOT FOUND THEN
    SELECT string_agg(e.effect_key, ', ' ORDER BY e.effect_key) INTO v_open FROM ops.effects e
     WHERE e.run_id = p_run_id AND e.state IN ('intended', 'uncertain', 'needs_decision');
    RAISE EXCEPTION 'run "%" has no open effect "%"', p_run_id, left(p_effect_key, 200)
      USING ERRCODE = '42704', HINT = coalesce('Its open effects: ' || v_open || '.', 'It has no open effects.');
  END IF;
  PERFORM ops._write_event(p_run_id, 'warn',
                           format('%s decided that %s is %s', ops._caller(), v_resolved.target, p_state) || coalesce(': ' || p_reason, ''),
                           jsonb_build_object('phase', v_resolved.phase, 'effect', p_effect_key));
  IF NOT EXISTS (SELECT FROM ops.effects e WHERE e.run_id = p_run_id AND e.state = 'needs_decision') THEN
    UPDATE ops.runs SET status = 'queued', waiting_for = NULL WHERE run_id = p_run_id;
  END IF;
  SELECT * INTO v_run FROM ops.runs WHERE run_id = p_run_id;
  RETURN v_run;
END
$$;
COMMENT ON FUNCTION ops.resolve_effect(text, text, text, text, jsonb) IS
  'Decides what became of a request whose outcome nobody can tell (done or absent); the run then goes on';

-- Claims for workers outside the server, and what finds ready runs again when nobody knows where they are.

CREATE FUNCTION ops._find_ready() RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
BEGIN
  PERFORM ops._note_later((SELECT q.available_at FROM ops.run_queue q WHERE q.state = 'later' ORDER BY q.available_at LIMIT 1));
  -- From priority to priority by skipping through the index, however many runs are ready.
  RETURN (
    WITH RECURSIVE oldest AS (
      (SELECT q.priority, q.available_at FROM ops.run_queue q WHERE q.state = 'ready'
        ORDER BY q.priority DESC, q.available_at, q.run_id LIMIT 1)
      UNION ALL
      SELECT n.priority, n.available_at
        FROM oldest o
       CROSS JOIN LATERAL (
         SELECT q.priority, q.available_at FROM ops.run_queue q WHERE q.state = 'ready' AND q.priority < o.priority
          ORDER BY q.priority DESC, q.available_at, q.run_id LIMIT 1) n)
    SELECT count(ops._note_ready(o.priority, o.available_at)) > 0 FROM oldest o);
END
$$;
COMMENT ON FUNCTION ops._find_ready() IS 'Finds the oldest ready run of each priority in the whole queue and notes it for claims, with the next run whose time has not come; whether one is ready';

-- Written in src/pg/take_slots.cpp.
CREATE FUNCTION ops._take_slots(p_worker_id text, p_limit int) RETURNS text[]
  LANGUAGE c STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_take_slots';
COMMENT ON FUNCTION ops._take_slots(text, int) IS
  'Chooses at most p_limit runs by priority and age, never more of an environment than max_active_runs, locks them and moves them from the queue into slots. The caller makes them claimed in the same transaction';

CREATE FUNCTION ops._claim_runs(p_worker_id text, p_limit int, p_claimed_role name DEFAULT NULL, p_lease interval DEFAULT NULL)
  RETURNS SETOF ops.runs
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  -- The tables are small at one time and large at another; a plan made when they were small must not read them whole. The
  -- worker of this server has these settings in its session.
  SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
  v_claimed text[] := ops._take_slots(p_worker_id, p_limit);
BEGIN
  IF cardinality(v_claimed) > 0 THEN
    RETURN QUERY
      UPDATE ops.runs r
         SET status = 'claimed', claimed_by = p_worker_id, claim_token = gen_random_uuid(), claimed_at = clock_timestamp(),
             attempt = r.attempt + 1, started_at = coalesce(r.started_at, clock_timestamp()), claimed_role = p_claimed_role,
             lease_until = clock_timestamp() + p_lease
        FROM unnest(v_claimed) AS u(run_id) WHERE r.run_id = u.run_id
      RETURNING r.*;
  END IF;
END
$$;
COMMENT ON FUNCTION ops._claim_runs(text, int, name, interval) IS
  'Claims at most p_limit runs by priority and age, never more of an environment than max_active_runs';

CREATE FUNCTION ops._promote_free_slots() RETURNS int
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
  v_promoted int;
BEGIN
  IF NOT EXISTS (SELECT FROM ops.run_queue q WHERE q.state = 'blocked') THEN
    RETURN 0;
  END IF;
  -- Distinct environments of blocked runs by skipping through the index, however many runs are blocked.
  WITH RECURSIVE blocked AS (
    (SELECT q.env_id FROM ops.run_queue q WHERE q.state = 'blocked' ORDER BY q.env_id LIMIT 1)
    UNION ALL
    SELECT (SELECT q.env_id FROM ops.run_queue q WHERE q.state = 'blocked' AND q.env_id > b.env_id ORDER BY q.env_id LIMIT 1)
      FROM blocked b WHERE b.env_id IS NOT NULL),
  promoted AS (
    UPDATE ops.run_queue q SET state = 'ready'
      FROM (SELECT b.env_id, e.max_active_runs - (SELECT count(*) FROM ops.run_slots s WHERE s.env_id = b.env_id) AS slots
              FROM blocked b JOIN ops.environments e ON e.env_id = b.env_id) f
     CROSS JOIN LATERAL (
       SELECT n.run_id FROM ops.run_queue n WHERE n.env_id = f.env_id AND n.state = 'blocked'
        ORDER BY n.priority DESC, n.available_at, n.run_id LIMIT greatest(f.slots, 0) FOR UPDATE SKIP LOCKED) next_run
     WHERE q.run_id = next_run.run_id
    RETURNING q.priority, q.available_at)
  SELECT coalesce(sum(p.runs), 0) INTO v_promoted
    FROM (SELECT count(*) AS runs, ops._note_ready(p.priority, min(p.available_at)) FROM promoted p GROUP BY p.priority) p;
  RETURN v_promoted;
END
$$;
COMMENT ON FUNCTION ops._promote_free_slots() IS
  'Safety check: makes blocked runs of environments with a free slot ready; returns how many';

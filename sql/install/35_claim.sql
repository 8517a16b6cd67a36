-- The one rule by which runs are claimed, for the worker of this server and for workers outside.
--
-- It waits for nobody: what another session holds is passed over and stays ready. Blocked runs are never walked over: a run
-- is examined when it arrives and again when a slot of its environment is given back.
--
-- It begins where runs are ready, and not at the head of the index (src/pg/ready_floors.hpp).
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

CREATE FUNCTION ops._take_slots(p_worker_id text, p_limit int) RETURNS text[]
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_left int := p_limit;
  v_window int := p_limit;
  v_runs text[];         -- candidates in claim order ...
  v_envs text[];         -- ... and their environments
  v_open_envs text[];    -- environments in which no other session claims
  v_still_queued text[]; -- candidates that no other session changes
  v_all boolean;         -- nothing is left to examine
  v_won text[];
  v_claimed text[] := '{}';
  v_rest text[];
  v_rest_envs text[];
  v_full_envs text[];
  v_busy_envs text[] := '{}';
  v_priorities int[];    -- which have something ready, the highest first ...
  v_since timestamptz[]; -- ... and where their ready runs begin in the index
  v_raise_due boolean;
  v_later_due boolean;
  v_due int;
BEGIN
  SELECT f.priorities, f.since, f.raise_due, f.later_due INTO v_priorities, v_since, v_raise_due, v_later_due FROM ops._ready_floors(false) f;
  IF v_priorities IS NULL OR v_later_due THEN
    IF v_priorities IS NULL THEN
      PERFORM ops._find_ready();
    END IF;
    WITH due AS (
      UPDATE ops.run_queue q SET state = 'ready'
        FROM (SELECT d.run_id FROM ops.run_queue d WHERE d.state = 'later' AND d.available_at <= clock_timestamp()
               ORDER BY d.available_at LIMIT 1000 FOR UPDATE SKIP LOCKED) d
       WHERE q.run_id = d.run_id
      RETURNING q.priority, q.available_at)
    SELECT count(*) INTO v_due FROM (SELECT ops._note_ready(d.priority, min(d.available_at)) FROM due d GROUP BY d.priority) d;
    SELECT f.priorities, f.since, f.raise_due INTO v_priorities, v_since, v_raise_due FROM ops._ready_floors(v_priorities IS NULL) f;
    PERFORM ops._raise_later_floor(coalesce(
              (SELECT q.available_at FROM ops.run_queue q WHERE q.state = 'later' ORDER BY q.available_at LIMIT 1), 'infinity'));
  END IF;

  FOR v_round IN 1 .. 64 LOOP
    SELECT array_agg(c.run_id), array_agg(c.env_id) INTO v_runs, v_envs
      FROM (SELECT q.run_id, q.env_id
              FROM unnest(v_priorities, v_since) AS f(priority, since)
             CROSS JOIN LATERAL (
               SELECT q.run_id, q.env_id FROM ops.run_queue q
                WHERE q.state = 'ready' AND q.priority = f.priority AND q.available_at >= f.since AND q.env_id <> ALL (v_busy_envs)
                ORDER BY q.available_at, q.run_id LIMIT v_window FOR UPDATE SKIP LOCKED) q
             LIMIT v_window) c;
    v_all := v_runs IS NULL;
    EXIT WHEN v_all;

    -- Claims of one environment take turns by its row, so that two of them never want the same slot number.
    SELECT coalesce(array_agg(e.env_id), '{}') INTO v_open_envs
      FROM (SELECT e.env_id FROM ops.environments e WHERE e.env_id = ANY (v_envs) FOR NO KEY UPDATE SKIP LOCKED) e;
    -- OFFSET 0: each run is looked up by its key, whatever a plan knows of the table's size.
    SELECT coalesce(array_agg(r.run_id), '{}') INTO v_still_queued
      FROM unnest(v_runs) AS u(run_id)
     CROSS JOIN LATERAL (SELECT r.run_id FROM ops.runs r WHERE r.run_id = u.run_id AND r.status = 'queued'
                         OFFSET 0 FOR UPDATE SKIP LOCKED) r;

    IF cardinality(v_runs) = 1 THEN
      -- The usual case on a quiet day; without sets it takes a third of the time.
      v_won := '{}';
      IF v_open_envs = v_envs AND v_still_queued = v_runs THEN
        INSERT INTO ops.run_slots (env_id, slot_no, run_id, worker_id)
        SELECT e.env_id, n.slot_no, v_runs[1], p_worker_id
          FROM ops.environments e
         CROSS JOIN LATERAL generate_series(1, e.max_active_runs) AS n(slot_no)
         WHERE e.env_id = v_envs[1]
           AND (SELECT count(*) FROM ops.run_slots s WHERE s.env_id = v_envs[1]) < e.max_active_runs
           AND NOT EXISTS (SELECT FROM ops.run_slots s WHERE s.env_id = v_envs[1] AND s.slot_no = n.slot_no)
         LIMIT 1
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
          v_won := v_runs;
        END IF;
      END IF;
    ELSE
      -- Joined by the place in an array: the planner cannot know how many there are, and a nested loop over both sides would
      -- cost their product.
      WITH wanted AS (
        SELECT w.env_id, array_agg(w.run_id ORDER BY w.place) AS runs, array_agg(w.place ORDER BY w.place) AS places
          FROM unnest(v_runs, v_envs) WITH ORDINALITY AS w(run_id, env_id, place)
         WHERE w.run_id = ANY (v_still_queued) AND w.env_id = ANY (v_open_envs)
         GROUP BY w.env_id),
      taken AS (
        INSERT INTO ops.run_slots (env_id, slot_no, run_id, worker_id)
        SELECT w.env_id, f.slot_no, w.runs[f.turn], p_worker_id
          FROM wanted w
          JOIN ops.environments e ON e.env_id = w.env_id
         CROSS JOIN LATERAL (
           SELECT n.slot_no, row_number() OVER () AS turn
             FROM generate_series(1, e.max_active_runs) AS n(slot_no)
            WHERE NOT EXISTS (SELECT FROM ops.run_slots s WHERE s.env_id = w.env_id AND s.slot_no = n.slot_no)
            LIMIT least(cardinality(w.runs),
                        greatest(0, e.max_active_runs - (SELECT count(*) FROM ops.run_slots s WHERE s.env_id = w.env_id)))) f
         ORDER BY w.places[f.turn] LIMIT v_left
        ON CONFLICT DO NOTHING RETURNING run_id)
      SELECT coalesce(array_agg(t.run_id), '{}') INTO v_won FROM taken t;
    END IF;
    DELETE FROM ops.run_queue q WHERE q.run_id = ANY (v_won);
    v_claimed := v_claimed || v_won;
    v_left := v_left - cardinality(v_won);
    EXIT WHEN v_left <= 0;
    IF cardinality(v_won) = cardinality(v_runs) THEN
      v_all := cardinality(v_runs) < v_window;
      EXIT WHEN v_all;
      CONTINUE;
    END IF;

    SELECT array_agg(w.run_id), array_agg(DISTINCT w.env_id) INTO v_rest, v_rest_envs
      FROM unnest(v_runs, v_envs) AS w(run_id, env_id) WHERE w.run_id <> ALL (v_won);
    -- Full only where every active run can be locked: one that is ending right now is locked by the other session. And one
    -- that ends from now on waits for this transaction and then finds its successor blocked.
    SELECT coalesce(array_agg(f.env_id), '{}') INTO v_full_envs
      FROM (SELECT a.env_id, count(*) AS active
              FROM (SELECT s.env_id FROM ops.run_slots s
                     CROSS JOIN LATERAL (SELECT FROM ops.runs r WHERE r.run_id = s.run_id
                                            AND (r.status IN ('claimed', 'running') OR r.run_id = ANY (v_claimed))
                                         OFFSET 0 FOR SHARE SKIP LOCKED) r
                     WHERE s.env_id = ANY (v_rest_envs) AND s.env_id = ANY (v_open_envs)) a
             GROUP BY a.env_id) f
      JOIN ops.environments e ON e.env_id = f.env_id AND f.active >= e.max_active_runs;
    UPDATE ops.run_queue q SET state = 'blocked' WHERE q.run_id = ANY (v_rest) AND q.env_id = ANY (v_full_envs);
    SELECT v_busy_envs || coalesce(array_agg(u.env_id), '{}') INTO v_busy_envs
      FROM unnest(v_rest_envs) AS u(env_id) WHERE u.env_id <> ALL (v_full_envs);
    v_window := least(2 * v_window, 1000);
  END LOOP;
  IF NOT v_all AND v_left > 0 THEN
    PERFORM ops._ring(true, false, false);  -- more are ready than were examined
  END IF;
  -- What is left begins here. Now and then, and after many: a floor that is somewhat low costs less than finding it.
  IF v_raise_due OR v_window > p_limit OR cardinality(v_claimed) > 64 THEN
    PERFORM ops._raise_ready_floor(f.priority, coalesce(
              (SELECT q.available_at FROM ops.run_queue q
                WHERE q.state = 'ready' AND q.priority = f.priority AND q.available_at >= f.since
                ORDER BY q.available_at LIMIT 1), 'infinity'))
       FROM unnest(v_priorities, v_since) AS f(priority, since);
  END IF;

  RETURN v_claimed;
END
$$;
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

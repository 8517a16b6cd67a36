\set SHOW_CONTEXT never
-- Every change of a status that can be thought of, and whether it is allowed.
SELECT f AS "from", t AS "to", ops._transition_allowed(f, t) AS allowed
  FROM unnest(ARRAY['waiting', 'queued', 'claimed', 'running', 'success', 'failed', 'cancelled']) WITH ORDINALITY AS a(f, i),
       unnest(ARRAY['waiting', 'queued', 'claimed', 'running', 'success', 'failed', 'cancelled']) WITH ORDINALITY AS b(t, j)
 ORDER BY i, j;

-- The same 49 changes tried on rows, by the owner of everything. Claimed rows get a slot, as a claim gives one.
CREATE FUNCTION t.try_change(p_from text, p_to text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_run text;
BEGIN
  PERFORM t.fresh();
  INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref) VALUES ('acme', 'acme-prod', '0123abc', 'main') RETURNING run_id INTO v_run;
  IF p_from = 'waiting' THEN
    UPDATE ops.runs SET status = 'waiting', waiting_for = 'approval';
  ELSIF p_from <> 'queued' THEN
    PERFORM ops._claim_runs('w', 1);
    IF p_from = 'running' THEN UPDATE ops.runs SET status = 'running'; END IF;
    IF p_from IN ('success', 'failed', 'cancelled') THEN UPDATE ops.runs SET status = p_from, finished_at = now(); END IF;
  END IF;
  IF p_to = 'claimed' AND p_from = 'queued' THEN
    PERFORM ops._claim_runs('w', 1);
  ELSE
    UPDATE ops.runs SET status = p_to, waiting_for = CASE WHEN p_to = 'waiting' THEN 'approval' END,
                        finished_at = CASE WHEN p_to IN ('success', 'failed', 'cancelled') THEN now() END;
  END IF;
  RETURN coalesce((SELECT 'broken: ' || what FROM t.broken LIMIT 1),
                  CASE WHEN p_from = p_to THEN 'unchanged' ELSE 'changed' END);
EXCEPTION WHEN object_not_in_prerequisite_state THEN
  RETURN regexp_replace(SQLERRM, '"run-[^"]*"', 'x');
END $$;
SELECT f AS "from", t AS "to", t.try_change(f, t) AS result
  FROM unnest(ARRAY['waiting', 'queued', 'claimed', 'running', 'success', 'failed', 'cancelled']) WITH ORDINALITY AS a(f, i),
       unnest(ARRAY['waiting', 'queued', 'claimed', 'running', 'success', 'failed', 'cancelled']) WITH ORDINALITY AS b(t, j)
 ORDER BY i, j;

-- Terminal is final: nothing of the row changes, whoever asks.
SELECT t.fresh();
SELECT status FROM ops.queue_run('acme', 'prod', '0123abc', 'main');
SELECT status FROM ops.cancel_run((SELECT run_id FROM ops.runs));
SELECT t.error('UPDATE ops.runs SET ' || change) FROM unnest(ARRAY['status = ''queued'', finished_at = NULL', 'metadata = ''{"a": 1}''',
  'finished_at = now()', 'attempt = 5', 'claimed_by = ''x''', 'git_sha = ''fffffff''']) AS change;
-- A claim without a slot is none.
SELECT status FROM ops.queue_run('acme', 'prod', '0123abc', 'main');
SELECT t.error($$UPDATE ops.runs SET status = 'claimed', claimed_by = 'me', claim_token = gen_random_uuid() WHERE status = 'queued'$$);
DROP FUNCTION t.try_change(text, text);

\set SHOW_CONTEXT never
-- ops.resolve_effect: a person decides what nobody can tell.
SELECT t.fresh();
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abc', 'main') \gset
SELECT t.error(format('SELECT ops.resolve_effect(%L, ''dispatch'', ''done'')', :'run_id'));
SELECT count(*) FROM ops._claim_runs('built-in', 1);
INSERT INTO ops.effects (run_id, phase, effect_key, kind, state, attempt, target, request_hash) VALUES
  (:'run_id', 'build_image', 'dispatch', 'unkeyed', 'needs_decision', 1, 'POST https://api.github.com/x', 'h'),
  (:'run_id', 'deploy_runtime', 'deploy', 'unkeyed', 'needs_decision', 1, 'PUT https://api.digitalocean.com/v2/apps/a-1', 'h'),
  (:'run_id', 'deploy_runtime', 'settled', 'keyed', 'done', 1, 'PUT https://api.digitalocean.com/v2/apps/a-1', 'h');
UPDATE ops.runs SET status = 'waiting', waiting_for = 'decision', claim_token = NULL, claimed_by = NULL WHERE status = 'claimed';
SELECT t.error(format('SELECT ops.resolve_effect(%s)', a)) FROM unnest(ARRAY['NULL, ''dispatch'', ''done''', '''run-1'', ''dispatch'', ''done''']) a;
SELECT t.error(format('SELECT ops.resolve_effect(%L, %s)', :'run_id', a)) FROM unnest(ARRAY['NULL, ''done''', '''dispatch'', NULL',
  '''dispatch'', ''maybe''', '''dispatch'', ''done'', NULL, NULL', '''dispatch'', ''done'', NULL, ''[]''', '''dispatch'', ''done'', repeat(''x'', 1001)',
  '''dispatsch'', ''done''', '''settled'', ''absent''']) a;
SELECT status FROM ops.resolve_effect(:'run_id', 'dispatch', 'done', 'seen in the list of workflow runs', '{"id": 17, "token": "x"}');
SELECT status FROM ops.resolve_effect(:'run_id', 'deploy', 'absent');
SELECT effect_key, state, outcome, settled_at IS NOT NULL AS settled FROM ops.effects ORDER BY 1;
SELECT * FROM t.state;
SELECT * FROM t.events;
SELECT t.error(format('SELECT ops.resolve_effect(%L, ''deploy'', ''done'')', :'run_id'));
SELECT * FROM t.broken;

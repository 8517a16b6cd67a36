-- Nothing is left behind but the roles, which other databases may use.
\set VERBOSITY terse
DROP SCHEMA t CASCADE;
-- F21: also while the worker is busy with the same tables.
SELECT ops._ring(true, true, true);
DROP EXTENSION ops_runner;
SELECT count(*) FROM pg_namespace WHERE nspname = 'ops';
CREATE EXTENSION ops_runner;
SELECT ops._ring(true, true, true);
DROP EXTENSION ops_runner;

-- Functions that constraints and defaults of the tables use; written in C++ (src/pg/definition_functions.cpp).

CREATE FUNCTION ops._is_name(p_name text) RETURNS boolean
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_is_name';
COMMENT ON FUNCTION ops._is_name(text) IS
  'True for a name of at most 63 bytes of a-z 0-9 . _ - that begins with a letter or digit';

CREATE FUNCTION ops._new_run_id() RETURNS text
  LANGUAGE c VOLATILE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_new_run_id';
COMMENT ON FUNCTION ops._new_run_id() IS 'A new run id: run-<UUID version 7>, so that ids of later runs sort later';

CREATE FUNCTION ops._check_environment_config(p_config jsonb) RETURNS boolean
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
  AS 'MODULE_PATHNAME', 'ops_check_environment_config';
COMMENT ON FUNCTION ops._check_environment_config(jsonb) IS
  'True, or an error (22023) that names the JSON path, what is wrong there and what is allowed';

CREATE FUNCTION ops._caller() RETURNS name
  LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_caller';
COMMENT ON FUNCTION ops._caller() IS 'The role that calls, as SET ROLE left it, also inside a function with definer rights';

CREATE FUNCTION ops._redact(p_text text) RETURNS text
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_redact';
COMMENT ON FUNCTION ops._redact(text) IS 'The text with everything masked that looks like a secret, without control codes';

CREATE FUNCTION ops._redact_json(p_value jsonb) RETURNS jsonb
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_redact_json';
COMMENT ON FUNCTION ops._redact_json(jsonb) IS 'The document with every value masked that looks like a secret or is named like one';

-- Written in src/pg/waiting.cpp.

CREATE FUNCTION ops._ring(p_queue boolean, p_cancel boolean, p_check boolean) RETURNS void
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_ring';
COMMENT ON FUNCTION ops._ring(boolean, boolean, boolean) IS
  'At commit: wakes the worker to look at the queue, at cancel requests, at its own standing; and everybody who waits for a run';

-- Written in src/pg/ready_floors.cpp.

CREATE FUNCTION ops._note_ready(p_priority int, p_since timestamptz) RETURNS boolean
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_note_ready';
COMMENT ON FUNCTION ops._note_ready(int, timestamptz) IS
  'At commit: claims look for runs of this priority that became available then or later. True';

CREATE FUNCTION ops._note_later(p_since timestamptz) RETURNS boolean
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_note_later';
COMMENT ON FUNCTION ops._note_later(timestamptz) IS 'At commit: from this time on claims look for runs whose time has come. True';

CREATE FUNCTION ops._extension_created() RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_extension_created';
COMMENT ON FUNCTION ops._extension_created() IS 'At commit: the launcher looks at this database';

CREATE FUNCTION ops._system_identifier() RETURNS bigint
  LANGUAGE c STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_system_identifier';
COMMENT ON FUNCTION ops._system_identifier() IS 'Identity of this server''s data directory, as initdb made it';

CREATE FUNCTION ops._data_directory() RETURNS text
  LANGUAGE c STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_data_directory';
COMMENT ON FUNCTION ops._data_directory() IS
  'Identity of the data directory: hash of machine, path and inode; a copy of the files has another one';

CREATE FUNCTION ops._timeline() RETURNS int
  LANGUAGE c STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_timeline';
COMMENT ON FUNCTION ops._timeline() IS 'Timeline that this server writes; null while it only replays another one''s';

CREATE FUNCTION ops._is_replicated() RETURNS boolean
  LANGUAGE c STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_is_replicated';
COMMENT ON FUNCTION ops._is_replicated() IS 'True in a process that applies the changes of another server';

CREATE FUNCTION ops._worker_present() RETURNS boolean
  LANGUAGE c STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_worker_present';
COMMENT ON FUNCTION ops._worker_present() IS 'False when the library is not in shared_preload_libraries: queued runs then wait';

CREATE FUNCTION ops._worker_status()
  RETURNS TABLE (worker_id text, pid int, database name, state text, since timestamptz, running_runs int,
                 requests_in_flight int, claimed bigint, finished bigint, last_error text, last_error_at timestamptz)
  LANGUAGE c VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'ops_worker_status';
COMMENT ON FUNCTION ops._worker_status() IS 'What the worker of this database is doing; behind view ops.worker_status';

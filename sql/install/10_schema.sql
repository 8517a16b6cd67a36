-- ops_runner: schema and roles. Parts of sql/install/ are joined in name order to the versioned script.
-- Names are schema-qualified throughout; nothing is replaced and nothing is created only "if not exists" (threat T01),
-- except the roles, which belong to the whole server and may be there from another database.

DO $roles$
DECLARE
  v_role record;
BEGIN
  -- Bytes that are no text would reach JSON and HTTP, and what services write would not fit into the tables (input I24).
  IF pg_catalog.current_setting('server_encoding') <> 'UTF8' THEN
    RAISE EXCEPTION 'ops_runner cannot be used in a database with encoding %', pg_catalog.current_setting('server_encoding')
      USING ERRCODE = '0A000', HINT = 'Create the database with encoding UTF8.';
  END IF;
  -- Owns every object; nobody logs in as it. Definer functions run with its rights, which end at schema ops.
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'ops_runner_owner') THEN
    CREATE ROLE ops_runner_owner NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
  END IF;
  -- The background worker connects as this role. PostgreSQL 15 and 16 start no worker for a role that may not log in, so
  -- it has LOGIN; connection limit 0 keeps clients out (workers do not count against it) and it has no password.
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'ops_runner_worker') THEN
    CREATE ROLE ops_runner_worker LOGIN CONNECTION LIMIT 0 PASSWORD NULL
      NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
  END IF;
  -- For people and programs; grant them as needed.
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'ops_viewer') THEN
    CREATE ROLE ops_viewer NOLOGIN;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'ops_operator') THEN
    CREATE ROLE ops_operator NOLOGIN;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'ops_external_worker') THEN
    CREATE ROLE ops_external_worker NOLOGIN;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'ops_admin') THEN
    CREATE ROLE ops_admin NOLOGIN;
  END IF;
  -- Roles that were there before: nobody may have prepared them to act as them (threat T01).
  FOR v_role IN
    SELECT r.rolname, m.rolname AS member
      FROM pg_catalog.pg_roles r
      LEFT JOIN pg_catalog.pg_auth_members a ON a.roleid = r.oid
      LEFT JOIN pg_catalog.pg_roles m ON m.oid = a.member AND NOT m.rolsuper
     WHERE r.rolname IN ('ops_runner_owner', 'ops_runner_worker')
       AND (m.oid IS NOT NULL OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
            OR r.rolcanlogin <> (r.rolname = 'ops_runner_worker'))
  LOOP
    RAISE EXCEPTION 'role "%" exists already and is not safe to use', v_role.rolname
      USING ERRCODE = '42710',
            DETAIL = coalesce('Role "' || v_role.member || '" is a member of it.', 'It has attributes that it must not have.'),
            HINT = 'Drop or rename that role; CREATE EXTENSION then makes its own.';
  END LOOP;
END
$roles$;

CREATE SCHEMA ops;
REVOKE ALL ON SCHEMA ops FROM PUBLIC;
GRANT USAGE ON SCHEMA ops TO ops_runner_owner, ops_runner_worker, ops_viewer, ops_operator, ops_external_worker, ops_admin;
COMMENT ON SCHEMA ops IS 'ops_runner: queue, runs, phases, events and artifacts of builds and deployments';

-- A database and its owner of the same name, given `name` and `password` as psql's variables; finds them the next time.
-- A statement that fails is otherwise written to the server's log, password and all.
SET log_min_error_statement = panic;
SET client_min_messages = warning;
SELECT format('CREATE ROLE %I LOGIN', :'name') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name')\gexec
SELECT format('ALTER ROLE %I PASSWORD %L', :'name', :'password')\gexec
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name')\gexec
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;

# Makes roles and databases that are absent, and sets passwords; takes nothing away. Passwords are read from files, and
# nothing of this is logged by the server.
set -eu
export PGHOST="$HOST" PGPORT="$PORT" PGUSER=postgres PGDATABASE=postgres PGCONNECT_TIMEOUT=10
until pg_isready -q; do echo "waiting for $HOST:$PORT"; sleep 2; done
PGPASSWORD=$(cat /etc/plinth-secrets/superuser)
export PGPASSWORD
run() { # role, file of its password; further SQL on standard input
  { cat <<'SQL'
\set ON_ERROR_STOP on
\set ECHO none
SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic';
\set password `cat "$PASSWORD_FILE"`
SELECT format('CREATE ROLE %I', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
SELECT format('ALTER ROLE %I WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD %L', :'role', :'password') \gexec
SQL
    cat; } | PASSWORD_FILE=$2 psql --no-psqlrc --quiet --set role="$1" --set database="${3-}"
}
database() { # name, owner, file of the owner's password
  run "$2" "$3" "$1" <<'SQL'
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'role')
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
SELECT format('ALTER DATABASE %I OWNER TO %I', :'database', :'role') \gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', name)
  FROM (VALUES (:'database'), ('postgres'), ('template1')) AS closed (name) \gexec
SQL
  echo "database $1 of $2"
}
monitor() { # role, file of its password
  run "$1" "$2" <<'SQL'
SELECT format(statement, :'role') FROM (VALUES
  ('ALTER ROLE %I CONNECTION LIMIT 5'),
  ('ALTER ROLE %I SET statement_timeout = ''10s'''),
  ('ALTER ROLE %I SET lock_timeout = ''2s'''),
  ('ALTER ROLE %I SET idle_in_transaction_session_timeout = ''10s'''),
  ('ALTER ROLE %I SET default_transaction_read_only = on'),
  ('ALTER ROLE %I SET search_path = pg_catalog'),
  ('GRANT pg_monitor TO %I'),
  ('REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC'),
  ('GRANT CONNECT ON DATABASE postgres TO %I')) AS rights (statement) \gexec
SQL
  echo "role $1"
}

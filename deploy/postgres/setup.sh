#!/bin/sh
# Creates a role and a database for each service, where they are missing, and sets the passwords
# of the roles. No role can connect to the database of another service. It can run at any time,
# also after it was interrupted: what exists stays as it is.
#
# With the argument check, it changes nothing, and fails unless the server accepts connections
# and has the databases. It says what is missing.
set -eu
services="auth user email audit"
run() { psql -qXAt -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres "$@"; }

if [ "${1:-}" = check ]; then
	# Over TCP: while the server initializes its data, it listens only on its socket.
	pg_isready -h 127.0.0.1 -U postgres
	present=$(run -c 'SELECT datname FROM pg_database')
	for service in $services; do
		echo "$present" | grep -qx "headgate_$service" || missing="${missing:-} headgate_$service"
	done
	[ -z "${missing:-}" ] || { echo "missing databases:$missing; see docker compose logs postgres-setup"; exit 1; }
	exit 0
fi

# The server may be starting. While it initializes its data, it listens on no address.
tries=120
until [ -n "$(run -c 'SHOW listen_addresses' 2>/dev/null)" ]; do
	tries=$((tries - 1))
	[ "$tries" -gt 0 ] || { run -c 'SHOW listen_addresses'; echo "the server did not start" >&2; exit 1; }
	sleep 1
done

for service in $services; do
	variable=$(printf '%s' "$service" | tr '[:lower:]' '[:upper:]')_DB_PASSWORD
	eval ": \${$variable:?}"
	# psql reads the password from the environment, because other processes can see arguments.
	run -v role="headgate_$service" <<-SQL
		\\getenv password $variable
		SELECT format('CREATE ROLE %I', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \\gexec
		ALTER ROLE :"role" LOGIN PASSWORD :'password';
		SELECT format('CREATE DATABASE %I OWNER %I', :'role', :'role') WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'role') \\gexec
		REVOKE CONNECT, TEMPORARY ON DATABASE :"role" FROM PUBLIC;
	SQL
done
: "${POSTGRES_PASSWORD:?}"
run <<-SQL
	\\getenv password POSTGRES_PASSWORD
	SELECT current_user AS superuser \\gset
	ALTER ROLE :"superuser" PASSWORD :'password';
	REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC;
SQL
echo "the databases of the services are ready"

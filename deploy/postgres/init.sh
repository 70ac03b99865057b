#!/bin/sh
# Runs once, when the volume of the database server is new. Creates a role and a
# database for each service. No role can connect to the database of another service.
set -eu
run() { psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres "$@"; }

for service in auth user email audit; do
	variable=$(printf '%s' "$service" | tr '[:lower:]' '[:upper:]')_DB_PASSWORD
	eval ": \${$variable:?}"
	# psql reads the password from the environment, because other processes can see arguments.
	run -v role="headgate_$service" <<-SQL
		\\getenv password $variable
		CREATE ROLE :"role" LOGIN PASSWORD :'password';
		CREATE DATABASE :"role" OWNER :"role";
		REVOKE CONNECT, TEMPORARY ON DATABASE :"role" FROM PUBLIC;
	SQL
done
run -c 'REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC'

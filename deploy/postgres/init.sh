#!/bin/sh
# Runs once, when the database server's volume is new: a role and a database for
# each service, and nobody in another's.
set -eu
for service in auth user email audit; do
	variable=$(printf '%s' "$service" | tr '[:lower:]' '[:upper:]')_DB_PASSWORD
	eval "password=\${$variable:?}"
	psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres -v role="headgate_$service" -v password="$password" <<-'SQL'
		CREATE ROLE :"role" LOGIN PASSWORD :'password';
		CREATE DATABASE :"role" OWNER :"role";
		REVOKE CONNECT, TEMPORARY ON DATABASE :"role" FROM PUBLIC;
	SQL
done

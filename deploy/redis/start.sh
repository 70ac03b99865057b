#!/bin/sh
# Starts Redis with one user for each service, which can reach only the service's own
# streams and keys. The passwords are in the environment; the script writes their hashes
# into a copy of users.acl.
#
# The user default is off and has no password, so nobody can sign in as it. It keeps all
# rights, because Redis replays its append-only file as this user: without them Redis
# drops every transaction and every effect of a script when it starts.
set -eu
here=$(dirname "$0")
acl=${ACL_FILE:-/tmp/users.acl}
umask 077
cp "$here/users.acl" "$acl"
for name in AUTH USER EMAIL AUDIT GATEWAY OPERATOR; do
	eval "password=\${REDIS_${name}_PASSWORD:?}"
	hash=$(printf '%s' "$password" | sha256sum | cut -d ' ' -f 1)
	sed -i "s/#${name}_HASH/#${hash}/" "$acl"
done
exec redis-server --aclfile "$acl" --appendonly yes --appendfsync everysec --maxmemory-policy noeviction --save '' "$@"

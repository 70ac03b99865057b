#!/usr/bin/env bash
# Writes .env from .env.example, with a new secret for each empty variable.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -e .env ]; then
	echo ".env already exists and was not changed"
	exit 1
fi
umask 077
while IFS= read -r line; do
	if [[ $line =~ ^([A-Z_]+)=$ ]]; then
		# Only letters and digits, so that the secret needs no escaping in a URL.
		printf '%s=%s\n' "${BASH_REMATCH[1]}" "$(head -c 48 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | head -c 40)"
	else
		printf '%s\n' "$line"
	fi
done <.env.example >.env
echo "wrote .env; it contains secrets, so keep it private"

#!/usr/bin/env bash
# Writes .env from .env.example with a fresh secret wherever one is wanted.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -e .env ]; then
	echo ".env exists; it is left as it is"
	exit 1
fi
umask 077
while IFS= read -r line; do
	if [[ $line =~ ^([A-Z_]+)=$ ]]; then
		# Letters and digits only, so that it fits into a URL as it is.
		printf '%s=%s\n' "${BASH_REMATCH[1]}" "$(head -c 48 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | head -c 40)"
	else
		printf '%s\n' "$line"
	fi
done <.env.example >.env
echo "wrote .env; keep it safe"

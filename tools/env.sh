#!/usr/bin/env bash
# Writes .env from .env.example, with a new secret for each empty variable, and the public
# keys of the services. It needs Go, or else Docker. HEADGATE_SOURCE is the folder with the
# services, if it is another one.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -e .env ]; then
	echo ".env already exists and was not changed"
	exit 1
fi
umask 077
source_dir=$(cd "${HEADGATE_SOURCE:-.}" && pwd)
draft=$(mktemp .env.XXXXXX)
trap 'rm -f "$draft"' EXIT

# event_key prints the public key of a service. The secret is in the environment, where
# other users of this machine cannot see it.
event_key() {
	if command -v go >/dev/null; then
		(cd "$source_dir/services/$1" && GOWORK=off go run . event-key)
	else
		docker run --rm -e EVENT_SIGNING_KEY -e GOWORK=off -v "$source_dir:/src:ro" -w "/src/services/$1" golang:1.26-alpine go run . event-key
	fi
}

public_keys=
while IFS= read -r line; do
	if [[ $line =~ ^EVENT_PUBLIC_KEYS=$ ]]; then
		line="$line$public_keys"
	elif [[ $line =~ ^([A-Z_]+)=$ ]]; then
		# Only letters and digits, so that the secret needs no escaping in a URL.
		secret=$(head -c 48 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | head -c 40)
		line="$line$secret"
		if [[ $line =~ ^([A-Z]+)_EVENT_SIGNING_KEY= ]]; then
			service=$(tr '[:upper:]' '[:lower:]' <<<"${BASH_REMATCH[1]}")-service
			public_keys+=${public_keys:+,}$(EVENT_SIGNING_KEY=$secret event_key "$service")
		fi
	fi
	printf '%s\n' "$line"
done <.env.example >"$draft"
mv "$draft" .env
echo "wrote .env; it contains secrets, so keep it private"

#!/usr/bin/env bash
# Writes .env from .env.example, with a new secret for each empty variable and the public keys of
# the services. To a .env that exists it adds what docker-compose.yml requires and the file
# lacks, for example after an upgrade, says what it has added, and changes nothing else.
# It needs Go, or else Docker. HEADGATE_SOURCE is the folder with the services, if it is another
# one.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 077
source_dir=$(cd "${HEADGATE_SOURCE:-.}" && pwd)
# A symbolic link stays one.
file=.env
while [ -L "$file" ]; do
	link=$(readlink "$file")
	[[ $link == /* ]] && file=$link || file=$(dirname "$file")/$link
done
draft=$(mktemp "$file.XXXXXX")
trap 'rm -f "$draft"' EXIT

# assignments prints the lines of a file that set the variable.
assignments() { # NAME FILE
	grep -nE "^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*[=:]" "$2" || true
}

# value prints the value of the variable: Compose uses its last line.
value() { # NAME FILE
	assignments "$1" "$2" | tail -n 1 | tr -d '\r' |
		sed -E "s/^[^=:]*:[^=:]*[=:][[:space:]]*//; s/^'([^']*)'.*/\1/; s/^\"([^\"]*)\".*/\1/; s/[[:space:]]+#.*$//; s/[[:space:]]+$//"
}

# assign sets the variable in the draft: in its last line, or in a new one.
assign() { # NAME VALUE
	local line
	line=$(assignments "$1" "$draft" | tail -n 1 | cut -d : -f 1)
	if [ -n "$line" ]; then
		# Secrets and keys have no character that is special in sed.
		sed -E "${line}s|^([^=:]*[=:]).*|\1$2$cr|" "$draft" >"$draft.new" && cat "$draft.new" >"$draft"
		rm -f "$draft.new"
	else
		[ -n "$headed" ] || printf '%s\n# Added by make env.%s\n' "$cr" "$cr" >>"$draft"
		headed=1
		printf '%s=%s%s\n' "$1" "$2" "$cr" >>"$draft"
	fi
}

# new_secret prints one of letters and digits.
new_secret() { head -c 48 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | head -c 40; }

# event_key prints the public key of a service. The secret is in the environment, where
# other users of this machine cannot see it.
event_key() {
	if command -v go >/dev/null; then
		(cd "$source_dir/services/$1" && GOWORK=off go run . event-key)
	else
		docker run --rm -e EVENT_SIGNING_KEY -e GOWORK=off -v "$source_dir:/src:ro" -w "/src/services/$1" \
			"$(sed -n 's/^ARG GO_IMAGE=//p' "$source_dir/deploy/Dockerfile")" go run . event-key
	fi
}

example=.env.example
if [ -e .env ]; then
	cp -p "$file" "$draft"
	wanted=$(grep -oE '\$\{[A-Z_]+:\?' docker-compose.yml | tr -dc 'A-Z_\n' | sort -u)
else
	cat "$example" >"$draft"
	wanted=$(sed -nE 's/^([A-Z_]+)=.*/\1/p' "$example")
fi
cr=
if grep -q $'\r$' "$draft"; then cr=$'\r'; fi
# The last line may have no end.
[ -z "$(tail -c 1 "$draft")" ] || printf '%s\n' "$cr" >>"$draft"

added=() headed=
for name in $wanted; do
	if [ -e .env ] && [ "$(assignments "$name" "$draft" | wc -l)" -gt 1 ]; then
		echo "warning: .env sets $name more than once; the last line counts" >&2
	fi
	[ "$name" != EVENT_PUBLIC_KEYS ] && [ -z "$(value "$name" "$draft")" ] || continue
	new=$(sed -n "s/^$name=//p" "$example") # with its quotes
	[ -n "$new" ] || new=$(new_secret)
	assign "$name" "$new"
	added+=("$name")
done

# Every service knows the public keys of all.
keys=$(value EVENT_PUBLIC_KEYS "$draft")
before=$keys
for name in $(sed -nE 's/^([A-Z]+_EVENT_SIGNING_KEY)=.*/\1/p' "$example"); do
	service=$(tr '[:upper:]' '[:lower:]' <<<"${name%%_*}")-service
	if [[ ",$keys" != *",$service:"* ]] || [[ " ${added[*]-} " == *" $name "* ]]; then
		keys+=${keys:+,}$(EVENT_SIGNING_KEY=$(value "$name" "$draft") event_key "$service")
	fi
done
if [ "$keys" != "$before" ]; then
	assign EVENT_PUBLIC_KEYS "$keys"
	added+=(EVENT_PUBLIC_KEYS)
fi

if [ ! -e .env ]; then
	echo "wrote .env; it contains secrets, so keep it private"
elif [ "${#added[@]}" = 0 ]; then
	echo ".env has all that docker-compose.yml requires and was not changed"
	exit 0
else
	echo "added to .env: ${added[*]}"
fi
chmod 600 "$draft"
mv "$draft" "$file"

#!/usr/bin/env bash
# Copies each module given, with pkg and nothing else, into an empty folder, and
# builds and vets it there, tests included. make test runs them; twice took too long.
set -euo pipefail
cd "$(dirname "$0")/.."
# Always the same folder, for the build cache goes by its name.
tree=$PWD/.local/alone
trap 'rm -rf "$tree"' EXIT
export GOWORK=off GOFLAGS="-buildvcs=false -race"
for m in "$@"; do
	rm -rf "$tree"
	mkdir -p "$tree/$(dirname "$m")"
	cp -R pkg "$tree/"
	[ "$m" = pkg ] || cp -R "$m" "$tree/$m"
	(cd "$tree/$m" && go build -o /dev/null ./... && go vet ./...) || { echo "$m does not stand alone"; exit 1; }
	echo "$m"
done

#!/usr/bin/env bash
# Copies each given module, together with pkg only, into an empty folder, and vets it there,
# including its tests: that finds what does not compile, without linking programs. It does not
# run the tests: make test does.
set -euo pipefail
cd "$(dirname "$0")/.."
# Always the same folder, because the build cache depends on its name.
tree=$PWD/.local/alone
trap 'rm -rf "$tree"' EXIT
export GOWORK=off GOFLAGS="-buildvcs=false -race"
for m in "$@"; do
	rm -rf "$tree"
	mkdir -p "$tree/$(dirname "$m")"
	cp -R pkg "$tree/"
	[ "$m" = pkg ] || cp -R "$m" "$tree/$m"
	(cd "$tree/$m" && go vet ./...) || { echo "$m does not compile with only itself and pkg"; exit 1; }
	echo "$m"
done

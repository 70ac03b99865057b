#!/usr/bin/env bash
# Runs the checks of `make check`. Each step prints its name; the first failure ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."
# With the race detector, as in make test, so that dependencies are compiled only once.
export GOFLAGS="-buildvcs=false -race"

step() { printf '\n== %s\n' "$*"; }
modules=(pkg deploy/local tests services/*)

step "format"
unformatted=$(gofmt -l pkg services deploy tests tools)
if [ -n "$unformatted" ]; then
	echo "gofmt would change:" "$unformatted"
	exit 1
fi

step "modules are tidy"
for m in "${modules[@]}" tools; do
	(cd "$m" && GOWORK=off go mod tidy -diff) || { echo "$m: run go mod tidy"; exit 1; }
done

step "each module and its tests compile with only itself and pkg"
tools/alone.sh "${modules[@]}"

step "environment tables in the READMEs"
tools/readme.sh check

step "promises and their tests"
tools/promises.sh

step "relative links in Markdown files"
broken=0
while IFS=: read -r file link; do
	target=$(dirname "$file")/${link%%#*}
	[[ $link != \#* ]] || target=$file
	# The anchor of a heading is its text in lower case, with hyphens for spaces.
	if [ ! -e "$target" ] || { [[ $link == *\#* ]] && ! grep -qx -- "${link#*#}" \
		<(sed -n 's/^#\+ //p' "$target" | tr '[:upper:] ' '[:lower:]-' | tr -cd 'a-z0-9_\n-'); }; then
		echo "$file links to $link, which does not exist"
		broken=1
	fi
done < <(git ls-files '*.md' | xargs grep -oHE '\]\([^)]+\)' | sed -E 's/\]\(|\)$//g' | grep -v '://')
[ "$broken" = 0 ] || exit 1

step "retired words"
(cd tools && GOWORK=off go test ./vocabulary && GOWORK=off go run ./vocabulary ..)

step "contracts: no published line was removed"
published=$(git show origin/main:pkg/event/contracts.txt 2>/dev/null || true) # empty in a new repository
lost=$(comm -23 <(sort <<<"$published") <(sort pkg/event/contracts.txt) | grep . || true)
if [ -n "$lost" ]; then
	echo "these lines were removed from pkg/event/contracts.txt:"
	echo "$lost"
	exit 1
fi

step "docker-compose.yml"
(cd tools && GOWORK=off go run ./composecheck ../docker-compose.yml ../.env.example ../services)

step "lint"
make --no-print-directory lint

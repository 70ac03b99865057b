#!/usr/bin/env bash
# What `make check` does. Each step says its name; the first that fails ends it.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS=-buildvcs=false

step() { printf '\n== %s\n' "$*"; }
modules=(pkg deploy/local tests services/*)

step "format"
unformatted=$(gofmt -l pkg services deploy tests tools)
if [ -n "$unformatted" ]; then
	echo "gofmt would change:" "$unformatted"
	exit 1
fi

step "vet"
go vet work

step "modules are tidy"
for m in "${modules[@]}" tools; do
	(cd "$m" && GOWORK=off go mod tidy -diff) || { echo "$m: run go mod tidy"; exit 1; }
done

step "each service builds and vets, tests included, with only itself and pkg"
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
for m in services/*; do
	rm -rf "$tree"/*
	mkdir -p "$tree/services"
	cp -r pkg "$tree/pkg"
	cp -r "$m" "$tree/services/"
	(cd "$tree/$m" && GOWORK=off go build -o /dev/null ./... && GOWORK=off go vet ./...) || { echo "$m does not stand alone"; exit 1; }
	echo "$m"
done

step "environment tables in the READMEs"
tools/readme.sh check

step "contracts: nothing published was taken back"
if git rev-parse --verify --quiet origin/main >/dev/null && git cat-file -e origin/main:pkg/event/contracts.txt 2>/dev/null; then
	if git diff origin/main -- pkg/event/contracts.txt | grep '^-[^-]'; then
		echo "pkg/event/contracts.txt lost these lines"
		exit 1
	fi
fi

step "docker-compose.yml"
(cd tools && GOWORK=off go run ./composecheck ../docker-compose.yml ../.env.example)

step "lint"
make --no-print-directory lint

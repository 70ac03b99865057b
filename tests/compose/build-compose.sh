#!/usr/bin/env bash
# Builds Docker Compose into .local/bin, where a machine has Docker without it.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
version=v2.40.3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export GOWORK=off GOFLAGS='-buildvcs=false -mod=mod' CGO_ENABLED=0
go mod init compose
go get "github.com/docker/compose/v2/cmd@$version"
go build -trimpath -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$version" \
	-o "$root/.local/bin/docker-compose" github.com/docker/compose/v2/cmd
echo "built $root/.local/bin/docker-compose"

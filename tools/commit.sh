#!/usr/bin/env bash
# Prints the flag of go build that puts the commit into a program, and with the argument
# --id the commit alone. Prints nothing outside of a Git repository.
set -euo pipefail
cd "$(dirname "$0")/.."
git=(git -c safe.directory='*') # The checkout may belong to another user.
commit=$("${git[@]}" rev-parse --short=12 HEAD 2>/dev/null) || exit 0
"${git[@]}" diff --quiet HEAD -- . 2>/dev/null || commit+=.modified
case ${1:-} in
--id) echo "$commit" ;;
*) echo "-X=github.com/headgate/headgate/pkg/service.commit=$commit" ;;
esac

#!/usr/bin/env bash
# Runs each fuzz target of the workspace for the given time.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?usage: fuzz.sh TIME, for example 20s}
grep -rlE '^func Fuzz[A-Za-z]+\(' --include='*_test.go' pkg services deploy | while read -r file; do
	dir=$(dirname "$file")
	grep -oE '^func Fuzz[A-Za-z]+' "$file" | awk '{ print $2 }' | while read -r target; do
		echo "== $dir $target"
		go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1s
	done
done

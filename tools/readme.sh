#!/usr/bin/env bash
# Compares the environment tables in the services' READMEs with the output of
# `<service> config`: `write` replaces them, `check` fails if one is out of date.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:?usage: readme.sh write|check}
old=0
for dir in services/*; do
	table=$(mktemp)
	(cd "$dir" && GOWORK=off go run -buildvcs=false . config) >"$table"
	fresh=$(sed -e '/<!-- config -->/,/<!-- \/config -->/{ /<!-- config -->/r '"$table" -e '/<!-- config -->/!{/<!-- \/config -->/!d} }' "$dir/README.md")
	rm -f "$table"
	[ "$fresh" = "$(cat "$dir/README.md")" ] && continue
	if [ "$mode" = write ]; then
		printf '%s\n' "$fresh" >"$dir/README.md"
		echo "wrote $dir/README.md"
	else
		echo "$dir/README.md: the environment table is out of date: run make generate"
		old=1
	fi
done
exit $old

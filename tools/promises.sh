#!/usr/bin/env bash
# Fails for an id of docs/SECURITY.md that no test has in its name: TestSEC16…,
# TestSEC01To09…, TestSEC29And30….
set -euo pipefail
cd "$(dirname "$0")/.."

# expand prints every number from what is written with a range, one a line.
expand() { # lines such as "12 … 19" or "01To09", or one number
	while read -r from to; do
		for ((n = 10#$from; n <= 10#${to:-$from}; n++)); do printf '%02d\n' "$n"; done
	done
}
promised=$(grep -oE '^\| SEC-[^|]*' docs/SECURITY.md | sed 's/^| SEC-//' | tr ',' '\n' | sed 's/ … / /' | awk '{ print $1, $2 }' | expand | sort -u)
tested=$(grep -rhoE '^func TestSEC[0-9]{2}((To|And)[0-9]{2})*' --include='*_test.go' pkg services tests |
	sed -E 's/^func TestSEC//; s/And/\n/g' | sed 's/To/ /' | expand | sort -u)
missing=$(comm -23 <(echo "$promised") <(echo "$tested"))
if [ -n "$missing" ]; then
	echo "no test is named after:" $(sed 's/^/SEC-/' <<<"$missing")
	exit 1
fi
echo "$(wc -l <<<"$promised") ids, each with a test"

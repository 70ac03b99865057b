#!/usr/bin/env bash
# Fails unless the ids of promises and their tests agree:
#  - an id of docs/SECURITY.md is in the name of a test: TestSEC16…, TestSEC01To09…,
#    TestSEC29And30…;
#  - an id of docs/RESILIENCE.md is in a test file, in a name or a comment;
#  - an id in a Go file is defined in one of the two documents;
#  - what the threat model and the requirements of docs/SECURITY.md name is defined, or the
#    beginning of the name of a test;
#  - no Go file refers to a list of traps, which is not part of this repository.
set -euo pipefail
cd "$(dirname "$0")/.."
code=(--include='*.go' pkg services deploy tests tools)
tests=(--include='*_test.go' pkg services deploy tests)

# numbers prints each number of lines such as "12 … 19", "01To09", "29And30" or "07",
# one a line.
numbers() {
	sed -E 's/(And|,) ?/\n/g; s/To| … / /g' | while read -r from to; do
		for ((n = 10#$from; n <= 10#${to:-$from}; n++)); do printf '%02d\n' "$n"; done
	done | sort -u
}

# defined prints the numbers that the tables of a document define.
defined() { # prefix, document
	grep -oE "^\| $1-[^|]*" "$2" | sed -E "s/^\| $1-//; s/ +$//" | numbers
}

# cited prints the numbers of the ids that files have, such as SEC-16, TestSEC29And30 or
# SEC-01 to SEC-09.
cited() { # prefix, arguments of grep
	local prefix=$1
	shift
	{ grep -rhoE "\b(Test)?$prefix-?[0-9]{2,3}((To|And)[0-9]{2,3})*( to $prefix-[0-9]{2,3})?" "$@" || true; } |
		sed -E "s/ to $prefix-/To/; s/^(Test)?$prefix-?//" | numbers
}

failed=0
# report prints what only the first list has.
report() { # message, prefix, first, second
	local only
	only=$(comm -23 <(echo "$3") <(echo "$4") | grep . | sed "s/^/$2-/" || true)
	[ -n "$only" ] || return 0
	echo "$1:" $only
	failed=1
}

security=$(defined SEC docs/SECURITY.md)
named=$({ grep -rhoE '^func TestSEC[0-9]{2,3}((To|And)[0-9]{2,3})*' "${tests[@]}" || true; } | sed 's/^func TestSEC//' | numbers)
resilience=$(defined REL docs/RESILIENCE.md)
report "no test is named after" SEC "$security" "$named"
report "no test mentions" REL "$resilience" "$(cited REL "${tests[@]}")"
report "docs/SECURITY.md does not define" SEC "$(cited SEC "${code[@]}")" "$security"
report "docs/RESILIENCE.md does not define" REL "$(cited REL "${code[@]}")" "$resilience"
mapped=$(sed -n '/^## Threat model/,$p' docs/SECURITY.md)
# mentioned prints the numbers of ids such as "SEC-13, 14" or "SEC-31 … 34" in them.
mentioned() { # prefix
	grep -oE "$1-[0-9]{2,3}((, | … )[0-9]{2,3})*" <<<"$mapped" | sed "s/^$1-//" | numbers
}
report "no promise has the id of docs/SECURITY.md" SEC "$(mentioned SEC)" "$security"
report "no promise has the id of docs/SECURITY.md" REL "$(mentioned REL)" "$resilience"
for name in $(grep -oE '\bTest[A-Z][A-Za-z0-9]+' <<<"$mapped" | sort -u); do
	grep -rqE "^func $name" "${tests[@]}" || { echo "docs/SECURITY.md names the test $name, which does not exist"; failed=1; }
done
if grep -rnE '\bTRAPS\b|(//|").*\bT([1-9]|1[0-2])\b' "${code[@]}"; then
	echo "these lines refer to a list of traps that is not in this repository"
	failed=1
fi
[ "$failed" = 0 ] || exit 1
echo "$(wc -l <<<"$security") ids of security and $(wc -l <<<"$resilience") of resilience, each with a test"

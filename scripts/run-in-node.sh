#!/usr/bin/env bash
# Cargo's runner for the tests with KVM: a test program, run where KVM is, with the
# registry beside it. A program without such tests is not taken there at all. What failed is
# appended to the file NODE_FAILURES names.
set -euo pipefail
: "${NODE_NAME:?is set by scripts/node-tests.sh}"
# How often a test that did not end with its node runs again.
ATTEMPTS=3
# hull-testnode's own failure: no node to be had, or the one there was is lost.
LOST=125
registry=$(realpath "$(dirname "$0")/../images/registry.sh")
program=$1
name=${program##*/}

# A program that cannot even list its tests fails here.
tests=$("$@" --list | sed -n 's/: test$//p')
[ -n "$tests" ] || exit 0
in_place() { hull-testnode --name "$NODE_NAME" exec -- "$@"; }
with_registry() { in_place "$registry" start && in_place "$@"; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM
status=0
with_registry "$@" | tee "$log" || status=$?
if [ "$status" -ne "$LOST" ]; then
    [ "$status" -eq 0 ] || sed -n '/^failures:$/,/^test result/p' "$log" >>"${NODE_FAILURES:-/dev/null}"
    exit "$status"
fi

# Of the test under which a node was lost nothing can be told: it runs again, in a new
# node, and then those that had not had their turn. One that had failed has failed.
passed=$(awk '$1 == "test" && $NF == "ok" { print $2 }' "$log")
result=0
! grep -qE '^(test .*)?FAILED$' "$log" || result=1
for test in $(grep -vxF -e "${passed:- }" <<<"$tests"); do
    for ((attempt = 0; attempt < ATTEMPTS; attempt++)); do
        # Where no node can be had at all, there is nothing to repeat.
        in_place true || exit
        echo "run-in-node: a node was lost under $name; now $test by itself" >&2
        status=0
        with_registry "$program" --ignored --exact "$test" || status=$?
        [ "$status" -eq "$LOST" ] || break
    done
    [ "$status" -eq 0 ] || result=$status
done
exit "$result"

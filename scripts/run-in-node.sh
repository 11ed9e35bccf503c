#!/usr/bin/env bash
# Cargo's runner for the tests with KVM: a test program, run where KVM is, with the
# registry beside it. A program without such tests is not taken there at all.
set -euo pipefail
: "${NODE_NAME:?is set by scripts/node-tests.sh}"
registry=$(dirname "$0")/../images/registry.sh
registry=$(realpath "$registry")

# A program that cannot even list its tests fails here.
tests=$("$@" --list)
grep -q ': test$' <<<"$tests" || exit 0
in_place() { hull-testnode --name "$NODE_NAME" exec -- "$@"; }
# 125 is hull-testnode's own failure: the emulator of the node itself ended, and said why.
# Nothing can be told about the tests then; they run once more, in a new node.
for attempt in 1 2; do
    status=0
    in_place "$registry" start && in_place "$@" || status=$?
    [ "$status" -eq 125 ] && [ "$attempt" -eq 1 ] || exit "$status"
    echo "run-in-node: the node was lost under ${1##*/}; its tests run again in a new one" >&2
done

#!/usr/bin/env bash
# Tests that need KVM: the workspace's test programs, run where KVM is.
#   scripts/node-tests.sh [CARGO TEST ARGUMENTS...]     e.g. -p hull-vmm
source "$(dirname "$0")/lib.sh"

say_place
export NODE_NAME=${NODE_NAME:-test}
down() {
    hull-testnode --name "$NODE_NAME" exec -- "$ROOT/images/registry.sh" stop || true
    hull-testnode --name "$NODE_NAME" down
    rm -f "$NODE_FAILURES"
}

# Lines of each program's failures that are shown again at the end.
FAILURE_LINES=100
NODE_FAILURES=$(mktemp)
export NODE_FAILURES
trap down EXIT
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$ROOT/scripts/run-in-node.sh"
[ $# -gt 0 ] || set -- --workspace
status=0
cargo test "$@" --tests --no-fail-fast -- --ignored --test-threads=1 "${HULL_NODE_TESTS:-node_}" || status=$?
# Many minutes of other programs' output may be between here and a failure.
if [ -s "$NODE_FAILURES" ]; then
    say "-- what failed, again"
    awk -v most="$FAILURE_LINES" '/^test result/ { lines = 0 } lines++ < most' "$NODE_FAILURES" >&2
fi
exit "$status"

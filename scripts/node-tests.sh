#!/usr/bin/env bash
# Tests that need KVM: the workspace's test programs, run where KVM is.
#   scripts/node-tests.sh [CARGO TEST ARGUMENTS...]     e.g. -p hull-vmm
source "$(dirname "$0")/lib.sh"

say_place
export NODE_NAME=${NODE_NAME:-test}
down() {
    hull-testnode --name "$NODE_NAME" exec -- "$ROOT/images/registry.sh" stop || true
    hull-testnode --name "$NODE_NAME" down
}

trap down EXIT
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$ROOT/scripts/run-in-node.sh"
[ $# -gt 0 ] || set -- --workspace
cargo test "$@" --tests --no-fail-fast -- --ignored --test-threads=1 "${HULL_NODE_TESTS:-node_}"

#!/usr/bin/env bash
# Tests that need KVM: the workspace's test programs, run where KVM is.
#   scripts/node-tests.sh [CARGO TEST ARGUMENTS...]     e.g. -p hull-vmm
source "$(dirname "$0")/lib.sh"

NODE_NAME=test
in_place() { hull-testnode --name "$NODE_NAME" exec -- "$@"; }
down() {
    in_place "$ROOT/images/registry.sh" stop || true
    hull-testnode --name "$NODE_NAME" down
}

trap down EXIT
in_place "$ROOT/images/registry.sh" start
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$BIN/hull-testnode --name $NODE_NAME exec --"
[ $# -gt 0 ] || set -- --workspace
cargo test "$@" --no-fail-fast -- --ignored --test-threads=1 node_

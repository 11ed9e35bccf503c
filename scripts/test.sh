#!/usr/bin/env bash
# `make test`: everything, in the order in which a failure is cheapest.
source "$(dirname "$0")/lib.sh"

trap 'print_stages' EXIT
NODE_NAME=test

stage "packages and tools" scripts/deps.sh --check
stage "formatting, lints, licences" scripts/check.sh
stage "build" scripts/build.sh
stage "guest kernel and initramfs" scripts/guest.sh
stage "sample images" scripts/images.sh

if command -v cargo-nextest >/dev/null; then
    stage "unit and subsystem tests" cargo nextest run --workspace --no-fail-fast
else
    stage "unit and subsystem tests" cargo test --workspace --no-fail-fast
fi

# Tests that need KVM: the same test programs, run where KVM is.
in_place() { hull-testnode --name "$NODE_NAME" exec -- "$@"; }
down() {
    in_place "$ROOT/images/registry.sh" stop || true
    hull-testnode --name "$NODE_NAME" down
}
node_tests() {
    in_place "$ROOT/images/registry.sh" start
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$BIN/hull-testnode --name $NODE_NAME exec --"
    cargo test --workspace --no-fail-fast -- --ignored --test-threads=1 node_
}
trap 'down; print_stages' EXIT
stage "tests with KVM" node_tests
trap 'print_stages' EXIT
down
stage "documented commands" scripts/doc-commands.sh

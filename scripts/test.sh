#!/usr/bin/env bash
# `make test`: everything, in the order in which a failure is cheapest. Each stage is a
# command of its own: inside `stage`, a function would go on after a command that failed.
source "$(dirname "$0")/lib.sh"

trap print_stages EXIT

stage "packages and tools" scripts/deps.sh --check
stage "formatting" scripts/check.sh formatting
stage "build" scripts/build.sh
say_place
stage "guest kernel and initramfs" scripts/guest.sh
stage "sample images" scripts/images.sh
# Not beside the tests: where VMs run under emulation, what fills the idle time slows them by
# more than it takes.
stage "licences and lints" scripts/check.sh lints
if command -v cargo-nextest >/dev/null; then
    stage "unit and subsystem tests" cargo nextest run --workspace --no-fail-fast
else
    stage "unit and subsystem tests" cargo test --workspace --no-fail-fast
fi
stage "tests with KVM" scripts/node-tests.sh
stage "documented commands" scripts/doc-commands.sh

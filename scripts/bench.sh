#!/usr/bin/env bash
# `make bench`: builds optimised programs and prints the tables of docs/figures.md.
# Nothing here is asserted.
export PROFILE=release
source "$(dirname "$0")/lib.sh"

NODE_NAME=bench
stage "packages and tools" scripts/deps.sh
stage "optimised build" scripts/build.sh
stage "guest kernel and initramfs" scripts/guest.sh
stage "sample images" scripts/images.sh
trap 'hull-testnode --name "$NODE_NAME" down || true' EXIT
hull-testnode --name "$NODE_NAME" exec -- "$ROOT/scripts/bench-in-place.sh" "$@"

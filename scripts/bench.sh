#!/usr/bin/env bash
# `make bench`: builds optimised programs and prints the tables of docs/figures.md: the API
# server's and the scheduler's measured on this machine, the pods' where KVM is.
# Nothing here is asserted.
export PROFILE=release
source "$(dirname "$0")/lib.sh"

NODE_NAME=bench
stage "packages and tools" scripts/deps.sh
stage "optimised build" scripts/build.sh
stage "guest kernel and initramfs" scripts/guest.sh
stage "sample images" scripts/images.sh
stage "API server and scheduler, on this machine" scripts/bench-server.sh
trap 'hull-testnode --name "$NODE_NAME" down || true' EXIT
stage "pods, where KVM is" hull-testnode --name "$NODE_NAME" exec -- "$ROOT/scripts/bench-in-place.sh" "$@"
print_stages

#!/usr/bin/env bash
# `make bench`: builds optimised programs and prints the tables of docs/figures.md: the API
# server's, the scheduler's and the testnode's measured on this machine, the pods' where KVM
# is. Nothing here is asserted.
export PROFILE=release
source "$(dirname "$0")/lib.sh"

NODE_NAME=bench
# From `up` to the end of the first command.
first_command() {
    local begun=$EPOCHREALTIME up
    hull-testnode --name "$NODE_NAME" up >&2 && up=$EPOCHREALTIME &&
        hull-testnode --name "$NODE_NAME" run -- true &&
        awk -v begun="$begun" -v up="$up" -v end="$EPOCHREALTIME" 'BEGIN {
            print "| testnode | seconds |\n|---|---:|"
            printf "| up | %.1f |\n| up and the first command | %.1f |\n", up - begun, end - begun
        }'
}
stage "packages and tools" scripts/deps.sh
stage "optimised build" scripts/build.sh
say_place
stage "guest kernel and initramfs" scripts/guest.sh
stage "sample images" scripts/images.sh
stage "control plane, on this machine" hull-bench control-plane
if [ "$PLACE" = testnode ]; then
    trap 'hull-testnode --name "$NODE_NAME" down || true' EXIT
    stage "testnode" first_command
fi
stage "pods, where KVM is" hull-testnode --name "$NODE_NAME" exec -- "$ROOT/scripts/bench-in-place.sh" "$@"
print_stages

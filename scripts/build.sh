#!/usr/bin/env bash
# Builds every program, and hull-agent as a static program for the guest.
source "$(dirname "$0")/lib.sh"

cargo build --workspace --bins --profile "$PROFILE"
scripts/build-agent.sh

#!/usr/bin/env bash
# Builds every program (hull-agent statically: see scripts/rustc.sh).
source "$(dirname "$0")/lib.sh"

cargo build --workspace --bins --profile "$PROFILE"

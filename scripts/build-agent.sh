#!/usr/bin/env bash
# Builds hull-agent statically (the guest has no libraries) and prints nothing but cargo's progress.
source "$(dirname "$0")/lib.sh"

export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C linker=clang -C link-arg=-fuse-ld=mold -C target-feature=+crt-static -C strip=symbols"
cargo build --target x86_64-unknown-linux-gnu -p hull-agent --profile "$PROFILE"

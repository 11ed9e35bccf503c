#!/bin/sh
# Debian's cloud kernel as an uncompressed ELF image; prints its path.
images=$(cd "$(dirname "$0")/.." && pwd)
set -eu
if command -v hull-testnode >/dev/null 2>&1; then
    exec hull-testnode cloud-kernel
fi
cd "$images/.." && exec cargo run --quiet -p hull-testnode -- cloud-kernel

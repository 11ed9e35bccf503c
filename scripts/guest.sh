#!/usr/bin/env bash
# Guest kernel (Hull's own when it has been built, else Debian's cloud kernel) and initramfs.
source "$(dirname "$0")/lib.sh"

images/guest.sh "$BIN/hull-agent"

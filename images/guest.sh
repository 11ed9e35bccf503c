#!/bin/sh
# Kernel and initramfs for pods: links vmlinux and initramfs.cpio in the cache's guest/.
#
#   images/guest.sh AGENT     AGENT is hull-agent, statically linked
#
# The kernel is Hull's own if it has been built, else Debian's cloud kernel. A second
# run with the same inputs changes nothing and is instant.
. "$(dirname "$0")/lib.sh"

[ $# -eq 1 ] || fail "usage: guest.sh AGENT"
agent=$(realpath "$1")
if kernel=$("$images/guest-kernel/build.sh" --print-path); then
    testnode guest --agent "$agent" --kernel "$kernel"
else
    echo "guest kernel: Debian's cloud kernel, until images/guest-kernel/build.sh has run" >&2
    testnode guest --agent "$agent"
fi

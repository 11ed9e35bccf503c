#!/bin/sh
# The tests of passed-through devices, in a testnode that has an IOMMU and, each behind a
# root port and so alone in its group: a device of the shape of a GPU (8 GiB prefetchable
# BAR), 8 GiB of shared memory, an NVMe disk and a network card. Ordinary nodes have none.
#   vmm/tests/vfio.sh [NAME OF A TEST]
set -eu
name=${NODE_NAME:-vfio}
cache=${HULL_CACHE_DIR:-$HOME/.cache/hull}
work=$(mktemp -d)
trap 'hull-testnode --name "$name" down || true; rm -rf "$work"' EXIT
# The programs that the tests start, then the tests.
cargo build -p hull-vmm --bins --examples
program=$(cargo test -p hull-vmm --test node --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/node-[^"]*\)".*/\1/p' | tail -1)
truncate -s 64M "$work/disk"
hull-testnode --name "$name" up --memory 4096 \
    --kernel-arg intel_iommu=on --kernel-arg iommu=pt \
    --qemu -object --qemu memory-backend-ram,id=shared,size=8G,share=on \
    --qemu -drive --qemu "file=$work/disk,if=none,id=nvme,format=raw" \
    --qemu -netdev --qemu user,id=passed,restrict=on \
    --device intel-iommu,intremap=on,caching-mode=on \
    --device pcie-root-port,id=rp1,slot=1 --device pci-testdev,membar=8G,bus=rp1 \
    --device pcie-root-port,id=rp2,slot=2 --device ivshmem-plain,memdev=shared,bus=rp2 \
    --device pcie-root-port,id=rp3,slot=3 --device nvme,serial=hull,drive=nvme,bus=rp3 \
    --device pcie-root-port,id=rp4,slot=4 --device e1000e,netdev=passed,bus=rp4,romfile=
# Kernels with drivers of real devices: the cloud kernel, and the node's own, which is an
# ELF file behind an xz header.
hull-testnode cloud-kernel >/dev/null
image=$(echo "$cache"/testnode/linux-image-amd64/boot/vmlinuz-*)
start=$(LC_ALL=C grep -abo "$(printf '\3757zXZ')" "$image" | head -1 | cut -d: -f1)
share="$cache/testnode/$name/share"
tail -c "+$((start + 1))" "$image" | xz -dc --single-stream >"$share/vmlinux" 2>/dev/null || true
HULL_VFIO_KERNEL=/run/hull-testnode/share/vmlinux
export HULL_VFIO_KERNEL
hull-testnode --name "$name" run -- "$program" --ignored --test-threads=1 "${1:-vfio_}"

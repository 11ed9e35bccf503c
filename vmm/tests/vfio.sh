#!/bin/sh
# The tests of passed-through devices, in a testnode that has an IOMMU and, each behind a
# root port and so alone in its group: a device of the shape of a GPU (8 GiB prefetchable
# BAR), 8 GiB of shared memory, and an NVMe disk. Ordinary nodes have none of them.
#   vmm/tests/vfio.sh [NAME OF A TEST]
set -eu
name=${NODE_NAME:-vfio}
disk=$(mktemp)
trap 'hull-testnode --name "$name" down || true; rm -f "$disk"' EXIT
truncate -s 64M "$disk"
hull-testnode --name "$name" up --memory 4096 \
    --kernel-arg intel_iommu=on --kernel-arg iommu=pt \
    --qemu -object --qemu memory-backend-ram,id=shared,size=8G,share=on \
    --qemu -drive --qemu "file=$disk,if=none,id=nvme,format=raw" \
    --device intel-iommu,intremap=on,caching-mode=on \
    --device pcie-root-port,id=rp1,slot=1 --device pci-testdev,membar=8G,bus=rp1 \
    --device pcie-root-port,id=rp2,slot=2 --device ivshmem-plain,memdev=shared,bus=rp2 \
    --device pcie-root-port,id=rp3,slot=3 --device nvme,serial=hull,drive=nvme,bus=rp3
program=$(cargo test -p hull-vmm --test node --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/node-[^"]*\)".*/\1/p' | tail -1)
# The programs that the tests start.
cargo build -p hull-vmm --bins --examples
hull-testnode --name "$name" run -- "$program" --ignored --test-threads=1 "${1:-vfio_}"

#!/usr/bin/env bash
# The part of `make bench` that runs where KVM is: starts a cluster, measures, stops it.
export PROFILE=release
source "$(dirname "$0")/lib.sh"

# A testnode gives memory in huge pages, a machine as it is installed does not: what a pod's
# memory costs is told in small ones.
[ ! -d /run/hull-testnode ] || echo never >/sys/kernel/mm/transparent_hugepage/shmem_enabled
export HULL_RUN_OUT=/run/hull-bench
scripts/cluster.sh start
trap 'scripts/cluster.sh stop' EXIT
export KUBECONFIG=$HULL_RUN_OUT/kubeconfig
guest=$HULL_CACHE_DIR/guest
hull-bench sandbox --peer-kernel "$guest/vmlinux" --peer-initramfs "$guest/initramfs.cpio" "$@"
hull-bench pods "$@"
hull-bench memory --peer-kernel "$guest/vmlinux" --peer-initramfs "$guest/initramfs.cpio" "$@"

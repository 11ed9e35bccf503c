#!/usr/bin/env bash
# cluster.sh start|stop|left: the one-machine cluster of `make run`. Runs where KVM is: on
# the machine itself, or inside the testnode. `left` lists the processes of its pods.
source "$(dirname "$0")/lib.sh"

# Where the kubeconfig goes: the machine's own place, or what the testnode shares with its host.
OUT=${HULL_RUN_OUT:-$HOME/.hull}
DATA=/var/lib/hull
RUN=${HULL_RUN_DIR:-/run/hull}
PID_FILE=$RUN/hull.pid
LOG=$OUT/hull.log
READY_TIMEOUT_S=$(scaled 60)
DELETE_TIMEOUT_S=$(scaled 60)
END_TIMEOUT_S=$(scaled 30)
# Whatever makes pods anew has to go with them.
WORKLOADS=cronjobs,jobs,deployments,statefulsets,daemonsets,replicasets,replicationcontrollers,pods

running() { [ -f "$PID_FILE" ] && kill -0 "$(cat "$PID_FILE")" 2>/dev/null; }
kube() { kubectl --kubeconfig "$OUT/kubeconfig" "$@"; }

start() {
    mkdir -p "$OUT" "$DATA" "$RUN"
    images/registry.sh start
    if ! running; then
        setsid "$BIN/hull" up --data-dir "$DATA" --run-dir "$RUN" --listen "${HULL_RUN_LISTEN:-127.0.0.1:6443}" --kubeconfig "$OUT/kubeconfig" \
            --guest-kernel "$HULL_CACHE_DIR/guest/vmlinux" --guest-initramfs "$HULL_CACHE_DIR/guest/initramfs.cpio" \
            --registry-mirror docker.io=http://127.0.0.1:${HULL_REGISTRY_PORT:-5000} \
            >"$LOG" 2>&1 </dev/null &
        echo $! >"$PID_FILE"
    fi
    progress "waiting for the node" until_ready
}

until_ready() {
    local deadline=$((SECONDS + READY_TIMEOUT_S))
    until kube get --raw /readyz >/dev/null 2>&1 &&
        kube wait --for=condition=Ready node --all --timeout=1s >/dev/null 2>&1; do
        running || { tail -n 30 "$LOG" >&2; die "hull up ended; its log is $LOG"; }
        [ "$SECONDS" -lt "$deadline" ] || { tail -n 30 "$LOG" >&2; die "the node did not become ready within $READY_TIMEOUT_S s"; }
        sleep 0.5
    done
}

# Pods outlive hull: they have to be gone before it ends.
stop() {
    if running; then
        quiet "deleting the pods" kube delete "$WORKLOADS" --all -A --timeout="${DELETE_TIMEOUT_S}s" ||
            die "the pods cannot be deleted; the cluster runs on, its log is $LOG"
    fi
    progress "waiting for the pods to end" until_none_left
    if running; then
        kill "$(cat "$PID_FILE")"
        while running; do sleep 0.2; done
    fi
    rm -f "$PID_FILE"
    images/registry.sh stop
}

until_none_left() {
    local deadline=$((SECONDS + END_TIMEOUT_S)) left
    while left=$(left) && [ -n "$left" ]; do
        [ "$SECONDS" -lt "$deadline" ] || die "processes of pods are left:"$'\n'"$left"
        sleep 0.2
    done
}

# PID and name of every VMM and file server of a pod, which carry the sandbox's directory.
left() {
    local file
    for file in $(grep -lsz "^HULL_SANDBOX_DIR=$RUN/sandboxes/" /proc/[0-9]*/environ); do
        file=${file%/environ}
        ! read -r name 2>/dev/null <"$file/comm" || echo "${file#/proc/} $name"
    done
}

case ${1:-} in
start | stop | left) "$1" ;;
*) die "usage: cluster.sh start|stop|left" ;;
esac

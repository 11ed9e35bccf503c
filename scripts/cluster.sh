#!/usr/bin/env bash
# cluster.sh start|stop: the one-machine cluster of `make run`. Runs where KVM is: on
# the machine itself, or inside the testnode.
source "$(dirname "$0")/lib.sh"

# Where the kubeconfig goes: the machine's own place, or what the testnode shares with its host.
OUT=${HULL_RUN_OUT:-$HOME/.hull}
DATA=/var/lib/hull
PID_FILE=/run/hull/hull.pid
LOG=$OUT/hull.log
READY_TIMEOUT_S=$(awk "BEGIN {print int(60 * ${HULL_TIMEOUT_SCALE:-1})}")

running() { [ -f "$PID_FILE" ] && kill -0 "$(cat "$PID_FILE")" 2>/dev/null; }

start() {
    mkdir -p "$OUT" "$DATA" "$(dirname "$PID_FILE")"
    images/registry.sh start
    if ! running; then
        setsid "$BIN/hull" up --data-dir "$DATA" --listen "${HULL_RUN_LISTEN:-127.0.0.1:6443}" --kubeconfig "$OUT/kubeconfig" \
            --guest-kernel "$HULL_CACHE_DIR/guest/vmlinux" --guest-initramfs "$HULL_CACHE_DIR/guest/initramfs.cpio" \
            --registry-mirror docker.io=http://127.0.0.1:5000 \
            >"$LOG" 2>&1 </dev/null &
        echo $! >"$PID_FILE"
    fi
    local deadline=$((SECONDS + READY_TIMEOUT_S))
    until kubectl --kubeconfig "$OUT/kubeconfig" get --raw /readyz >/dev/null 2>&1 &&
        kubectl --kubeconfig "$OUT/kubeconfig" wait --for=condition=Ready node --all --timeout=1s >/dev/null 2>&1; do
        running || { tail -n 30 "$LOG" >&2; die "hull up ended; its log is $LOG"; }
        [ "$SECONDS" -lt "$deadline" ] || { tail -n 30 "$LOG" >&2; die "the node did not become ready within $READY_TIMEOUT_S s"; }
        sleep 0.5
    done
}

stop() {
    if running; then
        kill "$(cat "$PID_FILE")"
        while running; do sleep 0.2; done
    fi
    rm -f "$PID_FILE"
    images/registry.sh stop || true
}

case ${1:-} in
start | stop) "$1" ;;
*) die "usage: cluster.sh start|stop" ;;
esac

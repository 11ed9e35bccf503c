#!/usr/bin/env bash
# The part of `make bench` that needs no KVM: a control plane alone, measured beside its
# clients on the same cores.
export PROFILE=release
source "$(dirname "$0")/lib.sh"

LISTEN=127.0.0.1:16443
START_TIMEOUT_S=30
work=$(mktemp -d)
hull server --data-dir "$work/data" --run-dir "$work/run" --kubeconfig "$work/kubeconfig" \
    --listen "$LISTEN" >"$work/log" 2>&1 &
server=$!
trap 'kill "$server"; wait "$server" || true; rm -rf "$work"' EXIT
export KUBECONFIG=$work/kubeconfig
until kubectl get --raw /readyz >/dev/null 2>&1; do
    kill -0 "$server" || { cat "$work/log" >&2; die "the control plane ended"; }
    [ "$SECONDS" -lt "$START_TIMEOUT_S" ] || die "the control plane is not ready after $START_TIMEOUT_S s"
    sleep 0.1
done
hull-bench apiserver
hull-bench scheduler

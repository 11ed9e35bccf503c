#!/usr/bin/env bash
# `make stop`: ends the cluster of `make run`, its pods, and its testnode.
source "$(dirname "$0")/lib.sh"

NODE_NAME=run
KUBECONFIG_PATH=$HOME/.hull/kubeconfig
command -v hull-testnode >/dev/null || { say "nothing is built, so nothing runs"; exit 0; }

if [[ $(hull-testnode where) == testnode:* ]]; then
    hull-testnode --name "$NODE_NAME" down
else
    scripts/cluster.sh stop
fi
rm -f "$KUBECONFIG_PATH"
say "stopped"

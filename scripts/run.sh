#!/usr/bin/env bash
# `make run`: from a fresh machine to a cluster that runs the examples.
source "$(dirname "$0")/lib.sh"

API_PORT=6443
NODE_NAME=run
READY_TIMEOUT_S=5
export KUBECONFIG=$HOME/.hull/kubeconfig

stage "Debian packages and tools" scripts/deps.sh
stage "build" scripts/build.sh
say_place
stage "guest kernel and initramfs" scripts/guest.sh
stage "sample images" scripts/images.sh

mkdir -p "$(dirname "$KUBECONFIG")"
in_place() { hull-testnode --name "$NODE_NAME" exec -- "$@"; }
if [ "$PLACE" = testnode ]; then
    stage "testnode" progress "testnode" hull-testnode --name "$NODE_NAME" up --forward "$API_PORT:$API_PORT"
    start_cluster() {
        in_place env HULL_RUN_OUT=/run/hull-testnode/share HULL_RUN_LISTEN=0.0.0.0:$API_PORT "$ROOT/scripts/cluster.sh" start &&
            install -m 0600 "$HULL_CACHE_DIR/testnode/$NODE_NAME/share/kubeconfig" "$KUBECONFIG"
    }
else
    start_cluster() { in_place "$ROOT/scripts/cluster.sh" start; }
fi
# Of one that is up already only the registry is looked after: inside the testnode every
# question to the API server takes seconds.
ready() {
    [ -f "$KUBECONFIG" ] && kubectl --request-timeout="${READY_TIMEOUT_S}s" wait --for=condition=Ready node --all \
        --timeout="${READY_TIMEOUT_S}s" >/dev/null 2>&1
}
cluster() { if ready; then in_place "$ROOT/images/registry.sh" start; else start_cluster; fi; }
stage "cluster" cluster

# The scale of where the pods run.
HULL_TIMEOUT_SCALE=$(in_place printenv HULL_TIMEOUT_SCALE) || die "hull-testnode exec sets no time-out scale"
export HULL_TIMEOUT_SCALE
POD_TIMEOUT_S=$(scaled 60)
apply() { kubectl apply -f examples/nginx.yaml -f examples/deployment.yaml && progress "pods" wait_for_pods; }
wait_for_pods() {
    kubectl wait --for=condition=Ready pod/nginx --timeout="${POD_TIMEOUT_S}s" &&
        kubectl rollout status deployment/hello --timeout="${POD_TIMEOUT_S}s"
}
stage "examples" apply

print_stages
PLACE=$PLACE NODE_NAME=$NODE_NAME scripts/summary.sh

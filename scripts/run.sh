#!/usr/bin/env bash
# `make run`: from a fresh machine to a cluster that runs the examples.
source "$(dirname "$0")/lib.sh"

API_PORT=6443
POD_TIMEOUT_S=300
NODE_NAME=run
KUBECONFIG_PATH=$HOME/.hull/kubeconfig

stage "Debian packages and tools" scripts/deps.sh
stage "build" scripts/build.sh
stage "guest kernel and initramfs" scripts/guest.sh
stage "sample images" scripts/images.sh

mkdir -p "$(dirname "$KUBECONFIG_PATH")"
place=$(hull-testnode where | cut -d: -f1)
if [ "$place" = testnode ]; then
    start_cluster() {
        hull-testnode --name "$NODE_NAME" up --forward "$API_PORT:$API_PORT" &&
            in_place env HULL_RUN_OUT=/run/hull-testnode/share HULL_RUN_LISTEN=0.0.0.0:$API_PORT "$ROOT/scripts/cluster.sh" start &&
            install -m 0600 "$HULL_CACHE_DIR/testnode/$NODE_NAME/share/kubeconfig" "$KUBECONFIG_PATH"
    }
else
    start_cluster() { in_place "$ROOT/scripts/cluster.sh" start; }
fi
in_place() { hull-testnode --name "$NODE_NAME" exec -- "$@"; }

stage "cluster" start_cluster
export KUBECONFIG=$KUBECONFIG_PATH

apply() {
    kubectl apply -f examples/nginx.yaml -f examples/deployment.yaml &&
        kubectl wait --for=condition=Ready pod/nginx --timeout="${POD_TIMEOUT_S}s" &&
        kubectl rollout status deployment/hello --timeout="${POD_TIMEOUT_S}s"
}
stage "examples" apply

address=$(kubectl get pod nginx -o jsonpath='{.status.podIP}')
page=$(in_place curl -sS --max-time 60 --retry 60 --retry-delay 1 --retry-connrefused "http://$address/")
title=$(sed -n 's:.*<title>\(.*\)</title>.*:\1:p' <<<"$page")
[ -n "$title" ] || die "no page came from http://$address/: ${page:0:200}"

# seconds from creation to readiness, per pod
pod_table() {
    kubectl get pods -o jsonpath='{range .items[*]}{.metadata.name}{" "}{.status.podIP}{" "}{.metadata.creationTimestamp}{" "}{.status.conditions[?(@.type=="Ready")].lastTransitionTime}{"\n"}{end}' |
        while read -r name ip created ready; do
            printf '  %-28s %-15s %3d s\n' "$name" "$ip" "$(($(date -d "$ready" +%s) - $(date -d "$created" +%s)))"
        done
}

print_stages
cat <<EOF

Hull runs ($place).
node      $(kubectl get nodes -o jsonpath='{.items[0].metadata.name}'), kernel $(kubectl get nodes -o jsonpath='{.items[0].status.nodeInfo.kernelVersion}')
guest     kernel $(kubectl exec nginx -- uname -r) in pod nginx
page      "$title" from http://$address/
pods      name                         address         created to ready
$(pod_table)
kubeconfig  $KUBECONFIG_PATH

Try next:
  export KUBECONFIG=$KUBECONFIG_PATH
  kubectl get pods -o wide
  kubectl exec -it nginx -- sh
  kubectl scale deployment hello --replicas=1
(kubectl is $(command -v kubectl))

Stop with: make stop
EOF

#!/usr/bin/env bash
# Runs `make stop` and checks that nothing of the cluster of `make run` goes on, a DaemonSet
# among it, which makes anew the pods that are deleted. In a testnode, whose end would end
# everything, the cluster is first stopped as on hardware.
source "$(dirname "$0")/lib.sh"

NODE_NAME=run
export KUBECONFIG=$HOME/.hull/kubeconfig
cluster() {
    hull-testnode --name "$NODE_NAME" exec -- env HULL_RUN_OUT="$out" "$ROOT/scripts/cluster.sh" "$1"
}

say_place
out=$HOME/.hull
[ "$PLACE" = hardware ] || out=/run/hull-testnode/share
kubectl apply -f - <<'YAML'
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      containers: [{name: web, image: nginx}]
YAML
progress "a pod of a DaemonSet" kubectl rollout status daemonset/everywhere --timeout=300s
[ -n "$(cluster left)" ] || die "no process of a pod is seen while pods run"
[ "$PLACE" = hardware ] || cluster stop
[ "$PLACE" = testnode ] || make stop
left=$(cluster left)
[ -z "$left" ] || die "the stopped cluster left processes: $left"
! kubectl --request-timeout=5s get --raw /readyz >/dev/null 2>&1 || die "the API server answers still"
[ "$PLACE" = hardware ] || make stop
[ ! -e "$KUBECONFIG" ] || die "$KUBECONFIG is still there"
[[ $(hull-testnode status) != *"$NODE_NAME"$'\t'up* ]] || die "the testnode is still up"

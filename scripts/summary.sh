#!/usr/bin/env bash
# What `make run` prints at its end, asked of the cluster (KUBECONFIG) that runs the examples
# in NODE_NAME or on this machine (PLACE). All or nothing: an answer that does not come
# fails the run, and says which.
source "$(dirname "$0")/lib.sh"
: "${KUBECONFIG:?}" "${PLACE:?}" "${NODE_NAME:?}"

PAGE_TIMEOUT_S=$(scaled 10)

# ask WHAT COMMAND...: what the command prints, which must be something.
ask() {
    local what=$1 answer status=0
    shift
    answer=$("$@") || status=$?
    [ "$status" -eq 0 ] || die "$what cannot be told: $* ended with $status"
    [ -n "$answer" ] || die "$what cannot be told: $* printed nothing"
    printf '%s\n' "$answer"
}
# of_nodes FIELD, of_nginx FIELD
of_nodes() { kubectl get nodes -o jsonpath="{.items[0]$1}"; }
of_nginx() { kubectl get pod nginx -o jsonpath="{$1}"; }
fetch() {
    hull-testnode --name "$NODE_NAME" exec -- curl -sS --fail --max-time "$PAGE_TIMEOUT_S" --retry "$PAGE_TIMEOUT_S" \
        --retry-delay 1 --retry-max-time "$PAGE_TIMEOUT_S" --retry-connrefused "$1"
}
# Name, address, times of creation and readiness of every pod.
pods() {
    kubectl get pods -o jsonpath='{range .items[*]}{.metadata.name}{" "}{.status.podIP}{" "}{.metadata.creationTimestamp}{" "}{.status.conditions[?(@.type=="Ready")].lastTransitionTime}{"\n"}{end}'
}
# seconds from creation to readiness, per pod
table() {
    local name address created ready begun
    while read -r name address created ready; do
        [ -n "$ready" ] || die "pod $name has no address or was never ready"
        begun=$(date -d "$created" +%s) && ready=$(date -d "$ready" +%s) || die "pod $name has a malformed time"
        printf '  %-28s %-15s %3d s\n' "$name" "$address" "$((ready - begun))"
    done
}

node=$(ask "the node's name" of_nodes .metadata.name)
node_kernel=$(ask "the node's kernel" of_nodes .status.nodeInfo.kernelVersion)
guest_kernel=$(ask "the guest's kernel" kubectl exec nginx -- uname -r)
address=$(ask "the address of pod nginx" of_nginx .status.podIP)
page=$(ask "the page" progress "page" fetch "http://$address/")
title=$(sed -n 's:.*<title>\(.*\)</title>.*:\1:p' <<<"$page")
[ -n "$title" ] || die "no page came from http://$address/: ${page:0:200}"
pods=$(ask "what pods there are" pods)
table=$(table <<<"$pods")

cat <<EOF

Hull runs ($PLACE).
node      $node, kernel $node_kernel
guest     kernel $guest_kernel in pod nginx
page      "$title" from http://$address/
pods      name                         address         created to ready
$table
kubeconfig  $KUBECONFIG

Try next:
  export KUBECONFIG=$KUBECONFIG
  kubectl get pods -o wide
  kubectl exec -it nginx -- sh
  kubectl scale deployment hello --replicas=1
(kubectl is $(command -v kubectl))

Stop with: make stop
EOF

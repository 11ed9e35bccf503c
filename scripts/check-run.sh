#!/usr/bin/env bash
# Runs `make run` and checks what it promises: its summary, an API server that this machine
# reaches with the kubeconfig, and, where the cluster was there before, that a second run
# builds, boots and starts nothing anew.
source "$(dirname "$0")/lib.sh"

export KUBECONFIG=$HOME/.hull/kubeconfig
SERVER=https://127.0.0.1:6443
REQUEST_TIMEOUT_S=10

# What a second run must leave as it is: the boot of the node, the pods, the programs.
as_it_is() {
    kubectl get nodes -o jsonpath='{range .items[*]}node {.metadata.uid} boot {.status.nodeInfo.bootID}{"\n"}{end}' &&
        kubectl get pods -o jsonpath='{range .items[*]}pod {.metadata.uid} {.status.podIP} {.status.containerStatuses[*].containerID}{"\n"}{end}' &&
        stat -c 'program %n %Y' "$BIN"/hull{,-shim,-vmm,-fsd,-testnode}
}
answers() { [ -f "$KUBECONFIG" ] && kubectl --request-timeout="${REQUEST_TIMEOUT_S}s" get --raw /readyz >/dev/null 2>&1; }

output=$(mktemp)
trap 'rm -f "$output"' EXIT
before=
! answers || before=$(as_it_is)
begun=$EPOCHREALTIME
make run 2>&1 | tee "$output"
say "make run ($([ -n "$before" ] && echo again || echo first)) took $(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $begun }") s"

scripts/check-summary.sh "$output"
# Within `make test` it has been said.
said=$([ -n "${HULL_TESTNODE_SAID:-}" ] && echo 0 || echo 1)
[ "$(grep -c '^virtual machines run ' "$output")" -eq "$said" ] || die "where virtual machines run is not said in $said lines"
server=$(kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}')
[ "$server" = "$SERVER" ] || die "the kubeconfig names $server, not $SERVER"
answers || die "the API server does not answer at $SERVER"
[ -n "$before" ] || exit 0

[ "$(as_it_is)" = "$before" ] || die "the second run changed what was there: $(diff <(echo "$before") <(as_it_is))"
for word in 'pod/nginx unchanged' 'deployment.apps/hello unchanged'; do
    grep -qxF "$word" "$output" || die "the second run does not say: $word"
done
! grep -nE '^ *(Compiling|Downloading) |^installing |^fetching ' "$output" || die "the second run made again what was there"

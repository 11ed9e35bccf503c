#!/usr/bin/env bash
# check-summary.sh FILE: whether what `make run` printed holds the whole summary. Names every
# part that is missing.
set -euo pipefail

output=$1
missing=0
# has WHAT TIMES PATTERN: so many lines match.
has() {
    local found
    found=$(grep -cE "$3" "$output" || true)
    [ "$found" -eq "$2" ] || { echo "make run's summary: $1: $found lines where $2 should be" >&2; missing=1; }
}
KERNEL='kernel [0-9]+\.[0-9]+\.[0-9]+[^ ]*'
ADDRESS='[0-9]+(\.[0-9]+){3}'
has "the place" 1 '^Hull runs \((hardware|testnode)\)\.$'
has "the node and its kernel" 1 "^node +[^ ,]+, $KERNEL\$"
has "the guest's kernel" 1 "^guest +$KERNEL in pod nginx\$"
has "the page" 1 "^page +\"Welcome to nginx!\" from http://$ADDRESS/\$"
has "pod nginx with address and seconds" 1 "^ +nginx +$ADDRESS +[0-9]+ s\$"
has "three pods of hello with address and seconds" 3 "^ +hello-[^ ]+ +$ADDRESS +[0-9]+ s\$"
has "the kubeconfig" 1 "^kubeconfig +$HOME/\.hull/kubeconfig\$"
has "commands to try" 3 '^  kubectl (get|exec|scale) '
has "how to stop" 1 '^Stop with: make stop$'
# The guest's kernel is beside the node's, to be compared.
grep -A1 '^node ' "$output" | grep -q '^guest ' || { echo "make run's summary: the guest's kernel is not beside the node's" >&2; missing=1; }
has "a line per command on where it runs" 0 'running in node'
exit "$missing"

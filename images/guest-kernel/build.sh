#!/usr/bin/env bash
# Builds Hull's guest kernel from Debian's linux-source and keeps it in the cache under
# a hash of everything that it is made of.
#
#   build.sh               builds unless it is cached; prints the path of vmlinux
#   build.sh --print-path  prints the path when it is cached, else fails
#   build.sh --config      only the configuration, in seconds, unless it is cached; prints its path
#   build.sh --check FILE  fails, naming them, when options of the fragment do not hold in FILE
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${HULL_CACHE_DIR:-$HOME/.cache/hull}/guest
fail() { echo "error: $*" >&2; exit 1; }

# An option that Kconfig dropped would be missed only in a running pod: it is said here.
check() {
    local line option lacking=
    while IFS= read -r line; do
        case $line in
        '# CONFIG_'*' is not set')
            option=${line#\# } option=${option%% *}
            ! grep -q "^$option=" "$1" || lacking+=" $option (is on)" ;;
        CONFIG_*) grep -qxF -- "$line" "$1" || lacking+=" $line" ;;
        esac
    done <"$here/config.fragment"
    [ -z "$lacking" ] || fail "not in the guest kernel's configuration:$lacking"
}
# configure DIRECTORY: .config, in the source tree there.
configure() {
    cd "$1"
    make -s tinyconfig
    scripts/kconfig/merge_config.sh -m -Q .config "$here/config.fragment" >&2
    make -s olddefconfig
    check .config
}
# keep FILE PATH: into the cache, in one step.
keep() {
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2.new"
    mv "$2.new" "$2"
}

wanted=${1:-}
if [ "$wanted" = --check ]; then
    check "$2"
    exit 0
fi
source_archive=$(ls /usr/src/linux-source-6.12.tar.xz 2>/dev/null) || {
    [ "$wanted" = --print-path ] && exit 1
    fail "Debian's package linux-source-6.12 is not installed"
}
version=$(dpkg-query -W -f '${Version}' linux-source-6.12)
hash=$(cat "$here/config.fragment" "$here/build.sh" - <<<"$version" | sha256sum | cut -c1-16)
kernel=$cache/kernel-$hash/vmlinux
config=$cache/kernel-$hash/config
result=$kernel
[ "$wanted" != --config ] || result=$config

if [ -f "$result" ]; then
    echo "$result"
    exit 0
fi
[ "$wanted" != --print-path ] || exit 1

mkdir -p "$cache"
exec 9>"$cache/kernel-build.lock"
flock 9
[ -f "$result" ] && { echo "$result"; exit 0; }

work=$(mktemp -d "$cache/kernel-build.XXXXXX")
trap 'rm -rf "$work"' EXIT
unpack() { tar -C "$work" --strip-components=1 -xf "$source_archive" "$@"; }
if [ "$wanted" = --config ]; then
    # What Kconfig reads, and what it is built from.
    unpack --wildcards '*/Kconfig*' '*/Makefile*' '*/Kbuild*' '*.config' '*/scripts/*' '*/tools/build/*'
    configure "$work"
    keep .config "$config"
    echo "$config"
    exit 0
fi
echo "building the guest kernel from linux-source $version with $(nproc) jobs (about 13 minutes on 2 cores)" >&2
unpack
configure "$work"
nice make -s -j"$(nproc)" vmlinux KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=hull KBUILD_BUILD_HOST=hull >&2
strip --strip-debug vmlinux
keep .config "$config"
keep vmlinux "$kernel"
echo "$kernel"

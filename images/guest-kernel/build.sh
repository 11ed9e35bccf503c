#!/usr/bin/env bash
# Builds Hull's guest kernel from Debian's linux-source and keeps it in the cache under
# a hash of everything that it is made of.
#
#   build.sh               builds unless it is cached; prints the path of vmlinux
#   build.sh --print-path  prints the path when it is cached, else fails
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${HULL_CACHE_DIR:-$HOME/.cache/hull}/guest
source_archive=$(ls /usr/src/linux-source-6.12.tar.xz 2>/dev/null) || {
    [ "${1:-}" = --print-path ] && exit 1
    echo "error: Debian's package linux-source-6.12 is not installed" >&2
    exit 1
}
version=$(dpkg-query -W -f '${Version}' linux-source-6.12)
hash=$(cat "$here/config.fragment" "$here/build.sh" - <<<"$version" | sha256sum | cut -c1-16)
result=$cache/kernel-$hash/vmlinux

if [ -f "$result" ]; then
    echo "$result"
    exit 0
fi
[ "${1:-}" = --print-path ] && exit 1

mkdir -p "$cache"
exec 9>"$cache/kernel-build.lock"
flock 9
[ -f "$result" ] && { echo "$result"; exit 0; }

work=$(mktemp -d "$cache/kernel-build.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "building the guest kernel from linux-source $version with $(nproc) jobs (about 13 minutes on 2 cores)" >&2
tar -C "$work" --strip-components=1 -xf "$source_archive"
cd "$work"
make -s tinyconfig
scripts/kconfig/merge_config.sh -m -Q .config "$here/config.fragment" >&2
make -s olddefconfig
# An option that Kconfig dropped would be missed only in a running pod: say it now.
while IFS= read -r line; do
    case $line in
    '# CONFIG_'*' is not set') option=${line#\# } && grep -q "^${option%% *}=" .config && echo "warning: ${option%% *} is on" >&2 ;;
    CONFIG_*) grep -qxF "$line" .config || echo "warning: not in the configuration: $line" >&2 ;;
    esac
done <"$here/config.fragment"
nice make -s -j"$(nproc)" vmlinux KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=hull KBUILD_BUILD_HOST=hull >&2
strip --strip-debug vmlinux
mkdir -p "$(dirname "$result")"
cp .config "$(dirname "$result")/config"
mv vmlinux "$result"
echo "$result"

#!/usr/bin/env bash
# A QEMU for the testnode that loses no interrupts under SVM (10.2 or newer): unpacked from
# a newer Debian suite with the libraries that it needs, and not installed. The testnode
# finds it in the cache directory. Where it cannot be had, that is said once a day, and the
# testnode runs on the system's QEMU.
source "$(dirname "$0")/lib.sh"

NEEDED=10.2
SUITE=trixie-backports # and the suite that it builds on
KEYS=/usr/share/keyrings/debian-archive-keyring.gpg
place=$TOOLS/qemu
tried=$TOOLS/qemu-tried # when it could not be had

new_enough() {
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p')
    dpkg --compare-versions "${version:-0}" ge "$NEEDED"
}
archive() {
    apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | sed -n 's/^Debian //p' | head -1
}
# download DIRECTORY: the packages, into DIRECTORY/archives, with lists of their own.
download() {
    local from suite
    from=$(archive)
    [ -n "$from" ] || { apt-get -q update && from=$(archive); }
    [ -n "$from" ] || { echo "apt knows no Debian archive"; return 1; }
    mkdir -p "$1"/{lists,archives}/partial
    for suite in "${SUITE%-backports}" "$SUITE"; do
        echo "deb [signed-by=$KEYS] $from $suite main"
    done >"$1/sources.list"
    touch "$1/status"
    cat >"$1/apt.conf" <<CONF
Dir::State "$1";
Dir::State::lists "$1/lists";
Dir::State::status "$1/status";
Dir::Cache "$1";
Dir::Cache::archives "$1/archives";
Dir::Etc::sourcelist "$1/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
CONF
    APT_CONFIG=$1/apt.conf apt-get -q update &&
        APT_CONFIG=$1/apt.conf apt-get -qy install --download-only --no-install-recommends \
            -t "$SUITE" qemu-system-x86 seabios
}
# unpack DIRECTORY: the packages to DIRECTORY/root, with a program that needs no other place.
unpack() {
    local package
    mkdir "$1/root" || return
    for package in "$1"/archives/*.deb; do
        dpkg-deb -x "$package" "$1/root" || return
    done
    rm -rf "$1"/root/usr/share/{doc,man,locale}
    cat >"$1/root/qemu-system-x86_64" <<'PROGRAM'
#!/bin/bash
# The QEMU below this directory, with the libraries beside it.
usr=$(dirname "$(realpath "${BASH_SOURCE[0]}")")/usr
exec -a qemu-system-x86_64 "$usr/lib64/ld-linux-x86-64.so.2" \
    --library-path "$usr/lib/x86_64-linux-gnu" \
    "$usr/bin/qemu-system-x86_64" -L "$usr/share/qemu" -L "$usr/share/seabios" "$@"
PROGRAM
    chmod +x "$1/root/qemu-system-x86_64" && new_enough "$1/root/qemu-system-x86_64"
}

have() { new_enough qemu-system-x86_64 || new_enough "$place/qemu-system-x86_64"; }
command -v dpkg >/dev/null && ! have || exit 0
[ -z "$(find "$tried" -mtime -1 2>/dev/null)" ] || exit 0
exec 9>"$TOOLS/qemu.lock"
flock 9
! have || exit 0

work=$(mktemp -d -p "$TOOLS")
trap 'rm -rf "$work"' EXIT
say "fetching a QEMU of $SUITE for the testnode"
if ! quiet "QEMU" download "$work" || ! quiet "QEMU" unpack "$work"; then
    say "no QEMU $NEEDED from $SUITE: the testnode runs on the system's, which loses interrupts"
    touch "$tried"
    exit 0
fi
rm -rf "$place"
mv -T "$work/root" "$place"

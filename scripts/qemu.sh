#!/usr/bin/env bash
# A QEMU for the testnode that loses no interrupts under SVM (10.2 or newer): unpacked from
# a newer Debian suite with the libraries that it needs, and not installed. The testnode
# finds it in the cache directory; without it, it runs on the system's QEMU.
source "$(dirname "$0")/lib.sh"

NEEDED=10.2
SUITE=trixie-backports # and the suite that it builds on
place=$TOOLS/qemu

system=$(qemu-system-x86_64 --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p')
if dpkg --compare-versions "${system:-0}" ge "$NEEDED" || [ -x "$place/qemu-system-x86_64" ]; then
    exit 0
fi

work=$(mktemp -d -p "$TOOLS")
trap 'rm -rf "$work"' EXIT
keys=/usr/share/keyrings/debian-archive-keyring.gpg
archive=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | sed -n 's/^Debian //p' | head -1)
[ -n "$archive" ] || { say "no QEMU $NEEDED: apt knows no Debian archive; the testnode runs on QEMU ${system:-of the system}"; exit 0; }

mkdir -p "$work"/{lists,archives}/partial
for suite in "${SUITE%-backports}" "$SUITE"; do
    echo "deb [signed-by=$keys] $archive $suite main"
done >"$work/sources.list"
touch "$work/status"
cat >"$work/apt.conf" <<CONF
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
Dir::Cache::archives "$work/archives";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
CONF
fetch() {
    APT_CONFIG=$work/apt.conf apt-get -q update &&
        APT_CONFIG=$work/apt.conf apt-get -qy install --download-only --no-install-recommends \
            -t "$SUITE" qemu-system-x86 seabios
}
say "fetching a QEMU of $SUITE for the testnode"
if ! quiet fetch; then
    say "no QEMU $NEEDED from $SUITE: the testnode runs on QEMU ${system:-of the system}, which loses interrupts"
    exit 0
fi

mkdir "$work/root"
for package in "$work"/archives/*.deb; do dpkg-deb -x "$package" "$work/root"; done
rm -rf "$work"/root/usr/share/{doc,man,locale}
cat >"$work/root/qemu-system-x86_64" <<PROGRAM
#!/bin/bash
# The QEMU below this directory, with the libraries beside it.
exec -a qemu-system-x86_64 "$place/usr/lib64/ld-linux-x86-64.so.2" \\
    --library-path "$place/usr/lib/x86_64-linux-gnu" \\
    "$place/usr/bin/qemu-system-x86_64" -L "$place/usr/share/qemu" -L "$place/usr/share/seabios" "\$@"
PROGRAM
chmod +x "$work/root/qemu-system-x86_64"
"$work/root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$work/root/usr/lib/x86_64-linux-gnu" \
    "$work/root/usr/bin/qemu-system-x86_64" --version >/dev/null || die "the QEMU of $SUITE does not start"
rm -rf "$place"
mv "$work/root" "$place"

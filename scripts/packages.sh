#!/usr/bin/env bash
# Installs the Debian packages of scripts/packages.txt that are missing.
source "$(dirname "$0")/lib.sh"

# Services that Debian starts on installation, here where nothing wants them: Hull starts
# programs of its own, on the same ports.
SERVICES=(docker-registry etcd-server:etcd)
# Where an administrator's units go.
UNITS=${SYSTEMD_UNIT_DIR:-/etc/systemd/system}

packages() { sed 's/#.*//' scripts/packages.txt | xargs -n1; }
installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

missing=()
for package in $(packages); do
    installed "$package" || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
[ "$(id -u)" -eq 0 ] || die "these Debian packages are missing and only root can install them: ${missing[*]}"

# Masks (as `systemctl mask` does) the service of a package that is about to come. What the
# administrator has installed or set up stays as it is.
mask() {
    local package=${1%%:*} unit=$UNITS/${1##*:}.service
    [[ " ${missing[*]} " == *" $package "* ]] || return 0
    [ ! -e "$unit" ] && [ ! -L "$unit" ] || return 0
    mkdir -p "$UNITS"
    ln -s /dev/null "$unit"
    say "   $package: its service stays off ($unit; undo: systemctl unmask ${1##*:})"
}
for service in "${SERVICES[@]}"; do mask "$service"; done

say "installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
quiet "package lists" apt-get update
quiet "packages" apt-get install -y --no-install-recommends "${missing[@]}"

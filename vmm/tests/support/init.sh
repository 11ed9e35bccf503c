#!/bin/busybox sh
# Init of the guest in the node tests: plays the scenario of the kernel command line.
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
exec >/dev/ttyS0 2>&1 </dev/null
echo "MARK init after $(cut -d' ' -f1 /proc/uptime) s"
if [ -f /etc/hull/modules ]; then
    while read -r module; do insmod "$module"; done </etc/hull/modules
fi
scenario=$(sed 's/.*scenario=\([a-z]*\).*/\1/' /proc/cmdline)
size() { cat "/sys/block/$1/size"; }
case $scenario in
devices)
    grep -c ^processor /proc/cpuinfo | sed 's/^/MARK processors /'
    for disk in /sys/block/vd*; do
        echo "MARK ${disk##*/} $(cat "$disk/serial") $(cat "$disk/size") $(cat "$disk/ro")"
    done
    echo "MARK rng $(cat /sys/class/misc/hw_random/rng_current)"
    grep -c 'PCI-MSI.*virtio' /proc/interrupts | sed 's/^/MARK vectors /'
    poweroff -f ;;
reboot) reboot -f ;;
panic) exit 1 ;;
wait) echo MARK waiting; sleep 100000 ;;
spin) echo MARK waiting; while :; do :; done ;;
attach)
    echo "MARK empty $(size vdb)"
    while [ "$(size vdb)" = 0 ]; do usleep 10000; done
    echo "MARK size $(size vdb)"
    echo "MARK read $(dd if=/dev/vdb bs=512 count=1 2>/dev/null | head -c 20)"
    echo "written by the guest" | dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null
    echo MARK written
    while [ "$(size vdb)" != 0 ]; do usleep 10000; done
    echo MARK detached
    poweroff -f ;;
bars)
    # The device that was passed through: its BARs, and some accesses to one of them.
    device=$(grep -l "$(sed 's/.*device=\([0-9a-fx]*\).*/\1/' /proc/cmdline)" /sys/bus/pci/devices/*/device)
    device=${device%/device}
    echo "MARK device $(cat "$device/vendor") $(cat "$device/device") $(cat "$device/class")"
    cat "$device/resource" | head -6 | sed 's/^/MARK bar /'
    echo 1 >"$device/enable"
    eval "$(sed -n "s/.*access='\([^']*\)'.*/helper \1/p" /proc/cmdline | sed "s#DEVICE#$device#g")"
    echo MARK accessed
    sleep 100000 ;;
nvme)
    until [ -b /dev/nvme0n1 ]; do usleep 10000; done
    echo "MARK nvme $(cat /sys/block/nvme0n1/size)"
    mkdosfs /dev/nvme0n1 >/dev/null && echo MARK formatted
    dd if=/dev/urandom of=/random bs=64k count=64 2>/dev/null
    dd if=/random of=/dev/nvme0n1 bs=64k seek=16 conv=fsync 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/nvme0n1 bs=64k skip=16 count=64 2>/dev/null | cmp - /random && echo MARK same
    grep nvme /proc/interrupts | sed 's/^/MARK interrupts /'
    poweroff -f ;;
link)
    ip addr add 10.77.0.2/24 dev eth0
    ip link set eth0 up
    link() { cat /sys/class/net/eth0/carrier; }
    echo "MARK link $(link)"
    while [ "$(link)" = 0 ]; do usleep 10000; done
    echo "MARK link $(link)"
    while [ "$(link)" = 1 ]; do usleep 10000; done
    echo MARK link down
    sleep 100000 ;;
nic)
    insmod /module.ko
    until [ -d /sys/class/net/eth0 ]; do usleep 10000; done
    ip addr add 10.0.2.15/24 dev eth0
    ip link set eth0 up
    until [ "$(cat /sys/class/net/eth0/carrier)" = 1 ]; do usleep 10000; done
    ping -c 20 -i 0.1 -W 20 10.0.2.2 | sed 's/^/MARK /'
    echo "MARK driver $(basename "$(readlink /sys/class/net/eth0/device/driver)")"
    grep eth0 /proc/interrupts | sed 's/^/MARK interrupts /'
    poweroff -f ;;
limited)
    echo MARK started
    dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null
    echo "MARK interrupts $(awk '/virtio.*-req/ { n += $2 } END { print n + 0 }' /proc/interrupts)"
    echo MARK finished
    sleep 100000 ;;
ticks)
    tick=0
    while :; do tick=$((tick + 1)); echo "MARK tick $tick"; usleep 50000; done ;;
memory)
    dd if=/dev/zero of=/filled bs=1M count=96 2>/dev/null
    rm /filled
    blkdiscard /dev/vda && echo MARK discarded
    sleep 100000 ;;
vsock) helper ;;
net)
    ip addr add 10.77.0.2/24 dev eth0
    ip link set eth0 up
    echo "MARK mtu $(cat /sys/class/net/eth0/mtu)"
    nc -l -p 7000 >/received &
    echo MARK up
    wait
    echo "MARK received $(wc -c </received) $(md5sum </received | cut -d' ' -f1)"
    sleep 100000 ;;
esac
echo MARK end of scenario
poweroff -f

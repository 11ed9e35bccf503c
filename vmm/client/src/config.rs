//! The configuration of one virtual machine, as JSON. Every `*_fd` is the number of
//! an inherited descriptor.

use serde::{Deserialize, Serialize};

use crate::rate::RateLimits;

/// Kernel command line for a quiet and quick boot; append to it.
///
/// Console on the serial port, only errors on it; reset by the keyboard controller, which
/// needs one exit; a panic ends the guest at once; no calibration of a TSC that KVM vouches
/// for; no self tests of ciphers.
pub const BASE_COMMAND_LINE: &str = "console=ttyS0 reboot=k panic=-1 quiet tsc=reliable \
     no_timer_check 8250.nr_uarts=1 cryptomgr.notests random.trust_cpu=on";

/// One virtual machine.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// Name in logs: the sandbox id.
    pub id: String,
    /// /dev/kvm.
    pub kvm_fd: i32,
    /// Number of vCPUs, 1 to 254.
    pub vcpus: u8,
    /// Guest RAM in MiB.
    pub memory_mib: u64,
    /// What it is made of.
    #[serde(default)]
    pub memory_pages: MemoryPages,
    /// What is booted.
    pub boot: BootConfig,
    /// virtio-blk devices, in PCI slot order.
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    /// virtio-net devices.
    #[serde(default)]
    pub nets: Vec<NetConfig>,
    /// virtio-vsock.
    #[serde(default)]
    pub vsock: Option<VsockConfig>,
    /// virtio-fs.
    #[serde(default)]
    pub fs: Option<FsConfig>,
    /// Devices of the host that are passed through.
    #[serde(default)]
    pub vfio: Option<VfioConfig>,
    /// virtio-balloon: the guest gives RAM that it does not use back to the host.
    #[serde(default)]
    pub balloon: bool,
    /// File that receives everything the guest writes to its serial console.
    pub console_fd: i32,
    /// Listening unix stream socket of the control protocol ([`crate::control`]).
    pub control_fd: i32,
    /// File into which the VMM writes its [`crate::exit::ExitRecord`] as it ends.
    pub exit_fd: i32,
    /// The jail; `None` only in tests.
    #[serde(default)]
    pub jail: Option<JailConfig>,
}

/// Pages of the host that guest RAM is made of.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum MemoryPages {
    /// As the host gives them: of 4 KiB, unless its
    /// `/sys/kernel/mm/transparent_hugepage/shmem_enabled` is `always` or `within_size`.
    #[default]
    Normal,
    /// Of 2 MiB where the host has them at hand (MADV_HUGEPAGE): fewer faults, and more memory
    /// taken than touched. Counts only where `shmem_enabled` is `advise` or one of the above.
    Transparent,
    /// Of 2 MiB from the host's pool (`vm.nr_hugepages`), all taken at the start. The RAM is an
    /// even number of MiB then, and without a balloon: nothing goes back to the pool.
    Hugetlb,
}

/// Kernel, initramfs and command line.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct BootConfig {
    /// Uncompressed ELF kernel with a PVH note.
    pub kernel_fd: i32,
    /// Initramfs (cpio, may be compressed).
    #[serde(default)]
    pub initramfs_fd: Option<i32>,
    /// Kernel command line.
    pub cmdline: String,
}

/// One virtio-blk device. A device without a backing is there with capacity 0 and
/// may be given one later ([`crate::control::Request::AttachDisk`]).
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// Serial number as the guest reads it, at most 20 ASCII bytes; also the id on the control socket.
    pub serial: String,
    /// Backing file.
    #[serde(default)]
    pub fd: Option<i32>,
    /// The guest may not write.
    pub read_only: bool,
    /// How much of it the guest may use.
    #[serde(default)]
    pub limits: RateLimits,
}

/// One virtio-net device on a tap. Without one its link is down, until it is given one
/// ([`crate::control::Request::AttachNet`]).
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// Name in logs and metrics; also the id on the control socket.
    pub id: String,
    /// An attached tap descriptor (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR).
    #[serde(default)]
    pub tap_fd: Option<i32>,
    /// Guest MAC address, "aa:bb:cc:dd:ee:ff".
    pub mac: String,
    /// MTU offered to the guest (VIRTIO_NET_F_MTU), bytes.
    pub mtu: u16,
    /// Limits of what the guest receives.
    #[serde(default)]
    pub receive_limits: RateLimits,
    /// Limits of what the guest sends.
    #[serde(default)]
    pub send_limits: RateLimits,
}

/// virtio-vsock with unix sockets on the host side.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct VsockConfig {
    /// The guest's context id, 3 or more.
    pub guest_cid: u32,
    /// Listening unix stream socket: a host program connects and writes `CONNECT <port>\n`;
    /// the answer is `OK <host port>\n`, then raw bytes; a closed connection means refused.
    pub listener_fd: i32,
    /// Directory in which a connection that the guest makes to host port N is forwarded to the
    /// unix socket named `<guest_socket_prefix>_<N>`. It is the VMM's root directory once jailed.
    pub guest_socket_dir_fd: i32,
    /// See `guest_socket_dir_fd`.
    pub guest_socket_prefix: String,
}

/// One virtio-fs device. Without a socket it is there and its requests wait, until it is given
/// one ([`crate::control::Request::AttachFs`]).
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct FsConfig {
    /// What the guest mounts, at most 36 bytes.
    pub tag: String,
    /// Request queues, 1 to 16; the back end has as many.
    pub request_queues: u16,
    /// Stream socket connected to hull-fsd.
    #[serde(default)]
    pub socket_fd: Option<i32>,
}

/// Devices of the host that are passed through. All guest RAM is pinned then, so there can be
/// no balloon. [`crate::vfio::open`] opens what is needed.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct VfioConfig {
    /// /dev/vfio/vfio, opened for this VM.
    pub container_fd: i32,
    /// The groups of the devices.
    pub groups: Vec<VfioGroupConfig>,
}

/// Devices that the host's IOMMU cannot tell apart: they go to one VM together.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct VfioGroupConfig {
    /// /dev/vfio/N.
    pub fd: i32,
    /// Those of its devices that the guest gets.
    pub devices: Vec<VfioDeviceConfig>,
}

/// One device.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct VfioDeviceConfig {
    /// Name in logs and metrics.
    pub id: String,
    /// Its PCI address on the host, "0000:01:00.0".
    pub address: String,
}

/// How the VMM locks itself up before it reads anything that a guest wrote.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct JailConfig {
    /// User id that it becomes, not 0.
    pub uid: u32,
    /// Group id that it becomes, not 0.
    pub gid: u32,
    /// Seccomp filter on every thread; off only to debug.
    pub seccomp: bool,
}

impl VmConfig {
    /// Every descriptor that the VMM inherits by this configuration.
    pub fn descriptors(&self) -> Vec<i32> {
        let mut all = vec![
            self.kvm_fd,
            self.boot.kernel_fd,
            self.console_fd,
            self.control_fd,
            self.exit_fd,
        ];
        all.extend(self.boot.initramfs_fd);
        all.extend(self.disks.iter().filter_map(|disk| disk.fd));
        all.extend(self.nets.iter().filter_map(|net| net.tap_fd));
        all.extend(self.fs.as_ref().and_then(|fs| fs.socket_fd));
        if let Some(vfio) = &self.vfio {
            all.push(vfio.container_fd);
            all.extend(vfio.groups.iter().map(|group| group.fd));
        }
        if let Some(vsock) = &self.vsock {
            all.extend([vsock.listener_fd, vsock.guest_socket_dir_fd]);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_descriptor_is_listed() {
        let config: VmConfig = serde_json::from_value(serde_json::json!({
            "id": "x", "kvm_fd": 3, "vcpus": 1, "memory_mib": 64,
            "boot": {"kernel_fd": 4, "initramfs_fd": 5, "cmdline": ""},
            "disks": [{"serial": "a", "read_only": true}, {"serial": "b", "fd": 6, "read_only": true}],
            "nets": [{"id": "eth0", "tap_fd": 7, "mac": "02:00:00:00:00:01", "mtu": 1500}],
            "vsock": {"guest_cid": 3, "listener_fd": 8, "guest_socket_dir_fd": 9, "guest_socket_prefix": "v"},
            "fs": {"tag": "hull", "request_queues": 1, "socket_fd": 13},
            "vfio": {"container_fd": 14, "groups": [{"fd": 15, "devices": []}]},
            "console_fd": 10, "control_fd": 11, "exit_fd": 12
        }))
        .unwrap();
        let mut descriptors = config.descriptors();
        descriptors.sort_unstable();
        assert_eq!(descriptors, (3..=15).collect::<Vec<_>>());
    }
}

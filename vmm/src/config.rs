//! Checks of the configuration beyond its types.

use std::collections::HashSet;

use hull_vmm_client::config::{MemoryPages, VfioConfig, VmConfig};
use hull_vmm_client::vfio::is_address;

use crate::devices::fs::TAG_BYTES;
use crate::error::VmmError;
use crate::memory::HUGE_PAGE_MIB;

/// Most vCPUs: APIC ids of xAPIC without the broadcast id.
const MAX_VCPUS: u8 = 254;
/// Length of a disk's serial number.
const SERIAL_MAX_BYTES: usize = 20;
/// Least MTU of IPv4 (RFC 791), which virtio-net asks for too.
const MIN_MTU: u16 = 68;
/// Most request queues of virtio-fs: each is a thread of hull-fsd.
const MAX_REQUEST_QUEUES: u16 = 16;
/// Context ids 0 to 2 are reserved (virtio 1.2 §5.10.4).
const FIRST_GUEST_CID: u32 = 3;

/// Refuses what cannot be right, with the field's name.
pub fn check(config: &VmConfig) -> Result<(), VmmError> {
    let refuse = |message: String| Err(VmmError::Config(message));
    if config.vcpus == 0 || config.vcpus > MAX_VCPUS {
        return refuse(format!(
            "vcpus is {}; 1 to {MAX_VCPUS} are possible",
            config.vcpus
        ));
    }
    if config.memory_pages == MemoryPages::Hugetlb {
        if !config.memory_mib.is_multiple_of(HUGE_PAGE_MIB) {
            return refuse(format!(
                "memory_mib is {}; with pages of {HUGE_PAGE_MIB} MiB it is a multiple of that",
                config.memory_mib
            ));
        }
        if config.balloon {
            return refuse(
                "hugetlb and balloon do not go together: nothing goes back to the host's pool"
                    .to_owned(),
            );
        }
    }
    let mut serials = HashSet::new();
    for disk in &config.disks {
        let serial = &disk.serial;
        if serial.is_empty() || serial.len() > SERIAL_MAX_BYTES || !serial.is_ascii() {
            return refuse(format!(
                "disk serial \"{serial}\" is not 1 to {SERIAL_MAX_BYTES} ASCII bytes"
            ));
        }
        if !serials.insert(serial) {
            return refuse(format!("disk serial \"{serial}\" is used twice"));
        }
    }
    for net in &config.nets {
        if net.mtu < MIN_MTU {
            return refuse(format!(
                "MTU {} of network {} is below {MIN_MTU}",
                net.mtu, net.id
            ));
        }
    }
    if let Some(fs) = &config.fs {
        let tag = &fs.tag;
        if tag.is_empty() || tag.len() > TAG_BYTES || tag.contains('\0') {
            return refuse(format!("fs tag \"{tag}\" is not 1 to {TAG_BYTES} bytes"));
        }
        if !(1..=MAX_REQUEST_QUEUES).contains(&fs.request_queues) {
            return refuse(format!(
                "request_queues of fs is {}; 1 to {MAX_REQUEST_QUEUES} are possible",
                fs.request_queues
            ));
        }
    }
    if let Some(vfio) = &config.vfio {
        check_vfio(vfio, config.balloon)?;
    }
    if let Some(vsock) = &config.vsock {
        if vsock.guest_cid < FIRST_GUEST_CID || vsock.guest_cid == u32::MAX {
            return refuse(format!("guest_cid {} is reserved", vsock.guest_cid));
        }
        let prefix = &vsock.guest_socket_prefix;
        if prefix.is_empty() || prefix.contains(['/', '\0']) {
            return refuse(format!(
                "guest_socket_prefix \"{prefix}\" is not a file name"
            ));
        }
    }
    Ok(())
}

fn check_vfio(vfio: &VfioConfig, balloon: bool) -> Result<(), VmmError> {
    let refuse = |message: String| Err(VmmError::Config(message));
    if balloon {
        // A page that the guest gives back and takes again would be another one than the
        // one that the IOMMU has.
        return refuse("vfio and balloon do not go together: guest RAM is pinned".to_owned());
    }
    let mut seen = HashSet::new();
    for device in vfio.groups.iter().flat_map(|group| &group.devices) {
        if !is_address(&device.address) {
            return refuse(format!(
                "address \"{}\" of device {} is not of the form 0000:01:00.0",
                device.address, device.id
            ));
        }
        if !seen.insert(&device.address) {
            return refuse(format!("device {} is passed through twice", device.address));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> serde_json::Value {
        serde_json::json!({
            "id": "x", "kvm_fd": 3, "vcpus": 1, "memory_mib": 64,
            "boot": {"kernel_fd": 4, "cmdline": ""},
            "disks": [{"serial": "a", "read_only": true}, {"serial": "b", "read_only": true}],
            "nets": [{"id": "eth0", "tap_fd": 9, "mac": "02:00:00:00:00:01", "mtu": 1500}],
            "vsock": {"guest_cid": 3, "listener_fd": 5, "guest_socket_dir_fd": 6, "guest_socket_prefix": "v"},
            "fs": {"tag": "hull", "request_queues": 1},
            "console_fd": 7, "control_fd": 8, "exit_fd": 10
        })
    }

    fn outcome(change: impl FnOnce(&mut serde_json::Value)) -> Result<(), String> {
        let mut value = config();
        change(&mut value);
        let config = serde_json::from_value(value).map_err(|error| error.to_string())?;
        check(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_complete_configuration_passes() {
        assert_eq!(outcome(|_| {}), Ok(()));
    }

    #[test]
    fn memory_of_huge_pages_is_checked() {
        let with = |mib: u64, balloon: bool| {
            outcome(|config| {
                config["memory_pages"] = "hugetlb".into();
                config["memory_mib"] = mib.into();
                config["balloon"] = balloon.into();
            })
        };
        assert_eq!(with(64, false), Ok(()));
        assert!(with(65, false).unwrap_err().contains("multiple"));
        assert!(with(64, true).unwrap_err().contains("balloon"));
        let unknown = outcome(|config| config["memory_pages"] = "gigantic".into());
        assert!(unknown.unwrap_err().contains("gigantic"));
    }

    #[test]
    fn devices_that_are_passed_through_are_checked() {
        let device = |address: &str| serde_json::json!({"id": "gpu", "address": address});
        let with = |devices: Vec<serde_json::Value>, balloon: bool| {
            outcome(|config| {
                config["balloon"] = balloon.into();
                config["vfio"] = serde_json::json!({
                    "container_fd": 11, "groups": [{"fd": 12, "devices": devices}]});
            })
        };
        let good = device("0000:01:00.0");
        assert_eq!(with(vec![good.clone()], false), Ok(()));
        for (devices, balloon, message) in [
            (vec![good.clone()], true, "balloon"),
            (vec![good.clone(), good], false, "twice"),
            (vec![device("../x")], false, "not of the form"),
        ] {
            let error = with(devices, balloon).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        let cases: [(&str, serde_json::Value, &str); 10] = [
            ("/fs/tag", "".into(), "fs tag"),
            (
                "/fs/request_queues",
                17.into(),
                "request_queues of fs is 17",
            ),
            ("/vcpus", 0.into(), "vcpus is 0"),
            ("/vcpus", 255.into(), "vcpus is 255"),
            ("/disks/0/serial", "".into(), "disk serial"),
            ("/disks/0/serial", "b".into(), "used twice"),
            (
                "/disks/0/serial",
                "a-serial-of-21-bytes!".into(),
                "not 1 to 20",
            ),
            ("/nets/0/mtu", 67.into(), "MTU 67"),
            ("/vsock/guest_cid", 2.into(), "reserved"),
            (
                "/vsock/guest_socket_prefix",
                "../x".into(),
                "not a file name",
            ),
        ];
        for (path, value, message) in cases {
            let error = outcome(|config| *config.pointer_mut(path).unwrap() = value).unwrap_err();
            assert!(error.contains(message), "{path}: {error}");
        }
        let unknown = outcome(|config| config["extra"] = 1.into()).unwrap_err();
        assert!(unknown.contains("unknown field `extra`"), "{unknown}");
    }
}

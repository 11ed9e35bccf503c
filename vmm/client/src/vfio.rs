//! Opens what a VM needs to have a device of the host passed through, and says why it
//! cannot be had.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The driver that a device must be bound to.
const DRIVER: &str = "vfio-pci";
const SYSFS_DEVICES: &str = "/sys/bus/pci/devices";
const DEVICES: &str = "/dev/vfio";

/// A device of the host cannot be passed through.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not of the form "0000:01:00.0".
    #[error("\"{0}\" is not a PCI address of the form 0000:01:00.0")]
    Address(String),
    /// The host has no such device.
    #[error("The host has no PCI device {0}")]
    Missing(String),
    /// Another driver holds it, or none.
    #[error("Device {address} is bound to {}, not to {DRIVER}", driver.as_deref().unwrap_or("no driver"))]
    Driver {
        /// PCI address.
        address: String,
        /// The driver that holds it.
        driver: Option<String>,
    },
    /// It is behind no IOMMU.
    #[error("Device {0} is in no IOMMU group: the host has no IOMMU, or it is switched off")]
    NoIommu(String),
    /// The group has another owner, or VFIO is not there.
    #[error("Failed to open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// A fresh container, for one VM.
pub fn container() -> Result<OwnedFd, OpenError> {
    open_file(Path::new(DEVICES).join("vfio"))
}

/// The IOMMU group number of the device at a PCI address, which must be bound to vfio-pci.
pub fn group_of(address: &str) -> Result<u32, OpenError> {
    group_below(Path::new(SYSFS_DEVICES), address)
}

/// The group with this number. It can be open once on a host.
pub fn group(number: u32) -> Result<OwnedFd, OpenError> {
    open_file(Path::new(DEVICES).join(number.to_string()))
}

fn open_file(path: PathBuf) -> Result<OwnedFd, OpenError> {
    match File::options().read(true).write(true).open(&path) {
        Ok(file) => Ok(file.into()),
        Err(source) => Err(OpenError::Open { path, source }),
    }
}

fn group_below(devices: &Path, address: &str) -> Result<u32, OpenError> {
    if !is_address(address) {
        return Err(OpenError::Address(address.to_owned()));
    }
    let device = devices.join(address);
    if !device.exists() {
        return Err(OpenError::Missing(address.to_owned()));
    }
    let link = |name: &str| {
        let target = std::fs::read_link(device.join(name)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    // Without an IOMMU the driver does not even take the device: that is told first.
    let group = link("iommu_group").and_then(|name| name.parse().ok());
    let group = group.ok_or_else(|| OpenError::NoIommu(address.to_owned()))?;
    let driver = link("driver");
    if driver.as_deref() != Some(DRIVER) {
        return Err(OpenError::Driver {
            address: address.to_owned(),
            driver,
        });
    }
    Ok(group)
}

/// Whether a text is a PCI address: domain, bus, device, function.
pub fn is_address(text: &str) -> bool {
    let Some((rest, function)) = text.rsplit_once('.') else {
        return false;
    };
    let parts: Vec<&str> = rest.split(':').collect();
    let hexadecimal = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    matches!(parts[..], [domain, bus, device]
        if hexadecimal(domain, 4) && hexadecimal(bus, 2) && hexadecimal(device, 2))
        && matches!(function.as_bytes(), [b'0'..=b'7'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn addresses_are_told_from_paths() {
        assert!(is_address("0000:01:00.0"));
        for text in [
            "",
            "01:00.0",
            "0000:01:00.8",
            "0000:01:00.0/..",
            "../00:01:00.0",
        ] {
            assert!(!is_address(text), "{text}");
        }
    }

    #[test]
    fn each_obstacle_is_named() {
        let address = "0000:01:00.0";
        let directory = std::env::temp_dir().join(format!("hull-vfio-{}", std::process::id()));
        let device = directory.join(address);
        let why = || group_below(&directory, address).unwrap_err().to_string();
        assert!(why().contains("no PCI device 0000:01:00.0"));
        std::fs::create_dir_all(&device).unwrap();
        assert!(why().contains("no IOMMU group"));
        symlink(
            "../../../../kernel/iommu_groups/6",
            device.join("iommu_group"),
        )
        .unwrap();
        assert!(why().contains("bound to no driver, not to vfio-pci"));
        symlink("../../../../bus/pci/drivers/nvme", device.join("driver")).unwrap();
        assert!(why().contains("bound to nvme, not to vfio-pci"));
        std::fs::remove_file(device.join("driver")).unwrap();
        symlink("../drivers/vfio-pci", device.join("driver")).unwrap();
        assert_eq!(group_below(&directory, address).unwrap(), 6);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

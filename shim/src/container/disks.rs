//! Which image is on which disk slot. Containers of a pod that use the same image
//! share its slot.

use crate::error::Error;
use crate::journal::SlotRecord;
use crate::sandbox::object::{Live, Sandbox};
use crate::vmm::process::slot_serial;
use hull_image::Image;
use std::collections::BTreeSet;
use std::fs::File;

/// Puts the image on a slot for the container. The sandbox's operation lock is held.
pub async fn attach(
    sandbox: &Sandbox,
    live: &Live,
    image: &Image,
    container_id: &str,
    slot_count: u8,
) -> Result<String, Error> {
    let slots = sandbox.record().slots;
    if let Some((serial, _)) = slots.iter().find(|(_, slot)| slot.image_id == image.id) {
        let serial = serial.clone();
        sandbox.update(|record| {
            if let Some(slot) = record.slots.get_mut(&serial) {
                slot.containers.insert(container_id.to_string());
            }
        })?;
        return Ok(serial);
    }
    let serial = (0..slot_count)
        .map(slot_serial)
        .find(|serial| !slots.contains_key(serial))
        .ok_or_else(|| {
            Error::Exhausted(format!(
                "all {slot_count} disk slots of sandbox {} hold other images: a pod may use \
                 {slot_count} different images at a time (vmm.disk_slots)",
                sandbox.id
            ))
        })?;
    let file = File::open(&image.erofs_path)
        .map_err(Error::io(format!("opening {}", image.erofs_path.display())))?;
    // Written first: a slot that is noted and empty is harmless, one that is full and
    // not noted would be given away twice.
    let slot = SlotRecord {
        image_id: image.id.clone(),
        containers: BTreeSet::from([container_id.to_string()]),
    };
    sandbox.update(|record| record.slots.insert(serial.clone(), slot))?;
    if let Err(error) = live.vm.attach_disk(&serial, file).await {
        sandbox.update(|record| record.slots.remove(&serial))?;
        return Err(error.into());
    }
    Ok(serial)
}

/// Takes the container off its slot, and the image off it with the last one.
pub async fn detach(
    sandbox: &Sandbox,
    live: Option<&Live>,
    serial: &str,
    container_id: &str,
) -> Result<(), Error> {
    let last = sandbox.update(|record| {
        let slot = record.slots.get_mut(serial)?;
        slot.containers.remove(container_id);
        Some(slot.containers.is_empty())
    })?;
    if last == Some(true) {
        if let Some(live) = live {
            live.vm.detach_disk(serial).await?;
        }
        sandbox.update(|record| record.slots.remove(serial))?;
    }
    Ok(())
}

//! Image garbage collection: when the images' filesystem is nearly full, images that no container
//! uses are removed, those that were used longest ago first.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hull_cri_api::v1 as cri;
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::context::NodeContext;
use crate::cri::CriError;
use crate::events::EventType;
use crate::stats::node_usage::Filesystem;

/// When unused images are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageGcConfig {
    /// Use of the filesystem, percent, from which images are removed.
    pub high_percent: u64,
    /// Use, percent, at which removal stops.
    pub low_percent: u64,
    /// An image that was first seen less long ago stays.
    pub min_age: Duration,
}

impl Default for ImageGcConfig {
    fn default() -> Self {
        ImageGcConfig {
            high_percent: 85,
            low_percent: 80,
            min_age: Duration::from_secs(120),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    first: Instant,
    /// The last look at which a container used it; the first look for one that was never used.
    used: Instant,
}

/// What is known of the node's images.
#[derive(Default)]
pub(crate) struct ImageRecords {
    seen: Mutex<BTreeMap<String, Seen>>,
}

impl ImageRecords {
    /// Notes what is there and in use; the ids that may go, least recently used first.
    fn note(
        &self,
        images: &[cri::Image],
        used: &HashSet<String>,
        min_age: Duration,
        now: Instant,
    ) -> Vec<String> {
        let mut seen = self.seen.lock();
        seen.retain(|id, _| images.iter().any(|image| image.id == *id));
        let mut unused = Vec::new();
        for image in images {
            let record = seen.entry(image.id.clone()).or_insert(Seen {
                first: now,
                used: now,
            });
            if image.pinned || is_used(image, used) {
                record.used = now;
            } else if now.duration_since(record.first) >= min_age {
                unused.push((record.used, record.first, image.id.clone()));
            }
        }
        unused.sort();
        unused.into_iter().map(|(_, _, id)| id).collect()
    }
}

/// Containers name images by id, by digest or as the user did.
fn is_used(image: &cri::Image, used: &HashSet<String>) -> bool {
    let names = image.repo_tags.iter().chain(&image.repo_digests);
    std::iter::once(&image.id)
        .chain(names)
        .any(|name| used.contains(name))
}

/// Bytes to free so that use falls below `low`, when it is at `high` or above.
fn excess(found: Filesystem, config: ImageGcConfig) -> u64 {
    let used = found.capacity_bytes.saturating_sub(found.available_bytes);
    let share = |percent: u64| found.capacity_bytes / 100 * percent;
    if found.capacity_bytes == 0 || used < share(config.high_percent) {
        return 0;
    }
    used.saturating_sub(share(config.low_percent))
}

/// Looks at an interval until cancelled.
pub(crate) async fn run(node: Arc<NodeContext>, shutdown: CancellationToken) {
    let interval = node.config.timings.image_gc_interval;
    loop {
        match collect(&node, false).await {
            Ok(found) if found.freed < found.wanted => {
                let message = format!(
                    "Failed to garbage collect required amount of images. Attempted to free {} bytes, but only found {} bytes eligible to free.",
                    found.wanted, found.freed
                );
                let about = about(&node);
                node.recorder
                    .record(about, EventType::Warning, "FreeDiskSpaceFailed", message);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "images not looked at, trying again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// The node, for events.
pub(crate) fn about(node: &NodeContext) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(node.config.node_name.clone()),
        uid: Some(node.config.node_name.clone()),
        ..Default::default()
    }
}

/// What one collection was to free and freed, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Collected {
    pub wanted: u64,
    pub freed: u64,
}

/// Removes unused images: every one with `all`, otherwise as many as the thresholds ask for.
pub(crate) async fn collect(node: &NodeContext, all: bool) -> Result<Collected, CriError> {
    let config = node.config.image_gc;
    let images = node.cri.list_images().await?;
    let used = node.cri.used_images().await?;
    let min_age = if all { Duration::ZERO } else { config.min_age };
    let now = Instant::now();
    let unused = node.images.note(&images, &used, min_age, now);
    let wanted = if all {
        u64::MAX
    } else {
        let place = node.cri.image_filesystem().await?.and_then(|u| u.fs_id);
        let found = place.and_then(|id| Filesystem::of(Path::new(&id.mountpoint)));
        found.map_or(0, |found| excess(found, config))
    };
    let mut freed = 0u64;
    for id in unused {
        if freed >= wanted {
            break;
        }
        let size = images.iter().find(|image| image.id == id);
        match node.cri.remove_image(&id).await {
            Ok(()) => {
                freed = freed.saturating_add(size.map_or(0, |image| image.size));
                tracing::info!(image = id, "unused image removed");
            }
            Err(error) => tracing::warn!(image = id, %error, "image not removed"),
        }
    }
    Ok(Collected { wanted, freed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tag: &str) -> cri::Image {
        cri::Image {
            id: id.into(),
            repo_tags: vec![tag.into()],
            ..Default::default()
        }
    }

    #[test]
    fn images_go_by_their_last_use_and_used_or_young_ones_stay() {
        let records = ImageRecords::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let age = Duration::from_secs(60);
        let mut images = vec![image("a", "a:1"), image("b", "b:1"), image("c", "c:1")];
        let used = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let look = |images: &[cri::Image], names: &[&str], second| {
            records.note(images, &used(names), age, at(second))
        };
        assert!(look(&images, &["a:1", "b"], 0).is_empty());
        assert_eq!(look(&images, &["a:1"], 60), ["b", "c"]);
        images.push(image("d", "d:1"));
        images[2].pinned = true;
        assert_eq!(look(&images, &[], 100), ["b", "a"]);
    }

    #[test]
    fn nothing_is_freed_below_the_high_threshold() {
        let of = |available| Filesystem {
            capacity_bytes: 1000,
            available_bytes: available,
            ..Default::default()
        };
        let config = ImageGcConfig::default();
        assert_eq!(excess(of(151), config), 0);
        assert_eq!(excess(of(150), config), 50);
        assert_eq!(excess(of(0), config), 200);
    }
}

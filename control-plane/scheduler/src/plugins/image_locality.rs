//! ImageLocality: nodes that have the pod's images are better, the larger the images and the more
//! nodes have them (so that one node with an image does not draw all pods).

use crate::{
    cache::{Cache, NodeInfo},
    framework::{CycleState, MAX_SCORE, Plugin, Score},
    pod::PodInfo,
};

/// See the module.
pub struct ImageLocality;

/// Images of less than this in all count for nothing, in bytes.
const MIN_BYTES: i64 = 23 << 20;
/// Images of more than this per container count no more, in bytes.
const MAX_BYTES_PER_CONTAINER: i64 = 1000 << 20;

/// The bytes that each image of the pod is worth: its size times the share of nodes with it is
/// worked out per node; this keeps the share.
struct Images(Vec<(String, f64)>);

/// The name with the tag that an image without one has.
pub(crate) fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }
}

impl Score for ImageLocality {
    fn weight(&self) -> i64 {
        1
    }

    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, cache: &Cache, _: &[usize]) {
        let nodes = cache.node_count().max(1) as f64;
        let spec = pod.spec();
        let containers = spec.containers.iter();
        let images = containers
            .chain(spec.init_containers.iter().flatten())
            .filter_map(|container| {
                let image = normalized(container.image.as_deref()?);
                let share = cache.nodes_with_image(&image) as f64 / nodes;
                Some((image, share))
            });
        state.put(Images(images.collect()));
    }

    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(Images(images)) = state.get() else {
            return 0;
        };
        let sum: f64 = images
            .iter()
            .filter_map(|(image, share)| Some(*node.images.get(image)? as f64 * share))
            .sum();
        let most = MAX_BYTES_PER_CONTAINER * i64::try_from(images.len()).unwrap_or(1).max(1);
        let bytes = (sum as i64).clamp(MIN_BYTES, most);
        MAX_SCORE * (bytes - MIN_BYTES) / (most - MIN_BYTES)
    }
}

//! How large each set should be. Pure arithmetic.

use std::{cmp::Reverse, sync::Arc};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::{annotations, bounds, is_recreate, size, wanted};

/// The new set's next size, when it has `own` of `all` pods.
pub(super) fn new_set_size(deployment: &Deployment, own: i32, all: i32) -> i32 {
    let wanted = wanted(deployment);
    if is_recreate(deployment) {
        return wanted;
    }
    let max_total = wanted + bounds(deployment).surge;
    if all >= max_total {
        return own;
    }
    own + (max_total - all).min(wanted - own)
}

/// Sizes of all `active` sets after the deployment was scaled in the middle of a rollout: each
/// keeps its share; what rounding leaves goes to the largest.
pub(super) fn proportional(
    deployment: &Deployment,
    active: &[Arc<ReplicaSet>],
) -> Vec<(Arc<ReplicaSet>, i32)> {
    let wanted = wanted(deployment);
    let allowed = if wanted > 0 {
        wanted + bounds(deployment).surge
    } else {
        0
    };
    let to_add = allowed - active.iter().map(|set| size(set)).sum::<i32>();
    let mut sets = active.to_vec();
    let created = |set: &ReplicaSet| {
        set.metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0.as_millisecond())
    };
    // Growth favours newer sets among equals, shrinking takes from older ones first.
    if to_add > 0 {
        sets.sort_by_key(|set| (Reverse(size(set)), Reverse(created(set))));
    } else {
        sets.sort_by_key(|set| (Reverse(size(set)), created(set)));
    }
    let mut added = 0;
    let mut sizes: Vec<(Arc<ReplicaSet>, i32)> = Vec::with_capacity(sets.len());
    for set in sets {
        let own = size(&set);
        let share = if to_add == 0 {
            0
        } else {
            share(deployment, &set, to_add - added, to_add)
        };
        added += share;
        sizes.push((set, own + share));
    }
    if let Some((_, first)) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

fn share(deployment: &Deployment, set: &ReplicaSet, left: i32, to_add: i32) -> i32 {
    let own = size(set);
    if own == 0 || left == 0 {
        return 0;
    }
    let wanted = wanted(deployment);
    let fraction = if wanted == 0 {
        -own
    } else {
        let max_now = wanted + bounds(deployment).surge;
        let max_before = annotations::max(set)
            .filter(|max| *max > 0)
            .unwrap_or_else(|| {
                deployment
                    .status
                    .as_ref()
                    .and_then(|status| status.replicas)
                    .unwrap_or(0)
            });
        let max_before = if max_before > 0 { max_before } else { max_now };
        let scaled = f64::from(own) * f64::from(max_now) / f64::from(max_before);
        scaled.round() as i32 - own
    };
    if to_add > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

//! SchedulingGates: a pod with gates waits until somebody has lifted them all.

use crate::{
    framework::{Plugin, PreEnqueue, Rejection},
    pod::PodInfo,
};

/// See the module.
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        let gates: Vec<&str> = pod
            .spec()
            .scheduling_gates
            .iter()
            .flatten()
            .map(|gate| gate.name.as_str())
            .collect();
        if gates.is_empty() {
            return Ok(());
        }
        Err(Rejection::for_good(format!(
            "waiting for scheduling gates: [{}]",
            gates.join(" ")
        )))
    }
}

//! The conditions of an autoscaler.

use k8s_openapi::{
    api::autoscaling::v2::{HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

/// The target's scale can be read and written.
pub(super) const ABLE_TO_SCALE: &str = "AbleToScale";
/// The metrics say how many replicas there should be.
pub(super) const SCALING_ACTIVE: &str = "ScalingActive";
/// What the metrics ask for is not allowed.
pub(super) const SCALING_LIMITED: &str = "ScalingLimited";

/// Sets a condition; its time changes with its state only.
pub(super) fn set(
    status: &mut HorizontalPodAutoscalerStatus,
    kind: &str,
    holds: bool,
    reason: &str,
    message: impl Into<String>,
) {
    let conditions = status.conditions.get_or_insert_default();
    let state = if holds { "True" } else { "False" };
    let index = conditions.iter().position(|own| own.type_ == kind);
    let since = index
        .and_then(|index| conditions.get(index))
        .filter(|own| own.status == state)
        .and_then(|own| own.last_transition_time.clone());
    let condition = HorizontalPodAutoscalerCondition {
        type_: kind.into(),
        status: state.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(since.unwrap_or(Time(Timestamp::now()))),
    };
    match index.and_then(|index| conditions.get_mut(index)) {
        Some(own) => *own = condition,
        None => conditions.push(condition),
    }
}

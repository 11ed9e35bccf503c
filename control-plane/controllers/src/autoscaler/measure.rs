//! One metric of `spec.metrics`: how many replicas it asks for, and its entry in the status.

use std::sync::Arc;

use hull_api::quantity::Quantity;
use k8s_openapi::{
    api::{
        autoscaling::v2::{
            ContainerResourceMetricStatus, MetricSpec, MetricStatus, MetricTarget,
            MetricValueStatus, ResourceMetricStatus,
        },
        core::v1::Pod,
    },
    apimachinery::pkg::api::resource::Quantity as QuantityText,
    jiff::Timestamp,
};

use super::{
    behavior::Behavior,
    replicas::{Aim, Proposal, propose},
    usage::{self, Wanted},
};
use crate::runtime::Writer;

/// Why a metric says nothing; `reason` is for conditions and events.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Unmeasured {
    pub reason: &'static str,
    pub message: String,
}

fn unmeasured(reason: &'static str, message: impl Into<String>) -> Unmeasured {
    Unmeasured {
        reason,
        message: message.into(),
    }
}

/// What a metric asks for.
pub(super) struct Asked {
    pub replicas: i32,
    /// How the metric is called in events.
    pub name: String,
    pub status: MetricStatus,
}

/// Whose metric it is.
pub(super) struct Subject<'a> {
    pub writer: &'a dyn Writer,
    pub namespace: &'a str,
    pub pods: &'a [Arc<Pod>],
    pub current: i32,
    pub behavior: &'a Behavior,
}

fn aim(target: &MetricTarget) -> Option<Aim> {
    if let Some(value) = &target.average_value {
        let milli = value.0.parse::<Quantity>().ok()?.milli_value();
        return (milli > 0).then_some(Aim::AverageMilli(milli));
    }
    target
        .average_utilization
        .filter(|percent| *percent > 0)
        .map(Aim::Utilization)
}

fn text(milli: i64, resource: &str) -> QuantityText {
    match resource {
        "cpu" if milli % 1000 != 0 => QuantityText(format!("{milli}m")),
        _ => QuantityText((milli / 1000).to_string()),
    }
}

fn value_status(proposal: &Proposal, resource: &str) -> MetricValueStatus {
    MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(text(proposal.average_milli, resource)),
        value: None,
    }
}

/// What a metric asks for; its own part of the status is still to come.
fn asked(metric: &MetricSpec, proposal: &Proposal, name: String) -> Asked {
    Asked {
        replicas: proposal.replicas,
        name,
        status: MetricStatus {
            type_: metric.type_.clone(),
            ..MetricStatus::default()
        },
    }
}

impl Subject<'_> {
    async fn proposal(
        &self,
        wanted: Wanted<'_>,
        target: &MetricTarget,
        reason: &'static str,
    ) -> Result<(Proposal, &'static str), Unmeasured> {
        let resource = wanted.resource;
        let Some(aim) = aim(target) else {
            return Err(unmeasured(
                reason,
                "invalid resource metric source: neither an average utilization target nor an average value (usage) target was set",
            ));
        };
        let (failed, suffix) = match aim {
            Aim::Utilization(_) => (
                format!("failed to get {resource} utilization"),
                " utilization (percentage of request)",
            ),
            Aim::AverageMilli(_) => (format!("failed to get {resource} usage"), ""),
        };
        let usage = usage::read(self.writer, self.namespace, wanted).await;
        let usage = usage.map_err(|error| {
            unmeasured(
                reason,
                format!(
                    "{failed}: unable to get metrics for resource {resource}: unable to fetch metrics from resource metrics API: {}",
                    error.message()
                ),
            )
        })?;
        let now = Timestamp::now();
        propose(
            self.pods,
            &usage,
            wanted,
            aim,
            self.current,
            self.behavior,
            now,
        )
        .map(|proposal| (proposal, suffix))
        .map_err(|problem| unmeasured(reason, format!("{failed}: {problem}")))
    }

    /// Measures.
    pub(super) async fn ask(&self, metric: &MetricSpec) -> Result<Asked, Unmeasured> {
        match (
            metric.type_.as_str(),
            &metric.resource,
            &metric.container_resource,
        ) {
            ("Resource", Some(source), _) => {
                let wanted = Wanted {
                    resource: &source.name,
                    container: None,
                };
                let found = self.proposal(wanted, &source.target, "FailedGetResourceMetric");
                let (proposal, suffix) = found.await?;
                let name = format!("{} resource{suffix}", source.name);
                let mut asked = asked(metric, &proposal, name);
                asked.status.resource = Some(ResourceMetricStatus {
                    name: source.name.clone(),
                    current: value_status(&proposal, &source.name),
                });
                Ok(asked)
            }
            ("ContainerResource", _, Some(source)) => {
                let wanted = Wanted {
                    resource: &source.name,
                    container: Some(&source.container),
                };
                let reason = "FailedGetContainerResourceMetric";
                let (proposal, suffix) = self.proposal(wanted, &source.target, reason).await?;
                let name = format!("{} container resource{suffix}", source.name);
                let mut asked = asked(metric, &proposal, name);
                asked.status.container_resource = Some(ContainerResourceMetricStatus {
                    name: source.name.clone(),
                    container: source.container.clone(),
                    current: value_status(&proposal, &source.name),
                });
                Ok(asked)
            }
            ("Pods", ..) => Err(unserved("FailedGetPodsMetric", "custom")),
            ("Object", ..) => Err(unserved("FailedGetObjectMetric", "custom")),
            ("External", ..) => Err(unserved("FailedGetExternalMetric", "external")),
            (other, ..) => Err(unmeasured(
                "InvalidMetricSourceType",
                format!("unknown metric source type \"{other}\""),
            )),
        }
    }
}

fn unserved(reason: &'static str, api: &str) -> Unmeasured {
    unmeasured(
        reason,
        format!(
            "unable to fetch metrics from {api} metrics API: no {api} metrics API ({api}.metrics.k8s.io) registered"
        ),
    )
}

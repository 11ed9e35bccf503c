//! UpdateContainerResources: other limits for a container, now and from its next start.

use super::object::Container;
use super::spec;
use super::state::ContainerState;
use crate::error::Error;
use crate::shim::Shim;
use hull_agent_protocol::v1 as agent;
use hull_cri_api::v1::LinuxContainerResources;
use std::collections::HashMap;

/// Changes the limits of the container: in its guest, if it runs, and in its record.
pub async fn resources(
    shim: &Shim,
    container: &Container,
    wanted: LinuxContainerResources,
    annotations: HashMap<String, String>,
) -> Result<(), Error> {
    let _operation = container.operation.lock().await;
    let record = container.record();
    if !matches!(
        record.state,
        ContainerState::Created | ContainerState::Running
    ) {
        return Err(Error::FailedPrecondition(format!(
            "container {} is in state {:?}: its resources cannot be updated",
            container.id, record.state
        )));
    }
    let linux = record.config.linux.unwrap_or_default();
    let merged = merge(linux.resources.unwrap_or_default(), &wanted);
    if record.state == ContainerState::Running {
        let live = shim.sandbox_of(&container.sandbox_id)?.require_live()?;
        let json = serde_json::to_vec(&spec::resources(&wanted))
            .map_err(|error| Error::io("encoding resources")(error.into()))?;
        live.guest
            .update_container(agent::UpdateContainerRequest {
                container_id: container.id.clone(),
                resources_json: json,
            })
            .await?;
    }
    container.update(|record| {
        let mut resources = spec::resources(&merged);
        resources["devices"] = record.spec["linux"]["resources"]["devices"].take();
        record.spec["linux"]["resources"] = resources;
        record.config.linux.get_or_insert_default().resources = Some(merged);
        record.config.annotations.extend(annotations);
    })?;
    tracing::info!(
        sandbox_id = container.sandbox_id,
        container_id = container.id,
        ?wanted,
        "container resources updated"
    );
    Ok(())
}

/// What is not named (0, empty) stays.
fn merge(
    current: LinuxContainerResources,
    wanted: &LinuxContainerResources,
) -> LinuxContainerResources {
    let number = |wanted: i64, current: i64| if wanted != 0 { wanted } else { current };
    let text = |wanted: &String, current: String| {
        if wanted.is_empty() {
            current
        } else {
            wanted.clone()
        }
    };
    let mut unified = current.unified;
    unified.extend(wanted.unified.clone());
    LinuxContainerResources {
        cpu_period: number(wanted.cpu_period, current.cpu_period),
        cpu_quota: number(wanted.cpu_quota, current.cpu_quota),
        cpu_shares: number(wanted.cpu_shares, current.cpu_shares),
        memory_limit_in_bytes: number(wanted.memory_limit_in_bytes, current.memory_limit_in_bytes),
        oom_score_adj: number(wanted.oom_score_adj, current.oom_score_adj),
        cpuset_cpus: text(&wanted.cpuset_cpus, current.cpuset_cpus),
        cpuset_mems: text(&wanted.cpuset_mems, current.cpuset_mems),
        hugepage_limits: if wanted.hugepage_limits.is_empty() {
            current.hugepage_limits
        } else {
            wanted.hugepage_limits.clone()
        },
        unified,
        memory_swap_limit_in_bytes: number(
            wanted.memory_swap_limit_in_bytes,
            current.memory_swap_limit_in_bytes,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let current = LinuxContainerResources {
            cpu_shares: 512,
            memory_limit_in_bytes: 100,
            unified: HashMap::from([("pids.max".into(), "5".into())]),
            ..Default::default()
        };
        let wanted = LinuxContainerResources {
            memory_limit_in_bytes: 200,
            unified: HashMap::from([("memory.low".into(), "1".into())]),
            ..Default::default()
        };
        let merged = merge(current, &wanted);
        assert_eq!(
            (merged.cpu_shares, merged.memory_limit_in_bytes),
            (512, 200)
        );
        assert_eq!(merged.unified.len(), 2);
    }
}

//! Version, Status, RuntimeConfig.

use crate::shim::Shim;
use hull_cri_api::v1::*;
use std::collections::HashMap;

/// Version of the kubelet's runtime API that Version answers with.
const KUBE_API_VERSION: &str = "0.1.0";

pub fn version() -> VersionResponse {
    VersionResponse {
        version: KUBE_API_VERSION.to_string(),
        runtime_name: "hull".to_string(),
        runtime_version: env!("CARGO_PKG_VERSION").to_string(),
        runtime_api_version: "v1".to_string(),
    }
}

fn condition(kind: &str, problem: Option<(&str, String)>) -> RuntimeCondition {
    let (reason, message) = problem.clone().unwrap_or_default();
    RuntimeCondition {
        r#type: kind.to_string(),
        status: problem.is_none(),
        reason: reason.to_string(),
        message,
    }
}

pub fn status(shim: &Shim, request: StatusRequest) -> StatusResponse {
    let network = shim.network.ready();
    let network_problem = network
        .as_ref()
        .err()
        .map(|error| ("NetworkPluginNotReady", error.to_string()));
    let mut info = HashMap::new();
    if request.verbose {
        let text = serde_json::json!({
            "config": shim.config,
            "network": network.as_ref().ok(),
            "sandboxes": shim.registry.sandboxes().len(),
            "containers": shim.registry.containers().len(),
        });
        info.insert("info".to_string(), text.to_string());
    }
    StatusResponse {
        status: Some(RuntimeStatus {
            conditions: vec![
                condition("RuntimeReady", runtime_problem(shim)),
                condition("NetworkReady", network_problem),
            ],
        }),
        info,
        runtime_handlers: ["", "microvm"]
            .map(|name| RuntimeHandler {
                name: name.to_string(),
                features: Some(RuntimeHandlerFeatures {
                    // Nothing is ever mounted inside the volumes that a guest has.
                    recursive_read_only_mounts: true,
                    user_namespaces: false,
                }),
            })
            .to_vec(),
        features: Some(RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
        }),
    }
}

/// What keeps every sandbox from starting.
fn runtime_problem(shim: &Shim) -> Option<(&'static str, String)> {
    let vmm = &shim.config.vmm;
    let needed = [
        ("KVMMissing", "/dev/kvm".into()),
        ("VMMMissing", shim.config.vmm_program()),
        ("GuestKernelMissing", vmm.kernel.clone()),
        ("GuestInitramfsMissing", vmm.initramfs.clone()),
    ];
    needed
        .into_iter()
        .find(|(_, path)| !path.exists())
        .map(|(reason, path)| (reason, format!("{} does not exist", path.display())))
}

pub fn runtime_config() -> RuntimeConfigResponse {
    RuntimeConfigResponse {
        linux: Some(LinuxRuntimeConfiguration {
            cgroup_driver: CgroupDriver::Cgroupfs as i32,
        }),
    }
}

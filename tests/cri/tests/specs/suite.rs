//! What the specs share: a shim, and pods that are made when the first spec needs them.

use crate::support::{Node, Settings, patience};
use hull_cri_api::v1::*;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Slots of each VM: the specs use two images at a time at most.
const DISK_SLOTS: u8 = 2;

pub struct Suite {
    pub node: Node,
    pods: HashMap<&'static str, String>,
    number: u32,
}

pub fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default()
}

pub fn resources(config: &mut ContainerConfig) -> &mut LinuxContainerResources {
    let linux = config.linux.get_or_insert_default();
    linux.resources.get_or_insert_default()
}

/// Runs until its output has been taken.
pub const FOREVER: &[&str] = &["sleep", "100000"];

impl Suite {
    pub async fn start() -> Suite {
        let settings = Settings {
            disk_slots: Some(DISK_SLOTS),
            ..Default::default()
        };
        let mut node = Node::start_with(settings).await;
        node.pull("busybox").await;
        Suite {
            node,
            pods: HashMap::new(),
            number: 0,
        }
    }

    /// Removes the pods; nothing may be left.
    pub async fn finish(mut self) {
        for (_, id) in self.pods.drain() {
            self.node.stop_pod(&id).await;
            self.node.remove_pod(&id).await;
        }
        assert_eq!(self.node.leftovers(), Vec::<String>::new());
    }

    /// The pod of most specs.
    pub async fn pod(&mut self) -> String {
        let config = self.node.pod("shared");
        self.pod_of("shared", config).await
    }

    /// A pod with everything that can be said about a pod.
    pub async fn configured_pod(&mut self) -> String {
        let mut config = self.node.pod("configured");
        config.hostname = "conformance".into();
        config.dns_config = Some(DnsConfig {
            servers: vec!["10.10.10.10".into()],
            searches: vec!["google.com".into()],
            options: vec!["ndots:8".into()],
        });
        config.port_mappings = vec![PortMapping {
            container_port: 8081,
            ..Default::default()
        }];
        let sysctls = [
            ("kernel.shm_rmid_forced", "1"),
            ("net.ipv4.ip_local_port_range", "1024 65000"),
            ("fs.mqueue.msg_max", "100"),
        ];
        config.linux = Some(LinuxPodSandboxConfig {
            sysctls: sysctls
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .into(),
            ..Default::default()
        });
        config.annotations = [
            ("hull.dev/shm-size", "1048576"),
            ("hull.dev/empty-dir-medium.limited", "Memory"),
            ("hull.dev/empty-dir-size-limit.limited", "2097152"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into();
        self.pod_of("configured", config).await
    }

    async fn pod_of(&mut self, name: &'static str, config: PodSandboxConfig) -> String {
        if let Some(id) = self.pods.get(name) {
            return id.clone();
        }
        let id = self.run_pod(config).await.unwrap();
        self.pods.insert(name, id.clone());
        id
    }

    pub async fn run_pod(&mut self, config: PodSandboxConfig) -> Result<String, tonic::Status> {
        let request = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        let answer = self.node.runtime.run_pod_sandbox(request).await?;
        Ok(answer.into_inner().pod_sandbox_id)
    }

    /// A name that no container had.
    fn name(&mut self) -> String {
        self.number += 1;
        format!("c{}", self.number)
    }

    /// A configuration of a container that was never made.
    pub fn config(
        &mut self,
        command: &[&str],
        change: impl FnOnce(&mut ContainerConfig),
    ) -> ContainerConfig {
        let name = self.name();
        let mut config = self.node.container(&name, command);
        change(&mut config);
        config
    }

    /// A running container in the shared pod.
    pub async fn running(
        &mut self,
        command: &[&str],
        change: impl FnOnce(&mut ContainerConfig),
    ) -> String {
        let pod = self.pod().await;
        let config = self.config(command, change);
        self.node.running(&pod, config).await
    }

    /// Creating and starting a container in the shared pod must fail; says how.
    pub async fn refused(&mut self, change: impl FnOnce(&mut ContainerConfig)) -> tonic::Status {
        let pod = self.pod().await;
        let config = self.config(FOREVER, change);
        match self.node.create(&pod, config).await {
            Err(status) => status,
            Ok(id) => {
                let status = self.node.start_container(&id).await.unwrap_err();
                self.node.remove_container(&id).await;
                status
            }
        }
    }

    /// Runs a script to its end in a container of the shared pod: exit code and output.
    pub async fn script(
        &mut self,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> (i32, String) {
        let pod = self.pod().await;
        self.script_in(&pod, "shared", script, change).await
    }

    pub async fn script_in(
        &mut self,
        pod: &str,
        pod_name: &str,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> (i32, String) {
        let config = self.config(&["sh", "-c", script], change);
        let name = config.metadata.clone().unwrap().name;
        let id = self.node.running(pod, config).await;
        let status = self.node.exited(&id).await;
        let lines = self.node.log_lines(pod_name, &name);
        let text: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
        self.node.remove_container(&id).await;
        (status.exit_code, text.join("\n"))
    }

    /// What a command in a running container writes; it must succeed.
    pub async fn exec(&mut self, id: &str, script: &str) -> String {
        let answer = self.node.exec(id, &["sh", "-c", script]).await.unwrap();
        let error = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.exit_code, 0, "{script}: {error}");
        String::from_utf8_lossy(&answer.stdout)
            .trim_end()
            .to_string()
    }

    /// The log of a container of the shared pod.
    pub fn log_path(&self, pod_name: &str, container: &str) -> PathBuf {
        self.node
            .path("logs")
            .join(pod_name)
            .join(container)
            .join("0.log")
    }

    pub async fn state(&mut self, id: &str) -> ContainerState {
        let status = self.node.status(id).await;
        ContainerState::try_from(status.state).unwrap()
    }

    /// Removes containers of the shared pod.
    pub async fn remove(&mut self, ids: &[&str]) {
        for id in ids {
            self.node.remove_container(id).await;
        }
    }

    /// Waits for something that follows by itself.
    pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + patience();
        while !condition().await {
            assert!(Instant::now() < deadline, "{what} never");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

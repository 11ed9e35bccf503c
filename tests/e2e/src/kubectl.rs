//! Stock kubectl against the cluster under test.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hull_timeouts::scaled;
use serde_json::Value;

use crate::{proxy::Proxy, wait};

/// Seconds that a pod may take to become ready on hardware: two time-outs of a boot and the
/// second's boot. A guest that does not come up is followed by another one, as for any user;
/// [`Kubectl::pod_ready`] tells of it.
const POD_READY_S: u64 = 40;
/// Beyond as many seconds it is looked whether a boot failed.
const SLOW_POD_S: u64 = 10;

/// kubectl with a kubeconfig.
#[derive(Debug, Clone)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    /// Started when it is first asked.
    proxy: Arc<Mutex<Option<Proxy>>>,
}

/// A query of a list.
pub type Query<'a> = &'a [(&'a str, &'a str)];

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Printed {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit status, -1 when killed.
    pub code: i32,
}

impl Kubectl {
    /// kubectl that uses this kubeconfig.
    pub fn new(kubeconfig: &Path) -> Self {
        Kubectl {
            kubeconfig: kubeconfig.to_path_buf(),
            proxy: Arc::default(),
        }
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl, whatever the result.
    pub fn try_run(&self, args: &[&str], stdin: &str) -> Result<Printed> {
        let mut child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting kubectl")?;
        if let Some(mut pipe) = child.stdin.take() {
            // kubectl that does not read its input closes the pipe: that is no failure.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        let out = child.wait_with_output().context("waiting for kubectl")?;
        Ok(Printed {
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
            code: out.status.code().unwrap_or(-1),
        })
    }

    /// Runs kubectl and wants success. Returns its standard output.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.run_with(args, "")
    }

    /// Like [`Kubectl::run`], with standard input.
    pub fn run_with(&self, args: &[&str], stdin: &str) -> Result<String> {
        let printed = self.try_run(args, stdin)?;
        if printed.code != 0 {
            bail!(
                "kubectl {} ended with {}: {}{}",
                args.join(" "),
                printed.code,
                printed.stderr,
                printed.stdout
            );
        }
        Ok(printed.stdout)
    }

    /// Applies a manifest.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.run_with(&["apply", "-f", "-"], yaml).map(drop)
    }

    /// Applies a ConfigMap with one key.
    pub fn apply_config_map(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
        value: &str,
    ) -> Result<()> {
        self.apply(&format!(
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: {namespace}}}, data: {{{key}: {value}}}}}"
        ))
    }

    /// One object of the core group, `None` when it is not there.
    pub fn get(&self, resource: &str, name: &str) -> Result<Option<Value>> {
        self.ask(&format!("{}/{name}", path_of(resource)))
    }

    /// The objects of a resource of the core group.
    pub fn list(&self, resource: &str, query: Query<'_>) -> Result<Vec<Value>> {
        let query: Vec<_> = query
            .iter()
            .map(|(key, value)| format!("{key}={}", value.replace('=', "%3D")))
            .collect();
        let path = format!("{}?{}", path_of(resource), query.join("&"));
        let list = self.ask(&path)?.context("no such resource")?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    fn ask(&self, path: &str) -> Result<Option<Value>> {
        let mut proxy = self.proxy.lock().unwrap_or_else(PoisonError::into_inner);
        let proxy = match &mut *proxy {
            Some(proxy) => proxy,
            none => none.insert(Proxy::start(&self.kubeconfig)?),
        };
        proxy.get(path)
    }

    /// Whether there are nodes and all are ready; if not, what is seen of them.
    pub(crate) fn nodes_ready(&self) -> Result<Result<(), String>> {
        let nodes = self.list("nodes", &[])?;
        let ready = !nodes.is_empty() && nodes.iter().all(is_ready);
        Ok(ready.then_some(()).ok_or_else(|| format!("{nodes:?}")))
    }

    /// Waits until `look` accepts the pod. `look` says what it sees while it does not.
    pub fn pod_until(
        &self,
        name: &str,
        what: &str,
        seconds: u64,
        mut look: impl FnMut(&Value) -> Result<(), String>,
    ) -> Result<Value> {
        let pod = wait::until(&format!("pod {name}: {what}"), seconds, || {
            Ok(match self.get("pods", name)? {
                None => Err("no such pod".into()),
                Some(pod) => look(&pod).map(|()| pod),
            })
        });
        pod.with_context(|| format!("events:\n{}", self.events(name)))
    }

    /// Waits until the pod is ready; returns it.
    pub fn pod_ready(&self, name: &str) -> Result<Value> {
        let begun = Instant::now();
        let pod = self.pod_until(name, "ready", POD_READY_S, |pod| {
            let ready = is_ready(pod).then_some(());
            ready.ok_or_else(|| pod["status"].to_string())
        })?;
        if begun.elapsed() > scaled(Duration::from_secs(SLOW_POD_S)) {
            let events = self.events(name);
            let failed = events.lines().filter(|line| line.starts_with("Failed"));
            failed.for_each(|event| eprintln!("note: pod {name} is ready late: {event}"));
        }
        Ok(pod)
    }

    /// Deletes a pod and waits until it is gone.
    pub fn delete_pod(&self, name: &str) -> Result<()> {
        self.run(&["delete", "pod", name, "--ignore-not-found", "--wait=false"])?;
        wait::until(&format!("pod {name} to be gone"), 45, || {
            Ok(match self.get("pods", name)? {
                None => Ok(()),
                Some(pod) => Err(pod["status"].to_string()),
            })
        })
    }

    /// The events of a pod: a line each, `reason: message`.
    pub fn events(&self, pod: &str) -> String {
        let selector = format!("involvedObject.name={pod}");
        match self.list("events", &[("fieldSelector", &selector)]) {
            Err(error) => format!("(no events: {error})"),
            Ok(items) => items
                .iter()
                .map(|e| {
                    format!(
                        "{}: {}\n",
                        e["reason"].as_str().unwrap_or(""),
                        e["message"].as_str().unwrap_or("").replace('\n', " ")
                    )
                })
                .collect(),
        }
    }

    /// Waits for an event of a pod with this reason whose message contains `words`.
    pub fn event(&self, pod: &str, reason: &str, words: &str) -> Result<String> {
        wait::until(
            &format!("event {reason} of {pod} with {words:?}"),
            30,
            || {
                let events = self.events(pod);
                let found = events
                    .lines()
                    .find(|line| line.starts_with(&format!("{reason}: ")) && line.contains(words))
                    .map(str::to_string);
                Ok(found.ok_or(events))
            },
        )
    }
}

/// Where a resource of the core group is, in the default namespace if in any.
fn path_of(resource: &str) -> String {
    match resource {
        "nodes" | "namespaces" => format!("/api/v1/{resource}"),
        _ => format!("/api/v1/namespaces/default/{resource}"),
    }
}

/// Whether a pod or node has the condition.
pub(crate) fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
}

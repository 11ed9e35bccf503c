//! What hull-shim has on disk about a pod: tells at which moment of its life the pod is, without
//! asking anybody.

use std::{fs, path::Path};

use serde_json::Value;

/// One sandbox and its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// The pod's name.
    pub pod: String,
    /// `creating`, `ready`, `stopping` ...
    pub sandbox: String,
    /// The process of its VM, once there is one.
    pub vmm: Option<i32>,
    /// `creating`, `created`, `running` ..., for each container.
    pub containers: Vec<String>,
}

impl Noted {
    /// Its VM is there and not yet ready.
    pub fn boots(&self) -> bool {
        self.sandbox == "creating" && self.vmm.is_some()
    }

    /// Its VM takes containers and runs none.
    pub fn idles(&self) -> bool {
        self.sandbox == "ready" && !self.runs()
    }

    /// A container of it runs.
    pub fn runs(&self) -> bool {
        self.containers.iter().any(|state| state == "running")
    }

    /// It is being taken down.
    pub fn ends(&self) -> bool {
        ["stopping", "removing"].contains(&self.sandbox.as_str())
    }
}

/// A record; nothing when it is not there (yet, or any more).
fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn text(record: &Value, pointer: &str) -> Option<String> {
    Some(record.pointer(pointer)?.as_str()?.to_owned())
}

/// The sandboxes of the pods whose names begin with `prefix`.
pub(crate) fn pods(sandboxes: &Path, prefix: &str) -> Vec<Noted> {
    let entries = fs::read_dir(sandboxes).into_iter().flatten().flatten();
    let noted = entries.filter_map(|entry| {
        let record = read(&entry.path().join("sandbox.json"))?;
        let containers = fs::read_dir(entry.path().join("containers"));
        let containers = containers.into_iter().flatten().flatten();
        Some(Noted {
            pod: text(&record, "/config/metadata/name")?,
            sandbox: text(&record, "/state")?,
            vmm: record
                .pointer("/vmm/pid")
                .and_then(Value::as_i64)
                .and_then(|pid| i32::try_from(pid).ok()),
            containers: containers
                .filter_map(|file| text(&read(&file.path())?, "/state"))
                .collect(),
        })
    });
    noted
        .filter(|noted| noted.pod.starts_with(prefix))
        .collect()
}

//! Looks at the directory of manifests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::manifest;
use crate::context::NodeContext;

/// The present static pods; `None` before the first look.
pub(crate) type StaticPods = watch::Receiver<Option<Vec<Arc<Pod>>>>;

/// Follows the configured directory until cancelled; without one there are no static pods.
pub(crate) fn start(node: Arc<NodeContext>, shutdown: CancellationToken) -> StaticPods {
    let Some(directory) = node.config.static_pod_dir.clone() else {
        return watch::channel(Some(Vec::new())).1;
    };
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let mut files = Files::default();
        loop {
            let pods = files.look(&directory, &node.config.node_name);
            sender.send_if_modified(|present| {
                let changed = present.as_ref() != Some(&pods);
                if changed {
                    *present = Some(pods);
                }
                changed
            });
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(node.config.timings.static_pod_interval) => {}
            }
        }
    });
    receiver
}

/// A file as it was last read.
struct Known {
    text: String,
    pod: Option<Arc<Pod>>,
}

#[derive(Default)]
struct Files {
    known: BTreeMap<PathBuf, Known>,
}

impl Files {
    /// The pods of the directory. A file that cannot be understood now keeps the pod that it was:
    /// it may be half written.
    fn look(&mut self, directory: &Path, node_name: &str) -> Vec<Arc<Pod>> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.known.clear();
                return Vec::new();
            }
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "static pods not read");
                return self.pods();
            }
        };
        let mut present = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            let hidden = path
                .file_name()
                .is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if hidden || !path.is_file() {
                continue;
            }
            self.read(&path, node_name);
            present.push(path);
        }
        self.known.retain(|path, _| present.contains(path));
        self.pods()
    }

    fn read(&mut self, path: &Path, node_name: &str) {
        let Ok(text) = std::fs::read_to_string(path) else {
            return;
        };
        let before = self.known.remove(path);
        if let Some(before) = before.as_ref().filter(|before| before.text == text) {
            let pod = before.pod.clone();
            self.known.insert(path.to_owned(), Known { text, pod });
            return;
        }
        let pod = match manifest::parse(&text, node_name) {
            Ok(pod) => Some(Arc::new(pod)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "static pod not understood");
                before.and_then(|before| before.pod)
            }
        };
        self.known.insert(path.to_owned(), Known { text, pod });
    }

    /// One of two files with the same pod name counts: the first by its path.
    fn pods(&self) -> Vec<Arc<Pod>> {
        let mut pods: Vec<Arc<Pod>> = Vec::new();
        for pod in self.known.values().filter_map(|known| known.pod.as_ref()) {
            let same = |other: &Arc<Pod>| {
                other.metadata.name == pod.metadata.name
                    && other.metadata.namespace == pod.metadata.namespace
            };
            if !pods.iter().any(same) {
                pods.push(pod.clone());
            }
        }
        pods
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_written_manifest_keeps_its_pod_and_a_removed_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.yaml");
        let text =
            "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: c}]}}";
        std::fs::write(&path, text).unwrap();
        std::fs::write(directory.path().join(".hidden"), text).unwrap();
        let mut files = Files::default();
        let first = files.look(directory.path(), "n");
        assert_eq!(first.len(), 1);
        std::fs::write(&path, &text[..20]).unwrap();
        assert_eq!(files.look(directory.path(), "n"), first);
        std::fs::write(&path, text.replace("name: c", "name: d")).unwrap();
        let second = files.look(directory.path(), "n");
        assert_ne!(second[0].metadata.uid, first[0].metadata.uid);
        std::fs::remove_file(&path).unwrap();
        assert!(files.look(directory.path(), "n").is_empty());
    }
}

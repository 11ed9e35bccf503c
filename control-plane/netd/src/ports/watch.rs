//! The attachments of this node, read again whenever the runtime writes a record.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::attachment::Attachment;

/// Records are read this often besides, in case a directory appears or a notice was lost.
const RELIST: Duration = Duration::from_secs(10);
/// A record larger than this is not one, in bytes.
const RECORD_LIMIT: u64 = 1024 * 1024;

/// What is attached, by sandbox.
pub type Attachments = BTreeMap<String, Arc<Attachment>>;

/// Reads the records in some directories; what cannot be read is left out.
pub fn read(directories: &[PathBuf]) -> Attachments {
    let mut found = Attachments::new();
    for directory in directories {
        let Ok(entries) = std::fs::read_dir(directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let small = entry
                .metadata()
                .is_ok_and(|m| m.is_file() && m.len() <= RECORD_LIMIT);
            if !small {
                continue;
            }
            let Ok(bytes) = std::fs::read(entry.path()) else {
                continue;
            };
            if let Some(attachment) = Attachment::parse(&bytes) {
                found.insert(attachment.sandbox.clone(), Arc::new(attachment));
            }
        }
    }
    found
}

/// Sends the attachments at the start and whenever they may have changed, until `output` closes.
pub async fn follow(directories: Vec<PathBuf>, output: mpsc::Sender<Attachments>) {
    let mut last = None;
    loop {
        let notices = Notices::open(&directories);
        let directories = directories.clone();
        let found = tokio::task::spawn_blocking(move || read(&directories)).await;
        if let Ok(found) = found
            && last.as_ref() != Some(&found)
        {
            last = Some(found.clone());
            if output.send(found).await.is_err() {
                return;
            }
        }
        // Opened before the records were read: nothing is missed in between.
        let wait = async {
            match notices {
                Ok(notices) => notices.changed().await,
                Err(error) => {
                    tracing::debug!(%error, "no notices of attachments");
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            () = output.closed() => return,
            _ = tokio::time::timeout(RELIST, wait) => {}
        }
    }
}

struct Notices(AsyncFd<std::os::fd::OwnedFd>);

impl Notices {
    fn open(directories: &[PathBuf]) -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let descriptor = inotify::init(flags)?;
        let what = inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::DELETE;
        for directory in directories {
            // One that is not there yet is met by the next reading.
            let _ = inotify::add_watch(&descriptor, directory, what);
        }
        // SAFETY: an OwnedFd gives the same open descriptor until it is dropped, which the AsyncFd
        // that owns it does last.
        Ok(Notices(unsafe { AsyncFd::register(descriptor) }?))
    }

    /// Until something changes. The descriptor is made anew for each wait, so that its queue is
    /// never left half read.
    async fn changed(&self) {
        let _ = self.0.readable().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(sandbox: &str) -> String {
        json!({
            "container_id": sandbox,
            "args": "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b",
            "result": {"interfaces": [
                {"name": "veth1", "mac": "02:00:00:00:00:02"},
                {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/n"},
            ], "ips": []},
        })
        .to_string()
    }

    #[tokio::test]
    async fn records_are_told_as_they_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let (output, mut found) = mpsc::channel(1);
        tokio::spawn(follow(vec![directory.path().to_path_buf()], output));
        assert!(found.recv().await.unwrap().is_empty());
        let path = directory.path().join("abc.json");
        let staged = directory.path().join("staged");
        std::fs::write(&staged, record("abc")).unwrap();
        std::fs::rename(&staged, &path).unwrap();
        while !found.recv().await.unwrap().contains_key("abc") {}
        std::fs::remove_file(&path).unwrap();
        while !found.recv().await.unwrap().is_empty() {}
    }
}

//! The log's file: one event a line, rotated by size.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::Value;
use tokio::sync::mpsc;

/// Events that may wait to be written; further requests wait.
const QUEUE_LENGTH: usize = 4096;
/// It tells who did what.
const FILE_MODE: u32 = 0o600;

/// Where the log is and how large it may grow.
#[derive(Debug, Clone)]
pub struct AuditFile {
    /// The file that is written; older ones are beside it, `PATH.1` the youngest of them.
    pub path: PathBuf,
    /// A file is not written further once it has so many bytes.
    pub max_bytes: u64,
    /// Older files that are kept.
    pub max_backups: usize,
}

/// The log. Events that were sent are written before it is gone.
#[derive(Debug)]
pub struct AuditLog {
    queue: Option<mpsc::Sender<Value>>,
    lost: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl AuditLog {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When that fails.
    pub fn open(settings: AuditFile) -> io::Result<Self> {
        let (queue, events) = mpsc::channel(QUEUE_LENGTH);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            file: append(&settings.path)?,
            settings,
            lost: lost.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(events))?;
        Ok(AuditLog {
            queue: Some(queue),
            lost,
            thread: Some(thread),
        })
    }

    /// Events that could not be written.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) async fn send(&self, event: Value) {
        if let Some(queue) = &self.queue
            && queue.send(event).await.is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// For where nobody can wait: the end of a stream.
    pub(super) fn send_now(&self, event: Option<Value>) {
        if let (Some(queue), Some(event)) = (&self.queue, event)
            && queue.try_send(event).is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the audit's thread panicked");
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(FILE_MODE)
        .open(path)
}

struct Writer {
    settings: AuditFile,
    file: File,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, mut events: mpsc::Receiver<Value>) {
        let mut failing = false;
        while let Some(event) = events.blocking_recv() {
            match self.write(&event) {
                Ok(()) => failing = false,
                Err(error) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    if !failing {
                        let path = self.settings.path.display();
                        tracing::error!(%path, %error, "audit events cannot be written and are lost");
                    }
                    failing = true;
                }
            }
        }
    }

    fn write(&mut self, event: &Value) -> io::Result<()> {
        if self.file.metadata()?.len() >= self.settings.max_bytes {
            self.rotate()?;
        }
        let mut line = event.to_string();
        line.push('\n');
        self.file.write_all(line.as_bytes())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let AuditFile {
            path, max_backups, ..
        } = &self.settings;
        let backup = |number: usize| {
            let mut name = path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..*max_backups).rev() {
            match std::fs::rename(backup(number), backup(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if *max_backups == 0 {
            std::fs::remove_file(path)?;
        } else {
            std::fs::rename(path, backup(1))?;
        }
        self.file = append(path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_rotate_by_size_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let log = AuditLog::open(AuditFile {
            path: path.clone(),
            max_bytes: 100,
            max_backups: 2,
        })
        .unwrap();
        for number in 0..40 {
            log.send(serde_json::json!({"number": number, "text": "x".repeat(20)}))
                .await;
        }
        assert_eq!(log.lost(), 0);
        drop(log);
        let mut files: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ["audit.log", "audit.log.1", "audit.log.2"]);
        let mut numbers = Vec::new();
        for file in files.iter().rev() {
            for line in std::fs::read_to_string(folder.path().join(file))
                .unwrap()
                .lines()
            {
                let event: Value = serde_json::from_str(line).unwrap();
                numbers.push(event["number"].as_u64().unwrap());
            }
        }
        assert!(
            numbers.is_sorted() && numbers.last() == Some(&39),
            "{numbers:?}"
        );
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    }
}

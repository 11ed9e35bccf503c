//! Termination messages: the file a container leaves, or the end of its log.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::cri::{ObservedContainer, container, labels};
use crate::logs::line;

/// The longest message a container may leave.
const MAX_MESSAGE_BYTES: usize = 4096;
/// How much of a log's end stands in for a message.
const MAX_LOG_BYTES: u64 = 2048;
const MAX_LOG_LINES: usize = 80;

/// The host file that takes the message of one attempt of a container.
pub fn file(pod_dir: &Path, name: &str, attempt: u32) -> PathBuf {
    pod_dir
        .join("containers")
        .join(name)
        .join(attempt.to_string())
}

/// Makes that file, empty and writable by whatever user the container runs as.
pub fn create(pod_dir: &Path, name: &str, attempt: u32) -> std::io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = file(pod_dir, name, attempt);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&path, b"")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    Ok(path)
}

/// Adds the message of an ended container to what the runtime says of it.
pub fn add(ended: &mut ObservedContainer, pod_dir: &Path, log_dir: &Path) {
    let mut message = read_start(&file(pod_dir, &ended.name, ended.attempt)).unwrap_or_default();
    let policy = ended.annotations.get(labels::TERMINATION_MESSAGE_POLICY);
    let fall_back = policy.is_some_and(|policy| policy == "FallbackToLogsOnError");
    if message.is_empty() && fall_back && ended.exit_code != 0 {
        let log = log_dir.join(container::log_path(&ended.name, ended.attempt));
        message = log_end(&log).unwrap_or_default();
    }
    if message.is_empty() {
        return;
    }
    ended.message = match ended.message.is_empty() {
        true => message,
        false => format!("{}: {message}", ended.message),
    };
}

fn read_start(path: &Path) -> Option<String> {
    let file = std::fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_MESSAGE_BYTES as u64)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn log_end(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    // CRI's line prefix is not part of the message: read more than is shown.
    let start = length.saturating_sub(MAX_LOG_BYTES * 4);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG_BYTES * 4).read_to_end(&mut bytes).ok()?;
    let mut text = Vec::new();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let skip = usize::from(start > 0);
    for raw in lines
        .iter()
        .skip(skip.max(lines.len().saturating_sub(MAX_LOG_LINES)))
    {
        if let Some(parsed) = line::parse(raw) {
            text.extend_from_slice(parsed.content);
            if !parsed.partial {
                text.push(b'\n');
            }
        }
    }
    let keep = text.len().saturating_sub(MAX_LOG_BYTES as usize);
    Some(String::from_utf8_lossy(&text[keep..]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::ContainerPhase;

    fn ended(policy: &str, exit_code: i32) -> ObservedContainer {
        ObservedContainer {
            id: "i".into(),
            name: "c".into(),
            sandbox_id: "s".into(),
            attempt: 1,
            phase: ContainerPhase::Exited,
            created_at: 1,
            started_at: 1,
            finished_at: 2,
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_ref: String::new(),
            annotations: [(
                labels::TERMINATION_MESSAGE_POLICY.to_owned(),
                policy.to_owned(),
            )]
            .into(),
        }
    }

    #[test]
    fn message_comes_from_the_file_or_the_log() {
        let root = tempfile::tempdir().unwrap();
        let (pod_dir, log_dir) = (root.path().join("pod"), root.path().join("log"));
        std::fs::create_dir_all(log_dir.join("c")).unwrap();
        std::fs::write(
            log_dir.join("c/1.log"),
            "2026-11-22T05:00:00.0Z stderr F bad\n2026-11-22T05:00:00.1Z stderr F news\n",
        )
        .unwrap();
        let path = create(&pod_dir, "c", 1).unwrap();
        let message = |policy: &str, code: i32| {
            let mut container = ended(policy, code);
            add(&mut container, &pod_dir, &log_dir);
            container.message
        };
        assert_eq!(message("File", 1), "");
        assert_eq!(message("FallbackToLogsOnError", 0), "");
        assert_eq!(message("FallbackToLogsOnError", 1), "bad\nnews\n");
        std::fs::write(path, "own words").unwrap();
        assert_eq!(message("FallbackToLogsOnError", 1), "own words");
    }
}

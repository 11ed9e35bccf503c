use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use super::*;

/// A control socket that answers one call with `answer`; gives the request back.
fn server(
    answer: &'static str,
) -> (
    tempdir::Directory,
    ControlClient,
    std::thread::JoinHandle<String>,
) {
    let directory = tempdir::Directory::new();
    let path = directory.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (&stream).write_all(answer.as_bytes()).unwrap();
        line
    });
    (
        directory,
        ControlClient::new(path).with_timeout(Duration::from_secs(5)),
        thread,
    )
}

/// A directory that goes away with the value.
mod tempdir {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    static NEXT: AtomicU32 = AtomicU32::new(0);

    pub struct Directory(PathBuf);

    impl Directory {
        pub fn new() -> Self {
            let name = format!(
                "hull-vmm-client-{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            );
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[tokio::test]
async fn a_state_is_read() {
    let text = "{\"answer\":\"state\",\"id\":\"x\",\"pid\":7,\"uptime_ms\":9,\"running\":true,\"attached_disks\":[\"a\"]}\n";
    let (_directory, client, thread) = server(text);
    let state = client.state().await.unwrap();
    assert_eq!(state.pid, 7);
    assert_eq!(state.attached_disks, vec!["a"]);
    assert_eq!(thread.join().unwrap(), "{\"op\":\"state\"}\n");
}

#[tokio::test]
async fn a_refusal_is_an_error_with_its_sentence() {
    let (_directory, client, thread) = server("{\"answer\":\"error\",\"message\":\"no disk\"}\n");
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = client.attach_disk("a", file.as_fd()).await.unwrap_err();
    assert!(matches!(error, ControlError::Refused(message) if message == "no disk"));
    assert_eq!(
        thread.join().unwrap(),
        "{\"op\":\"attach-disk\",\"serial\":\"a\"}\n"
    );
}

#[test]
fn blocking_calls_work_without_a_runtime() {
    let (_directory, client, thread) = server("{\"answer\":\"ok\"}\n");
    client.stop_blocking().unwrap();
    assert_eq!(thread.join().unwrap(), "{\"op\":\"stop\"}\n");
    let (_directory, client, thread) = server("{\"answer\":\"ok\"}\n");
    assert!(matches!(
        client.state_blocking(),
        Err(ControlError::Unexpected { .. })
    ));
    thread.join().unwrap();
}

#[tokio::test]
async fn a_silent_vmm_times_out_and_a_missing_one_is_told_apart() {
    let directory = tempdir::Directory::new();
    let path = directory.path().join("control");
    let missing = ControlClient::new(&path);
    assert!(matches!(
        missing.state().await,
        Err(ControlError::Connect { .. })
    ));
    assert!(matches!(
        missing.state_blocking(),
        Err(ControlError::Connect { .. })
    ));
    let _listener = UnixListener::bind(&path).unwrap();
    let client = ControlClient::new(&path).with_timeout(Duration::from_millis(50));
    assert!(matches!(
        client.state().await,
        Err(ControlError::Timeout { .. })
    ));
    assert!(matches!(
        client.state_blocking(),
        Err(ControlError::Timeout { .. })
    ));
}

#[tokio::test]
async fn a_vmm_that_dies_while_asked_is_an_error() {
    let (_directory, client, thread) = server("");
    assert!(matches!(
        client.metrics().await,
        Err(ControlError::Answer { .. })
    ));
    thread.join().unwrap();
}

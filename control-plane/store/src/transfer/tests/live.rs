//! Backups of a store that is written to meanwhile, and by way of its socket.

use std::{
    io::{Read, Write as _},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::*;
use crate::{
    KeyValue, StoreError,
    embedded::Retention,
    transfer::{backup::write_all, copy::everything, format::Input, live::may_ask},
};

/// All keys, as they were at a revision.
async fn content(store: &dyn Store, revision: Option<Revision>) -> Vec<(String, Bytes)> {
    let page = store.list(everything(), revision, 0).await.unwrap();
    let pair = |pair: KeyValue| (pair.key, pair.value);
    page.items.into_iter().map(pair).collect()
}

/// What a backup holds, restored into a new store.
async fn restored(path: &Path) -> Vec<(String, Bytes)> {
    let (target, _folder) = embedded();
    let backup = Backup::open(path).unwrap();
    restore(&backup, &target, &mut silent()).await.unwrap();
    content(&target, None).await
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries.map(|e| name(e).into_string().unwrap()).collect();
    names.sort();
    names
}

/// Writes from within a callback that is not async.
fn put_now(store: &Arc<EmbeddedStore>, key: &str, value: &str) {
    let (store, key, value) = (store.clone(), key.to_owned(), value.to_owned());
    let write = async move { put(store.as_ref(), &key, value).await };
    std::thread::spawn(move || futures::executor::block_on(write))
        .join()
        .unwrap();
}

#[tokio::test]
async fn a_backup_shows_one_revision_while_others_write() {
    let (source, folder) = embedded();
    fill(&source).await;
    let before = content(&source, None).await;
    let source = Arc::new(source);
    let writer = source.clone();
    let path = folder.path().join("backup");
    // After each page: a key that is in the file already, one that is not, and a new one.
    let done = back_up(source.as_ref(), &path, &mut move |_| {
        for key in ["/k/00/00", "/k/20/59", "/zz"] {
            put_now(&writer, key, "late");
        }
    })
    .await
    .unwrap();
    assert!(source.revision().await.unwrap() > done.revision);
    assert_eq!(restored(&path).await, before);
}

#[tokio::test]
async fn a_source_that_forgets_the_revision_is_told_to_the_reader() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention {
        max_changes: 1,
        ..Retention::default()
    };
    let source = EmbeddedStore::open_with(folder.path().join("db"), retention).unwrap();
    fill(&source).await;
    let source = Arc::new(source);
    let writer = source.clone();
    let mut sent = Vec::new();
    let error = write_all(
        source.as_ref(),
        &mut sent,
        &|error| panic!("{error}"),
        &mut move |_| (0..3).for_each(|_| put_now(&writer, "/zz", "late")),
    )
    .await
    .unwrap_err();
    let forgotten = |error: &TransferError| {
        matches!(error, TransferError::Source(StoreError::Compacted { .. }))
    };
    assert!(forgotten(&error), "{error}");
    let mut input = Input::begin(&sent[..], Path::new("sent")).unwrap();
    let told = std::iter::repeat_with(|| input.next()).find_map(Result::err);
    let told = told.unwrap().to_string();
    assert!(told.contains("has been compacted"), "{told}");
}

/// A store that is served at a socket, with a task that writes two keys alike until stopped.
struct Busy {
    store: Arc<EmbeddedStore>,
    folder: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    writer: tokio::task::JoinHandle<()>,
    server: tokio::task::JoinHandle<()>,
}

impl Busy {
    async fn start() -> Self {
        let (store, folder) = embedded();
        fill(&store).await;
        let store = Arc::new(store);
        let socket = StoreSocket::bind(&folder.path().join("socket")).unwrap();
        let served = store.clone();
        let server = tokio::spawn(async move { socket.serve(served).await });
        let (stop, written) = (Arc::default(), Arc::new(AtomicU64::new(0)));
        let writer = tokio::spawn(write_alike(
            store.clone(),
            Arc::clone(&stop),
            written.clone(),
        ));
        Busy {
            store,
            folder,
            stop,
            written,
            writer,
            server,
        }
    }

    /// Waits for this many more transactions.
    async fn more(&self, count: u64) {
        let goal = self.written.load(Ordering::Relaxed) + count;
        while self.written.load(Ordering::Relaxed) < goal {
            tokio::task::yield_now().await;
        }
    }
}

async fn write_alike(store: Arc<EmbeddedStore>, stop: Arc<AtomicBool>, written: Arc<AtomicU64>) {
    for n in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let write = |key: &str| Write::Put(key.into(), Bytes::from(n.to_string()));
        let writes = vec![
            write("/a"),
            write(&format!("/k/{:02}/30", n % 21)),
            write("/z"),
        ];
        store.txn(Vec::new(), writes).await.unwrap();
        written.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_use_is_backed_up_at_its_socket() {
    let busy = Busy::start().await;
    let socket = busy.folder.path().join("socket");
    let mode = socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    busy.more(1).await;
    let path = busy.folder.path().join("backup");
    let file = path.clone();
    let fetch = move || fetch_backup(&socket, &file, &mut silent());
    let done = tokio::task::spawn_blocking(fetch).await.unwrap().unwrap();
    busy.more(10).await;
    busy.stop.store(true, Ordering::Relaxed);
    busy.writer.await.unwrap();

    let restored = restored(&path).await;
    assert_eq!(done.keys, restored.len() as u64);
    let value = |wanted: &str| {
        let mut pairs = restored.iter();
        pairs.find(|(key, _)| key == wanted).map(|(_, value)| value)
    };
    assert!(value("/a").is_some());
    assert_eq!(value("/a"), value("/z"), "of one transaction");
    assert_eq!(
        restored,
        content(busy.store.as_ref(), Some(done.revision)).await
    );
    busy.server.abort();
    assert!(busy.server.await.unwrap_err().is_cancelled());
    assert_eq!(
        names(busy.folder.path()),
        ["backup", "db"],
        "no socket is left"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_keeps_nobody_from_ending() {
    let busy = Busy::start().await;
    busy.stop.store(true, Ordering::Relaxed);
    busy.writer.await.unwrap();
    let mut stream = UnixStream::connect(busy.folder.path().join("socket")).unwrap();
    stream.write_all(b"backup\n").unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let mut first = [0];
        stream.read_exact(&mut first).map(|()| stream)
    });
    let mut stream = read.await.unwrap().unwrap();
    // Nor from hearing how the store is.
    let socket = busy.folder.path().join("socket");
    let status = tokio::task::spawn_blocking(move || fetch_status(&socket));
    let status = status.await.unwrap().unwrap();
    assert_eq!(status, busy.store.status().await.unwrap());
    busy.server.abort();
    let _ = busy.server.await;
    // More than a socket holds was to come: with the other side gone there is an end all the same.
    let mut rest = Vec::new();
    let ended = tokio::task::spawn_blocking(move || stream.read_to_end(&mut rest).map(|_| rest));
    assert!(ended.await.unwrap().unwrap().len() < 1_400_000);
}

#[tokio::test]
async fn a_backup_that_is_broken_off_leaves_nothing() {
    let (source, folder) = embedded();
    fill(&source).await;
    let whole = folder.path().join("whole");
    back_up(&source, &whole, &mut silent()).await.unwrap();
    let whole = std::fs::read(whole).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    let cut = whole.len() - 40;
    let cases: [(&[u8], &str); 5] = [
        (&[], "it ends too early"),
        (&whole[..whole.len() / 2], "it ends too early"),
        (&whole[..whole.len() - 1], "it ends too early"),
        (&changed, "its SHA-256 does not match"),
        (
            &[&whole[..cut - 4], &[0xff, 0xff, 0xff, 0xfe][..], b"why"].concat(),
            "broken off: why",
        ),
    ];
    for (sent, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let sent = sent.to_vec();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 7]).unwrap();
            // A reader that has seen enough is gone.
            let _ = stream.write_all(&sent);
        });
        let path = folder.path().join("backup");
        let error = fetch_backup(&socket, &path, &mut silent()).unwrap_err();
        server.join().unwrap();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(names(folder.path()), ["socket"], "{expected}");
    }
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_named_and_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, path) = (folder.path().join("socket"), folder.path().join("backup"));
    let refused = || fetch_backup(&socket, &path, &mut silent()).unwrap_err();
    assert!(matches!(refused(), TransferError::NoSocket { .. }));
    drop(UnixListener::bind(&socket).unwrap());
    let error = refused().to_string();
    assert!(error.contains(socket.to_str().unwrap()), "{error}");
    drop(StoreSocket::bind(&socket).unwrap());
    assert!(names(folder.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_gets_no_answer() {
    let busy = Busy::start().await;
    for sent in [&b"\n"[..], b"restore\n", b"backup", &[b'x'; 1000]] {
        let mut stream = UnixStream::connect(busy.folder.path().join("socket")).unwrap();
        stream.write_all(sent).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // It may be told that it was not read to its end.
        let _ =
            tokio::task::spawn_blocking(move || stream.read_to_end(&mut answer).map(|_| answer))
                .await
                .unwrap()
                .inspect(|answer| assert!(answer.is_empty(), "{answer:?}"));
    }
    let socket = busy.folder.path().join("socket");
    let status = tokio::task::spawn_blocking(move || fetch_status(&socket));
    assert!(status.await.unwrap().is_ok());
    busy.stop.store(true, Ordering::Relaxed);
}

#[test]
fn the_superuser_and_the_owner_may_ask() {
    assert!(may_ask(0, 1000) && may_ask(1000, 1000));
    assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
}

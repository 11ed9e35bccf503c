//! The PyPI client `kubernetes`: create, read, update, watch, pages, definitions, server-side
//! apply. scripts/deps.sh puts it into the cache.

use hull_testnode::cache;

use super::*;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/up/client.py");

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_reads_writes_and_watches() {
    let setup = Setup::new();
    let _server = setup.server("embedded");
    setup.client().await;
    let mut command = Command::new("python3");
    command
        .arg(SCRIPT)
        .env("KUBECONFIG", setup.path("home/kubeconfig"))
        .env(
            "PYTHONPATH",
            cache::directory().unwrap().join("tools/python"),
        )
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(text(&output).trim(), "done");
}

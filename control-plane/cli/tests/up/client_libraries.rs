//! Client libraries of other languages, PyPI's `kubernetes` and npm's `@kubernetes/client-node`:
//! create, read, update, watch, pages, definitions, server-side apply. scripts/deps.sh puts them
//! into the cache.

use hull_testnode::cache;

use super::*;

/// Runs `script`, one of this directory, with the cluster of a server of its own; `modules` is
/// the variable that names where the library is, `installed` that place in the cache's tools.
async fn client_succeeds(program: &str, script: &str, (modules, installed): (&str, &str)) {
    let setup = Setup::new();
    let _server = setup.server("embedded");
    setup.client().await;
    let tools = cache::directory().unwrap().join("tools");
    let output = Command::new(program)
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/up")
                .join(script),
        )
        .env("KUBECONFIG", setup.path("home/kubeconfig"))
        .env(modules, tools.join(installed))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(text(&output).trim(), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_reads_writes_and_watches() {
    client_succeeds("python3", "client.py", ("PYTHONPATH", "python")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_client_reads_writes_and_watches() {
    let node = cache::directory().unwrap().join("tools/bin/node");
    let modules = ("NODE_MODULES", "javascript/node_modules");
    client_succeeds(node.to_str().unwrap(), "client.mjs", modules).await;
}

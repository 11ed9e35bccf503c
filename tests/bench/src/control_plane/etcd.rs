//! What etcd itself does, without an API server before it.

use anyhow::Context;
use etcd_client::Client;

use crate::Options;
use crate::apiserver::OBJECT_BYTES;
use crate::load::{Load, drive};

/// Puts as many values as objects are created, of their size, as many at once.
pub async fn puts(endpoint: &str, run: usize, options: &Options) -> anyhow::Result<Load> {
    let client = Client::connect([endpoint], None)
        .await
        .context("connecting to etcd")?;
    let value = vec![b'x'; OBJECT_BYTES];
    let load = drive(options.objects, options.concurrency, |number| {
        let mut kv = client.kv_client();
        let value = value.clone();
        async move {
            kv.put(format!("/bench/{run}/object-{number:06}"), value, None)
                .await?;
            Ok(())
        }
    });
    load.await.context("etcd's puts")
}

//! `hull up`: the whole cluster in one process, with hull-shim beside it.

use hull_apiserver::UserInfo;

use crate::agent;
use crate::certificates::Renewal;
use crate::client::in_process;
use crate::files::lock_data_dir;
use crate::netd;
use crate::server::{self, Tasks, finish};
use crate::settings::Resolved;
use crate::signals;

/// Runs until SIGTERM or SIGINT. Pods keep running; the next `hull up` adopts them.
pub async fn run(settings: Resolved) -> anyhow::Result<()> {
    let _server_lock = lock_data_dir(&settings.data_dir, "server")?;
    let _node_lock = lock_data_dir(&settings.data_dir, "node")?;
    let shutdown = signals::shutdown()?;
    let mut tasks = Tasks::new();
    let control_plane = server::start(&settings, &mut tasks, &shutdown).await?;
    let tls = agent::own_tls(&settings, &control_plane.pki)?;
    Renewal::of(&settings, &control_plane, Some(tls.certificate.clone()))
        .start(&mut tasks, &shutdown);
    let client = in_process(&control_plane.api, UserInfo::node(&settings.node_name));
    agent::start(&settings, client, Some(tls), &mut tasks, &shutdown).await?;
    if settings.netd {
        let client = in_process(&control_plane.api, UserInfo::service_network());
        netd::start(&settings, client, &mut tasks, &shutdown)?;
        let client = in_process(&control_plane.api, UserInfo::controller_manager());
        netd::publish_dns(&settings, client, &shutdown);
    }
    tracing::info!(listen = %settings.listen, node = settings.node_name, "hull is up");
    finish(tasks, shutdown).await
}

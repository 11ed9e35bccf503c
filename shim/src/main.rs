//! The hull-shim program: reads the configuration, takes up what an earlier shim left,
//! and serves CRI until SIGTERM. Pods keep running afterwards.

use anyhow::Context;
use clap::Parser;
use hull_shim::cni::CniRuntime;
use hull_shim::cni::cache::Cache;
use hull_shim::cni::exec::Executor;
use hull_shim::config::Config;
use hull_shim::cri::server;
use hull_shim::journal::Journal;
use hull_shim::network::pod::CniPodNetwork;
use hull_shim::sandbox::check;
use hull_shim::sandbox::recover::recover;
use hull_shim::shim::Shim;
use hull_shim::timeouts::scaled;
use hull_shim::vmm::fsd::FileServers;
use hull_shim::vmm::process::HullVmm;
use hull_shim::{metrics, streaming};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const DEFAULT_CONFIG: &str = "/etc/hull/shim.toml";

/// The CRI server of a Hull node.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file; without this flag /etc/hull/shim.toml is read if it is there
    #[arg(long)]
    config: Option<PathBuf>,
    /// Checks the configuration, prints it with its defaults, and ends
    #[arg(long)]
    check_config: bool,
    /// Overrides state_dir
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// Overrides run_dir
    #[arg(long)]
    run_dir: Option<PathBuf>,
    /// Overrides socket
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Overrides vmm.program
    #[arg(long)]
    vmm: Option<PathBuf>,
    /// Overrides vmm.kernel
    #[arg(long)]
    kernel: Option<PathBuf>,
    /// Overrides vmm.initramfs
    #[arg(long)]
    initramfs: Option<PathBuf>,
    /// Overrides streaming_address
    #[arg(long)]
    streaming_address: Option<std::net::SocketAddr>,
    /// Overrides metrics_address
    #[arg(long)]
    metrics_address: Option<std::net::SocketAddr>,
    /// Log lines as JSON
    #[arg(long)]
    log_json: bool,
}

fn configuration(arguments: &Arguments) -> anyhow::Result<Config> {
    let default = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.exists());
    let file = arguments.config.clone().or_else(default);
    let mut config = match &file {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    let overrides = [
        (&arguments.state_dir, &mut config.state_dir),
        (&arguments.run_dir, &mut config.run_dir),
        (&arguments.socket, &mut config.socket),
        (&arguments.kernel, &mut config.vmm.kernel),
        (&arguments.initramfs, &mut config.vmm.initramfs),
    ];
    for (given, target) in overrides {
        if let Some(path) = given {
            *target = path.clone();
        }
    }
    if let Some(program) = &arguments.vmm {
        config.vmm.program = Some(program.clone());
    }
    config.streaming_address = arguments
        .streaming_address
        .unwrap_or(config.streaming_address);
    config.metrics_address = arguments.metrics_address.or(config.metrics_address);
    config.validate().map_err(|error| match &file {
        Some(path) => error.in_file(path),
        None => error,
    })?;
    Ok(config)
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = configuration(&arguments)?;
    if arguments.check_config {
        print!("{}", toml::to_string(&config)?);
        return Ok(());
    }
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if arguments.log_json {
        log.json().init()
    } else {
        log.init()
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    std::fs::create_dir_all(&config.run_dir).context("making run_dir")?;
    let shim = build(config)?;
    recover(&shim).await.context("recovering")?;

    let streaming = TcpListener::bind(shim.config.streaming_address)
        .await
        .context("listening on streaming_address")?;
    let streaming_url = format!("http://{}", streaming.local_addr()?);
    let routes = streaming::server::router(shim.clone());
    tokio::spawn(async move {
        if let Err(error) = axum::serve(streaming, routes).await {
            tracing::error!(%error, "the streaming server ended");
        }
    });
    if let Some(address) = shim.config.metrics_address {
        let listener = TcpListener::bind(address)
            .await
            .context("listening on metrics_address")?;
        let routes = metrics::router(shim.metrics.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "the metrics server ended");
            }
        });
    }

    check::begin(&shim);
    // Before the socket is there: who sees it may already end the shim.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = server::listen(&shim.config.socket)?;
    tracing::info!(socket = %shim.config.socket.display(), streaming_url, "serving CRI");
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending; pods keep running");
    };
    serve_until(shim, listener, streaming_url, stop).await
}

/// Serves until `stop`, then gives open requests a moment: streams of events never end.
async fn serve_until(
    shim: Arc<Shim>,
    listener: tokio::net::UnixListener,
    streaming_url: String,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    const LAST_REQUESTS: Duration = Duration::from_secs(2);
    let (stopping, mut stopped) = tokio::sync::watch::channel(false);
    let shutdown = async move {
        stop.await;
        stopping.send_replace(true);
    };
    tokio::select! {
        served = server::serve(shim, listener, streaming_url, shutdown) => served.context("serving CRI"),
        () = async {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            tokio::time::sleep(LAST_REQUESTS).await;
        } => Ok(()),
    }
}

fn build(config: Config) -> anyhow::Result<Arc<Shim>> {
    let journal = Journal::open(config.state_dir.join("sandboxes"))?;
    let mut store = hull_image::StoreConfig::new(config.state_dir.join("images"));
    store.registries = config.registries.clone();
    // Also keeps a second shim away from the same state_dir.
    let images = hull_image::ImageStore::open(store)?;
    let network = CniPodNetwork {
        cni: CniRuntime {
            config_directories: config.cni.config_dirs.clone(),
            executor: Executor {
                directories: config.cni.plugin_dirs.clone(),
                timeout: scaled(Duration::from_secs(config.cni.timeout_seconds)),
            },
            cache: Cache::new(config.state_dir.join("cni")),
        },
    };
    let vmm = HullVmm {
        program: config.vmm_program(),
        kernel: config.vmm.kernel.clone(),
        initramfs: config.vmm.initramfs.clone(),
        memory_pages: config.vmm.memory_pages,
        cmdline: config.vmm.cmdline.clone(),
        seccomp: config.vmm.seccomp,
        sandboxes_dir: config.run_dir.join("sandboxes"),
        file_servers: FileServers {
            program: config.fsd_program(),
            seccomp: config.vmm.seccomp,
            sandboxes_dir: config.run_dir.join("sandboxes"),
        },
    };
    Ok(Shim::new(
        config,
        journal,
        images,
        Arc::new(network),
        Arc::new(vmm),
    ))
}

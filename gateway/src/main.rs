//! The gateway's process: configuration before anything binds, run, drain on SIGTERM.

use clap::Parser;
use gateway::app::Gateway;
use gateway::config::{Config, Environment};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for a configuration that cannot be used (sysexits EX_USAGE).
const EX_USAGE: u8 = 64;

/// Realtime gateway: unmodified Socket.IO clients, rooms, fan-out over Redis.
///
/// Without any configuration it is a complete single-node server: clients at
/// :8080/socket.io/, metrics and health at :9090, and development routes
/// (joinRoom, leaveRoom, sendMessage, echo) that anybody may use.
///
/// Environment:
///   GATEWAY_CONFIG      configuration file, JSON or YAML
///   REDIS_URL           redis://[user:password@]host:port[/db], or rediss:// for TLS
///   REDIS_HOST, REDIS_PORT, REDIS_PASSWORD, REDIS_PASSWORD_FILE   instead of a URL
///   REDIS_PREFIX        prefix of keys and channels (default: realtime)
///   INTERNAL_KEY_DIR    folder with the keys of signed internal calls
///   BIND_ADDRESS        address to listen on (default: 0.0.0.0)
///   RUST_LOG            log filter (default: info); LOG_FORMAT=json for JSON lines
#[derive(Parser)]
#[command(name = "realtime-gateway", version, verbatim_doc_comment)]
struct Args {
    /// Check the configuration, print all mistakes, and exit.
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    start_logging();
    // Both kinds of TLS in this process use the same provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = match Config::load(&Environment) {
        Ok(config) => config,
        Err(invalid) => {
            eprintln!("realtime-gateway: {invalid}");
            return ExitCode::from(EX_USAGE);
        }
    };
    if args.check {
        println!("configuration is sound");
        return ExitCode::SUCCESS;
    }
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause =
                std::error::Error::source(&*error).map(|s| format!(": {s}")).unwrap_or_default();
            eprintln!("realtime-gateway: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let development = config.development;
    let gateway = Gateway::start(config).await?;
    tracing::info!(
        clients = %gateway.client_addr, metrics = %gateway.metrics_addr, api = %gateway.api_addr,
        "gateway is listening"
    );
    if development {
        tracing::warn!(
            "no configuration: everybody may connect, join and publish (events joinRoom, leaveRoom, \
             sendMessage, echo); set GATEWAY_CONFIG for anything but development"
        );
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    tokio::select! {
        () = gateway.drain() => tracing::info!("drained"),
        // A second signal means now.
        _ = terminate.recv() => tracing::warn!("told to stop twice: not waiting for the drain"),
        _ = interrupt.recv() => tracing::warn!("told to stop twice: not waiting for the drain"),
    }
    Ok(())
}

fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::env::var("LOG_FORMAT").is_ok_and(|format| format == "json") {
        logs.json().init();
    } else {
        logs.init();
    }
}

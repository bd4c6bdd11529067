//! The operator's process: one replica leads and reconciles, the others wait.

use clap::{Args, Parser, Subcommand};
use kube::Client;
use operator::lease::Elector;
use operator::metrics::Metrics;
use operator::settings::Installed;
use operator::stores::Namespaces;
use operator::{admin, controller, crd};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Operator for RealtimeClusters.
#[derive(Parser)]
#[command(name = "realtime-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the CustomResourceDefinition as YAML.
    Crd,
    /// Reconcile until SIGTERM.
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// Gateway image for resources that name none.
    #[arg(long, env = "GATEWAY_IMAGE")]
    gateway_image: String,
    /// Redis image for resources that name none.
    #[arg(long, env = "REDIS_IMAGE")]
    redis_image: String,
    /// Watch this namespace only; all when empty.
    #[arg(long, env = "WATCH_NAMESPACE", default_value = "")]
    watch_namespace: String,
    /// Namespace of the leader-election Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Name of this replica.
    #[arg(long, env = "POD_NAME", default_value = "realtime-operator")]
    identity: String,
    /// Address of health and metrics.
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "0.0.0.0:9090")]
    admin_address: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Crd => match serde_saphyr::to_string(&crd::definition()) {
            Ok(yaml) => {
                print!("{yaml}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("realtime-operator: failed to write the CRD: {error}");
                ExitCode::FAILURE
            }
        },
        Command::Run(run) => {
            let filter =
                EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
            let logs =
                tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
            logs.json().with_current_span(false).with_span_list(false).init();
            let _ = rustls::crypto::ring::default_provider().install_default();
            match lead(run).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!(%error, "operator stops");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

async fn lead(run: Run) -> Result<(), Box<dyn std::error::Error>> {
    let metrics = Arc::new(Metrics::default());
    let client = Client::try_default().await?;
    tokio::spawn(admin::serve(run.admin_address, Arc::clone(&metrics)));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut elector =
        Elector::new(client.clone(), &run.namespace, "realtime-operator", &run.identity);
    tokio::select! {
        () = elector.acquire() => tracing::info!(identity = run.identity, "leading"),
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    metrics.leader.set(1);
    let installed = Installed { gateway_image: run.gateway_image, redis_image: run.redis_image };
    let (stop, mut stopped) = watch::channel(false);
    let stopping = async move {
        // A dropped sender means stop as well.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let namespaces = Namespaces::new(Some(run.watch_namespace));
    let work = tokio::spawn(controller::run(client, namespaces, installed, metrics, stopping));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        // Fail-stop: a leader that cannot prove it leads must not write another line.
        () = elector.keep() => return Err("leadership was lost".into()),
    }
    let _ = stop.send(true);
    let _ = work.await;
    elector.release().await;
    Ok(())
}

//! Load tool: holds many Socket.IO connections and prints counters each second.

use clap::Parser;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tests::load::{Counters, Load};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

/// Holds Socket.IO connections until its standard input ends; prints one JSON
/// line of counters a second and one at the end.
#[derive(Parser)]
struct Args {
    /// Address and port of a gateway or its Service.
    #[arg(long)]
    target: SocketAddr,
    /// Number of connections.
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// New connections a second.
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Local addresses to connect from, in turn.
    #[arg(long, value_delimiter = ',')]
    sources: Vec<IpAddr>,
    /// Rooms to join, in turn.
    #[arg(long, default_value_t = 50)]
    rooms: usize,
    /// Messages published a second over all rooms.
    #[arg(long, default_value_t = 20)]
    publish: u32,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let counters = Arc::new(Counters::default());
    let (stop, stopped) = watch::channel(false);
    let Args { target, connections, rate, sources, rooms, publish } = args;
    let load = Load { target, connections, rate, sources, rooms, publish };
    let running = tokio::spawn(load.run(Arc::clone(&counters), stopped));
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    loop {
        tokio::select! {
            _ = tick.tick() => print(&counters),
            read = stdin.read(&mut buffer) => if read.unwrap_or(0) == 0 { break },
        }
    }
    let _ = stop.send(true);
    let _ = running.await;
    print(&counters);
}

fn print(counters: &Counters) {
    let number = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    println!(
        r#"{{"open":{},"connects":{},"failures":{},"announced":{},"unannounced":{},"messages":{}}}"#,
        counters.open.load(Ordering::Relaxed),
        number(&counters.connects),
        number(&counters.failures),
        number(&counters.announced),
        number(&counters.unannounced),
        number(&counters.messages),
    );
}

//! The demo's live view: gateways, their connections and the autoscaler's reason,
//! redrawn in place on a terminal, a line a second elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// A gateway as the view shows it.
#[derive(Clone, Debug, Default)]
pub struct Gateway {
    /// Pod name.
    pub name: String,
    /// Node it runs on.
    pub node: String,
    /// Condition Ready.
    pub ready: bool,
    /// Phase of its life.
    pub phase: String,
    /// Open connections.
    pub connections: i64,
}

/// One moment.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Since the load began.
    pub at: Duration,
    /// What the demo is doing.
    pub act: String,
    /// All gateways.
    pub gateways: Vec<Gateway>,
    /// Gateways the autoscaler wants.
    pub desired: i32,
    /// Why.
    pub reason: String,
    /// Connections the load tool holds.
    pub open: i64,
    /// Mean lag of messages, publish to socket write, in milliseconds.
    pub lag_ms: f64,
    /// Connections one gateway shall bear.
    pub target: i64,
}

const BAR: usize = 40;
const HISTORY: usize = 60;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws moments.
#[derive(Debug, Default)]
pub struct View {
    drawn: usize,
    connections: Vec<i64>,
    desired: Vec<i64>,
}

impl View {
    /// Draws one moment over the last.
    pub fn draw(&mut self, moment: &Moment) {
        self.connections.push(moment.open);
        self.desired.push(moment.desired.into());
        let ready = moment.gateways.iter().filter(|gateway| gateway.ready).count();
        if !std::io::stdout().is_terminal() {
            println!(
                "{:>4} s  {:<28} connections {:>5}  gateways {ready}/{} desired {}  lag {:.1} ms  {}",
                moment.at.as_secs(),
                moment.act,
                moment.open,
                moment.gateways.len(),
                moment.desired,
                moment.lag_ms,
                moment.reason
            );
            return;
        }
        let frame = self.frame(moment, ready);
        let mut out = std::io::stdout().lock();
        // Up over the last frame; each line clears what it overwrites.
        let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        let _ = write!(out, "{up}{}\x1b[J", frame.replace('\n', "\x1b[K\n"));
        let _ = out.flush();
        self.drawn = frame.lines().count();
    }

    fn frame(&self, moment: &Moment, ready: usize) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "\x1b[1m{:>4} s  {}\x1b[0m", moment.at.as_secs(), moment.act);
        let _ =
            writeln!(text, "  connections {:>6}  {}", moment.open, sparkline(&self.connections));
        let _ = writeln!(text, "  desired     {:>6}  {}", moment.desired, sparkline(&self.desired));
        let _ = writeln!(
            text,
            "  ready       {ready:>6}   lag {:.1} ms, publish to socket write",
            moment.lag_ms
        );
        let _ = writeln!(text, "  \x1b[36mautoscaler: {}\x1b[0m", moment.reason);
        for gateway in &moment.gateways {
            let length = usize::try_from(gateway.connections).unwrap_or(0) * BAR
                / usize::try_from(moment.target.max(1)).unwrap_or(1);
            let color = if gateway.phase == "accepting" { "32" } else { "33" };
            let _ = writeln!(
                text,
                "  {:<34} {:<9} \x1b[{color}m{:<10}\x1b[0m {:>5} \x1b[{color}m{}\x1b[0m",
                gateway.name,
                gateway.node,
                gateway.phase,
                gateway.connections,
                "■".repeat(length.min(BAR))
            );
        }
        text
    }
}

fn sparkline(values: &[i64]) -> String {
    let recent = &values[values.len().saturating_sub(HISTORY)..];
    let highest = recent.iter().copied().max().unwrap_or(0).max(1);
    let block = |value: &i64| {
        let level = usize::try_from(value * 7 / highest).unwrap_or(0);
        BLOCKS[level.min(7)]
    };
    recent.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_shows_the_recent_values_relative_to_their_highest() {
        assert_eq!(sparkline(&[0, 4, 8]), "▁▄█");
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[1; 100]).chars().count(), HISTORY);
    }
}

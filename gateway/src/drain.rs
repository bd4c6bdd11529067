//! Closing transports at a bearable rate, so that survivors can take the clients in.

use crate::app::App;
use crate::life::Draining;
use crate::session::CloseReason;
use std::time::{Duration, Instant};

/// Closes are spread over the second in this many steps.
const STEPS: u32 = 10;

/// One second of a drain: closes `rate` transports, or all of them at the deadline.
pub async fn close_some(app: &App, drain: Draining) {
    let mut open: Vec<_> = app.registry.all();
    open.retain(|session| session.closed().is_none());
    if Instant::now() >= drain.deadline {
        for session in open {
            session.close(CloseReason::Drain);
        }
        return;
    }
    let mut closing = open.into_iter().take(drain.rate as usize);
    let per_step = drain.rate.div_ceil(STEPS) as usize;
    for _ in 0..STEPS {
        let batch: Vec<_> = closing.by_ref().take(per_step).collect();
        if batch.is_empty() {
            return;
        }
        for session in batch {
            session.close(CloseReason::Drain);
        }
        tokio::time::sleep(Duration::from_millis(90)).await;
    }
}

/// SIGTERM: not ready, wait for endpoints, drain; returns when nobody is left
/// or a moment after the deadline.
pub async fn on_sigterm(app: &App) {
    let config = &app.config.drain;
    app.life.terminate();
    if !app.registry.is_empty() {
        tokio::time::sleep(Duration::from_millis(config.propagation_ms.into())).await;
    }
    let deadline = Duration::from_millis(config.deadline_ms.into());
    app.life.drain_for_good(config.rate, deadline);
    let last = Instant::now() + deadline + Duration::from_secs(3);
    while !app.registry.is_empty() && Instant::now() < last {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! Phases of a gateway's life: a cordon is leased, so that a lost operator
//! never leaves a pod out of service (operator rule 2).

use crate::app::App;
use crate::config::KeyFiles;
use crate::metrics::labels;
use contract::internal::Phase;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the operator or SIGTERM asked for.
#[derive(Debug, Default)]
struct State {
    lease_until: Option<Instant>,
    cordoned_since: Option<Instant>,
    drain: Option<Draining>,
    terminating: bool,
}

/// A drain in progress.
#[derive(Clone, Copy, Debug)]
pub struct Draining {
    /// Transports closed a second.
    pub rate: u32,
    /// When the rest closes at once.
    pub deadline: Instant,
}

/// The phase and the way to change it.
#[derive(Debug, Default)]
pub struct Life(Mutex<State>);

impl Life {
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.terminating && state.lease_until.is_some_and(|until| Instant::now() >= until) {
            *state = State::default();
        }
        state
    }

    /// Not ready for `lease`; asking again renews.
    pub fn cordon(&self, lease: Duration) {
        let mut state = self.state();
        let now = Instant::now();
        state.lease_until = Some(now + lease);
        state.cordoned_since.get_or_insert(now);
    }

    /// Closes transports at `rate`; the first call sets the deadline, each renews the lease.
    pub fn drain(&self, lease: Duration, rate: u32, deadline: Duration) {
        self.cordon(lease);
        let mut state = self.state();
        let deadline = state.drain.map_or_else(|| Instant::now() + deadline, |d| d.deadline);
        state.drain = Some(Draining { rate: rate.max(1), deadline });
    }

    /// Accepts again, unless SIGTERM came.
    pub fn uncordon(&self) {
        let mut state = self.state();
        if !state.terminating {
            *state = State::default();
        }
    }

    /// SIGTERM: never accepts again.
    pub fn terminate(&self) {
        let mut state = self.state();
        state.terminating = true;
        state.cordoned_since.get_or_insert_with(Instant::now);
    }

    /// SIGTERM's drain begins.
    pub fn drain_for_good(&self, rate: u32, deadline: Duration) {
        let mut state = self.state();
        state.drain = Some(Draining { rate: rate.max(1), deadline: Instant::now() + deadline });
    }

    /// The drain in progress.
    #[must_use]
    pub fn draining(&self) -> Option<Draining> {
        self.state().drain
    }

    /// Time since the cordon began.
    #[must_use]
    pub fn cordoned_for(&self) -> Option<Duration> {
        self.state().cordoned_since.map(|since| since.elapsed())
    }

    /// The phase, given whether the broker was ever connected and how many clients are left.
    #[must_use]
    pub fn phase(&self, started: bool, connections: usize) -> Phase {
        let state = self.state();
        match (&state.drain, state.cordoned_since) {
            (Some(_), _) if connections == 0 => Phase::Drained,
            (Some(_), _) => Phase::Draining,
            (None, Some(_)) => Phase::Cordoned,
            (None, None) if !started => Phase::Starting,
            (None, None) => Phase::Accepting,
        }
    }
}

impl App {
    /// The phase right now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let started = self.broker.health().started && self.peers.number().is_some();
        self.life.phase(started, self.registry.len())
    }
}

/// Label of a phase.
#[must_use]
pub const fn phase_label(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Accepting => "accepting",
        Phase::Cordoned => "cordoned",
        Phase::Draining => "draining",
        Phase::Drained => "drained",
    }
}

/// Once a second: publishes the phase, reads the key files anew, paces the drain.
pub async fn watch(app: Arc<App>, keys: KeyFiles) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let phase = app.phase();
        for one in
            [Phase::Starting, Phase::Accepting, Phase::Cordoned, Phase::Draining, Phase::Drained]
        {
            let gauge =
                app.metrics.phase.get_or_create_owned(&labels([("phase", phase_label(one))]));
            gauge.set(i64::from(one == phase));
        }
        let read = keys.read();
        *app.keys.write().unwrap_or_else(PoisonError::into_inner) = read;
        if let Some(drain) = app.life.draining() {
            crate::drain::close_some(&app, drain).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lapsed_cordon_accepts_again_and_sigterm_never_does() {
        let life = Life::default();
        assert_eq!(life.phase(false, 0), Phase::Starting);
        assert_eq!(life.phase(true, 0), Phase::Accepting);
        life.cordon(Duration::from_secs(30));
        assert_eq!(life.phase(true, 3), Phase::Cordoned);
        life.drain(Duration::from_secs(30), 0, Duration::from_secs(1));
        assert_eq!(life.phase(true, 3), Phase::Draining);
        assert_eq!(life.phase(true, 0), Phase::Drained);
        assert_eq!(life.draining().map(|d| d.rate), Some(1));
        life.uncordon();
        assert_eq!(life.phase(true, 3), Phase::Accepting);
        life.cordon(Duration::ZERO);
        assert_eq!(life.phase(true, 3), Phase::Accepting);
        life.terminate();
        life.uncordon();
        assert_eq!(life.phase(true, 3), Phase::Cordoned);
    }
}

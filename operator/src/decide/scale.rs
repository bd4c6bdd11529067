//! PURE: how many gateways, from dated samples. Up at once, down only on the
//! maximum over a window of fresh samples; a missing sample counts as nothing
//! when growing and as a full pod when shrinking.

use super::fleet::{PodView, Stage};
use crate::crd::AutoscalingMode;
use crate::settings::Scaling;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// A sample older than this is stale: three missed ticks and a little.
pub const FRESH: Duration = Duration::from_secs(4);
/// Gateways added at most in one step: as many as there are, or this many.
const STEP_MIN: i32 = 4;
/// Consecutive passes in which lag must exceed its target before it adds a gateway.
const LAG_PASSES: u32 = 3;
/// A gateway added for lag needs this long to show an effect before another follows.
const LAG_PAUSE: Duration = Duration::from_secs(30);

/// What the decision needs.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The spec's part.
    pub scaling: &'a Scaling,
    /// Gateway pods with their samples.
    pub pods: &'a [PodView],
    /// Time of the pass.
    pub now: SystemTime,
}

/// What is remembered between passes; empty after an operator restart, which
/// only delays a scale-down by the window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Demand at each pass with fresh samples.
    demand: VecDeque<(SystemTime, i32)>,
    /// Passes in a row with lag above its target.
    lag_passes: u32,
    lag_added: Option<SystemTime>,
    /// The last decision: what is held while there is no reason to change it.
    /// Never the number of pods, which a rollout raises for a while.
    held: Option<i32>,
}

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Gateways in service.
    pub current: i32,
    /// Gateways that shall be in service.
    pub desired: i32,
    /// Gateways that the autoscaler would want; differs from `desired` in mode Advice.
    pub advised: i32,
    /// Why, in words.
    pub reason: String,
    /// What held it back.
    pub limited_by: Option<Limit>,
    /// Every gateway's sample is fresh.
    pub fresh: bool,
    /// It differs from the last pass.
    pub changed: bool,
}

/// What held a decision back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `autoscaling.min`
    Minimum,
    /// `autoscaling.max`
    Maximum,
    /// Growth is bounded a step.
    StepLimit,
    /// The demand was higher within the window.
    Window,
    /// A sample is missing or old.
    StaleSamples,
    /// A gateway finds no node.
    Unschedulable,
}

impl Limit {
    /// Stable name for status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minimum => "Minimum",
            Self::Maximum => "Maximum",
            Self::StepLimit => "StepLimit",
            Self::Window => "Window",
            Self::StaleSamples => "StaleSamples",
            Self::Unschedulable => "Unschedulable",
        }
    }
}

/// Decides.
#[must_use]
pub fn decide(inputs: &Inputs<'_>, history: &History) -> (Decision, History) {
    let scaling = inputs.scaling;
    let live = inputs.pods.iter().filter(|pod| pod.stage != Stage::Leaving);
    let current = live.clone().filter(|pod| pod.stage == Stage::Serving).count();
    let current = i32::try_from(current).unwrap_or(i32::MAX);
    let mut history = history.clone();
    let mut decision = match scaling.mode {
        AutoscalingMode::Off | AutoscalingMode::External => fixed(scaling, current),
        AutoscalingMode::BuiltIn => automatic(inputs, current, &mut history),
        AutoscalingMode::Advice => {
            let advice = automatic(inputs, current, &mut history);
            let reason = format!("advice only: would run {} ({})", advice.desired, advice.reason);
            Decision { desired: scaling.replicas, advised: advice.desired, reason, ..advice }
        }
    };
    decision.changed =
        history.held.replace(decision.advised).is_some_and(|held| held != decision.advised);
    (decision, history)
}

fn fixed(scaling: &Scaling, current: i32) -> Decision {
    Decision {
        current,
        desired: scaling.replicas,
        advised: scaling.replicas,
        reason: "gateway.replicas is the count".into(),
        limited_by: None,
        fresh: true,
        changed: false,
    }
}

/// Sums over the gateways.
struct Load {
    connections: i64,
    missing: i64,
    worst_lag_ms: i64,
    pods: i32,
}

fn load(inputs: &Inputs<'_>) -> Load {
    let mut load = Load { connections: 0, missing: 0, worst_lag_ms: 0, pods: 0 };
    for pod in inputs.pods.iter().filter(|pod| pod.stage != Stage::Leaving) {
        load.pods += 1;
        let fresh = pod.sample_age.is_some_and(|age| age <= FRESH);
        if fresh {
            // Connections of a draining pod move to the others: they are demand.
            load.connections += pod.connections;
            load.worst_lag_ms = load.worst_lag_ms.max(pod.gateway_lag_ms);
        } else if pod.ready || pod.connections > 0 {
            // One that never was ready has no clients that could be missed.
            load.missing += 1;
        }
    }
    load
}

fn pods_for(connections: i64, target: i64) -> i32 {
    let pods = connections.max(0).saturating_add(target - 1) / target;
    i32::try_from(pods).unwrap_or(i32::MAX)
}

fn automatic(inputs: &Inputs<'_>, current: i32, history: &mut History) -> Decision {
    let scaling = inputs.scaling;
    let load = load(inputs);
    let fresh = load.missing == 0;
    let target = scaling.target_connections;
    // After a restart the live pods are the best guess of what was wanted.
    let held = history.held.unwrap_or(current).clamp(scaling.min, scaling.max);
    let mut want = pods_for(load.connections, target);
    let mut reason = format!("{} connections at {target} a gateway", load.connections);
    if let Some((pods, lag)) = lag_demand(inputs, &load, held, history)
        && pods > want
    {
        (want, reason) = (pods, lag);
    }
    // For going down, a gateway that does not answer may be full.
    let cautious = want.max(pods_for(load.connections + load.missing * target, target));
    remember(inputs, cautious, fresh, history);
    let bounded = want.clamp(scaling.min, scaling.max);
    let limited_by = match want {
        _ if want > scaling.max => Some(Limit::Maximum),
        _ if want < scaling.min => Some(Limit::Minimum),
        _ => None,
    };
    let (desired, limited_by) = if bounded > held {
        grow(inputs, held, bounded, limited_by)
    } else if bounded < held {
        shrink(inputs, held, bounded, fresh, history, limited_by)
    } else {
        (bounded, limited_by)
    };
    Decision { current, desired, advised: desired, reason, limited_by, fresh, changed: false }
}

fn grow(
    inputs: &Inputs<'_>,
    held: i32,
    bounded: i32,
    limited_by: Option<Limit>,
) -> (i32, Option<Limit>) {
    let lost = |pod: &PodView| pod.unschedulable && pod.stage != Stage::Leaving;
    if inputs.pods.iter().any(lost) {
        return (held, Some(Limit::Unschedulable));
    }
    let step = held.saturating_add(held.max(STEP_MIN));
    if bounded > step { (step, Some(Limit::StepLimit)) } else { (bounded, limited_by) }
}

/// Lag in the gateway's own leg adds one gateway at a time; the broker's leg never does.
fn lag_demand(
    inputs: &Inputs<'_>,
    load: &Load,
    held: i32,
    history: &mut History,
) -> Option<(i32, String)> {
    let target = i64::from(inputs.scaling.target_lag_ms);
    if load.worst_lag_ms <= target {
        history.lag_passes = 0;
        return None;
    }
    history.lag_passes += 1;
    let paused = history.lag_added.is_some_and(|at| elapsed(at, inputs.now) < LAG_PAUSE);
    if history.lag_passes < LAG_PASSES || paused {
        return None;
    }
    history.lag_added = Some(inputs.now);
    Some((held + 1, format!("gateway lag {} ms above {target} ms", load.worst_lag_ms)))
}

fn elapsed(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

fn remember(inputs: &Inputs<'_>, demand: i32, fresh: bool, history: &mut History) {
    let window = Duration::from_secs(inputs.scaling.window_seconds);
    if fresh {
        history.demand.push_back((inputs.now, demand));
    } else {
        // The window must consist of fresh samples alone.
        history.demand.clear();
    }
    // One entry older than the window stays: it proves that the window is full.
    while history.demand.get(1).is_some_and(|(at, _)| elapsed(*at, inputs.now) >= window) {
        history.demand.pop_front();
    }
}

fn shrink(
    inputs: &Inputs<'_>,
    held: i32,
    bounded: i32,
    fresh: bool,
    history: &History,
    limited_by: Option<Limit>,
) -> (i32, Option<Limit>) {
    if !fresh {
        return (held, Some(Limit::StaleSamples));
    }
    let window = Duration::from_secs(inputs.scaling.window_seconds);
    let full = history.demand.front().is_some_and(|(at, _)| elapsed(*at, inputs.now) >= window);
    if !full {
        return (held, Some(Limit::Window));
    }
    let highest = history.demand.iter().map(|(_, demand)| *demand).max().unwrap_or(held);
    let allowed = highest.clamp(inputs.scaling.min, inputs.scaling.max).min(held);
    let limit = if allowed > bounded { Some(Limit::Window) } else { limited_by };
    (allowed, limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scaling(min: i32, max: i32) -> Scaling {
        Scaling {
            mode: AutoscalingMode::BuiltIn,
            replicas: 2,
            min,
            max,
            target_connections: 500,
            target_lag_ms: 250,
            window_seconds: 60,
        }
    }

    fn pod(connections: i64) -> PodView {
        PodView { connections, ready: true, sample_age: Some(Duration::ZERO), ..PodView::default() }
    }

    /// Runs passes of one second each and returns the last decision.
    fn run(scaling: &Scaling, passes: &[Vec<PodView>]) -> Decision {
        let mut history = History::default();
        let mut decision = Decision::default();
        for (second, pods) in passes.iter().enumerate() {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + second as u64);
            (decision, history) = decide(&Inputs { scaling, pods, now }, &history);
        }
        decision
    }

    #[test]
    fn a_step_is_followed_at_once_and_explained() {
        let decision = run(&scaling(2, 10), &[vec![pod(1500), pod(1500)]]);
        assert_eq!((decision.desired, decision.limited_by), (6, None));
        assert_eq!(decision.reason, "3000 connections at 500 a gateway");
        let capped = run(&scaling(2, 4), &[vec![pod(1500), pod(1500)]]);
        assert_eq!((capped.desired, capped.limited_by), (4, Some(Limit::Maximum)));
        let huge = run(&scaling(2, 100), &[vec![pod(9000), pod(9000)]]);
        assert_eq!((huge.desired, huge.limited_by), (6, Some(Limit::StepLimit)));
    }

    #[test]
    fn down_waits_for_a_full_window_and_never_goes_below_the_minimum() {
        let six = || vec![pod(1); 6];
        let early = run(&scaling(2, 10), &vec![six(); 60]);
        assert_eq!((early.desired, early.limited_by), (6, Some(Limit::Window)));
        let late = run(&scaling(2, 10), &vec![six(); 62]);
        assert_eq!((late.desired, late.limited_by), (2, Some(Limit::Minimum)));
    }

    #[test]
    fn the_highest_demand_of_the_window_counts() {
        let mut passes = vec![vec![pod(1); 6]; 70];
        passes[40] = vec![pod(400); 6];
        let decision = run(&scaling(2, 10), &passes);
        assert_eq!((decision.desired, decision.limited_by), (5, Some(Limit::Window)));
    }

    #[test]
    fn a_missing_sample_never_scales_down() {
        let mut missing = vec![pod(1); 6];
        missing[3].sample_age = None;
        let mut passes = vec![vec![pod(1); 6]; 50];
        passes.push(missing.clone());
        let decision = run(&scaling(2, 10), &passes);
        assert_eq!((decision.desired, decision.limited_by), (6, Some(Limit::StaleSamples)));
        // And the window begins anew.
        passes.push(vec![pod(1); 6]);
        assert_eq!(run(&scaling(2, 10), &passes).limited_by, Some(Limit::Window));
    }

    #[test]
    fn gateway_lag_adds_one_gateway_and_then_waits() {
        let slow = || vec![PodView { gateway_lag_ms: 900, ..pod(10) }; 2];
        assert_eq!(run(&scaling(2, 10), &vec![slow(); 2]).desired, 2);
        let decision = run(&scaling(2, 10), &vec![slow(); 3]);
        assert_eq!(
            (decision.desired, decision.reason.as_str()),
            (3, "gateway lag 900 ms above 250 ms")
        );
        // One gateway is added and kept until the window says otherwise, not one a pass.
        assert_eq!(run(&scaling(2, 10), &vec![slow(); 10]).desired, 3);
    }

    #[test]
    fn without_a_node_growth_stops() {
        let mut pods = vec![pod(1500), pod(1500)];
        pods.push(PodView { unschedulable: true, stage: Stage::Serving, ..PodView::default() });
        let decision = run(&scaling(2, 10), &[pods]);
        assert_eq!((decision.desired, decision.limited_by), (3, Some(Limit::Unschedulable)));
    }

    #[test]
    fn a_restarted_operator_keeps_the_fleet() {
        let decision = run(&scaling(1, 10), &[vec![pod(0); 5]]);
        assert_eq!((decision.desired, decision.limited_by), (5, Some(Limit::Window)));
    }

    proptest! {
        #[test]
        fn decisions_stay_within_bounds_and_stale_samples_never_shrink(
            loads in prop::collection::vec((0i64..3000, prop::bool::weighted(0.8)), 1..8),
            min in 1i32..4, extra in 0i32..6, passes in 1usize..90,
        ) {
            let pods: Vec<_> = loads.iter().map(|(c, fresh)| PodView {
                sample_age: fresh.then_some(Duration::ZERO), ..pod(*c)
            }).collect();
            let scaling = scaling(min, min + extra);
            let decision = run(&scaling, &vec![pods; passes]);
            prop_assert!(decision.desired >= min);
            prop_assert!(decision.desired <= scaling.max);
            if !decision.fresh {
                prop_assert!(decision.desired >= decision.current.min(scaling.max));
            }
        }
    }
}

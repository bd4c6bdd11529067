//! PURE: how the gateways get from what they are to what is wanted, without
//! dropping anybody: raise the current set, cordon and drain what is too much
//! or outdated, lower a set only by a drained pod (operator rules 1 and 2).

use super::Note;
use crate::observe::{Observed, Pod, Set};
use crate::settings::Settings;
use contract::internal::Phase;
use std::time::{Duration, SystemTime};

/// Cost that makes the ReplicaSet controller pick a drained pod first.
pub const DRAINED_COST: i64 = -1_000_000;
/// A pod of an outdated revision that did not become ready within this time is broken.
const STARTING_MAX: Duration = Duration::from_secs(120);

/// Where a pod is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Takes clients, or will as soon as it is ready.
    #[default]
    Serving,
    /// Cordoned since so long.
    Cordoned(Duration),
    /// Closes its connections.
    Draining,
    /// Has none left.
    Drained,
    /// Is being deleted.
    Leaving,
}

/// A pod with its sample, as decisions see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView {
    /// Name.
    pub name: String,
    /// Revision of its template.
    pub revision: String,
    /// Where it is on its way.
    pub stage: Stage,
    /// Condition Ready.
    pub ready: bool,
    /// Phase Running.
    pub running: bool,
    /// The scheduler found no node.
    pub unschedulable: bool,
    /// A container cannot start or keeps failing.
    pub stuck: bool,
    /// Open connections in the last sample.
    pub connections: i64,
    /// Handshakes between the last two samples.
    pub accepts: Option<u64>,
    /// Worst lag of the gateway's leg in the last sample.
    pub gateway_lag_ms: i64,
    /// Age of the last sample.
    pub sample_age: Option<Duration>,
    /// Age of the pod.
    pub age: Option<Duration>,
    /// Deletion cost it carries.
    pub deletion_cost: i64,
}

/// What is asked of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Not ready, under a lease.
    Cordon,
    /// Close connections at `rate` a second.
    Drain {
        /// This pod's share of the budget.
        rate: u32,
    },
    /// Accept again.
    Uncordon,
}

/// The gateways' part of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetPlan {
    /// Size of the current set.
    pub current_replicas: i32,
    /// Sizes of older sets that change.
    pub resize: Vec<(String, i32)>,
    /// Orders to gateways, by pod name.
    pub orders: Vec<(String, Order)>,
    /// Pods to be marked as the first to go.
    pub mark: Vec<String>,
    /// Pods whose mark is to be taken back.
    pub unmark: Vec<String>,
    /// Something is on its way: look again soon.
    pub moving: bool,
    /// Pods that are going.
    pub draining: i32,
    /// Why each step acts or waits.
    pub notes: Vec<Note>,
}

/// Joins pods and samples.
#[must_use]
pub fn views(observed: &Observed) -> Vec<PodView> {
    let now =
        observed.samples.values().map(|dated| dated.at).max().unwrap_or(SystemTime::UNIX_EPOCH);
    observed.gateway_pods.iter().map(|pod| view(pod, observed, now)).collect()
}

fn view(pod: &Pod, observed: &Observed, now: SystemTime) -> PodView {
    let dated = observed.samples.get(&pod.uid);
    let sample = dated.map(|dated| &dated.sample);
    let stage = match sample.and_then(|s| s.phase) {
        _ if pod.terminating => Stage::Leaving,
        Some(Phase::Cordoned) => {
            let seconds = sample.map_or(0.0, |s| s.cordoned_seconds);
            Stage::Cordoned(Duration::try_from_secs_f64(seconds).unwrap_or_default())
        }
        Some(Phase::Draining) => Stage::Draining,
        Some(Phase::Drained) => Stage::Drained,
        Some(Phase::Starting | Phase::Accepting) | None => Stage::Serving,
    };
    let milliseconds = sample.map_or(0.0, |s| s.gateway_lag_seconds * 1000.0);
    PodView {
        name: pod.name.clone(),
        revision: pod.revision.clone(),
        stage,
        ready: pod.ready,
        running: pod.running,
        unschedulable: pod.unschedulable,
        stuck: pod.trouble.is_some(),
        connections: sample.map_or(0, |s| i64::try_from(s.connections).unwrap_or(i64::MAX)),
        accepts: dated.and_then(|d| d.accepts),
        gateway_lag_ms: milliseconds as i64,
        sample_age: dated.map(|dated| now.duration_since(dated.at).unwrap_or_default()),
        age: pod.created.map(|created| now.duration_since(created).unwrap_or_default()),
        deletion_cost: pod.deletion_cost,
    }
}

/// Plans one pass towards `desired` gateways of `revision`.
#[must_use]
pub fn plan(
    settings: &Settings,
    observed: &Observed,
    pods: &[PodView],
    revision: &str,
    desired: i32,
) -> FleetPlan {
    let sizes = Sizes::new(observed, pods, revision, desired);
    let mut plan = FleetPlan { current_replicas: sizes.raised(), ..FleetPlan::default() };
    if plan.current_replicas > sizes.current {
        let more = plan.current_replicas - sizes.current;
        let text = format!("raising revision {revision} by {more} to {}", plan.current_replicas);
        plan.notes.push(Note::normal("GatewaysAdded", text));
    }
    let victims = victims(pods, revision, sizes.victims());
    // Load is back: pods on their way out are the fastest capacity there is.
    for pod in pods.iter().filter(|pod| is_going(pod)) {
        if !victims.iter().any(|victim| victim.name == pod.name) {
            plan.orders.push((pod.name.clone(), Order::Uncordon));
            if pod.deletion_cost == DRAINED_COST {
                plan.unmark.push(pod.name.clone());
            }
        }
    }
    let draining = victims.iter().filter(|victim| victim.connections > 0).count().max(1);
    let rate = settings.config.drain.rate / u32::try_from(draining).unwrap_or(1);
    for victim in &victims {
        step(&mut plan, settings, victim, rate.max(1));
    }
    for set in &observed.sets {
        lower(&mut plan, set, revision, pods, &victims);
    }
    plan.draining = count(victims.iter());
    plan.moving = plan.current_replicas != sizes.current
        || sizes.outdated > 0
        || !plan.orders.is_empty()
        || pods.iter().any(|pod| !pod.ready || pod.stage == Stage::Leaving);
    plan
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

/// The numbers that a pass starts from.
struct Sizes {
    desired: i32,
    /// Size of the current set.
    current: i32,
    /// Sizes of all older sets together.
    outdated: i32,
    /// Pods that take clients right now.
    available: i32,
    /// Pods on their way out.
    going: i32,
    /// Outdated pods that never worked: nobody is connected to them.
    broken: i32,
}

impl Sizes {
    fn new(observed: &Observed, pods: &[PodView], revision: &str, desired: i32) -> Self {
        let size = |current: bool| {
            let sets = observed.sets.iter().filter(|set| (set.revision == revision) == current);
            sets.map(|set| set.replicas).sum()
        };
        Self {
            desired,
            current: size(true),
            outdated: size(false),
            available: count(pods.iter().filter(|pod| pod.ready && pod.stage == Stage::Serving)),
            going: count(pods.iter().filter(|pod| is_going(pod))),
            broken: count(pods.iter().filter(|pod| pod.revision != revision && is_broken(pod))),
        }
    }

    /// Size of the current set: at once what is wanted, during a rollout at most a
    /// tenth (at least one) more gateways than wanted. Lowering is `lower`'s alone.
    fn raised(&self) -> i32 {
        let surge = (self.desired + 9) / 10;
        let room = self.desired + surge - self.current - self.outdated;
        let target =
            if self.outdated > 0 { self.desired.min(self.current + room) } else { self.desired };
        target.max(self.current)
    }

    /// How many pods may be on their way out.
    fn victims(&self) -> i32 {
        if self.outdated == 0 {
            return (self.current - self.desired).max(0);
        }
        // What takes clients must not fall below what is wanted. A pod on its way
        // out is counted as spare, since it was when it was sent.
        let spare = self.available + self.going - self.desired;
        spare.max(self.broken).min(self.outdated + (self.current - self.desired).max(0)).max(0)
    }
}

fn is_going(pod: &PodView) -> bool {
    matches!(pod.stage, Stage::Cordoned(_) | Stage::Draining | Stage::Drained)
}

fn is_broken(pod: &PodView) -> bool {
    let late = pod.age.is_some_and(|age| age > STARTING_MAX) || pod.unschedulable || pod.stuck;
    !pod.ready && pod.stage == Stage::Serving && pod.connections == 0 && late
}

/// Outdated before current, broken before working, drains that began before new
/// ones (two pods must not take turns), then whoever has the fewest clients.
fn victims<'a>(pods: &'a [PodView], revision: &str, count: i32) -> Vec<&'a PodView> {
    let mut candidates: Vec<&PodView> =
        pods.iter().filter(|pod| pod.stage != Stage::Leaving).collect();
    candidates.sort_by_key(|pod| {
        let current = pod.revision == revision;
        (current, !is_broken(pod), !is_going(pod), pod.ready, pod.connections, pod.name.clone())
    });
    candidates.truncate(usize::try_from(count).unwrap_or(0));
    candidates
}

/// True when nobody is connected any more and nobody will be.
fn is_gone(pod: &PodView) -> bool {
    pod.stage == Stage::Drained
        || (pod.stage == Stage::Serving && !pod.ready && pod.connections == 0)
}

/// The next order to one pod that goes.
fn step(plan: &mut FleetPlan, settings: &Settings, victim: &PodView, rate: u32) {
    let propagation = Duration::from_millis(settings.config.drain.propagation_ms.into());
    if is_gone(victim) && victim.deletion_cost != DRAINED_COST {
        plan.mark.push(victim.name.clone());
    }
    let order = match victim.stage {
        Stage::Leaving => return,
        Stage::Serving if is_gone(victim) => return,
        Stage::Serving => {
            let text = format!("{} leaves with {} connections", victim.name, victim.connections);
            plan.notes.push(Note::normal("DrainStarted", text));
            Order::Cordon
        }
        // Endpoints and balancers follow with a delay: whoever still arrives proves it.
        Stage::Cordoned(since) if since < propagation || victim.accepts != Some(0) => Order::Cordon,
        // The lease of a drained pod goes on until it is deleted.
        Stage::Cordoned(_) | Stage::Draining | Stage::Drained => Order::Drain { rate },
    };
    plan.orders.push((victim.name.clone(), order));
}

/// Lowers a set by one when it is certain that a pod without clients goes: it is
/// marked and unready, and no pod ranks before it. The controller prefers pods
/// that do not run, then unready ones, then the lowest deletion cost.
fn lower(plan: &mut FleetPlan, set: &Set, revision: &str, pods: &[PodView], victims: &[&PodView]) {
    let siblings =
        || pods.iter().filter(|pod| pod.revision == set.revision && pod.stage != Stage::Leaving);
    let is_victim = |pod: &PodView| victims.iter().any(|victim| victim.name == pod.name);
    let leaves = |pod: &PodView| {
        is_victim(pod) && is_gone(pod) && !pod.ready && pod.deletion_cost == DRAINED_COST
    };
    let Some(leaving) = siblings().find(|pod| leaves(pod)) else { return };
    // The step before must have been carried out: one pod at a time.
    let settled = count(siblings()) == set.replicas;
    let first = siblings().all(|pod| pod.running || leaves(pod));
    if !settled || !first {
        return;
    }
    plan.notes
        .push(Note::normal("GatewayRemoved", format!("{} has no connections left", leaving.name)));
    if set.revision == revision {
        plan.current_replicas = set.replicas - 1;
    } else {
        plan.resize.push((set.name.clone(), set.replicas - 1));
    }
}

#[cfg(test)]
mod tests;

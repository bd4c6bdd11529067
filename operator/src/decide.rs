//! PURE: from the settings and what was observed to a plan. No client, no clock,
//! no randomness: `now` is an argument, everything else is data.

pub mod fleet;
pub mod objects;
pub mod scale;

use crate::crd::{AutoscalingMode, RedisMode};
use crate::observe::{Observed, Pod};
use crate::settings::Settings;
use fleet::FleetPlan;
use objects::Desired;
use scale::{Decision, History, Inputs};
use std::time::{Duration, SystemTime};

/// What one pass will do. Apply performs it without any further choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Objects as they shall be, the current gateway set included.
    pub objects: Vec<Desired>,
    /// Gateways: cordons, drains, removals, sizes of older sets.
    pub fleet: FleetPlan,
    /// The autoscaler's decision.
    pub decision: Decision,
    /// A Redis pod of an older revision to be replaced, by name.
    pub replace_redis: Option<String>,
    /// Objects of older revisions that nothing uses any more.
    pub collect: Vec<(objects::Kind, String)>,
    /// What a person would ask about, for Events and the log.
    pub notes: Vec<Note>,
}

/// Something worth an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Warnings ask for attention.
    pub warning: bool,
    /// Stable reason.
    pub reason: &'static str,
    /// In words.
    pub text: String,
}

impl Note {
    fn normal(reason: &'static str, text: String) -> Self {
        Self { warning: false, reason, text }
    }
}

/// What the API server fills in for `gateway.replicas`: not a wish of anybody.
const DEFAULT_REPLICAS: i32 = 2;

/// Decides a pass.
#[must_use]
pub fn decide(
    settings: &Settings,
    observed: &Observed,
    history: &History,
    now: SystemTime,
) -> (Plan, History) {
    let revision = objects::gateway::revision(settings);
    let pods = fleet::views(observed);
    let inputs = Inputs { scaling: &settings.scaling, pods: &pods, now };
    let (decision, history) = scale::decide(&inputs, history);
    let fleet = fleet::plan(settings, observed, &pods, &revision, decision.desired);
    let mut plan = Plan { objects: objects::fixed(settings), ..Plan::default() };
    plan.objects.push(objects::gateway::replica_set(settings, fleet.current_replicas));
    plan.replace_redis = outdated_redis(settings, observed);
    plan.collect = unused(observed, &revision, &plan.objects);
    plan.notes = notes(settings, &decision, &fleet, &plan.replace_redis);
    plan.fleet = fleet;
    plan.decision = decision;
    (plan, history)
}

/// The pod of a Redis without volume is replaced here; a StatefulSet replaces its own.
fn outdated_redis(settings: &Settings, observed: &Observed) -> Option<String> {
    if settings.redis_mode == RedisMode::None || settings.persistence.is_some() {
        return None;
    }
    let current = objects::redis::revision(settings);
    // Only when the set already has the new template: it makes the successor.
    let set = observed.redis_set_revision.as_deref() == Some(current.as_str());
    let outdated = |pod: &&Pod| !pod.terminating && pod.revision != current;
    observed.redis_pods.iter().find(outdated).filter(|_| set).map(|pod| pod.name.clone())
}

fn unused(
    observed: &Observed,
    revision: &str,
    desired: &[Desired],
) -> Vec<(objects::Kind, String)> {
    let in_use = |revision: &str| observed.gateway_pods.iter().any(|pod| pod.revision == revision);
    let mut gone: Vec<_> = observed
        .sets
        .iter()
        .filter(|set| set.revision != revision && set.replicas == 0 && !in_use(&set.revision))
        .map(|set| (objects::Kind::ReplicaSet, set.name.clone()))
        .collect();
    // A configuration is kept as long as a set of any other revision exists.
    if observed.sets.iter().all(|set| set.revision == revision) {
        let wanted = |name: &str| {
            desired.iter().any(|d| d.kind == objects::Kind::ConfigMap && d.name() == name)
        };
        let maps = observed.config_maps.iter().filter(|name| !wanted(name));
        gone.extend(maps.map(|name| (objects::Kind::ConfigMap, name.clone())));
    }
    gone
}

fn notes(
    settings: &Settings,
    decision: &Decision,
    fleet: &FleetPlan,
    redis: &Option<String>,
) -> Vec<Note> {
    let mut notes = Vec::new();
    if decision.changed && settings.scaling.mode != AutoscalingMode::Off {
        let reason = if settings.scaling.mode == AutoscalingMode::Advice {
            "ScalingAdvised"
        } else if decision.desired > decision.current {
            "ScaledUp"
        } else {
            "ScaledDown"
        };
        let text =
            format!("{} → {} gateways: {}", decision.current, decision.desired, decision.reason);
        notes.push(Note::normal(reason, text));
    }
    notes.extend(fleet.notes.iter().cloned());
    let replicas = settings.scaling.replicas;
    if settings.scaling.mode == AutoscalingMode::BuiltIn && replicas != DEFAULT_REPLICAS {
        let text = format!("gateway.replicas is {replicas}, but autoscaling.mode BuiltIn decides");
        notes.push(Note { warning: true, reason: "ReplicasIgnored", text });
    }
    if let Some(pod) = redis {
        notes.push(Note::normal(
            "RedisReplaced",
            format!("replacing {pod}, which has an older template"),
        ));
    }
    notes
}

/// When to look again: at once while something moves, each second while the
/// operator decides about the size, else rarely.
#[must_use]
pub fn next_look(settings: &Settings, plan: &Plan) -> Duration {
    let watching =
        matches!(settings.scaling.mode, AutoscalingMode::BuiltIn | AutoscalingMode::Advice);
    Duration::from_millis(if watching || plan.fleet.moving { 1_000 } else { 5_000 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reasons(spec: serde_json::Value) -> Vec<&'static str> {
        let settings = objects::tests::settings(spec);
        let (plan, _) =
            decide(&settings, &Observed::default(), &History::default(), SystemTime::UNIX_EPOCH);
        plan.notes.iter().map(|note| note.reason).collect()
    }

    #[test]
    fn a_replica_count_that_nobody_heeds_is_told() {
        let built_in = json!({"mode": "BuiltIn", "max": 5});
        assert_eq!(reasons(json!({"autoscaling": built_in})), ["GatewaysAdded"]);
        let both = json!({"autoscaling": built_in, "gateway": {"replicas": 4}});
        assert_eq!(reasons(both), ["GatewaysAdded", "ReplicasIgnored"]);
    }
}

//! PURE: status from what was observed and decided. Decisions, not telemetry:
//! figures alone are written rarely (operator rule 7).

use crate::crd::{
    AutoscalingMode, AutoscalingStatus, GatewayStatus, RealtimeClusterStatus, RedisMode,
};
use crate::decide::Plan;
use crate::decide::fleet::{Stage, views};
use crate::decide::objects;
use crate::decide::scale::Limit;
use crate::names::Component;
use crate::observe::Observed;
use crate::settings::Settings;
use contract::sign::hex;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest as _, Sha256};

/// Figures alone are written when they moved by more than a tenth.
const FIGURES_MOVED: f64 = 0.1;

/// One condition before its transition time is known.
struct Fact {
    kind: &'static str,
    status: bool,
    reason: String,
    message: String,
}

fn fact(
    kind: &'static str,
    status: bool,
    reason: impl Into<String>,
    message: impl Into<String>,
) -> Fact {
    Fact { kind, status, reason: reason.into(), message: message.into() }
}

/// The status after a pass.
#[must_use]
pub fn status(
    settings: &Settings,
    observed: &Observed,
    plan: &Plan,
    old: Option<&RealtimeClusterStatus>,
    now: Timestamp,
) -> RealtimeClusterStatus {
    let gateway = gateway(settings, observed, plan);
    let facts = facts(settings, observed, plan, &gateway);
    let conditions = facts.into_iter().map(|fact| condition(fact, settings, old, now)).collect();
    RealtimeClusterStatus {
        observed_generation: Some(settings.generation),
        conditions,
        autoscaling: Some(AutoscalingStatus {
            current: plan.decision.current,
            desired: plan.decision.desired,
            reason: plan.decision.reason.clone(),
            limited_by: plan.decision.limited_by.map(|limit| limit.name().to_owned()),
        }),
        gateway: Some(gateway),
    }
}

/// The status of a paused resource: as before, and told.
#[must_use]
pub fn paused(
    settings: &Settings,
    old: Option<&RealtimeClusterStatus>,
    now: Timestamp,
) -> RealtimeClusterStatus {
    let message = "the annotation realtime-operator.dev/paused is true: nothing is reconciled";
    let mut status = old.cloned().unwrap_or_default();
    status.observed_generation = Some(settings.generation);
    status.conditions.retain(|c| c.type_ != "Paused");
    let fact = fact("Paused", true, "Annotation", message);
    status.conditions.push(condition(fact, settings, old, now));
    status
}

fn condition(
    fact: Fact,
    settings: &Settings,
    old: Option<&RealtimeClusterStatus>,
    now: Timestamp,
) -> Condition {
    let status = if fact.status { "True" } else { "False" };
    let before = old.and_then(|old| old.conditions.iter().find(|c| c.type_ == fact.kind));
    let since =
        before.filter(|c| c.status == status).map_or(Time(now), |c| c.last_transition_time.clone());
    Condition {
        type_: fact.kind.into(),
        status: status.into(),
        reason: fact.reason,
        message: fact.message,
        observed_generation: Some(settings.generation),
        last_transition_time: since,
    }
}

fn gateway(settings: &Settings, observed: &Observed, plan: &Plan) -> GatewayStatus {
    let revision = objects::gateway::revision(settings);
    let pods = views(observed);
    let live = || pods.iter().filter(|pod| pod.stage != Stage::Leaving);
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    GatewayStatus {
        replicas: count(live().count()),
        ready_replicas: count(live().filter(|pod| pod.ready).count()),
        updated_replicas: count(live().filter(|pod| pod.revision == revision).count()),
        draining_replicas: plan.fleet.draining,
        selector: settings.selector_text(Component::Gateway),
        connections: live().map(|pod| pod.connections).sum(),
        revision,
        defaults: Some(settings.defaults.clone()),
    }
}

fn facts(
    settings: &Settings,
    observed: &Observed,
    plan: &Plan,
    gateway: &GatewayStatus,
) -> Vec<Fact> {
    // Above its minimum the fleet's size is the autoscaler's matter and does not
    // make the resource unready: GitOps must not flap with the load.
    let minimum = match settings.scaling.mode {
        AutoscalingMode::BuiltIn => settings.scaling.min,
        _ => settings.scaling.replicas,
    };
    let available = gateway.ready_replicas >= minimum;
    let outdated = gateway.replicas - gateway.updated_replicas;
    let redis = redis(settings, observed);
    let trouble = trouble(observed, &gateway.revision);
    let (ready, reason, message) = if !available {
        (
            false,
            "GatewaysNotReady",
            format!("{} of {minimum} gateways are ready", gateway.ready_replicas),
        )
    } else if !redis.status {
        (false, "RedisNotReady", redis.message.clone())
    } else if outdated > 0 {
        (false, "RollingOut", format!("{outdated} gateways have an older template"))
    } else {
        (true, "AllReady", format!("{} gateways are ready", gateway.ready_replicas))
    };
    let stalled = !ready && trouble.is_some();
    let trouble = trouble.unwrap_or_default();
    vec![
        fact("Ready", ready, reason, message.clone()),
        fact(
            "Reconciling",
            !ready && !stalled,
            if ready { "Settled" } else { reason },
            message.clone(),
        ),
        fact("Stalled", stalled, if stalled { "PodsCannotStart" } else { "NotStalled" }, trouble),
        fact(
            "GatewayAvailable",
            available,
            if available { "EnoughReady" } else { "NotEnoughReady" },
            format!("{} of {minimum} gateways are ready", gateway.ready_replicas),
        ),
        redis,
        config_applied(settings, observed),
        autoscaling_active(settings, plan),
        scaling_limited(plan),
        fact(
            "Draining",
            plan.fleet.draining > 0,
            if plan.fleet.draining > 0 { "GatewaysLeaving" } else { "NoneLeaving" },
            format!("{} gateways are on their way out", plan.fleet.draining),
        ),
    ]
}

fn redis(settings: &Settings, observed: &Observed) -> Fact {
    if settings.redis_mode == RedisMode::None {
        return fact("RedisReady", true, "NotUsed", "a single gateway runs alone");
    }
    let ready = observed.redis_pods.iter().any(|pod| pod.ready && !pod.terminating);
    let degraded = observed.samples.values().filter(|dated| dated.sample.degraded).count();
    match (ready, degraded) {
        (true, 0) => fact("RedisReady", true, "Standalone", "Redis is ready"),
        (true, n) => fact(
            "RedisReady",
            false,
            "GatewaysDegraded",
            format!("{n} gateways cannot reach Redis: rooms go on within each gateway"),
        ),
        (false, _) => fact("RedisReady", false, "NotReady", "the Redis pod is not ready"),
    }
}

/// Why current pods do not start.
fn trouble(observed: &Observed, revision: &str) -> Option<String> {
    let current =
        observed.gateway_pods.iter().filter(|pod| pod.revision == revision && !pod.terminating);
    current.chain(&observed.redis_pods).find_map(|pod| {
        let reason = pod.trouble.as_ref()?;
        Some(format!("pod {}: {reason}", pod.name))
    })
}

fn config_applied(settings: &Settings, observed: &Observed) -> Fact {
    let text = serde_json::to_string_pretty(&settings.config).unwrap_or_default();
    let wanted = &hex(&Sha256::digest(text.as_bytes()))[..16];
    let live: Vec<_> = observed.gateway_pods.iter().filter(|pod| !pod.terminating).collect();
    let applied = live
        .iter()
        .filter(|pod| {
            observed.samples.get(&pod.uid).is_some_and(|dated| dated.sample.config == wanted)
        })
        .count();
    let all = applied == live.len();
    let message = format!("{applied} of {} gateways use the current configuration", live.len());
    fact("ConfigApplied", all, if all { "AllApplied" } else { "Pending" }, message)
}

fn autoscaling_active(settings: &Settings, plan: &Plan) -> Fact {
    let kind = "AutoscalingActive";
    match settings.scaling.mode {
        AutoscalingMode::Off => fact(kind, false, "Off", "gateway.replicas is the count"),
        AutoscalingMode::External => fact(kind, false, "External", "/scale is driven from outside"),
        AutoscalingMode::Advice => fact(kind, false, "Advice", "decisions are only reported"),
        AutoscalingMode::BuiltIn if plan.decision.fresh => {
            fact(kind, true, "Fresh", "samples are fresh")
        }
        AutoscalingMode::BuiltIn => fact(
            kind,
            false,
            "StaleSamples",
            "a gateway's sample is missing: no scale-down until it is back",
        ),
    }
}

fn scaling_limited(plan: &Plan) -> Fact {
    // Waiting for the window is the normal way down, not a limit that asks for attention.
    match plan.decision.limited_by.filter(|limit| *limit != Limit::Window) {
        Some(limit) => fact("ScalingLimited", true, limit.name(), plan.decision.reason.clone()),
        None => fact("ScalingLimited", false, "NotLimited", ""),
    }
}

/// True when the new status says something a person or a controller would act
/// on; figures count only when `figures_due`, and when they moved by over a tenth.
#[must_use]
pub fn worth_writing(
    old: Option<&RealtimeClusterStatus>,
    new: &RealtimeClusterStatus,
    figures_due: bool,
) -> bool {
    let Some(old) = old else { return true };
    if without_figures(old) != without_figures(new) {
        return true;
    }
    let connections =
        |status: &RealtimeClusterStatus| status.gateway.as_ref().map_or(0, |g| g.connections);
    let (before, after) = (connections(old) as f64, connections(new) as f64);
    figures_due && (before - after).abs() > FIGURES_MOVED * before.max(after).max(1.0)
}

fn without_figures(status: &RealtimeClusterStatus) -> RealtimeClusterStatus {
    let mut status = status.clone();
    if let Some(gateway) = &mut status.gateway {
        gateway.connections = 0;
    }
    if let Some(autoscaling) = &mut status.autoscaling {
        autoscaling.reason = String::new();
    }
    for condition in &mut status.conditions {
        if condition.type_ == "ScalingLimited" {
            condition.message = String::new();
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::objects::tests::settings;
    use crate::observe::Pod;
    use serde_json::json;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000).unwrap()
    }

    fn find<'a>(status: &'a RealtimeClusterStatus, kind: &str) -> &'a Condition {
        status.conditions.iter().find(|c| c.type_ == kind).unwrap()
    }

    fn observed(settings: &Settings, ready: bool) -> Observed {
        let pod = |name: &str| Pod {
            name: name.into(),
            uid: name.into(),
            ready,
            running: true,
            revision: objects::gateway::revision(settings),
            ..Pod::default()
        };
        Observed {
            gateway_pods: vec![pod("a"), pod("b")],
            redis_pods: vec![pod("r")],
            ..Observed::default()
        }
    }

    #[test]
    fn kstatus_reads_right_at_each_moment() {
        let settings = settings(json!({}));
        let plan = Plan::default();
        let starting = status(&settings, &observed(&settings, false), &plan, None, now());
        assert_eq!(find(&starting, "Ready").status, "False");
        assert_eq!(find(&starting, "Reconciling").status, "True");
        let ready = status(&settings, &observed(&settings, true), &plan, Some(&starting), now());
        assert_eq!(
            (find(&ready, "Ready").status.as_str(), find(&ready, "Reconciling").status.as_str()),
            ("True", "False")
        );
        assert_eq!(ready.observed_generation, Some(1));
        let mut broken = observed(&settings, false);
        broken.gateway_pods[0].trouble = Some("ErrImagePull".into());
        let stalled = status(&settings, &broken, &plan, None, now());
        assert_eq!(find(&stalled, "Stalled").message, "pod a: ErrImagePull");
        assert_eq!(find(&stalled, "Reconciling").status, "False");
    }

    #[test]
    fn transition_times_move_with_the_status_alone() {
        let settings = settings(json!({}));
        let first = status(&settings, &observed(&settings, true), &Plan::default(), None, now());
        let later = Timestamp::from_second(2_000).unwrap();
        let second =
            status(&settings, &observed(&settings, true), &Plan::default(), Some(&first), later);
        assert_eq!(first, second);
        assert!(!worth_writing(Some(&first), &second, true));
    }

    #[test]
    fn figures_alone_are_written_rarely() {
        let settings = settings(json!({}));
        let old = status(&settings, &observed(&settings, true), &Plan::default(), None, now());
        let mut new = old.clone();
        new.gateway.as_mut().unwrap().connections = 500;
        new.autoscaling.as_mut().unwrap().reason = "500 connections".into();
        assert!(!worth_writing(Some(&old), &new, false));
        assert!(worth_writing(Some(&old), &new, true));
        let mut near = new.clone();
        near.gateway.as_mut().unwrap().connections = 510;
        assert!(!worth_writing(Some(&new), &near, true));
        near.autoscaling.as_mut().unwrap().desired = 3;
        assert!(worth_writing(Some(&new), &near, false));
    }
}

//! The fleet planner against a simulated ReplicaSet controller and gateways.

use super::*;
use crate::decide::objects::tests::settings;
use crate::settings::Settings;
use proptest::prelude::*;
use serde_json::json;

const NEW: &str = "new";
const OLD: &str = "old";

/// A little world: sets, pods and what the planner's orders do to them.
struct World {
    settings: Settings,
    sets: Vec<Set>,
    pods: Vec<PodView>,
    next: usize,
    /// Pods that were deleted while clients were connected.
    dropped: i64,
    lowest_available: i32,
}

impl World {
    fn new(sets: &[(&str, i32)]) -> Self {
        let sets = sets
            .iter()
            .map(|(revision, replicas)| Set {
                name: format!("lobby-gateway-{revision}"),
                revision: (*revision).into(),
                replicas: *replicas,
            })
            .collect();
        let settings =
            settings(json!({"gateway": {"drain": {"propagationSeconds": 2, "rate": 100}}}));
        let mut world =
            Self { settings, sets, pods: vec![], next: 0, dropped: 0, lowest_available: i32::MAX };
        world.controller();
        world.pods.iter_mut().for_each(ready);
        world
    }

    /// The ReplicaSet controller: creates what is missing, deletes by its own ranking.
    fn controller(&mut self) {
        self.pods.retain(|pod| pod.stage != Stage::Leaving);
        for set in &self.sets {
            let mut mine: Vec<usize> =
                (0..self.pods.len()).filter(|i| self.pods[*i].revision == set.revision).collect();
            while count(mine.iter()) < set.replicas {
                self.next += 1;
                mine.push(self.pods.len());
                self.pods.push(PodView {
                    name: format!("pod-{:03}", self.next),
                    revision: set.revision.clone(),
                    sample_age: Some(Duration::ZERO),
                    age: Some(Duration::from_secs(1)),
                    accepts: Some(0),
                    ..PodView::default()
                });
            }
            mine.sort_by_key(|i| {
                (self.pods[*i].running, self.pods[*i].ready, self.pods[*i].deletion_cost)
            });
            let surplus = count(mine.iter()) - set.replicas;
            for index in mine.into_iter().take(usize::try_from(surplus).unwrap_or(0)) {
                self.dropped += self.pods[index].connections;
                self.pods[index].stage = Stage::Leaving;
            }
        }
    }

    /// One pass of the operator, then the world goes on for a second.
    fn pass(&mut self, desired: i32) -> FleetPlan {
        let observed = Observed { sets: self.sets.clone(), ..Observed::default() };
        let plan = plan(&self.settings, &observed, &self.pods, NEW, desired);
        for (name, order) in &plan.orders {
            let pod = self.pods.iter_mut().find(|pod| pod.name == *name).unwrap();
            match (order, pod.stage) {
                (Order::Cordon, Stage::Serving) => pod.stage = Stage::Cordoned(Duration::ZERO),
                (Order::Cordon, _) => {}
                (Order::Uncordon, _) => {
                    pod.stage = Stage::Serving;
                    pod.ready = true;
                }
                (Order::Drain { rate }, _) => {
                    pod.connections = (pod.connections - i64::from(*rate)).max(0);
                    pod.stage = if pod.connections == 0 { Stage::Drained } else { Stage::Draining };
                }
            }
        }
        for pod in &mut self.pods {
            if plan.mark.contains(&pod.name) {
                pod.deletion_cost = DRAINED_COST;
            }
            if plan.unmark.contains(&pod.name) {
                pod.deletion_cost = 0;
            }
            if let Stage::Cordoned(since) = &mut pod.stage {
                *since += Duration::from_secs(1);
            }
            match pod.stage {
                Stage::Serving => ready(pod),
                _ => pod.ready = false,
            }
        }
        for (name, replicas) in &plan.resize {
            self.sets.iter_mut().find(|set| set.name == *name).unwrap().replicas = *replicas;
        }
        if !self.sets.iter().any(|set| set.revision == NEW) {
            let name = format!("lobby-gateway-{NEW}");
            self.sets.push(Set { name, revision: NEW.into(), replicas: 0 });
        }
        self.sets.iter_mut().find(|set| set.revision == NEW).unwrap().replicas =
            plan.current_replicas;
        self.controller();
        let available = self.pods.iter().filter(|pod| pod.ready && pod.stage == Stage::Serving);
        self.lowest_available = self.lowest_available.min(count(available));
        plan
    }

    fn settle(&mut self, desired: i32) {
        for _ in 0..400 {
            if !self.pass(desired).moving {
                return;
            }
        }
        panic!("did not settle at {desired}: {:#?}", self.pods);
    }

    fn load(&mut self, connections: i64) {
        self.pods.iter_mut().for_each(|pod| pod.connections = connections);
    }

    fn of(&self, revision: &str) -> usize {
        self.pods.iter().filter(|pod| pod.revision == revision).count()
    }
}

fn ready(pod: &mut PodView) {
    pod.running = true;
    pod.ready = true;
}

#[test]
fn up_is_immediate() {
    let mut world = World::new(&[(NEW, 2)]);
    assert_eq!(world.pass(6).current_replicas, 6);
}

#[test]
fn down_drains_first_and_deletes_exactly_the_drained() {
    let mut world = World::new(&[(NEW, 6)]);
    world.load(250);
    world.settle(2);
    assert_eq!((world.of(NEW), world.dropped), (2, 0));
}

#[test]
fn load_that_returns_undrains_before_a_pod_is_made() {
    let mut world = World::new(&[(NEW, 4)]);
    world.load(1000);
    for _ in 0..5 {
        world.pass(2);
    }
    assert!(world.pods.iter().any(|pod| pod.stage == Stage::Draining));
    let plan = world.pass(4);
    assert_eq!(plan.current_replicas, 4);
    assert_eq!(plan.orders.iter().filter(|(_, order)| *order == Order::Uncordon).count(), 2);
    world.settle(4);
    assert_eq!((world.of(NEW), world.dropped), (4, 0));
}

#[test]
fn a_rollout_replaces_all_pods_and_capacity_never_falls_below_the_wanted() {
    for replicas in [1, 2, 5, 25] {
        let mut world = World::new(&[(OLD, replicas)]);
        world.load(300);
        world.settle(replicas);
        assert_eq!((world.of(OLD), world.of(NEW) as i32, world.dropped), (0, replicas, 0));
        assert!(world.lowest_available >= replicas, "{replicas}: {}", world.lowest_available);
    }
}

#[test]
fn a_broken_revision_does_not_cost_a_working_pod_and_a_fixed_one_heals() {
    let mut world = World::new(&[(OLD, 3)]);
    // Of the new revision nothing ever starts.
    let observed = |world: &World| Observed { sets: world.sets.clone(), ..Observed::default() };
    world.sets.push(Set { name: "x-new".into(), revision: NEW.into(), replicas: 1 });
    world.controller();
    let plan = plan(&world.settings, &observed(&world), &world.pods, NEW, 3);
    assert_eq!((plan.current_replicas, plan.draining), (1, 0));
    // The spec is fixed: the broken set is outdated now, and goes although nothing is spare.
    let third = "third";
    let broken = world.pods.iter_mut().find(|pod| pod.revision == NEW).unwrap();
    broken.age = Some(Duration::from_secs(500));
    let plan = super::plan(&world.settings, &observed(&world), &world.pods, third, 3);
    let name = world.pods.iter().find(|pod| pod.revision == NEW).unwrap().name.clone();
    assert_eq!(plan.mark, [name]);
}

#[test]
fn a_gateway_that_cannot_be_asked_is_never_removed() {
    let mut world = World::new(&[(NEW, 3)]);
    world.load(10);
    for _ in 0..50 {
        let observed = Observed { sets: world.sets.clone(), ..Observed::default() };
        let plan = plan(&world.settings, &observed, &world.pods, NEW, 1);
        // The orders get lost.
        assert_eq!((plan.current_replicas, plan.mark.len()), (3, 0));
        assert_eq!(plan.orders.iter().filter(|(_, o)| *o == Order::Cordon).count(), 2);
    }
}

/// Found on a real cluster: the pods that a rollout adds for a while were taken
/// for the size to be held, so each pass added more, without end.
#[test]
fn a_rollout_under_the_autoscaler_never_grows_the_fleet() {
    use crate::decide::scale::{History, Inputs, decide};
    for restart_at in [None, Some(7)] {
        let mut world = World::new(&[(OLD, 4)]);
        world.settings.scaling = crate::settings::Scaling {
            mode: crate::crd::AutoscalingMode::BuiltIn,
            min: 1,
            max: 6,
            window_seconds: 60,
            ..world.settings.scaling
        };
        let mut history = History::default();
        let mut most = 0;
        for second in 0..50 {
            if restart_at == Some(second) {
                history = History::default();
            }
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + second);
            let inputs = Inputs { scaling: &world.settings.scaling, pods: &world.pods, now };
            let decision;
            (decision, history) = decide(&inputs, &history);
            world.pass(decision.desired);
            most = most.max(world.pods.iter().filter(|pod| pod.stage != Stage::Leaving).count());
        }
        assert!(most <= 6, "{most} gateways, with a restart at {restart_at:?}");
        assert_eq!((world.of(OLD), world.dropped), (0, 0));
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_nobody_is_dropped_and_it_settles(
        start in 1i32..8, old in 0i32..5, load in 0i64..600,
        wishes in prop::collection::vec((1i32..10, 1usize..12), 1..6),
    ) {
        let mut world = World::new(&[(NEW, start), (OLD, old)]);
        world.load(load);
        for (desired, passes) in wishes {
            for _ in 0..passes {
                world.pass(desired);
            }
        }
        world.settle(3);
        prop_assert_eq!(world.dropped, 0);
        prop_assert_eq!((world.of(NEW), world.of(OLD)), (3, 0));
    }
}

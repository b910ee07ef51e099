//! A case: a scenario in a namespace of its own, in which a request of the operator goes wrong.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bundlerun::cluster::{Asked, Fault, Faults, WatchFault};

use crate::invariants::{Outcome, violations};
use crate::operator;
use crate::scenarios::{MARKER, Scenario, create, delete, marker};
use crate::world::{Space, World};

/// What goes wrong in a case.
#[derive(Clone, Debug)]
pub enum Wrong {
    Nothing,
    /// One request.
    One(Asked, Fault),
    /// A third of all, by the hash of kind and number: a pattern could keep a loop that asks two things in turn from ever
    /// getting both answers.
    Third(Fault),
    /// The watch of these says that its version is too old, and the list after that is the first one again.
    StaleList(&'static str),
}

#[derive(Clone, Debug)]
pub struct Case {
    pub scenario: Scenario,
    pub wrong: Wrong,
    /// Of the table.
    pub column: String,
}

/// What came of a case.
pub struct Done {
    pub outcome: Outcome,
    /// Until the end state was there.
    pub asked: Vec<Asked>,
    pub problems: Vec<String>,
}

impl Done {
    /// The request of the case was made: how often the operator looks at something can depend on time.
    pub fn met(&self, wrong: &Wrong) -> bool {
        let Wrong::One(which, _) = wrong else { return true };
        self.asked.iter().any(|asked| asked.kind == which.kind && asked.nth == which.nth)
    }
}

impl Case {
    fn faults(&self) -> Faults {
        match self.wrong.clone() {
            Wrong::Nothing => Faults::default(),
            Wrong::One(which, fault) => {
                Faults::new(move |asked| (asked.kind == which.kind && asked.nth == which.nth).then_some(fault))
            }
            Wrong::Third(fault) => Faults::new(move |asked| {
                let mut hasher = DefaultHasher::new();
                (&asked.kind, asked.nth).hash(&mut hasher);
                hasher.finish().is_multiple_of(3).then_some(fault)
            }),
            Wrong::StaleList(resource) => {
                let (watch, list) = (format!("watch {resource}"), format!("list {resource}"));
                // Runs are listed once more when the operator begins to act.
                let which = if resource == "bundleruns" { 3 } else { 2 };
                Faults::new(move |asked| match asked {
                    Asked { kind, nth: 1, .. } if *kind == watch => Some(Fault::Watch(WatchFault::Expires(2))),
                    Asked { kind, nth, .. } if *kind == list && *nth == which => Some(Fault::StaleList),
                    _ => None,
                })
            }
        }
    }

    pub fn words(&self) -> String {
        let request = match &self.wrong {
            Wrong::One(which, _) => format!(": {} #{}", which.kind, which.nth),
            Wrong::StaleList(resource) => format!(": {resource}"),
            Wrong::Nothing | Wrong::Third(_) => String::new(),
        };
        format!("{}, {}{request}", self.scenario.name(), self.column)
    }

    /// `undisturbed`: what it must end as; none: this is that.
    pub async fn run(&self, world: &World, settings: &str, undisturbed: Option<&Outcome>) -> Result<Done, String> {
        let space = world.space("sweep").await?;
        for run in self.scenario.runs() {
            create(&space, run).await?;
        }
        let faults = self.faults();
        tokio::select! {
            () = operator::keep(&space.name, settings, faults.clone()) => Err("the operator is not kept".into()),
            done = self.play(&space, &faults, undisturbed) => done,
        }
    }

    async fn play(&self, space: &Arc<Space>, faults: &Faults, undisturbed: Option<&Outcome>) -> Result<Done, String> {
        self.scenario.play(space).await?;
        let asked = faults.asked();
        let outcome = Outcome::of(&space.state(), &space.name);
        let mut problems = violations(&space.state());

        // What is to be looked at is looked at in turn: the marker after all that was there before.
        let before = versions(space);
        create(space, marker()).await?;
        let is_marked = |state: &crate::world::State| state.status(MARKER)["observedGeneration"] == 1;
        space.until("the marker was looked at", is_marked).await?;
        let after = versions(space);
        if after != before {
            problems.push(format!("I7: written after the end: {before:?} -> {after:?}"));
        }

        if let Some(undisturbed) = undisturbed {
            if outcome.end != undisturbed.end {
                problems.push(format!("another end: {}\ninstead of {}", outcome.end, undisturbed.end));
            }
            if outcome.pods != undisturbed.pods {
                problems.push(format!("I8: pods made and deleted: {:?}, not {:?}", outcome.pods, undisturbed.pods));
            }
            if outcome.begun != undisturbed.begun {
                problems.push(format!("I2: {} commands began, not {}", outcome.begun, undisturbed.begun));
            }
        }

        let names: Vec<_> = space.state().runs.keys().cloned().collect();
        for name in names {
            delete(space, &name).await?;
        }
        let is_empty = |state: &crate::world::State| state.runs.is_empty() && state.pods.is_empty();
        problems.extend(space.until("I6: nothing is left", is_empty).await.err());
        Ok(Done { outcome, asked, problems })
    }
}

/// Of all runs and pods but the marker.
fn versions(space: &Space) -> BTreeMap<String, String> {
    let state = space.state();
    let of = |name: &str, version: Option<&String>| (name.to_owned(), version.cloned().unwrap_or_default());
    let runs = state.runs.iter().filter(|(name, _)| *name != MARKER);
    let runs = runs.map(|(name, run)| of(name, run.metadata.resource_version.as_ref()));
    let pods = state.pods.iter().map(|(name, pod)| of(name, pod.metadata.resource_version.as_ref()));
    runs.chain(pods).collect()
}

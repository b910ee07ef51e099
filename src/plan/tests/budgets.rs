//! What a run costs the API server in an hour of each state that can last, as `tests/cluster/budgets.rs` counts it for some
//! minutes: plans are made when something happens and when a timer is due, and each step but asking the helper is a request.

use super::*;
use crate::contract::{
    InputProblem, InputTrouble, NotSaved, Progress, ProgressStage, SaveFailure, StoreTrouble, Warning, WarningKind,
};

const HOUR: i64 = 3600;

/// One state that lasts, from the second 2 on.
struct Lasts<'a> {
    what: &'static str,
    run: BundleRun,
    /// The pod at a second; none: there is none.
    pod: Option<&'a dyn Fn(i64) -> PodCase>,
    /// The API server's answer to a try to make it.
    refusal: Option<&'a dyn Fn(i64) -> Refusal>,
    /// What the helper answers.
    progress: Option<&'a dyn Fn(i64) -> Progress>,
    node: NodeSeen,
    events: Vec<PodEvent>,
    /// Whether the pod changes so that a plan is made.
    changes_every: Option<i64>,
}

impl Default for Lasts<'_> {
    fn default() -> Self {
        let (what, run, node) = ("", run(), NodeSeen::Answers);
        Self { what, run, pod: None, refusal: None, progress: None, node, events: vec![], changes_every: None }
    }
}

/// What an hour may cost: writes of the status, events told, tries to make the pod, looks at a pod's events, and other
/// changes of the pod; and how often the helper may be asked, which is no request to the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    writes: usize,
    events: usize,
    tries: usize,
    looks: usize,
    changes: usize,
    asked: usize,
}

impl Cost {
    fn is_at_most(self, most: Self) -> bool {
        let pairs = |c: Self| [c.writes, c.events, c.tries, c.looks, c.changes, c.asked];
        pairs(self).into_iter().zip(pairs(most)).all(|(cost, most)| cost <= most)
    }

    fn count(&mut self, plan: &Plan) {
        for step in &plan.steps {
            match step {
                Step::WriteStatus(_) => self.writes += 1,
                Step::Event(_) => self.events += 1,
                Step::CreatePod(_) => self.tries += 1,
                Step::AskEvents(_) => self.looks += 1,
                Step::AskProgress { .. } => self.asked += 1,
                _ => self.changes += 1,
            }
        }
    }
}

impl Lasts<'_> {
    /// An hour of it; the last status, too.
    fn hour(mut self) -> (Cost, BundleRunStatus) {
        let settings = Settings { starting_deadline: Duration::from_hours(2), ..bundles::with_store() };
        let settings = Settings { staging_deadline: Duration::from_hours(2), ..settings };
        let (mut cost, mut written_at, mut timer) = (Cost::default(), None, Some(2));
        let mut change = self.changes_every.map(|every| 2 + every);
        while let Some(now) = timer.into_iter().chain(change).min().filter(|now| *now <= HOUR) {
            if change == Some(now) {
                change = self.changes_every.map(|every| now + every);
            }
            let facts = self.pod.map(|pod| pod(now).facts());
            let seen = facts.as_ref().map_or(PodSeen::Absent, PodSeen::Ours);
            let (mut refusal, mut progress, mut pod_events) = (None, ProgressSeen::NotAsked, None);
            // As in a reconcile: what was asked for is answered, and the plan is made anew.
            let plan = loop {
                let observed = Observed {
                    node: self.node,
                    written_at,
                    refusal: refusal.as_ref(),
                    progress: progress.clone(),
                    pod_events,
                    pull_secrets: Some(&[]),
                    ..nothing_but(&self.run, seen)
                };
                let plan = plan(&observed, &settings, at(now));
                cost.count(&plan);
                let has = |wanted: &dyn Fn(&Step) -> bool| plan.steps.iter().any(wanted);
                if has(&|step| matches!(step, Step::AskProgress { .. })) {
                    progress = ProgressSeen::Answered(self.progress.map(|progress| progress(now)));
                } else if has(&|step| matches!(step, Step::AskEvents(_))) {
                    pod_events = Some(self.events.as_slice());
                } else if has(&|step| matches!(step, Step::CreatePod(_))) {
                    refusal = Some(self.refusal.expect("a pod is made")(now));
                } else {
                    break plan;
                }
            };
            if let Some(Step::WriteStatus(status)) = plan.steps.iter().find(|step| matches!(step, Step::WriteStatus(_)))
            {
                self.run = with_status(&self.run, status);
                written_at = Some(at(now));
            }
            timer = plan.next.map(|next| now + i64::try_from(next.as_secs()).unwrap().max(1));
        }
        (cost, self.run.status.unwrap())
    }
}

fn saving(done_bytes: i64) -> Progress {
    Progress { done_bytes: done_bytes.unsigned_abs(), total_bytes: 1 << 40, ..Progress::of(ProgressStage::Saving) }
}

#[allow(clippy::large_stack_arrays, clippy::too_many_lines)] // a table
#[test]
fn an_hour_of_whatever_lasts_costs_few_requests() {
    let used = |second| Refusal::QuotaExceeded(format!("exceeded quota: q, requested: pods=1, used: pods={second}"));
    let fails = |second| Refusal::Unavailable(format!("failed calling webhook \"w\": try {second}"));
    let full = |second| pod().unschedulable(&format!("0/{second} nodes are available: 1 Insufficient cpu."));
    let gated = |_| pod().gated(&["kueue.x-k8s.io/admission"]);
    let unseen = |_| pod();
    let silent_registry = |second: i64| {
        let reason = if second % 20 < 10 { "ErrImagePull" } else { "ImagePullBackOff" };
        pod().run_waits(reason).saying("dial tcp 10.0.0.5:443: i/o timeout")
    };
    let being_prepared = |_| pod().bound();
    let asked = |mut pod: PodCase| {
        pod.0["status"]["podIP"] = json!("10.0.0.7");
        bundles::stored(pod, &[])
    };
    let staging = |_| asked(pod().running(3).staging());
    let staged = |second: i64| Progress {
        done_bytes: second.unsigned_abs(),
        total_bytes: 1 << 40,
        ..Progress::of(ProgressStage::Staging)
    };
    let lacks_input = |second: i64| Progress {
        input: Some(InputTrouble { problem: InputProblem::NoAnswer, detail: format!("try {second}") }),
        ..Progress::of(ProgressStage::Staging)
    };
    let running = |_| asked(pod().running(3));
    let warns = |_| {
        let mut pod = asked(pod().running(3));
        pod.0["status"]["initContainerStatuses"][0]["ready"] = json!(false);
        pod
    };
    let disk = |second: i64| Progress {
        warnings: vec![Warning { kind: WarningKind::DiskNearlyFull, detail: format!("{second} bytes are left") }],
        ..Progress::of(ProgressStage::Running)
    };
    let store = |second: i64| Progress {
        store: Some(StoreTrouble {
            not_saved: NotSaved { failure: SaveFailure::StoreUnreachable, detail: format!("try {second}") },
            holds: false,
        }),
        ..Progress::of(ProgressStage::Running)
    };
    let ended = |_| asked(pod().run_ended(0, "Completed"));
    let suspended = run_of(json!({"command": "true", "suspend": true}));
    let child = run_of(json!({"command": "true", "inputs": [{"path": "a", "run": {"name": "nobody"}}]}));
    let of = |what| Lasts { what, ..Lasts::default() };
    let cost = |writes, events, tries, looks, asked| Cost { writes, events, tries, looks, changes: 0, asked };
    let cases = [
        (Lasts { refusal: Some(&used), ..of("a quota that is used up") }, cost(25, 1, 80, 0, 0)),
        (Lasts { refusal: Some(&fails), ..of("a webhook that fails") }, cost(25, 1, 95, 0, 0)),
        (Lasts { run: suspended, ..of("suspended") }, cost(1, 0, 0, 0, 0)),
        (Lasts { run: child, ..of("a parent that is not there") }, cost(1, 1, 0, 0, 0)),
        (Lasts { pod: Some(&full), changes_every: Some(5), ..of("no node has room") }, cost(25, 1, 0, 0, 0)),
        (Lasts { pod: Some(&gated), changes_every: Some(5), ..of("in a queue") }, cost(1, 1, 0, 0, 0)),
        (Lasts { pod: Some(&unseen), changes_every: Some(60), ..of("no scheduler") }, cost(1, 0, 0, 0, 0)),
        (Lasts { pod: Some(&silent_registry), changes_every: Some(5), ..of("a silent registry") }, cost(1, 1, 0, 0, 0)),
        (Lasts { pod: Some(&being_prepared), ..of("a large image") }, cost(1, 0, 0, 27, 0)),
        (
            Lasts { pod: Some(&staging), progress: Some(&staged), changes_every: Some(60), ..of("large inputs") },
            cost(125, 0, 0, 0, 125),
        ),
        (
            Lasts {
                pod: Some(&staging),
                progress: Some(&lacks_input),
                changes_every: Some(60),
                ..of("an input's server")
            },
            cost(125, 1, 0, 0, 400),
        ),
        (Lasts { pod: Some(&running), changes_every: Some(60), ..of("a command") }, cost(1, 0, 0, 0, 0)),
        (
            Lasts { pod: Some(&warns), progress: Some(&disk), changes_every: Some(60), ..of("a disk that fills") },
            cost(2, 1, 0, 0, 130),
        ),
        (
            Lasts { pod: Some(&warns), progress: Some(&store), changes_every: Some(60), ..of("a store that is away") },
            cost(2, 1, 0, 0, 130),
        ),
        (
            Lasts { pod: Some(&ended), progress: Some(&saving), changes_every: Some(60), ..of("a large output") },
            cost(125, 0, 0, 0, 125),
        ),
        (
            Lasts {
                pod: Some(&running),
                node: NodeSeen::Silent(at(1)),
                changes_every: Some(60),
                ..of("a silent node")
            },
            cost(2, 1, 0, 0, 0),
        ),
    ];
    let mut wrong = Vec::new();
    for (lasts, most) in cases {
        let what = lasts.what;
        let (cost, status) = lasts.hour();
        let told = format!("{what}: {cost:?}: {:?} {:?}", status.phase, status.reason);
        println!("{told}");
        let lasts = cost.writes > 0 && !status.phase.unwrap().is_terminal();
        if !(lasts && cost.is_at_most(most)) {
            wrong.push(format!("{told}, not at most {most:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

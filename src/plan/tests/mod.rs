//! Tests of `plan`: values in, values out. Here are the builders; a test says only what matters to it.

mod any;
mod bounds;
mod budgets;
mod bundles;
mod conditions;
mod gpus;
mod hung;
mod images;
mod lives;
mod messages;
mod nodes;
mod outcomes;
mod pods;
mod record;
mod refusals;
mod requests;
mod retention;
mod silent;
mod size;
mod skew;
mod snapshots;
mod stages;
mod store;
mod tables;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::status::Attempt;
use crate::api::{BundleRun, BundleRunStatus, Phase, Skew};
use crate::contract::{Cause, Message, MissingRecord, Record, Registries, Report};

pub(super) const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
/// Settings: a pod whose image cannot be pulled is given up after this many seconds.
pub(super) const IMAGE_DEADLINE: i64 = 300;

/// The run is made at 0.
pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

pub(super) fn time(second: i64) -> String {
    serde_json::to_value(Time(at(second))).unwrap().as_str().unwrap().to_owned()
}

pub(super) fn settings() -> Settings {
    let gpu = GpuProfile { resource_name: "nvidia.com/gpu".into(), ..GpuProfile::default() };
    Settings {
        cpu_image: "registry:5000/cpu:1".into(),
        gpu_image: "registry:5000/gpu:1".into(),
        helper_image: "operator:1".into(),
        disk_bytes: 10 << 30,
        shared_memory_bytes: 1 << 30,
        stop_grace: Duration::from_secs(30),
        max_stop_grace: Duration::from_mins(10),
        pod_retention: Duration::from_hours(1),
        image_deadline: Duration::from_secs(IMAGE_DEADLINE.unsigned_abs()),
        config_deadline: Duration::from_mins(2),
        starting_deadline: Duration::from_mins(10),
        node_lost_after: None,
        staging_deadline: Duration::from_hours(1),
        store: None,
        image_volumes: false,
        helper: HelperResources::default(),
        pod_labels: BTreeMap::new(),
        pod_annotations: BTreeMap::new(),
        qos: Qos::Burstable,
        pod_resources: true,
        registries: Registries::default(),
        proxy: crate::plan::facts::settings::Proxy::default(),
        gpu_profiles: BTreeMap::from([("default".to_owned(), gpu)]),
    }
}

/// A run named `r`, uid `u`, that no plan has seen yet.
#[allow(clippy::needless_pass_by_value)] // reads better without a reference
pub(super) fn run_of(spec: Value) -> BundleRun {
    serde_json::from_value(json!({
        "apiVersion": "bundlerun.dev/v1alpha1",
        "kind": "BundleRun",
        "metadata": {"name": "r", "namespace": "n", "uid": "u", "generation": 1, "creationTimestamp": time(0)},
        "spec": spec,
        "status": {"observedGeneration": -1, "phase": "Waiting", "message": "nothing is known of it yet"},
    }))
    .unwrap()
}

pub(super) fn run() -> BundleRun {
    run_of(json!({"image": "registry:5000/team/image:v1", "command": "true"}))
}

/// The run with the status that a plan wrote, as the API server gives it back.
pub(super) fn with_status(run: &BundleRun, status: &BundleRunStatus) -> BundleRun {
    let status = serde_json::from_value(serde_json::to_value(status).unwrap()).unwrap();
    BundleRun { status: Some(status), ..run.clone() }
}

pub(super) fn in_phase(phase: Phase) -> BundleRun {
    let status = BundleRunStatus { phase: Some(phase), observed_generation: Some(1), ..BundleRunStatus::default() };
    with_status(&run(), &status)
}

/// The run in an attempt whose predecessors were interrupted, and which ran the image with [`DIGEST`].
pub(super) fn in_attempt(attempt: u32) -> BundleRun {
    let last = attempt - 1;
    let last =
        Attempt { attempt: last, pod: Some(format!("r-{last}")), uid: Some(format!("p{last}")), ..Attempt::default() };
    let status = json!({"phase": "Pending", "attempt": attempt, "attempts": [last],
        "image": {"requested": "registry:5000/team/image:v1", "digest": DIGEST}});
    with_status(&run(), &serde_json::from_value(status).unwrap())
}

/// A pod of attempt 1, made at 1, changed by what follows.
#[derive(Clone, Debug)]
pub(super) struct PodCase(Value);

pub(super) fn pod() -> PodCase {
    PodCase(json!({
        "metadata": {"name": "r-1", "namespace": "n", "uid": "p1", "creationTimestamp": time(1),
            "finalizers": ["bundlerun.dev/record"],
            "ownerReferences": [{"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun", "name": "r", "uid": "u",
                "controller": true}]},
        "spec": {},
        "status": {"phase": "Pending", "conditions": [], "containerStatuses": [], "initContainerStatuses": []},
    }))
}

/// A pod of the same name that is of another run, made by hand or of this name before.
pub(super) fn foreign(run: &str) -> PodCase {
    let mut pod = pod();
    pod.0["metadata"]["ownerReferences"][0]["name"] = json!(run);
    pod.0["metadata"]["ownerReferences"][0]["uid"] = json!("earlier");
    pod
}

impl PodCase {
    pub(super) fn facts(&self) -> PodFacts {
        serde_json::from_value(self.0.clone()).unwrap()
    }

    pub(super) fn of_attempt(mut self, attempt: u32) -> Self {
        self.0["metadata"]["name"] = json!(format!("r-{attempt}"));
        self.0["metadata"]["uid"] = json!(format!("p{attempt}"));
        self
    }

    pub(super) fn condition(mut self, type_: &str, status: &str, reason: &str, message: &str, second: i64) -> Self {
        let condition = json!({"type": type_, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": time(second)});
        let conditions = self.0["status"]["conditions"].as_array_mut().unwrap();
        conditions.retain(|c| c["type"] != type_);
        conditions.push(condition);
        self
    }

    /// Held back from the scheduler by these gates, or by some before.
    pub(super) fn gated(mut self, gates: &[&str]) -> Self {
        self.0["spec"]["schedulingGates"] = gates.iter().map(|name| json!({"name": name})).collect();
        self.condition(
            "PodScheduled",
            "False",
            "SchedulingGated",
            "Scheduling is blocked due to non-empty scheduling gates",
            1,
        )
    }

    pub(super) fn unschedulable(self, message: &str) -> Self {
        self.condition("PodScheduled", "False", "Unschedulable", message, 1)
    }

    /// On a node since 2.
    pub(super) fn bound(mut self) -> Self {
        self.0["spec"]["nodeName"] = json!("node-a");
        self.condition("PodScheduled", "True", "", "", 2)
    }

    fn container(mut self, list: &str, name: &str, state: &Value) -> Self {
        let image_id = if state.get("waiting").is_some() { String::new() } else { format!("registry/other@{DIGEST}") };
        self.0["status"][list] = json!([{"name": name, "imageID": image_id, "state": state}]);
        self
    }

    pub(super) fn helper(self, state: &Value) -> Self {
        self.container("initContainerStatuses", "bundle", state)
    }

    pub(super) fn run(self, state: &Value) -> Self {
        self.container("containerStatuses", "run", state)
    }

    pub(super) fn helper_waits(self, reason: &str) -> Self {
        self.bound().helper(&json!({"waiting": {"reason": reason, "message": "words"}}))
    }

    /// The container of the helper that ended last left these words.
    pub(super) fn helper_said(mut self, words: &str) -> Self {
        self.0["status"]["initContainerStatuses"][0]["lastState"] =
            json!({"terminated": {"exitCode": 1, "message": words}});
        self
    }

    pub(super) fn run_waits(self, reason: &str) -> Self {
        self.bound()
            .helper(&json!({"running": {"startedAt": time(3)}}))
            .run(&json!({"waiting": {"reason": reason, "message": "words"}}))
    }

    /// What the kubelet says of the run container that waits.
    pub(super) fn saying(mut self, message: &str) -> Self {
        self.0["status"]["containerStatuses"][0]["state"]["waiting"]["message"] = json!(message);
        self
    }

    pub(super) fn running(mut self, since: i64) -> Self {
        self.0["status"]["phase"] = json!("Running");
        self.bound()
            .helper(&json!({"running": {"startedAt": time(3)}}))
            .run(&json!({"running": {"startedAt": time(since)}}))
    }

    /// The run container runs and waits for its inputs.
    pub(super) fn staging(mut self) -> Self {
        self.0["status"]["containerStatuses"][0]["started"] = json!(false);
        self
    }

    /// The run container ended at 8, having begun at 5.
    pub(super) fn run_ended(self, exit_code: i32, reason: &str) -> Self {
        let state = json!({"terminated": {"exitCode": exit_code, "reason": reason, "message": "words",
            "startedAt": time(5), "finishedAt": time(8)}});
        self.running(5).run(&state)
    }

    /// The run container ended at another time.
    pub(super) fn finished(mut self, second: i64) -> Self {
        self.0["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = json!(time(second));
        self
    }

    pub(super) fn helper_ended(mut self, exit_code: i32, message: &str) -> Self {
        self.0["status"]["phase"] = json!("Succeeded");
        self.helper(&json!({"terminated": {"exitCode": exit_code, "message": message, "finishedAt": time(9)}}))
    }

    /// The usual end: the runner left this record, and the kubelet saw what it says.
    pub(super) fn reported(self, record: &Record) -> Self {
        let code = record.container_exit_code();
        self.run_ended(code, if code == 0 { "Completed" } else { "Error" }).helper_ended(0, &told(record))
    }

    /// Somebody put a container into the pod that does not end. The kubelet starts the helper again for it.
    pub(super) fn beside_another(mut self, helper_runs_again: bool) -> Self {
        let other = json!({"name": "istio-proxy", "state": {"running": {"startedAt": time(4)}}});
        self.0["status"]["containerStatuses"].as_array_mut().unwrap().push(other);
        self.0["status"]["phase"] = json!("Running");
        if helper_runs_again {
            let helper = &mut self.0["status"]["initContainerStatuses"][0];
            helper["lastState"] = helper["state"].take();
            helper["state"] = json!({"running": {"startedAt": time(10)}});
        }
        self
    }

    /// The helper reported that there is no record.
    pub(super) fn without_record(self, missing: MissingRecord) -> Self {
        let report = Report { missing: Some(missing), ..Report::default() };
        self.helper_ended(0, &Message::encode(&report, b"", b""))
    }

    /// The kubelet ended the pod or never took it.
    pub(super) fn failed(mut self, reason: &str, message: &str) -> Self {
        self.0["status"]["phase"] = json!("Failed");
        self.0["status"]["reason"] = json!(reason);
        self.0["status"]["message"] = json!(message);
        self
    }

    /// Deletion was asked for, with a minute of grace.
    pub(super) fn deleted(mut self, second: i64) -> Self {
        self.0["metadata"]["deletionTimestamp"] = json!(time(second + 60));
        self.0["metadata"]["deletionGracePeriodSeconds"] = json!(60);
        self
    }

    pub(super) fn let_go(mut self) -> Self {
        self.0["metadata"]["finalizers"] = json!([]);
        self
    }
}

/// A command that ran from 5 to 8.
pub(super) fn record(exit_code: i32) -> Record {
    let ms = |second| at(second).as_millisecond();
    let mut record =
        Record { exit_code: Some(exit_code), started_at_ms: Some(ms(5)), finished_at_ms: ms(8), ..Record::default() };
    record.usage.wall_ms = 2500;
    record
}

pub(super) fn killed(signal: i32) -> Record {
    Record { exit_code: None, signal: Some(signal), ..record(0) }
}

pub(super) fn never_ran(cause: Cause) -> Record {
    Record { cause: Some(cause), exit_code: None, started_at_ms: None, ..record(0) }
}

/// The termination message of a helper that found this record.
pub(super) fn told(record: &Record) -> String {
    let report = Report { record: Some(record.clone()), files: 2, bytes: 7, ..Report::default() };
    Message::encode(&report, b"out\n", b"err\n")
}

/// The installed definition is ours.
static NO_SKEW: Skew = Skew { missing: Vec::new(), differs: false };
static NO_PARENTS: Parents = Parents { runs: BTreeMap::new(), unreadable: BTreeSet::new(), cycle: None };

/// A run and its pod, of which nothing else is known: nobody was asked, and this process has written nothing.
pub(super) fn nothing_but<'a>(run: &'a BundleRun, pod: PodSeen<'a>) -> Observed<'a> {
    let (refusal, progress, pull_secrets, pod_events, written_at) = Default::default();
    let (node, capacity) = Default::default();
    Observed {
        run,
        skew: &NO_SKEW,
        pod,
        earlier: &[],
        node,
        capacity,
        parents: &NO_PARENTS,
        refusal,
        pod_kept: None,
        progress,
        pull_secrets,
        pod_events,
        written_at,
        acting_since: at(0),
    }
}

/// The plan for what was seen, when this process has written nothing yet.
pub(super) fn look(run: &BundleRun, pod: PodSeen, second: i64) -> Plan {
    plan(&nothing_but(run, pod), &settings(), at(second))
}

pub(super) fn look_at(run: &BundleRun, pod: &PodCase, second: i64) -> Plan {
    look(run, PodSeen::Ours(&pod.facts()), second)
}

pub(super) fn refused(run: &BundleRun, refusal: &Refusal, second: i64) -> Plan {
    plan(&Observed { refusal: Some(refusal), ..nothing_but(run, PodSeen::Absent) }, &settings(), at(second))
}

/// The steps in words: `Create r-1`, `Write Running`, `Delete r-1`, `Release r-1`, `Tell Completed`.
pub(super) fn words(plan: &Plan) -> Vec<String> {
    let word = |step: &Step| match step {
        Step::CreatePod(pod) => format!("Create {}", pod.metadata.name.as_deref().unwrap()),
        Step::WriteStatus(status) => format!("Write {:?}", status.phase.unwrap()),
        Step::DeletePod { pod, grace: None } => format!("Delete {}", pod.name),
        Step::DeletePod { pod, grace: Some(grace) } => format!("Delete {} within {} s", pod.name, grace.as_secs()),
        Step::OrderStop { pod, .. } => format!("Stop {}", pod.name),
        Step::TellOfRuns { pod, runs } => format!("Tell {} of {runs:?}", pod.name),
        Step::RemoveFinalizer(pod) => format!("Release {}", pod.name),
        Step::DeleteRun => "Delete the run".to_owned(),
        Step::AskProgress { ip } => format!("Ask {ip}"),
        Step::AskPullSecrets { namespace, account } => format!("Ask {namespace}/{account}"),
        Step::AskEvents(pod) => format!("Ask about {}", pod.name),
        Step::Event(notice) => format!("Tell {}", notice.reason),
    };
    plan.steps.iter().map(word).collect()
}

/// The status that a plan writes, as the API server gives it back.
pub(super) fn written(plan: &Plan) -> BundleRunStatus {
    let status = plan.steps.iter().find_map(|step| match step {
        Step::WriteStatus(status) => Some(status),
        _ => None,
    });
    with_status(&run(), status.unwrap_or_else(|| panic!("no status is written: {plan:#?}"))).status.unwrap()
}

pub(super) fn created(plan: &Plan) -> &k8s_openapi::api::core::v1::Pod {
    let pod = plan.steps.iter().find_map(|step| match step {
        Step::CreatePod(pod) => Some(pod.as_ref()),
        _ => None,
    });
    pod.unwrap_or_else(|| panic!("no pod is created: {plan:#?}"))
}

#[allow(clippy::unnecessary_wraps)] // what `Plan::next` is compared with
pub(super) fn seconds(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n))
}

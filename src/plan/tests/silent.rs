//! Nodes that do not answer, pods that do not end, and what no node could ever give.

use super::*;

/// What is seen of the pod's node.
fn look_on(node: NodeSeen, run: &BundleRun, pod: &PodCase, settings: &Settings, second: i64) -> Plan {
    let pod = pod.facts();
    plan(&Observed { node, ..nothing_but(run, PodSeen::Ours(&pod)) }, settings, at(second))
}

fn gives_up_after(minutes: u64) -> Settings {
    Settings { node_lost_after: Some(Duration::from_mins(minutes)), ..settings() }
}

fn after(run: &BundleRun, plan: &Plan) -> BundleRun {
    with_status(run, &written(plan))
}

#[test]
fn a_silent_node_is_told_at_once_and_waited_for_without_a_deadline() {
    let (silent, settings) = (NodeSeen::Silent(at(45)), settings());
    let run = after(&run(), &look_at(&run(), &pod().running(5), 7));
    let plan = look_on(silent, &run, &pod().running(5), &settings, 46);
    assert_eq!(
        (words(&plan), plan.next),
        (vec!["Write Running".to_owned(), "Tell NodeNotResponding".to_owned()], None)
    );
    let told = after(&run, &plan);
    let waiting = told.status.as_ref().unwrap().waiting.clone().unwrap();
    assert_eq!(
        (
            waiting.stage.as_deref(),
            waiting.reason.as_deref(),
            waiting.since,
            waiting.deadline,
            waiting.until.as_deref()
        ),
        (Some("Node"), Some("NodeNotResponding"), Some(Time(at(46))), None, Some("no deadline"))
    );
    let message = waiting.message.unwrap();
    assert!(message.starts_with("node node-a has not answered since 2026-01-01T00:00:45Z: "), "{message}");
    // Kubernetes deletes the pod after five minutes: nothing of it has ended.
    for (pod, second) in
        [(pod().running(5), 300), (pod().running(5).deleted(350), 351), (pod().running(5).deleted(350), 9999)]
    {
        assert_eq!(look_on(silent, &told, &pod, &settings, second), Plan::default());
    }
    // It comes back.
    let plan = look_on(NodeSeen::Answers, &told, &pod().running(5), &settings, 200);
    assert_eq!((words(&plan), written(&plan).waiting), (vec!["Write Running".to_owned()], None));
    let back = after(&told, &plan);
    assert_eq!(look_on(NodeSeen::Answers, &back, &pod().running(5), &settings, 201), Plan::default());
    let plan = look_on(NodeSeen::Answers, &told, &pod().running(5).deleted(350), &settings, 365);
    assert_eq!(
        (words(&plan), written(&plan).reason.as_deref()),
        (vec!["Write Finalizing".to_owned()], Some("PodDeleted"))
    );
    // It is declared out of service, or its object is deleted: Kubernetes fails the pod.
    let failed =
        pod().running(5).deleted(350).failed("", "").condition("DisruptionTarget", "True", "DeletionByPodGC", "", 9);
    for node in [silent, NodeSeen::Gone] {
        assert_eq!(words(&look_on(node, &told, &failed, &settings, 400)), ["Write Pending", "Tell DeletionByPodGC"]);
    }
}

#[test]
fn whatever_a_pod_on_a_silent_node_was_at_it_is_told_and_taken_back() {
    let (silent, settings) = (NodeSeen::Silent(at(45)), settings());
    for (pod, phase, back) in [
        (pod().run_waits("ContainerCreating"), "Pending", "ContainerCreating"),
        (pod().run_waits("CreateContainerConfigError"), "Pending", "CreateContainerConfigError"),
        (pod().running(5), "Running", ""),
        (pod().run_ended(0, "Completed"), "Finalizing", ""),
        (pod().running(5).deleted(40), "Finalizing", ""),
    ] {
        let plan = look_on(silent, &run(), &pod, &settings, 46);
        assert_eq!(words(&plan), [&format!("Write {phase}"), "Tell NodeNotResponding"]);
        let told = after(&run(), &plan);
        let status = written(&look_on(NodeSeen::Answers, &told, &pod, &settings, 60));
        let reason = status.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
        assert_eq!(reason.unwrap_or_default(), back, "{status:?}");
    }
    let ended = pod().reported(&record(0));
    assert_eq!(words(&look_on(silent, &run(), &ended, &settings, 46))[0], "Write Succeeded", "it had reported");
}

#[test]
fn a_silent_node_is_given_up_where_the_administrator_says_so() {
    let (silent, settings) = (NodeSeen::Silent(at(45)), gives_up_after(10));
    let running = pod().running(5);
    let run = after(&run(), &look_at(&run(), &running, 7));
    let plan = look_on(silent, &run, &running, &settings, 46);
    assert_eq!(plan.next, seconds(599));
    let told = after(&run, &plan);
    let waiting = told.status.as_ref().unwrap().waiting.clone().unwrap();
    assert_eq!(
        (waiting.deadline, waiting.until.as_deref()),
        (Some(Time(at(645))), Some("the deadline, then the attempt ends: NodeLost"))
    );
    assert_eq!(look_on(silent, &told, &running, &settings, 644).next, seconds(1));
    // It flaps: the time begins anew.
    let later = look_on(NodeSeen::Silent(at(640)), &told, &running, &settings, 645);
    assert_eq!((words(&later), later.next), (vec!["Write Running".to_owned()], seconds(595)));

    let plan = look_on(silent, &told, &running, &settings, 645);
    assert_eq!(words(&plan), ["Delete r-1", "Write Pending", "Tell NodeLost"]);
    let given_up = after(&told, &plan);
    let attempt = given_up.status.as_ref().unwrap().attempts[0].clone();
    assert_eq!((attempt.cause.as_deref(), attempt.node.as_deref()), (Some("NodeLost"), Some("node-a")));
    // What the old pod may still do is not looked at, and the next one is not where it is.
    let plan = look(&given_up, PodSeen::Absent, 646);
    assert_eq!(words(&plan), ["Release r-1", "Create r-2"]);
    let affinity = serde_json::to_value(&created(&plan).spec.as_ref().unwrap().affinity).unwrap();
    let required = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let field = json!({"key": "metadata.name", "operator": "NotIn", "values": ["node-a"]});
    assert_eq!(required, &json!([{"matchFields": [field]}]), "{affinity}");
    let late = pod().reported(&record(0)).facts();
    assert_eq!(
        words(&look(&given_up, PodSeen::Foreign(&late), 700)).iter().filter(|w| w.contains("Succeeded")).count(),
        0
    );
}

#[test]
fn a_stopped_run_on_a_node_that_is_given_up_is_stopped() {
    let mut run = in_phase(Phase::Running);
    run.spec.stop = true;
    let plan = look_on(NodeSeen::Silent(at(45)), &run, &pod().running(5).deleted(50), &gives_up_after(10), 645);
    assert_eq!(words(&plan), ["Write Stopped", "Release r-1", "Tell Stopped"]);
}

#[test]
fn a_pod_that_was_given_up_and_does_not_end_is_told_and_what_it_waited_for_decides() {
    let typo = pod().run_waits("ErrImagePull").saying("manifest unknown");
    let told = after(&run(), &look_on(NodeSeen::Answers, &run(), &typo, &settings(), 4));
    assert_eq!(words(&look_on(NodeSeen::Answers, &told, &typo, &settings(), 44)), ["Delete r-1"]);
    // The end of its grace is at 104.
    let goes = typo.deleted(44);
    let waits = look_on(NodeSeen::Answers, &told, &goes, &settings(), 60);
    assert_eq!((words(&waits), waits.next), (vec![], seconds(104)));
    let plan = look_on(NodeSeen::Answers, &told, &goes, &settings(), 164);
    assert_eq!(words(&plan), ["Write Pending", "Tell PodNotEnding"]);
    let stuck = after(&told, &plan);
    let waiting = stuck.status.as_ref().unwrap().waiting.clone().unwrap();
    assert_eq!(waiting.until.as_deref(), Some("the end of the pod, which has no deadline"));
    assert_eq!(
        (waiting.reason.as_deref(), waiting.message.as_deref()),
        (Some("ErrImagePull"), Some("manifest unknown"))
    );
    assert!(stuck.status.as_ref().unwrap().message.as_ref().unwrap().contains("has not confirmed it"));
    assert_eq!(look_on(NodeSeen::Answers, &stuck, &goes, &settings(), 999), Plan::default(), "told once");
    // Its node falls silent, before that is told or after.
    let silent = NodeSeen::Silent(at(150));
    assert_eq!(look_on(silent, &stuck, &goes, &settings(), 999), Plan::default());
    let plan = look_on(silent, &told, &goes, &settings(), 200);
    assert_eq!(words(&plan), ["Write Pending", "Tell NodeNotResponding"]);
    assert_eq!(written(&plan).waiting.unwrap().reason.as_deref(), Some("ErrImagePull"));
    // It ends at last: the image is still why.
    let plan = look_on(NodeSeen::Answers, &stuck, &goes.failed("", ""), &settings(), 1000);
    assert_eq!(written(&plan).result.unwrap().cause, "ImagePullFailed");
}

#[test]
fn a_pod_that_does_not_end_on_a_node_that_answers_is_not_said_to_be_on_a_silent_one() {
    let mut forced = pod().running(5).deleted(100);
    forced.0["metadata"]["deletionTimestamp"] = json!(time(100));
    forced.0["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    let run = in_phase(Phase::Running);
    let plan = look_on(NodeSeen::Answers, &run, &forced, &settings(), 160);
    assert_eq!(words(&plan), ["Write Finalizing", "Tell PodNotEnding"]);
    let message = written(&plan).message.unwrap();
    assert!(message.starts_with("the pod was deleted by force and was to end by "), "{message}");
    let told = after(&run, &plan);
    assert_eq!(look_on(NodeSeen::Answers, &told, &forced, &settings(), 999), Plan::default());
    assert_eq!(
        words(&look_on(NodeSeen::Silent(at(999)), &told, &forced, &settings(), 999))[1],
        "Tell NodeNotResponding"
    );
    // A node that was silent is back, and says nothing of the pod.
    let silent = after(&told, &look_on(NodeSeen::Silent(at(999)), &told, &forced, &settings(), 999));
    let back = look_on(NodeSeen::Answers, &silent, &forced, &settings(), 1200);
    assert_eq!(words(&back), ["Write Finalizing", "Tell PodNotEnding"]);
    assert_eq!(look_on(NodeSeen::Answers, &after(&silent, &back), &forced, &settings(), 1300), Plan::default());
    // The kubelet confirms it.
    forced = forced.run_ended(137, "Error").helper(&json!({"terminated": {"exitCode": 137}}));
    let plan = look_on(NodeSeen::Answers, &told, &forced, &settings(), 161);
    assert_eq!(words(&plan), ["Write Pending", "Tell PodDeleted"]);
    assert!(written(&plan).message.unwrap().contains("deleted by force"));
}

#[test]
fn a_pod_without_a_node_is_not_deleted_by_force() {
    // The API server deletes such a pod at once, whoever asks.
    let mut gone = pod().unschedulable("no node").deleted(100);
    gone.0["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    let told = written(&look_at(&run(), &gone, 101)).message.unwrap();
    assert!(!told.contains("by force"), "{told}");
}

#[test]
fn a_pod_of_an_earlier_run_on_a_silent_node_is_said_to_be_there() {
    let facts = foreign("r").running(5).deleted(1).facts();
    let run = run();
    let observed = Observed { node: NodeSeen::Silent(at(45)), ..nothing_but(&run, PodSeen::Foreign(&facts)) };
    let message = written(&plan(&observed, &settings(), at(50))).message.unwrap();
    assert!(message.contains("; its node node-a has not answered since 2026-01-01T00:00:45Z"), "{message}");
}

#[test]
fn a_pod_that_fits_no_node_says_what_it_needs_and_what_there_is() {
    let spec = json!({"command": "true", "image": "i", "resources": {"gpus": 99, "cpus": "4", "memory": "1Gi"}});
    let largest = [("cpu", 64_000), ("memory", 512 << 30), ("ephemeral-storage", 1 << 40), ("nvidia.com/gpu", 8)];
    let largest = largest.map(|(resource, n)| (resource.into(), n)).into();
    let capacity = Capacity { nodes: 12, largest, ..Capacity::default() };
    let said_of = |spec: &Value, scheduler: &str, capacity: Option<&Capacity>| {
        let facts = pod().unschedulable(scheduler).facts();
        let run = run_of(spec.clone());
        let observed = Observed { capacity, ..nothing_but(&run, PodSeen::Ours(&facts)) };
        written(&plan(&observed, &settings(), at(2))).waiting.unwrap().message.unwrap()
    };
    let said = |scheduler: &str, capacity: Option<&Capacity>| said_of(&spec, scheduler, capacity);
    let disk = said_of(&json!({"command": "true", "image": "i", "resources": {"disk": "90Ti"}}), "x", Some(&capacity));
    let share = "no node has 180.0 TiB of ephemeral-storage (resources.disk is 90.0 TiB: as much for the working \
                 directory, as much for caches): the largest of 12 nodes has 1.0 TiB of ephemeral-storage; x";
    assert_eq!(disk, share);
    let scheduler = "0/12 nodes are available: 4 Insufficient cpu, 12 Insufficient nvidia.com/gpu.";
    assert_eq!(said(scheduler, None), scheduler);
    // The helper is counted.
    assert_eq!(
        said(scheduler, Some(&capacity)),
        format!(
            "no node has 99 nvidia.com/gpu: the largest of 12 nodes has 8 nvidia.com/gpu; \
             the run needs 4.01 CPUs (4 CPUs of the run, 0.01 CPUs of the operator's helper), and no node has that free: the largest of 12 nodes has 64 CPUs in all; {scheduler}"
        )
    );
    // A claim that does not exist has nothing to do with it.
    let missing = "persistentvolumeclaim \"data\" not found";
    assert_eq!(said(missing, Some(&capacity)), missing);
}

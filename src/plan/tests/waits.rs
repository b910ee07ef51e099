//! What is said of a run that is held up, how often, and when it is given up.

use super::*;

/// The run after the plan that wrote.
fn after(run: &BundleRun, plan: &Plan) -> BundleRun {
    with_status(run, &written(plan))
}

fn look_having_written(run: &BundleRun, pod: &PodCase, wrote: i64, now: i64) -> Plan {
    let (pod, written_at) = (pod.facts(), Some(at(wrote)));
    plan(&Observed { written_at, ..nothing_but(run, PodSeen::Ours(&pod)) }, &settings(), at(now))
}

#[test]
fn a_slow_start_is_told_after_ten_seconds_and_without_an_event() {
    let starting = pod().run_waits("PodInitializing");
    let plan = look_at(&run(), &starting, 5);
    assert_eq!((words(&plan).len(), plan.next), (0, seconds(6)));
    let plan = look_at(&run(), &starting, 11);
    assert_eq!(words(&plan), ["Write Pending"]);
    assert_eq!(written(&plan).waiting.unwrap().deadline, Some(Time(at(611))));
    let told = after(&run(), &plan);
    let plan = look_at(&told, &starting, 300);
    assert_eq!((words(&plan).len(), plan.next), (0, seconds(311)));
    assert_eq!(words(&look_at(&told, &starting, 611)), ["Delete r-1"]);
    let gone = PodCase::deleted(starting, 611).failed("", "");
    let plan = look_at(&told, &gone, 612);
    assert_eq!(words(&plan), ["Write Pending", "Tell StartDeadlineExceeded"]);
}

/// A pod on a node that has begun nothing, and what is told of it.
fn prepared_with(run: &BundleRun, events: Option<&[PodEvent]>, now: i64) -> Plan {
    let pod = pod().bound().facts();
    plan(&Observed { pod_events: events, ..nothing_but(run, PodSeen::Ours(&pod)) }, &settings(), at(now))
}

fn event(reason: &str, note: &str, second: i64) -> PodEvent {
    PodEvent { reason: reason.into(), note: note.into(), seen: Some(at(second)) }
}

#[test]
fn a_volume_that_cannot_be_mounted_is_told_in_the_nodes_words_and_ends_as_that() {
    let fails = [event("FailedMount", "path \"/x\" does not exist", 8)];
    assert_eq!(words(&prepared_with(&run(), None, 11)), ["Ask about r-1"]);
    let plan = prepared_with(&run(), Some(&[]), 11);
    assert_eq!((words(&plan), plan.next), (vec!["Write Pending".to_owned()], seconds(15)), "nobody has said anything");
    let told = after(&run(), &plan);
    assert_eq!(told.status.as_ref().unwrap().reason.as_deref(), Some("ContainerCreating"));
    let plan = prepared_with(&told, Some(&fails), 26);
    assert_eq!(words(&plan), ["Write Pending", "Tell FailedMount"]);
    let told = after(&told, &plan);
    let waiting = told.status.as_ref().unwrap().waiting.clone().unwrap();
    assert_eq!(waiting.deadline, Some(Time(at(611))), "that of the whole start");
    assert_eq!(waiting.until.as_deref(), Some("the deadline, then the attempt ends: VolumeNotMounted"));
    assert_eq!((waiting.message.as_deref(), waiting.since), (Some("path \"/x\" does not exist"), Some(Time(at(11)))));
    // What was told stays, while nobody says anything else.
    let plan = prepared_with(&told, Some(&[]), 311);
    assert_eq!((words(&plan), plan.next), (vec![], seconds(75)), "and is asked about later and later");
    let gone = PodCase::deleted(pod().bound(), 611).failed("", "");
    assert_eq!(words(&prepared_with(&told, Some(&fails), 611)), ["Delete r-1"]);
    let ended = look_at(&told, &gone, 612);
    assert_eq!(words(&ended), ["Write Pending", "Tell VolumeNotMounted"]);
    // The node said it after the last question before the deadline.
    let nothing_told = after(&run(), &prepared_with(&run(), Some(&[]), 11));
    assert_eq!(words(&prepared_with(&nothing_told, None, 611)), ["Ask about r-1"]);
    assert_eq!(words(&prepared_with(&nothing_told, Some(&[]), 611)), ["Delete r-1"]);
    let plan = prepared_with(&nothing_told, Some(&[event("FailedMount", "no such path", 600)]), 611);
    assert_eq!(words(&plan), ["Write Pending", "Tell FailedMount", "Delete r-1"]);
    let ended = look_at(&after(&nothing_told, &plan), &gone, 612);
    assert_eq!(words(&ended), ["Write Pending", "Tell VolumeNotMounted"]);
    // It could be mounted at last, and the image takes its time.
    let pulls = pod().bound().condition("PodReadyToStartContainers", "True", "", "", 100);
    let plan = look_at(&told, &pulls, 101);
    assert_eq!((words(&plan), plan.next), (vec!["Write Pending".to_owned()], seconds(510)));
    assert_eq!(written(&plan).reason.as_deref(), Some("ContainerCreating"));
}

#[test]
fn of_many_events_the_newest_that_says_why_is_told() {
    let in_general = "Unable to attach or mount volumes: unmounted volumes=[v], timed out waiting for the condition";
    for (events, told) in [
        (vec![event("Unhealthy", "probe", 9)], "the node pulls the image and prepares the volumes"),
        (vec![event("FailedMount", "old", 1), event("FailedAttachVolume", "new", 9)], "new"),
        (vec![event("FailedMount", in_general, 9), event("FailedAttachVolume", "why", 2)], "why"),
        (vec![event("FailedMount", in_general, 9)], in_general),
        (vec![event("FailedCreatePodSandBox", "no network", 9)], "no network"),
        (vec![event("FailedMount", "long ago", -600)], "the node pulls the image and prepares the volumes"),
    ] {
        assert_eq!(written(&prepared_with(&run(), Some(&events), 11)).message.as_deref(), Some(told));
    }
}

/// It is read from the API server: not while an image is pulled, and less and less often.
#[test]
fn a_volume_that_is_waited_for_for_an_hour_costs_few_questions_and_writes() {
    let hours = Settings { starting_deadline: Duration::from_hours(2), ..settings() };
    let pod = pod().bound().facts();
    let (mut run, mut second, mut asked, mut writes) = (run(), 11, 0, 0);
    while second < 3600 {
        let events = [event("FailedMount", &format!("at {second}"), second)];
        let observed = Observed { pod_events: Some(&events), ..nothing_but(&run, PodSeen::Ours(&pod)) };
        let plan = plan(&observed, &hours, at(second));
        asked += 1;
        if words(&plan).contains(&"Write Pending".to_owned()) {
            run = with_status(&run, &written(&plan));
            writes += 1;
        }
        second += i64::try_from(plan.next.unwrap().as_secs()).unwrap();
    }
    assert!((10..=30).contains(&asked) && writes <= asked, "{asked} questions, {writes} writes");
    assert_eq!(words(&look_at(&self::run(), &super::pod().run_waits("PodInitializing"), 11)), ["Write Pending"]);
}

#[test]
fn a_pod_that_no_scheduler_looked_at_is_not_said_to_pull() {
    let waiting = written(&look_at(&run(), &pod(), 11)).waiting.unwrap();
    assert_eq!(waiting.stage.as_deref(), Some("Scheduling"));
    assert!(waiting.message.unwrap().contains("default-scheduler"));
    let of_another = run_of(json!({"command": "true", "schedulerName": "volcano"}));
    assert!(written(&look_at(&of_another, &pod(), 11)).message.unwrap().contains("volcano"));
    let plan = look_at(&run(), &pod(), 11);
    assert_eq!((plan.next, waiting.deadline), (seconds(15), None));
    let bound = look_at(&after(&run(), &plan), &pod().run_waits("ContainerCreating"), 26);
    assert_eq!(written(&bound).waiting.unwrap().reason.as_deref(), Some("ContainerCreating"));
}

#[test]
fn an_image_that_cannot_be_pulled_ends_after_its_deadline() {
    let typo = pod().run_waits("ErrImagePull").saying("no such host");
    let plan = look_at(&run(), &typo, 4);
    assert_eq!(words(&plan), ["Write Pending", "Tell ErrImagePull"]);
    assert_eq!(plan.next, seconds(120));
    let told = after(&run(), &plan);
    let waiting = told.status.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.deadline, Some(Time(at(124))), "an input whose host does not exist has as long");
    assert!(waiting.hint.as_deref().unwrap().contains("misspelt"));

    let plan = look_at(&told, &pod().run_waits("ImagePullBackOff"), 100);
    assert_eq!((words(&plan).len(), plan.next), (0, seconds(24)), "the kubelet's two words for it are one wait");
    assert_eq!(words(&look_at(&told, &typo, 124)), ["Delete r-1"]);

    let gone = PodCase::deleted(pod().run_waits("ImagePullBackOff"), 124).failed("", "");
    let plan = look_at(&told, &gone, 126);
    assert_eq!(words(&plan), ["Write Failed", "Release r-1", "Tell ImagePullFailed"]);
    assert_eq!(written(&plan).message.as_deref(), Some("no such host"));
}

#[test]
fn a_name_service_that_does_not_answer_is_waited_for_and_the_name_may_be_misspelt() {
    for words_ in [
        "dial tcp: lookup rgistry on 10.96.0.10:53: server misbehaving",
        "dial tcp: lookup rgistry on 127.0.0.53:53: read udp 127.0.0.1:4545->127.0.0.53:53: i/o timeout",
        "dial tcp: lookup rgistry on 10.96.0.10:53: dial udp 10.96.0.10:53: connect: network is unreachable",
    ] {
        let plan = look_at(&run(), &pod().run_waits("ErrImagePull").saying(words_), 4);
        let waiting = written(&plan).waiting.unwrap();
        assert_eq!((waiting.deadline, waiting.until.as_deref()), (None, Some("no deadline")));
        assert!(waiting.hint.unwrap().contains("misspelt"), "{words_}");
    }
}

/// The plan for a pod that waits like this, and the one at its deadline.
fn pulls(run: &BundleRun, message: &str, second: i64) -> (Plan, Option<i64>) {
    let plan = look_at(run, &pod().run_waits("ErrImagePull").saying(message), second);
    let deadline = |status: BundleRunStatus| status.waiting?.deadline;
    let wrote = words(&plan).iter().any(|word| word.starts_with("Write"));
    let deadline = wrote.then(|| written(&plan)).and_then(deadline);
    (plan, deadline.map(|at_| at_.0.duration_since(at(0)).as_secs()))
}

#[test]
fn what_a_registry_says_of_an_image_decides_how_long_it_is_waited_for() {
    let refused = "failed to resolve reference \"r/x:1\": r/x:1: not found";
    let silent = "failed to do request: Head \"https://r/v2/x\": dial tcp 10.0.0.1:443: i/o timeout";
    assert_eq!(pulls(&run(), refused, 4).1, Some(44), "it is asked three times until then");
    assert_eq!(pulls(&run(), "pull access denied", 4).1, Some(44));
    let (plan, deadline) = pulls(&run(), silent, 4);
    assert_eq!((words(&plan).len(), deadline), (2, None), "told, and waited for");
    assert_eq!(pulls(&run(), "x509: certificate has expired", 4).1, Some(304));

    // It answers at last, and what it says is no better.
    let told = after(&run(), &plan);
    let backs_off = pod().run_waits("ImagePullBackOff").saying("Back-off pulling image \"r/x:1\"");
    assert_eq!(look_at(&told, &backs_off, 900), Plan::default());
    let (plan, deadline) = pulls(&told, refused, 1000);
    assert_eq!((words(&plan).len(), deadline), (2, Some(1040)));
    let told = after(&run(), &plan);
    assert_eq!((words(&look_at(&told, &backs_off, 1010)).len(), pulls(&told, refused, 1020).1), (0, None));
    assert_eq!(words(&pulls(&told, refused, 1041).0), ["Delete r-1"]);
    let gone = PodCase::deleted(backs_off, 1041).failed("", "");
    assert_eq!(written(&look_at(&told, &gone, 1043)).result.unwrap().cause, "ImagePullFailed");
    let gone = PodCase::deleted(pod().run_waits("ErrImagePull").saying("no space left on device"), 304).failed("", "");
    let told = after(&run(), &pulls(&run(), "no space left on device", 4).0);
    assert_eq!(words(&look_at(&told, &gone, 306)), ["Write Pending", "Tell ImageNotPulled"], "perhaps another node");
}

#[test]
fn a_node_that_cannot_give_the_gpus_is_left_at_once() {
    let message =
        "failed to create containerd task: CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=0";
    let fails = pod().run_waits("CreateContainerError").saying(message);
    let plan = look_at(&run(), &fails, 4);
    assert_eq!(plan.next, seconds(0));
    let told = after(&run(), &plan);
    assert_eq!(words(&look_at(&told, &fails, 4)), ["Delete r-1"]);
    let gone = PodCase::deleted(fails, 4).failed("", "");
    assert_eq!(words(&look_at(&told, &gone, 6)), ["Write Pending", "Tell GpuUnavailable"]);
}

/// What is in the way is told anew when it is something else, and none of it gets more time than was told.
#[test]
fn what_is_in_the_way_after_a_secret_was_made_is_told_and_judged_as_what_it_is() {
    let lacks =
        |name: &str| pod().run_waits("CreateContainerConfigError").saying(&format!("secret \"{name}\" not found"));
    let told = after(&run(), &look_at(&run(), &lacks("first"), 4));
    assert_eq!(words(&look_at(&told, &lacks("first"), 60)), [""; 0]);
    let plan = look_at(&told, &lacks("second"), 60);
    assert_eq!(words(&plan), ["Write Pending", "Tell CreateContainerConfigError"]);
    let soon = look_having_written(&told, &lacks("second"), 50, 60);
    assert_eq!((words(&soon), soon.next), (vec![], seconds(5)), "two that take turns cost few writes");
    let of = |run: &BundleRun| run.status.as_ref().unwrap().waiting.clone().unwrap();
    let over = of(&told).deadline.unwrap().0.duration_since(at(0)).as_secs();
    assert_eq!(words(&look_at(&told, &lacks("second"), over)), ["Delete r-1"]);
    let second = after(&told, &plan);
    assert_eq!(of(&second).message.as_deref(), Some("secret \"second\" not found"));
    assert_eq!(of(&second).deadline, of(&told).deadline, "they may take turns");

    let message =
        "failed to create containerd task: CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=0";
    let fails = pod().run_waits("CreateContainerError").saying(message);
    let told = after(&told, &look_at(&told, &fails, 60));
    assert_eq!(words(&look_at(&told, &fails, 60)), ["Delete r-1"], "at once");
    let gone = PodCase::deleted(fails, 60).failed("", "");
    assert_eq!(words(&look_at(&told, &gone, 62)), ["Write Pending", "Tell GpuUnavailable"]);

    // The helper's image was waited for without a deadline, and now the node cannot make its container.
    let mut helper = pod().helper_waits("ErrImagePull");
    helper.0["status"]["initContainerStatuses"][0]["state"]["waiting"]["message"] = json!("503 Service Unavailable");
    let told = after(&run(), &look_at(&run(), &helper, 4));
    assert_eq!(of(&told).deadline, None);
    let cannot = pod().helper_waits("CreateContainerError");
    assert!(of(&after(&told, &look_at(&told, &cannot, 60))).deadline.is_some());
}

#[test]
fn a_container_of_others_that_holds_up_the_command_is_told() {
    let with_init = |state: Value| {
        let mut pod = pod().run_waits("PodInitializing").helper(&json!({"waiting": {"reason": "PodInitializing"}}));
        let init = json!({"name": "istio-init", "imageID": "", "state": state});
        pod.0["status"]["initContainerStatuses"].as_array_mut().unwrap().insert(0, init);
        pod
    };
    let words_of = "Back-off pulling image \"mesh/proxy:1\": not found";
    let fails = with_init(json!({"waiting": {"reason": "ImagePullBackOff", "message": words_of}}));
    let first = (run(), with_init(json!({"waiting": {"reason": "PodInitializing"}})).facts());
    let slow = Observed { pod_events: Some(&[]), ..nothing_but(&first.0, PodSeen::Ours(&first.1)) };
    let slow = after(&run(), &plan(&slow, &settings(), at(11)));
    for before in [run(), slow] {
        let plan = look_at(&before, &fails, 20);
        assert_eq!(words(&plan), ["Write Pending", "Tell ImagePullBackOff"]);
        let waiting = written(&plan).waiting.unwrap();
        assert_eq!((waiting.stage.as_deref(), waiting.message.as_deref()), (Some("Starting"), Some(words_of)));
        assert!(waiting.hint.unwrap().contains("a container that something else has put into the pod"));
        let told = after(&before, &plan);
        assert_eq!(words(&look_at(&told, &fails, 600)), [""; 0]);
        let ended = look_at(&told, &PodCase::deleted(fails.clone(), 700).failed("", ""), 702);
        assert_eq!(words(&ended), ["Write Pending", "Tell StartDeadlineExceeded"]);
    }
    let runs = with_init(json!({"running": {"startedAt": time(5)}}));
    let message = written(&look_at(&run(), &runs, 20)).message.unwrap();
    assert!(message.starts_with("istio-init runs, which something else has put into the pod"), "{message}");
}

#[test]
fn an_output_that_the_node_cannot_mount_is_copied_by_the_next_attempt() {
    let input = json!([{"path": "whole", "run": {"name": "prepare"}}]);
    let run = run_of(json!({"image": "i:1", "command": "true", "inputs": input}));
    let parent = Parent { uid: "up".into(), phase: Some(Phase::Succeeded), mountable: true, ..Parent::default() };
    let parents = bundles::parents(Parent { bundle: Some(bundles::bundle(DIGEST)), ..parent });
    let settings = Settings { image_volumes: true, ..bundles::with_store() };
    let nodes = Capacity { nodes: 2, ..Capacity::default() };
    let made_for = |run: &BundleRun, second| {
        let (pull_secrets, capacity) = (Some(&[][..]), Some(&nodes));
        let seen = Observed { parents: &parents, pull_secrets, capacity, ..nothing_but(run, PodSeen::Absent) };
        created(&plan(&seen, &settings, at(second))).clone()
    };
    let images = |pod: &k8s_openapi::api::core::v1::Pod| -> Vec<_> {
        pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter_map(|v| v.image.clone()).collect()
    };
    let first = made_for(&run, 1);
    let [image] = images(&first).try_into().unwrap();
    let image = image.reference.unwrap();
    // As the kubelet 1.36 says it of what cannot be pulled, containerd 2.1 and 2.2 of what cannot be mounted, and CRI-O.
    for (reason, says) in [
        (
            "ErrImagePull",
            format!("failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": not found"),
        ),
        ("ImagePullBackOff", format!("Back-off pulling image \"{image}\": ErrImagePull: context deadline exceeded")),
        (
            "CreateContainerError",
            format!("failed to mount image volume: failed to get image volume ref \"{image}\": not found"),
        ),
        (
            "CreateContainerError",
            "failed to mount image volume: ImageVolumeMountFailed: failed to mount image volume component \
             \"/run/containerd/io.containerd.grpc.v1.cri/image-volumes/9a1f/7e4c\": input/output error"
                .to_owned(),
        ),
        (
            "CreateContainerError",
            "failed to mount image volume: ImageVolumeMountFailed: failed to ensure image subpath \"contents\" in \
             \"/run/containerd/io.containerd.grpc.v1.cri/image-volumes/9a1f/7e4c\": no such file or directory"
                .to_owned(),
        ),
        ("CreateContainerError", "ImageVolumeMountFailed: mount point does not exist".to_owned()),
    ] {
        let mut fails = pod().run_waits(reason).saying(&says);
        fails.0["metadata"]["annotations"] = json!(first.metadata.annotations);
        let plan = look_at(&run, &fails, 4);
        assert_eq!((words(&plan)[1].as_str(), plan.next), ("Tell InputNotMounted", seconds(40)), "{says}");
        let told = after(&run, &plan);
        assert_eq!(words(&look_at(&told, &fails, 44)), ["Delete r-1"]);
        let gone = PodCase::deleted(fails, 44).failed("", "");
        let plan = look_at(&told, &gone, 46);
        assert_eq!(words(&plan), ["Write Pending", "Tell InputNotMounted"]);
        // It costs none of the interruptions that a run may have, and the next one does.
        let mut once = after(&told, &plan);
        once.spec.retry.interruptions = Some(0);
        let mut first_time = told.clone();
        first_time.spec.retry.interruptions = Some(0);
        assert_eq!(words(&look_at(&first_time, &gone, 46))[0], "Write Pending");
        let drained = pod().of_attempt(2).running(50).deleted(60).failed("", "");
        assert_eq!(words(&look_at(&once, &drained, 130))[0], "Write Failed");
        let second = made_for(&after(&told, &plan), 300);
        assert_eq!((second.metadata.name.as_deref(), images(&second)), (Some("r-2"), vec![]));
        let mounts = second.spec.unwrap().containers[0].volume_mounts.clone().unwrap();
        let is_copied = mounts.iter().any(|mount| mount.mount_path == "/bundle/whole" && mount.name == "inputs");
        assert!(is_copied, "{mounts:#?}");
    }
    // Of a pod that mounts none the same words are about something else.
    let other = pod().run_waits("CreateContainerError").saying("ImageVolumeMountFailed: mount point does not exist");
    assert_eq!(written(&look_at(&run, &other, 4)).waiting.unwrap().reason.as_deref(), Some("CreateContainerError"));
}

/// Of as many attempts the object does not have the first one any more.
#[test]
fn an_interruption_that_cost_nothing_costs_nothing_ever_after() {
    let spec = json!({"image": "i:1", "command": "true", "retry": {"interruptions": 12}});
    let attempt = |number: u32, cause: &str| {
        let start = (cause != "InputNotMounted").then(|| time(5));
        json!({"attempt": number, "pod": format!("r-{number}"), "uid": format!("p{number}"), "cause": cause,
            "startTime": start, "finishTime": time(9)})
    };
    let not_mounted = json!({"attempt": 1, "phase": "Pending", "waiting": {"stage": "ImagePull",
        "reason": "InputNotMounted", "message": "not found", "since": time(4), "deadline": time(44)}});
    let first = with_status(&run_of(spec.clone()), &serde_json::from_value(not_mounted).unwrap());
    let gone = pod().run_waits("ErrImagePull").deleted(44).failed("", "");
    let mut run = after(&first, &look_at(&first, &gone, 46));
    assert_eq!(run.status.as_ref().unwrap().uncounted_interruptions, Some(1));
    let drained = |number: u32| pod().of_attempt(number).running(50).deleted(60).failed("", "");
    for number in 2..14 {
        let plan = look_at(&run, &drained(number), 130);
        assert_eq!(words(&plan)[0], "Write Pending", "attempt {number}");
        run = after(&run, &plan);
    }
    assert_eq!(run.status.as_ref().unwrap().attempts[0].attempt, 4);
    assert_eq!(words(&look_at(&run, &drained(14), 130))[0], "Write Failed");

    // As an older version wrote it.
    let attempts = [attempt(1, "InputNotMounted"), attempt(2, "PodDeleted")];
    let status = json!({"attempt": 3, "phase": "Running", "attempts": attempts});
    let mut old = with_status(&run_of(spec), &serde_json::from_value(status).unwrap());
    old.spec.retry.interruptions = Some(2);
    assert_eq!(words(&look_at(&old, &drained(3), 130))[0], "Write Pending");
}

#[test]
fn a_claim_that_does_not_exist_has_the_deadline_of_all_that_does_not_exist() {
    let missing = pod().unschedulable("persistentvolumeclaim \"data\" not found. preemption: not eligible");
    let plan = look_at(&run(), &missing, 4);
    assert_eq!(words(&plan), ["Write Pending", "Tell ClaimMissing"]);
    let told = after(&run(), &plan);
    let waiting = told.status.as_ref().unwrap().waiting.clone().unwrap();
    assert_eq!((waiting.stage.as_deref(), waiting.deadline), (Some("Configuration"), Some(Time(at(124)))));
    assert_eq!(waiting.message.as_deref(), Some("persistentvolumeclaim \"data\" not found"));
    assert_eq!(words(&look_at(&told, &missing, 125)), ["Delete r-1"]);
    let gone = PodCase::deleted(missing, 125).failed("", "");
    assert_eq!(words(&look_at(&told, &gone, 126))[0], "Write Failed");
    assert_eq!(written(&look_at(&told, &gone, 126)).result.unwrap().cause, "CreateContainerConfigError");
}

#[test]
fn a_deadline_that_was_told_is_kept_when_the_settings_change() {
    let typo = pod().run_waits("ErrImagePull").facts();
    let told = after(&run(), &look(&run(), PodSeen::Ours(&typo), 4));
    let shorter = Settings { image_deadline: Duration::from_secs(10), ..settings() };
    let observed = nothing_but(&told, PodSeen::Ours(&typo));
    assert_eq!(plan(&observed, &shorter, at(100)).next, seconds(204));
}

#[test]
fn a_slow_deletion_does_not_forget_the_deadline() {
    let told = after(&run(), &look_at(&run(), &pod().run_waits("ErrImagePull"), 4));
    let going = pod().run_waits("ErrImagePull").deleted(304);
    assert_eq!(words(&look_at(&told, &going, 330)).len(), 0);
}

#[test]
fn what_is_no_image_name_is_not_waited_for() {
    let invalid = pod().run_waits("InvalidImageName");
    let plan = look_at(&run(), &invalid, 4);
    assert_eq!(
        (words(&plan), plan.next),
        (vec!["Write Pending".to_owned(), "Tell InvalidImageName".to_owned()], seconds(0))
    );
    assert_eq!(words(&look_at(&after(&run(), &plan), &invalid, 4)), ["Delete r-1"]);
}

#[test]
fn waiting_is_told_at_most_every_15_seconds() {
    let told = after(&run(), &look_at(&run(), &pod().unschedulable("0/3 nodes"), 2));
    let other = pod().unschedulable("0/4 nodes");
    let plan = look_having_written(&told, &other, 2, 10);
    assert_eq!((words(&plan).len(), plan.next), (0, seconds(7)));
    let plan = look_having_written(&told, &other, 2, 17);
    assert_eq!(words(&plan), ["Write Pending"], "an event once is enough");
    let waiting = written(&plan).waiting.unwrap();
    assert_eq!((waiting.message.as_deref(), waiting.since), (Some("0/4 nodes"), Some(Time(at(2)))));
}

#[test]
fn a_pod_may_wait_for_a_node_as_long_as_it_takes() {
    let unschedulable = pod().unschedulable("0/3 nodes");
    let told = after(&run(), &look_at(&run(), &unschedulable, 2));
    assert_eq!(look_at(&told, &unschedulable, 1_000_000), Plan::default());
}

/// The scheduler's words change with every pod of the cluster, the kubelet alternates between two, and each change is
/// looked at. No step but these writes and one event asks for anything.
#[test]
fn an_hour_without_a_node_or_an_image_costs_few_writes() {
    let scheduler = |second: i64| pod().unschedulable(&format!("0/{second} nodes are available: 1 Insufficient cpu."));
    let kubelet = |second: i64| {
        let reason = if second % 20 < 10 { "ErrImagePull" } else { "ImagePullBackOff" };
        pod().run_waits(reason).saying("dial tcp 10.0.0.5:443: i/o timeout")
    };
    let cases: [(&dyn Fn(i64) -> PodCase, _); 2] = [(&scheduler, 15..=25), (&kubelet, 1..=1)];
    for (seen, expected) in cases {
        let (mut run, mut wrote, mut writes, mut events) = (run(), None, 0, 0);
        for second in (2..3602).step_by(5) {
            let facts = seen(second).facts();
            let observed = Observed { written_at: wrote.map(at), ..nothing_but(&run, PodSeen::Ours(&facts)) };
            let plan = plan(&observed, &settings(), at(second));
            events += words(&plan).iter().filter(|step| step.starts_with("Tell")).count();
            if words(&plan).contains(&"Write Pending".to_owned()) {
                run = with_status(&run, &written(&plan));
                (wrote, writes) = (Some(second), writes + 1);
            }
            assert!(words(&plan).iter().all(|step| step == "Write Pending" || step.starts_with("Tell")), "{plan:?}");
        }
        assert!(expected.contains(&writes) && events == 1, "{writes} writes, {events} events");
    }
}

#[test]
fn a_gate_is_a_queue_whose_time_is_written_down() {
    let mut gated = pod().gated(&["kueue.x-k8s.io/admission"]);
    gated.0["metadata"]["labels"] = json!({"kueue.x-k8s.io/queue-name": "team-a"});
    let plan = look_at(&run(), &gated, 2);
    assert_eq!((words(&plan), plan.next), (vec!["Write Pending".to_owned(), "Tell SchedulingGated".to_owned()], None));
    assert!(matches!(&plan.steps[1], Step::Event(event) if event.type_ == EventType::Normal));
    let told = after(&run(), &plan);
    let waiting = told.status.as_ref().unwrap().waiting.clone().unwrap();
    assert_eq!((waiting.stage.as_deref(), waiting.until.as_deref()), (Some("Queue"), Some("no deadline")));
    assert_eq!(
        waiting.message.as_deref(),
        Some("the pod waits until its scheduling gate kueue.x-k8s.io/admission is removed; it is in the queue team-a")
    );
    assert_eq!(look_at(&told, &gated, 90_000), Plan::default());

    // It is admitted: the scheduler has not had its turn, and has ten seconds for it.
    let plan = look_at(&told, &pod().gated(&[]), 602);
    assert_eq!((words(&plan), plan.next), (vec!["Write Pending".to_owned()], seconds(10)));
    let admitted = after(&told, &plan);
    let status = admitted.status.as_ref().unwrap();
    assert_eq!((status.waiting.as_ref(), status.timeline.unwrap().queued_milliseconds), (None, Some(601_000)));
    assert_eq!(words(&look_at(&admitted, &pod().gated(&[]), 605)).len(), 0);
    assert_eq!(written(&look_at(&admitted, &pod().gated(&[]), 612)).reason.as_deref(), Some("NotSeenByScheduler"));
    let mut reported = pod().reported(&record(0));
    reported = reported.condition("PodScheduled", "True", "", "", 604);
    for before in [&admitted, &told] {
        let timeline = written(&look_at(before, &reported, 610)).timeline.unwrap();
        let expected = if before == &admitted { (Some(601_000), Some(2_000)) } else { (Some(609_000), Some(0)) };
        assert_eq!((timeline.queued_milliseconds, timeline.scheduling_milliseconds), expected);
    }
    // The next attempt has a time of its own.
    let evicted = written(&look_at(&admitted, &pod().running(605).failed("Evicted", ""), 700));
    assert_eq!(evicted.timeline, None);
}

#[test]
fn a_wait_that_ends_is_taken_back() {
    let told = after(&run(), &look_at(&run(), &pod().unschedulable("0/3 nodes"), 2));
    let plan = look_at(&told, &pod().bound(), 4);
    assert_eq!(words(&plan), ["Write Pending"]);
    let on_its_way = "nothing holds it up: its pod is being started";
    assert_eq!((written(&plan).waiting, written(&plan).message.as_deref()), (None, Some(on_its_way)));
    let plan = look_at(&told, &pod().running(5), 7);
    assert_eq!((words(&plan), written(&plan).waiting), (vec!["Write Running".to_owned()], None));
}

#[test]
fn another_wait_has_its_own_time_and_deadline() {
    let told = after(&run(), &look_at(&run(), &pod().helper_waits("ErrImagePull"), 4));
    let plan = look_at(&told, &pod().run_waits("CreateContainerConfigError"), 50);
    assert_eq!(words(&plan), ["Write Pending", "Tell CreateContainerConfigError"]);
    let waiting = written(&plan).waiting.unwrap();
    assert_eq!((waiting.since, waiting.deadline), (Some(Time(at(50))), Some(Time(at(170)))));
}

#[test]
fn a_helper_that_cannot_prepare_tells_why_and_the_kubelet_why_not_yet() {
    let crashed = || pod().helper_waits("CrashLoopBackOff");
    let message = |pod| written(&look_at(&run(), &pod, 4)).waiting.unwrap().message.unwrap();
    assert_eq!(message(crashed()), "words");
    assert_eq!(message(crashed().helper_said("cannot write: the disk is full")), "cannot write: the disk is full");
    let report = Message::encode(&Report::default(), b"", b"");
    assert_eq!(message(crashed().helper_said(&report)), "words", "a report is no reason");
}

#[test]
fn a_helper_that_crashes_again_and_again_has_one_deadline() {
    let crashed = pod().helper_waits("CrashLoopBackOff");
    let up = |since| pod().bound().helper(&json!({"running": {"startedAt": time(since)}}));
    let told = after(&run(), &look_at(&run(), &crashed, 4));
    let plan = look_at(&told, &up(20), 21);
    assert_eq!((words(&plan).len(), plan.next), (0, seconds(9)), "it is on trial");
    assert_eq!(words(&look_at(&told, &pod().bound().helper(&json!({"terminated": {"exitCode": 1}})), 22)).len(), 0);
    assert_eq!(words(&look_at(&told, &crashed, 23)).len(), 0);
    assert_eq!(words(&look_at(&told, &up(120), 125)), ["Delete r-1"]);
    assert_eq!(words(&look_at(&told, &up(20), 31)), ["Write Pending"], "it stayed up: the wait is over");
}

#[test]
fn a_claim_without_a_volume_is_named() {
    let mut run = run();
    let volumes = json!([{"path": "/v", "claim": {"name": "data"}}, {"path": "/w", "claim": {"name": "more"}}]);
    run.spec.volumes = serde_json::from_value(volumes).unwrap();
    let pod =
        pod().unschedulable("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found");
    let waiting = written(&look_at(&run, &pod, 3)).waiting.unwrap();
    assert!(waiting.message.unwrap().starts_with("a claim of the run has no volume (data, more); 0/3 nodes"));
    assert!(waiting.hint.unwrap().starts_with("look at the claims"));
}

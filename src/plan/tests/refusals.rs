//! The API server does not take the pod.

use super::*;
use crate::api::status::Blame;
use crate::plan::Cause;

fn message() -> String {
    "pods \"r-1\" is forbidden: words".to_owned()
}

#[test]
fn a_quota_is_a_queue_without_a_deadline() {
    let refusal = Refusal::QuotaExceeded(message());
    let plan = refused(&run(), &refusal, 1);
    assert_eq!(
        (words(&plan), plan.next),
        (vec!["Write Pending".to_owned(), "Tell QuotaExceeded".to_owned()], seconds(15))
    );
    let run = with_status(&run(), &written(&plan));
    assert_eq!(written(&plan).waiting.unwrap().deadline, None);
    let plan = refused(&run, &refusal, 1_000_000);
    assert_eq!((words(&plan).len(), plan.next), (0, seconds(60)));
    assert_eq!(words(&look(&run, PodSeen::Absent, 16)), ["Create r-1"], "it is tried again");
}

#[test]
fn what_is_forbidden_is_tried_until_its_deadline() {
    let refusal = Refusal::Forbidden(message());
    let plan = refused(&run(), &refusal, 1);
    assert_eq!(words(&plan), ["Write Pending", "Tell Forbidden"]);
    let waiting = written(&plan).waiting.unwrap();
    assert_eq!((waiting.stage.as_deref(), waiting.deadline), (Some("Admission"), Some(Time(at(121)))));
    let run = with_status(&run(), &written(&plan));
    assert_eq!(words(&refused(&run, &refusal, 120)).len(), 0);
    let plan = refused(&run, &refusal, 121);
    assert_eq!(words(&plan), ["Write Failed", "Tell Forbidden"]);
    assert_eq!(written(&plan).result.unwrap().blame, Some(Blame::Policy));
}

#[test]
fn what_will_never_be_taken_ends_the_run_at_once() {
    for (refusal, cause, blame) in [
        (Refusal::Invalid { message: message(), fields: vec![] }, "PodInvalid", Blame::User),
        (Refusal::PodSecurity(message()), "PodSecurity", Blame::Policy),
    ] {
        let plan = refused(&run(), &refusal, 1);
        assert_eq!(words(&plan), ["Write Failed".to_owned(), format!("Tell {cause}")]);
        let result = written(&plan).result.unwrap();
        assert_eq!((result.cause.as_str(), result.blame, result.hint.is_some()), (cause, Some(blame), true));
        assert_eq!(written(&plan).message, Some(message()));
    }
}

/// The API server finds these fields of the pod wrong, each with these words.
fn invalid(fields: &[(&str, &str)]) -> Refusal {
    let all: Vec<_> = fields.iter().map(|(path, words)| format!("{path}: {words}")).collect();
    let fields = fields.iter().map(|(path, words)| InvalidField { path: (*path).into(), words: (*words).into() });
    Refusal::of(422, format!("Pod \"r-1\" is invalid: [{}]", all.join(", "))).naming(fields.collect())
}

/// What others put into the pod, and what the settings do, is not the user's; nor is it final.
#[test]
fn a_field_that_the_run_did_not_make_wrong_is_the_platforms_and_has_a_deadline() {
    let run =
        run_of(json!({"image": "i", "command": "run", "resources": {"cpus": 2, "extended": {"example.com/nic": 1}},
        "env": [{"name": "A", "value": "$B"}], "tolerations": [{"key": "a b", "operator": "Exists"}],
        "podLabels": {"mine": "x y"}, "runAsUser": 1000,
        "volumes": [{"path": "data", "claim": {"name": "c"}}, {"path": "/models", "claim": {"name": "d"}}]}));
    let settings = Settings { pod_labels: [("theirs".to_owned(), "u v".to_owned())].into(), ..settings() };
    let refused = |refusal: &Refusal, run: &BundleRun, second| {
        plan(&Observed { refusal: Some(refusal), ..nothing_but(run, PodSeen::Absent) }, &settings, at(second))
    };
    let others = "changed after the operator made it";
    let ours = "the operator or its settings made it so";
    for (path, words, whose) in [
        // Containers, volumes and mounts beside the operator's.
        ("spec.containers[1].image", "Required value", Some(others)),
        ("spec.containers[0].image", "Required value", Some(others)),
        (
            "spec.initContainers[0].image",
            "Invalid value: \" x\": must not have leading or trailing whitespace",
            Some(others),
        ),
        ("spec.containers[1].name", "Duplicate value: \"run\"", Some(others)),
        ("spec.containers[1].ports[0].containerPort", "Required value", Some(others)),
        ("spec.containers[0].volumeMounts[3].mountPath", "Invalid value: \"/vault/\": must be unique", Some(others)),
        ("spec.containers[0].volumeMounts[30].mountPath", "Invalid value: \"/models\": must be unique", Some(others)),
        ("spec.containers[0].volumeMounts[2].name", "Not found: \"gone\"", Some(others)),
        ("spec.volumes[40].name", "Duplicate value: \"bundle\"", Some(others)),
        ("spec.hostNetwork", "Invalid value: true: no", Some(others)),
        ("spec.priority", "Forbidden: the integer value of priority must not be provided in pod spec", Some(others)),
        // Values that nobody sent.
        ("metadata.labels", "Invalid value: \"injected by\": a valid label must consist of ...", Some(others)),
        ("spec.tolerations[0].key", "Invalid value: \"c d\": name part must consist of ...", Some(others)),
        ("spec.tolerations[1].effect", "Unsupported value: \"Never\": supported values: \"NoSchedule\"", Some(others)),
        (
            "spec.securityContext.runAsUser",
            "Invalid value: -1: must be between 0 and 2147483647, inclusive",
            Some(others),
        ),
        // What the settings have, and what the operator makes.
        ("metadata.labels", "Invalid value: \"u v\": a valid label must consist of ...", Some(ours)),
        ("spec.initContainers[0].image", "Invalid value: \"operator:1\": no", Some(ours)),
        ("spec.containers[0].name", "Invalid value: \"run\": no", Some(ours)),
        ("spec.terminationGracePeriodSeconds", "Invalid value: 60: no", Some(ours)),
        // What the run says, also behind something that others have put before it.
        ("spec.tolerations[0].key", "Invalid value: \"a b\": name part must consist of ...", None),
        ("spec.tolerations[7].key", "Invalid value: \"a b\": name part must consist of ...", None),
        ("metadata.labels", "Invalid value: \"x y\": a valid label must consist of ...", None),
        ("spec.containers[0].image", "Invalid value: \"i\": no", None),
        ("spec.containers[1].env[12].value", "Invalid value: \"$$B\": no", None),
        ("spec.containers[0].volumeMounts[7].mountPath", "Invalid value: \"/bundle/data\": must be unique", None),
        ("spec.containers[0].resources.limits", "Invalid value: \"2\": no", None),
        ("spec.containers[0].resources.limits[example.com/nic]", "Invalid value: \"example.com/nic\": no", None),
        ("spec.securityContext.runAsUser", "Invalid value: 1000: no", None),
        ("spec.tolerations[0]", "Forbidden: no", None),
    ] {
        let plan = refused(&invalid(&[(path, words)]), &run, 1);
        let Some(whose) = whose else {
            assert_eq!(super::words(&plan), ["Write Failed", "Tell PodInvalid"], "{path}: {words}");
            assert_eq!(written(&plan).result.unwrap().blame, Some(Blame::User));
            continue;
        };
        assert_eq!(super::words(&plan), ["Write Pending", "Tell PodInvalid"], "{path}: {words}");
        let waiting = written(&plan).waiting.unwrap();
        assert!(waiting.message.unwrap().ends_with(&format!("; {whose}: {path}")), "{path}: {words}");
        assert_eq!(waiting.deadline, Some(Time(at(121))));
        assert!(waiting.hint.unwrap().starts_with("tell the administrator"));
    }
    // One of both: as long as the run is as it is, no mending of the others helps.
    let both = invalid(&[
        ("spec.containers[1].image", "Required value"),
        ("spec.tolerations[0].key", "Invalid value: \"a b\": no"),
    ]);
    assert_eq!(words(&refused(&both, &run, 1)), ["Write Failed", "Tell PodInvalid"]);

    let theirs = [("spec.containers[1].image", "Required value"), ("metadata.labels", "Invalid value: \"u v\": no")];
    let told = with_status(&run, &written(&refused(&invalid(&theirs), &run, 1)));
    assert_eq!(words(&look(&told, PodSeen::Absent, 16)), ["Create r-1"], "it may be mended");
    let ended = written(&refused(&invalid(&theirs), &told, 121));
    let message = ended.message.unwrap();
    assert!(message.ends_with(&format!("; {others}: spec.containers[1].image; {ours}: metadata.labels")), "{message}");
    let result = ended.result.unwrap();
    assert_eq!((result.cause.as_str(), result.blame), ("PodInvalid", Some(Blame::Platform)));
}

#[test]
fn pod_security_names_the_field_that_helps() {
    // As Kubernetes 1.36 words it.
    let without = "violates PodSecurity \"restricted:latest\": runAsNonRoot != true (pod or containers \"bundle\", \"run\" must set securityContext.runAsNonRoot=true), runAsUser=0 (container \"bundle\" must not set runAsUser=0)";
    let zero = "violates PodSecurity \"restricted:latest\": runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set runAsUser=0)";
    let driver = "violates PodSecurity \"baseline:latest\": hostPath volumes (volume \"driver\")";
    for (message, help) in
        [(without, "set runAsUser, such as"), (zero, "another user than 0"), (driver, "at the privileged")]
    {
        let hint = written(&refused(&run(), &Refusal::PodSecurity(message.into()), 1)).result.unwrap().hint.unwrap();
        assert!(hint.contains(help), "{message}: {hint}");
    }
}

/// What is told to somebody whose pod the API server does not take.
fn hint_and_message(message: &str) -> (String, String) {
    let told = written(&refused(&run(), &Refusal::of(403, format!("pods \"r-1\" is forbidden: {message}")), 1));
    let waiting = told.waiting.unwrap();
    (waiting.hint.unwrap(), waiting.message.unwrap())
}

#[test]
fn a_limit_range_is_told_whose_container_it_is_about() {
    let run = "that is the run's own container (run)";
    let helper = "that is the container of the operator's helper (bundle)";
    // The run's: 1 CPU and 2 GiB. The helper's: 10m of CPU without a limit, 16Mi and 64Mi of memory.
    for (message, about) in [
        ("minimum cpu usage per Container is 50m, but request is 10m", Some(helper)),
        (
            "[minimum cpu usage per Container is 50m, but request is 10m, minimum memory usage per Container is 64Mi, but request is 16Mi]",
            Some(helper),
        ),
        ("maximum memory usage per Container is 1Gi, but limit is 2Gi", Some(run)),
        ("maximum cpu usage per Container is 100m, but limit is 1", Some(run)),
        ("maximum cpu usage per Container is 1, but no limit is specified", Some(helper)),
        (
            "[minimum cpu usage per Container is 50m, but request is 10m, maximum memory usage per Container is 1Gi, but limit is 2Gi]",
            None,
        ),
        ("maximum memory usage per Container is 8Gi, but limit is 64Gi", None),
        ("maximum cpu usage per Pod is 2, but limit is 16", None),
        (
            "spec.initContainers[0].resources.requests: Invalid value: \"10m\": must be less than or equal to cpu limit of 5m",
            Some(helper),
        ),
        (
            "spec.containers[0].resources.requests: Invalid value: \"20Gi\": must be less than or equal to ephemeral-storage limit of 2Gi",
            Some(run),
        ),
        (
            "spec.initContainers[1].resources.requests: Invalid value: \"1\": must be less than or equal to cpu limit of 5m",
            None,
        ),
    ] {
        let (hint, told) = hint_and_message(message);
        let suffix = told.split_once(message).unwrap().1.strip_prefix("; ");
        assert_eq!(suffix, about, "{message}");
        let cause = match about {
            Some(about) if about == run => Cause::LimitRangeOfRun,
            Some(_) => Cause::LimitRangeOfHelper,
            None => Cause::ForbiddenByLimitRange,
        };
        assert_eq!(hint, hint_while_waiting(cause), "{message}");
        assert_eq!(hint_at_the_deadline(message), cause.hint().unwrap(), "{message}");
    }
    let settings =
        "tell the administrator: helper.resources of the operator's settings, or the LimitRange, has to change";
    assert_eq!(Cause::LimitRangeOfHelper.hint().unwrap(), settings);
    let quota = Cause::ForbiddenByQuota.hint().unwrap();
    assert!(quota.contains("(helper.resources.limits.cpu, or qos: Guaranteed)"), "{quota}");
}

fn hint_while_waiting(cause: Cause) -> String {
    format!("{}; if that changes before the deadline, the run goes on", cause.hint().unwrap())
}

/// That of the result of a run whose pod was refused with these words until it was given up.
fn hint_at_the_deadline(message: &str) -> String {
    let refusal = Refusal::of(403, format!("pods \"r-1\" is forbidden: {message}"));
    let told = with_status(&run(), &written(&refused(&run(), &refusal, 1)));
    written(&refused(&told, &refusal, 121)).result.unwrap().hint.unwrap()
}

/// While it is waited for as at the end: who has to do something, and what.
#[test]
fn a_wait_says_what_to_do_as_its_ending_would() {
    let service_account = "error looking up service account n/nope: serviceaccount \"nope\" not found";
    for (message, cause) in [
        ("ValidatingAdmissionPolicy 'team' with binding 'team' denied request: no label", Cause::ForbiddenByPolicy),
        ("admission webhook \"validate.example\" denied the request: no", Cause::ForbiddenByPolicy),
        (service_account, Cause::ForbiddenName),
        ("no PriorityClass with name nope was found", Cause::ForbiddenName),
        ("pod rejected: RuntimeClass \"nope\" not found", Cause::ForbiddenRuntimeClass),
        ("User \"system:serviceaccount:s:o\" cannot create resource \"pods\"", Cause::ForbiddenToOperator),
        ("maximum cpu usage per Pod is 2, but limit is 16", Cause::ForbiddenByLimitRange),
        ("failed quota: team: must specify limits.cpu for: bundle", Cause::ForbiddenByQuota),
        ("insufficient quota to match these scopes: [{PriorityClass In [high]}]", Cause::ForbiddenWithoutQuota),
    ] {
        assert_eq!(hint_and_message(message).0, hint_while_waiting(cause), "{message}");
        assert_eq!(hint_at_the_deadline(message), cause.hint().unwrap(), "{message}");
    }
    assert!(hint_and_message("something new").0.starts_with("change what the message names"));

    let hint = |pod: PodCase| written(&look_at(&run(), &pod, 4)).waiting.unwrap().hint.unwrap();
    for (reason, message, cause) in [
        ("ErrImagePull", "no match for platform in manifest: not found", Cause::ImageForOtherPlatform),
        ("ErrImagePull", "Docker image manifest v2 schema 1 support has been removed", Cause::ImageTooOld),
        ("SignatureValidationFailed", "signature validation failed", Cause::ImageNotSigned),
        ("CreateContainerError", "unable to find user x: no matching entries in passwd file", Cause::UserUnknown),
        ("CreateContainerError", "memory limit too low", Cause::OutOfMemory),
    ] {
        let told = cause.hint().unwrap();
        assert!(hint(pod().run_waits(reason).saying(message)).starts_with(&told), "{message}");
    }
    let missing = hint(pod().run_waits("ErrImagePull").saying("r/i:1: not found"));
    assert!(missing.starts_with("correct image or imagePullSecrets"), "{missing}");
    // Whatever is wrong with the helper's image, it is nothing that the user could do.
    let mut helper = pod().helper_waits("ErrImagePull");
    helper.0["status"]["initContainerStatuses"][0]["state"]["waiting"]["message"] = json!("no match for platform");
    assert!(hint(helper).starts_with("tell the administrator"));
}

#[test]
fn a_quota_is_named_with_what_there_is_too_little_of() {
    let quota = |amounts: &str| hint_and_message(&format!("exceeded quota: team, {amounts}")).0;
    assert_eq!(
        quota("requested: limits.cpu=1,pods=1, used: limits.cpu=8,pods=20, limited: limits.cpu=8,pods=20"),
        "nothing: the run goes on when others end that count for the quota team; or ask for less in a new run (limits.cpu, pods)"
    );
    assert_eq!(
        quota(
            "requested: limits.cpu=16,limits.memory=4Gi, used: limits.cpu=0,limits.memory=0, limited: limits.cpu=8500m,limits.memory=2Gi"
        ),
        "ask for less in a new run: the quota team has never as much (limits.cpu, limits.memory)"
    );
    assert!(quota("something else").starts_with("nothing: the run goes on when others end"));
    // The helper's share, and what the disk is counted for. The run asks for 1 CPU, 2 GiB, and 10 GiB of disk.
    let counted = |amounts: &str| {
        let words = format!("exceeded quota: team, requested: {amounts}, used: pods=0, limited: pods=0");
        hint_and_message(&words).1.split_once(&words).unwrap().1.to_owned()
    };
    assert_eq!(
        counted(
            "limits.memory=2112Mi,requests.cpu=1010m,requests.ephemeral-storage=20Gi,requests.nvidia.com/gpu=1,pods=1"
        ),
        "; limits.memory (2.0 GiB of the run, 64.0 MiB of the operator's helper), requests.cpu (1 CPU of the run, 0.01 CPUs \
         of the operator's helper), requests.ephemeral-storage (resources.disk is 10.0 GiB: as much for the working directory, \
         as much for caches)"
    );
    assert_eq!(counted("pods=1"), "");
    assert!(
        hint_and_message("failed quota: team: must specify limits.cpu for: bundle")
            .0
            .contains("the helper container (bundle)")
    );
}

#[test]
fn what_a_refusal_means_is_in_its_words_before_its_code() {
    let policy = "ValidatingAdmissionPolicy 'team' with binding 'team' denied request: every pod needs a label team";
    let webhook = "admission webhook \"validate.example\" denied the request: no";
    for (code, message, expected) in [
        (422, policy, "Forbidden"),
        (400, webhook, "Forbidden"),
        (403, webhook, "Forbidden"),
        (500, "Internal error occurred: failed calling webhook \"w\": 500", "Unavailable"),
        (500, "etcdserver: request timed out", "Unavailable"),
        (429, "too many requests", "Unavailable"),
        (403, "pods \"r-1\" is forbidden: exceeded quota: q", "QuotaExceeded"),
        (403, "pods \"r-1\" is forbidden: something new", "Forbidden"),
        (422, "Pod \"r-1\" is invalid: spec.containers[0].image: Required value", "Invalid"),
        (
            422,
            "Pod \"r-1\" is invalid: spec.containers[0].resources.requests: Invalid value: \"1\": must be an integer",
            "Invalid",
        ),
        (404, "namespaces \"n\" not found", "NamespaceTerminating"),
        (404, "404 page not found", "Forbidden"),
    ] {
        let got = format!("{:?}", Refusal::of(code, message.to_owned()));
        assert!(got.starts_with(expected), "{code} {message}: {got}");
    }
}

#[test]
fn an_api_server_that_fails_is_told_at_once_and_asked_again_soon() {
    let refusal = Refusal::of(500, "etcdserver: request timed out".to_owned());
    let plan = refused(&run(), &refusal, 1);
    assert_eq!(
        (words(&plan), plan.next),
        (vec!["Write Pending".to_owned(), "Tell AdmissionUnavailable".to_owned()], seconds(2))
    );
}

#[test]
fn a_name_that_is_taken_is_waited_for() {
    let somebodys = foreign("other").facts();
    let plan = look(&run(), PodSeen::Foreign(&somebodys), 1);
    assert_eq!(
        (words(&plan), plan.next),
        (vec!["Write Pending".to_owned(), "Tell PodNameTaken".to_owned()], seconds(5))
    );
    let taken = |pod: Option<&PodFacts>| refused(&run(), &Refusal::NameTaken(pod.cloned().map(Box::new)), 1);
    assert_eq!(taken(Some(&somebodys)), plan, "whether the cache or the API server tells");
    assert_eq!((words(&taken(None)), taken(None).next), (vec![], seconds(5)), "it has gone meanwhile");
    let told = with_status(&run(), &written(&plan));
    assert_eq!(words(&look(&told, PodSeen::Foreign(&somebodys), 121)), ["Write Failed", "Tell PodNameTaken"]);
}

#[test]
fn the_pod_of_an_earlier_run_of_the_name_is_waited_for_until_it_has_to_have_ended() {
    for (ending, deadline, until) in [
        (foreign("r"), None, "no deadline"),
        (foreign("r").deleted(1), Some(Time(at(61))), "the deadline, then the run starts"),
        (foreign("other").deleted(1), Some(Time(at(61))), "the deadline, then the run starts"),
    ] {
        let facts = ending.facts();
        let plan = look(&run(), PodSeen::Foreign(&facts), 3);
        assert_eq!(words(&plan), ["Write Pending", "Tell PreviousPod"]);
        let told = with_status(&run(), &written(&plan));
        let waiting = told.status.as_ref().unwrap().waiting.clone().unwrap();
        assert_eq!((waiting.stage.as_deref(), waiting.deadline.clone()), (Some("Admission"), deadline.clone()));
        assert_eq!(waiting.until.as_deref(), Some(until));
        assert!(waiting.message.unwrap().starts_with("pod r-1 of "));
        let later = look(&told, PodSeen::Foreign(&facts), 43);
        assert_eq!((words(&later), later.next), (vec![], seconds(5)));
        // Then it has had its time, and nothing says how long it takes.
        let later = look(&told, PodSeen::Foreign(&facts), 4000);
        assert_eq!(later.next, seconds(60), "later and later");
        if deadline.is_some() {
            let waiting = written(&later).waiting.unwrap();
            assert_eq!((waiting.deadline, waiting.until.as_deref()), (None, Some("no deadline")));
        }
    }
    let facts = foreign("r").deleted(1).facts();
    let message = written(&look(&run(), PodSeen::Foreign(&facts), 3)).message.unwrap();
    assert_eq!(
        message,
        "pod r-1 of an earlier run of this name has not ended yet: it has until 2026-01-01T00:01:01Z to save its output and to end"
    );
    // The cache may not have it yet.
    let told = refused(&run(), &Refusal::NameTaken(Some(Box::new(facts))), 3);
    assert_eq!(written(&told).message.unwrap(), message);
    // Until when is told as soon as it is known.
    let not_deleted = foreign("r").facts();
    let before = with_status(&run(), &written(&look(&run(), PodSeen::Foreign(&not_deleted), 3)));
    let deleted = foreign("r").deleted(1).facts();
    let observed = Observed { written_at: Some(at(3)), ..nothing_but(&before, PodSeen::Foreign(&deleted)) };
    assert_eq!(written(&plan(&observed, &settings(), at(4))).message.unwrap(), message);
    // The pod of the attempt before is not forgotten meanwhile.
    let facts = foreign("other").of_attempt(2).facts();
    assert!(words(&look(&in_attempt(2), PodSeen::Foreign(&facts), 3)).contains(&"Release r-1".to_owned()));
}

#[test]
fn a_quota_that_lasts_is_told_and_asked_about_later_and_later() {
    let quota = |second: i64| Refusal::QuotaExceeded(format!("exceeded quota: used {second}"));
    let mut run = with_status(&run(), &written(&refused(&run(), &quota(0), 0)));
    let (mut second, mut wrote, mut writes, mut asked) = (0, 0, 0, 0);
    while second < 3600 {
        let refusal = quota(second);
        let observed =
            Observed { refusal: Some(&refusal), written_at: Some(at(wrote)), ..nothing_but(&run, PodSeen::Absent) };
        let plan = plan(&observed, &settings(), at(second));
        if words(&plan).contains(&"Write Pending".to_owned()) {
            run = with_status(&run, &written(&plan));
            (wrote, writes) = (second, writes + 1);
        }
        asked += 1;
        second += i64::try_from(plan.next.unwrap().as_secs()).unwrap();
    }
    assert!((10..=25).contains(&writes), "{writes} writes");
    assert!((60..=80).contains(&asked), "{asked} questions");
}

#[test]
fn a_namespace_that_is_going_away_is_told_as_that() {
    let refusal = Refusal::of(403, "unable to create new content because it is being terminated".to_owned());
    let plan = refused(&run(), &refusal, 1);
    assert_eq!(words(&plan), ["Write Pending", "Tell NamespaceTerminating"]);
    let waiting = written(&plan).waiting.unwrap();
    assert_eq!((waiting.deadline, waiting.until.as_deref()), (None, Some("no deadline")));
}

#[test]
fn words_that_nobody_knows_are_waited_with_and_not_the_users_end() {
    for (code, message) in [
        (400, "<html><title>400 Bad Request</title></html>"),
        (404, "404 page not found"),
        (422, "something of a version to come"),
    ] {
        let plan = refused(&run(), &Refusal::of(code, message.to_owned()), 1);
        assert_eq!(words(&plan), ["Write Pending", "Tell Forbidden"], "{code} {message}");
        assert!(written(&plan).waiting.unwrap().deadline.is_some());
    }
    let too_large = Refusal::of(413, "something of a proxy".to_owned());
    assert_eq!(words(&refused(&run(), &too_large, 1)), ["Write Failed", "Tell PodInvalid"]);
}

#[test]
fn a_setting_that_changes_while_a_run_waits_is_the_platforms_matter_and_has_a_deadline() {
    let run = run_of(json!({"command": "true", "gpuProfile": "mig", "resources": {"gpus": 1}}));
    let quota = with_status(&run, &written(&refused(&self::run(), &Refusal::QuotaExceeded(message()), 1)));
    // What is waited for before the spec is looked at says nothing of it.
    let previous = with_status(&run, &written(&look(&run, PodSeen::Foreign(&foreign("r").deleted(1).facts()), 3)));
    assert_eq!(words(&look(&previous, PodSeen::Absent, 100)), ["Write Failed", "Tell InvalidSpec"]);
    for run in [quota, BundleRun { spec: run.spec, ..in_attempt(2) }] {
        let plan = look(&run, PodSeen::Absent, 100);
        let told: Vec<_> = words(&plan).into_iter().filter(|words| !words.starts_with("Release")).collect();
        assert_eq!(told, ["Write Pending", "Tell SettingsChanged"]);
        let told = with_status(&run, &written(&plan));
        let deadline = told.status.as_ref().unwrap().waiting.as_ref().unwrap().deadline.as_ref().unwrap().0;
        let ended = written(&look(&told, PodSeen::Absent, deadline.duration_since(at(0)).as_secs()));
        let result = ended.result.unwrap();
        assert_eq!((result.cause.as_str(), result.blame), ("SettingsChanged", Some(Blame::Platform)));
        assert!(ended.message.unwrap().contains("spec.gpuProfile"));
    }
}

/// The API server does not let a pod be changed or deleted, in these words.
fn kept(run: &BundleRun, pod: &PodCase, is_deletion: bool, second: i64) -> Plan {
    let (facts, words) = (pod.facts(), format!("a policy says no at {second}"));
    let kept = PodKept { is_deletion, words };
    plan(&Observed { pod_kept: Some(&kept), ..nothing_but(run, PodSeen::Ours(&facts)) }, &settings(), at(second))
}

#[test]
fn a_run_whose_pod_cannot_be_told_to_stop_is_deleted_and_says_why() {
    let mut stopped = run();
    stopped.spec.stop = true;
    let mut listens = pod().running(5);
    listens.0["metadata"]["annotations"] = json!({crate::names::STOP_ANNOTATION: ""});
    let plan = look_at(&stopped, &listens, 8);
    assert_eq!(words(&plan), ["Write Waiting", "Stop r-1"]);
    let told = with_status(&stopped, &written(&plan));
    let plan = kept(&told, &listens, false, 8);
    assert_eq!(words(&plan), ["Write Waiting", "Tell PodChangeRefused"], "a webhook may be back in a moment");
    let message = "stop was set: the attempt is being ended; the API server does not let its pod be changed: a policy says \
        no at 8";
    assert_eq!(written(&plan).message.as_deref(), Some(message));
    let told = with_status(&told, &written(&plan));
    assert_eq!(words(&kept(&told, &listens, false, 67)), [""; 0]);
    assert_eq!(words(&kept(&told, &listens, false, 68)), ["Delete r-1"]);
    // Nor deleted, either: it is tried again and again, and told once.
    let plan = kept(&told, &listens, true, 69);
    assert_eq!(words(&plan), ["Write Waiting", "Tell PodChangeRefused"]);
    let told = with_status(&told, &written(&plan));
    let message = message.replace("changed", "deleted").replace("at 8", "at 69");
    assert_eq!(told.status.as_ref().unwrap().message, Some(message));
    assert_eq!(words(&look_at(&told, &listens, 99)), ["Stop r-1"]);
    assert_eq!(words(&kept(&told, &listens, false, 99)), ["Delete r-1"]);
    assert_eq!(words(&kept(&told, &listens, true, 99)), [""; 0]);
}

#[test]
fn a_pod_that_was_given_up_and_cannot_be_deleted_is_told_and_a_terminal_run_stays_as_it_is() {
    let fails = pod().run_waits("CreateContainerConfigError").saying("secret \"s\" not found");
    let told = with_status(&run(), &written(&look_at(&run(), &fails, 4)));
    let over = told.status.as_ref().unwrap().waiting.as_ref().unwrap().deadline.as_ref().unwrap().0;
    let over = over.duration_since(at(0)).as_secs();
    assert_eq!(words(&look_at(&told, &fails, over)), ["Delete r-1"]);
    let plan = kept(&told, &fails, true, over);
    assert_eq!(words(&plan), ["Write Pending", "Tell PodChangeRefused"]);
    assert!(
        written(&plan)
            .message
            .unwrap()
            .starts_with("secret \"s\" not found; the API server does not let its pod be deleted")
    );
    let ended = written(&look_at(&run(), &pod().reported(&record(0)), 12));
    let ended = with_status(&run(), &ended);
    assert_eq!(words(&kept(&ended, &pod().running(5), true, 13)), ["Delete r-1", "Release r-1"], "nothing is written");
}

#[test]
fn the_wait_is_taken_back_when_the_pod_is_there() {
    let told = with_status(&run(), &written(&refused(&run(), &Refusal::QuotaExceeded(message()), 1)));
    assert_eq!(written(&look_at(&told, &pod(), 2)).waiting, None);
}

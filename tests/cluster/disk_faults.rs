//! A disk under the working directory of real pods that fails, or gives no answer: no false success, no run without an
//! end, and the words name what it is about.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use bundlerun::api::status::Blame;
use bundlerun::api::{BundleRun, BundleRunStatus, Phase};
use bundlerun::names::{files, paths, volumes};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::admission::{PodPolicy, of_volume};
use crate::common::{Space, cause, condition_of, export, output, saved_file, stdout, together};
use crate::faulty_disk::{Fault, FaultyDisk};
use crate::node;

/// Where kubelets and container runtimes see it.
fn disk() -> FaultyDisk {
    let mount = |options: &str, at: &Path| {
        inside(&["mount", "-i", "-t", "fuse", "-o", options, "faulty", at.to_str().unwrap()]);
    };
    FaultyDisk::mount_by(mount, |at| inside(&["umount", "-l", at.to_str().unwrap()]))
}

/// Runs a command in the cluster's namespaces.
fn inside(command: &[&str]) {
    output("deploy/local/cluster", &[&["inside"], command].concat());
}

/// A namespace whose pods have their working directory on such a disk.
struct Sick {
    space: Space,
    disk: FaultyDisk,
    mutation: PodPolicy,
}

impl Sick {
    async fn beside(space: &Space) -> Self {
        let (space, disk) = (space.beside().await, disk());
        let host_path = format!("value: {{'path': '{}', 'type': 'Directory'}}", disk.path().display());
        let no_more = of_volume(volumes::BUNDLE, "remove", "emptyDir", "");
        let expression = format!("{no_more} + {}", of_volume(volumes::BUNDLE, "add", "hostPath", &host_path));
        let mutation = PodPolicy::mutating(&space, &expression).await;
        Self { space, disk, mutation }
    }

    /// In the working directory.
    fn set(&self, path: &str, fault: Fault) {
        self.disk.set(&format!("{}/{path}", paths::WORK_SUB_PATH), fault);
    }

    /// With all that hung.
    async fn end(self) {
        self.disk.mend();
        self.mutation.end(&self.space).await;
        self.space.end().await;
    }
}

/// Leaves `good`, `bad` and `dir/in`.
fn leaves_files() -> Value {
    let command = "echo said; echo fine >good; head -c 300000 /dev/zero >bad; mkdir dir; echo in >dir/in";
    json!({"command": command, "resources": {"cpus": "100m"}})
}

fn message(status: &BundleRunStatus) -> &str {
    status.message.as_deref().unwrap_or_default()
}

/// The condition `OutputSaved`: status, reason and message.
fn output_saved(status: &BundleRunStatus) -> (&str, &str, &str) {
    let condition = condition_of(status, "OutputSaved").unwrap_or_else(|| panic!("{status:#?}"));
    (&condition.status, &condition.reason, &condition.message)
}

#[tokio::test]
async fn what_a_disk_fails_to_read_for_a_while_costs_nothing() {
    let space = Space::new().await;
    together(["bad", "dir"].map(async |what| {
        let sick = Sick::beside(&space).await;
        sick.set(what, Fault::Fails);
        sick.space.start("for-a-while", leaves_files()).await;
        let told =
            sick.space.until("for-a-while", "to tell what fails", |s| message(s).contains("last try failed")).await;
        println!("{}", message(&told));
        assert!(message(&told).contains(&format!("{what} (cannot be read: Input/output error")), "{told:#?}");
        sick.disk.mend();
        let ended = sick.space.end_of("for-a-while").await;
        assert_eq!((cause(&ended), ended.phase), ("Completed", Some(Phase::Succeeded)), "{ended:#?}");
        let saved = export(&ended);
        let size = |file: &str| std::fs::metadata(saved.path().join("contents").join(file)).unwrap().len();
        assert_eq!(["good", "bad", "dir/in"].map(size), [5, 300_000, 3]);
        sick.end().await;
    }))
    .await;
    space.end().await;
}

#[tokio::test]
async fn what_a_disk_never_reads_is_named_and_all_the_rest_is_saved() {
    let space = Space::waiting().await;
    let cases = [
        ("bad", Fault::Fails, "cannot be read: Input/output error"),
        ("dir", Fault::Fails, "cannot be read: Input/output error"),
        ("bad", Fault::Hangs, "the disk gave no answer for"),
        ("dir", Fault::Hangs, "the disk gave no answer for"),
    ];
    together(cases.map(async |(what, fault, why)| {
        let sick = Sick::beside(&space).await;
        sick.set(what, fault);
        let begin = Instant::now();
        let ended = sick.space.run("for-ever", leaves_files()).await;
        println!("{what}, {fault:?}: after {} s: {}", begin.elapsed().as_secs(), message(&ended));
        assert_eq!(
            (cause(&ended), ended.phase),
            ("OutputDamaged", Some(Phase::Failed)),
            "{what}, {fault:?}: {ended:#?}"
        );
        assert_eq!((ended.exit_code, ended.result.as_ref().unwrap().blame), (Some(0), Some(Blame::Platform)));
        let (status, reason, words) = output_saved(&ended);
        assert_eq!((status, reason), ("False", "OutputDamaged"));
        assert!(words.contains(&format!("{what} ({why}")), "{words}");
        assert_eq!((saved_file(&ended, "good").as_str(), stdout(&ended)), ("fine\n", "said\n"));
        let other = if what == "bad" { "dir/in" } else { "bad" };
        assert!(!saved_file(&ended, other).is_empty(), "{what}, {fault:?}");
        if fault == Fault::Hangs {
            // Neither container can be ended before the disk answers.
            let pod = sick.space.pods().get("for-ever-1").await.unwrap();
            assert!(pod.metadata.deletion_timestamp.is_some(), "{pod:#?}");
            sick.disk.mend();
            sick.space.gone::<Pod>("for-ever-1").await;
        }
        sick.end().await;
    }))
    .await;
    space.end().await;
}

#[tokio::test]
async fn a_command_that_hangs_on_its_disk_ends_with_what_can_be_read() {
    let space = Space::waiting().await;
    let sick = Sick::beside(&space).await;
    sick.set("hung", Fault::Hangs);
    let command = "echo said; echo fine >good; echo x >hung; cat hung; echo never";
    let spec = json!({"command": command, "timeLimit": "5s", "retry": {"interruptions": 0}});
    let begin = Instant::now();
    let ended = sick.space.run("hung", spec).await;
    println!("after {} s: {}", begin.elapsed().as_secs(), message(&ended));
    assert_eq!((cause(&ended), ended.phase), ("NodeHung", Some(Phase::Failed)), "{ended:#?}");
    assert_eq!(ended.result.as_ref().unwrap().blame, Some(Blame::Platform));
    assert!(
        message(&ended).contains("(cat, state D)") && message(&ended).contains("could not be killed"),
        "{ended:#?}"
    );
    assert_eq!((saved_file(&ended, "good").as_str(), stdout(&ended)), ("fine\n", "said\n"));
    let (_, reason, words) = output_saved(&ended);
    assert!(reason == "OutputDamaged" && words.contains("hung (the disk gave no answer for"), "{reason}: {words}");
    sick.space.runs().delete("hung", &DeleteParams::default()).await.unwrap();
    sick.space.gone::<BundleRun>("hung").await;
    sick.disk.mend();
    sick.space.gone::<Pod>("hung-1").await;
    sick.end().await;
    space.end().await;
}

/// Of a claim: the helper looks at the working directory alone, and ends.
#[tokio::test]
async fn a_command_that_hangs_elsewhere_is_tried_again() {
    let space = Space::waiting().await;
    let (at, disk) = (space.claim("sick").await, disk());
    std::fs::write(disk.backing().join("hung"), "x").unwrap();
    disk.set("hung", Fault::Hangs);
    inside(&["mount", "--bind", disk.path().to_str().unwrap(), at.to_str().unwrap()]);
    let command = "echo fine >good; [ $BUNDLE_ATTEMPT = 2 ] || cat sick/hung; echo done";
    let volumes = json!([{"path": "sick", "claim": {"name": "sick"}}]);
    let begin = Instant::now();
    space.start("again", json!({"command": command, "timeLimit": "5s", "volumes": volumes})).await;
    let hangs = |s: &BundleRunStatus| {
        s.waiting.as_ref().is_some_and(|waiting| waiting.reason.as_deref() == Some("ContainerNotEnding"))
    };
    let told = space.until("again", "to have a container that does not end", hangs).await;
    assert_eq!((told.phase, told.attempt), (Some(Phase::Finalizing), Some(1)), "{told:#?}");
    let ended = space.end_of("again").await;
    println!("after {} s: {:#?}", begin.elapsed().as_secs(), ended.attempts);
    let causes: Vec<_> = ended.attempts.iter().map(|attempt| attempt.cause.as_deref().unwrap()).collect();
    assert_eq!((ended.phase, causes), (Some(Phase::Succeeded), vec!["NodeHung", "Completed"]), "{ended:#?}");
    assert!(ended.attempts[0].bundle.is_some(), "what it left is saved: {ended:#?}");
    assert_eq!(stdout(&ended), "done\n");
    let hung = space.pods().get("again-1").await.unwrap();
    let preferred = |pod: &Pod| pod.spec.as_ref().unwrap().affinity.is_some();
    assert!(hung.metadata.deletion_timestamp.is_some() && hung.metadata.finalizers.is_none(), "{hung:#?}");
    assert!(preferred(&space.pods().get("again-2").await.unwrap()) && !preferred(&hung), "another node is preferred");
    disk.mend();
    space.gone::<Pod>("again-1").await;
    inside(&["umount", "-l", at.to_str().unwrap()]);
    space.end().await;
}

#[tokio::test]
async fn a_helper_whose_own_volume_is_full_saves_and_reports() {
    let space = Space::new().await;
    let memory = of_volume(volumes::BIN, "add", "emptyDir/medium", "value: 'Memory'");
    let size = of_volume(volumes::BIN, "add", "emptyDir/sizeLimit", "value: '16Mi'");
    let small = PodPolicy::mutating(&space, &format!("{memory} + {size}")).await;
    let trace = space.claim("trace").await;
    let command = "echo fine >good; until [ -e trace/go ]; do sleep 0.1; done; echo said";
    let volumes = json!([{"path": "trace", "claim": {"name": "trace"}}]);
    space.start("full", json!({"command": command, "volumes": volumes})).await;
    let pod = space.pod_running("full-1").await;
    let helper = node::first_process(&node::container_id(&pod, "bundle"));
    let bin = format!("/proc/{}/root{}", helper.as_raw_nonzero(), paths::BIN);
    let open = |path: &str| File::options().read(true).open(path).unwrap();
    let full = std::io::copy(&mut open("/dev/zero"), &mut File::create(format!("{bin}/fill")).unwrap()).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    std::fs::write(format!("{bin}/other"), "x").unwrap_err();
    std::fs::write(trace.join("go"), "").unwrap();
    let ended = space.end_of("full").await;
    small.end(&space).await;
    println!("{}: {}", cause(&ended), message(&ended));
    assert_eq!((cause(&ended), output_saved(&ended).0), ("Completed", "True"), "{ended:#?}");
    assert_eq!((saved_file(&ended, "good").as_str(), saved_file(&ended, files::STDOUT).as_str()), ("fine\n", "said\n"));
    space.end().await;
}

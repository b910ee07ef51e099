//! GPU profiles: whose driver a program loads, and what is told when there is none.

use std::fs;
use std::path::PathBuf;
use std::sync::Once;

use bundlerun::api::status::Blame;
use bundlerun::api::{BundleRunStatus, Phase};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::common::{Space, cause, output, stdout};

/// Loads the driver as CUDA programs do, and prints its version: 12040 is the host's, 11000 the stale one of the image.
const VERSION: &str = "import ctypes; v = ctypes.c_int(); \
    ctypes.CDLL('libcuda.so.1').cuDriverGetVersion(ctypes.byref(v)); print('driver', v.value)";
const HOSTS: &str = "driver 12040\n";
const IMAGES: &str = "driver 11000\n";

/// The folder of the profile `hostpath`: the host's driver beside a libc that no image can use.
fn host_driver() -> PathBuf {
    static MADE: Once = Once::new();
    let driver = PathBuf::from(std::env::var("DRIVER").unwrap());
    let folder = driver.parent().unwrap().join("host-driver");
    MADE.call_once(|| {
        let _ = fs::remove_dir_all(&folder);
        output("cp", &["-a", driver.to_str().unwrap(), folder.to_str().unwrap()]);
        for wrong in ["libc.so.6", "libtinfo.so.6", "libm.so.6", "libdl.so.2"] {
            fs::write(folder.join("lib64").join(wrong), "this is no library").unwrap();
        }
    });
    folder
}

/// The GPU image with a `.bashrc` in its WORKDIR.
fn image_with_bashrc(name: &str, bashrc: &str) -> String {
    let registry = std::env::var("REGISTRY_HOST").unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("root/opt/env")).unwrap();
    fs::write(dir.path().join("root/opt/env/.bashrc"), bashrc).unwrap();
    let (root, layer) = (dir.path().join("root"), dir.path().join("layer.tar"));
    output("tar", &["-C", root.to_str().unwrap(), "-cf", layer.to_str().unwrap(), "opt"]);
    let (base, image) = (format!("{registry}/gpu:local"), format!("{registry}/gpu-bashrc:{name}"));
    output("crane", &["append", "--insecure", "-b", &base, "-f", layer.to_str().unwrap(), "-t", &image]);
    output("crane", &["mutate", "--insecure", &image, "--workdir", "/opt/env", "-t", &image]);
    format!("localhost:5000/gpu-bashrc:{name}")
}

fn with_profile(profile: &str, command: &str) -> Value {
    json!({"command": command, "gpuProfile": profile, "image": "localhost:5000/gpu:local", "resources": {"gpus": 1}})
}

fn python() -> String {
    format!("python3 -c \"{VERSION}\"")
}

fn drivers(status: &BundleRunStatus) -> Vec<Option<&str>> {
    status.gpus.iter().map(|gpu| gpu.driver_version.as_deref()).collect()
}

#[tokio::test]
async fn the_hosts_driver_wins_over_the_images_stale_one() {
    let folder = host_driver();
    let space = Space::new().await;
    let report = format!("{}; echo bash ${{BASH_VERSION%%.*}}", python());
    let without = space.run("without", with_profile("none", &report));
    let runtime = space.run("runtime", with_profile("strict", &report));
    let host_path = space.run("host-path", with_profile("hostpath", &report));
    let (without, runtime, host_path) = tokio::join!(without, runtime, host_path);
    assert_eq!(stdout(&without), format!("{IMAGES}bash 5\n"), "{without:#?}");
    assert_eq!(stdout(&runtime), format!("{HOSTS}bash 5\n"), "{runtime:#?}");
    assert_eq!(stdout(&host_path), format!("{HOSTS}bash 5\n"), "{host_path:#?}");
    assert_eq!(drivers(&host_path), [Some("550.54.14")]);
    assert!(host_path.gpus[0].uuid.as_ref().unwrap().starts_with("GPU-"), "{:?}", host_path.gpus);

    // The folder as it is breaks bash: what wins over it is worth something.
    let command = "mount=/usr/local/nvidia; LD_LIBRARY_PATH=$mount/lib64 bash -c true && echo unharmed; nvidia-smi";
    let broken = space.run("whole-folder", with_profile("hostpath", command)).await;
    assert!(!stdout(&broken).contains("unharmed"), "{broken:#?}");
    assert!(stdout(&broken).starts_with("Driver Version: 550.54.14\n/dev/nvidia"), "{broken:#?}");
    assert!(folder.join("lib64/libc.so.6").exists());
    space.end().await;
}

#[tokio::test]
async fn the_hosts_driver_wins_whatever_bashrc_does_and_for_every_user_and_program() {
    host_driver();
    let space = Space::new().await;
    let stale = "/usr/lib/x86_64-linux-gnu";
    let mut cases: Vec<_> = [
        ("overwrites", format!("export LD_LIBRARY_PATH={stale}\n")),
        ("prepends", format!("export LD_LIBRARY_PATH={stale}:$LD_LIBRARY_PATH\n")),
        ("unsets", "unset LD_LIBRARY_PATH\n".to_owned()),
        ("in-bashrc", format!("IN_BASHRC=$({})\n", python())),
    ]
    .into_iter()
    .map(|(name, bashrc)| {
        let command = if name == "in-bashrc" { "echo \"$IN_BASHRC\"".to_owned() } else { python() };
        (name, json!({"image": image_with_bashrc(name, &bashrc), "command": command}))
    })
    .collect();
    cases.push(("nobody", json!({"runAsUser": 65534, "command": python()})));
    cases.push(("argv", json!({"argv": ["python3", "-c", VERSION]})));
    let runs = cases.into_iter().map(|(name, mut spec)| {
        spec["gpuProfile"] = json!("hostpath");
        spec["resources"] = json!({"gpus": 1});
        let space = &space;
        async move { (name, space.run(name, spec).await) }
    });
    for (name, ended) in futures::future::join_all(runs).await {
        assert_eq!((stdout(&ended), cause(&ended)), (HOSTS, "Completed"), "{name}: {ended:#?}");
    }
    space.end().await;
}

#[tokio::test]
async fn gpus_that_cannot_be_used_are_an_interruption_that_says_what_is_missing() {
    let space = Space::waiting().await;
    let (incomplete, not_installed) = tokio::join!(
        space.run("incomplete", with_profile("incomplete", "echo ran")),
        space.run("not-installed", with_profile("not-installed", "echo ran")),
    );
    for (ended, missing) in [
        (&incomplete, "no library libnvidia-ml.so.1"),
        (&not_installed, "no library in /usr/local/nvidia/lib64: it is not installed there"),
    ] {
        assert_eq!((ended.phase, cause(ended)), (Some(Phase::Failed), "GpuUnavailable"), "{ended:#?}");
        assert_eq!(ended.result.as_ref().unwrap().blame, Some(Blame::Platform));
        assert!(ended.message.as_ref().unwrap().contains(missing), "{ended:#?}");
        assert_eq!(ended.attempts.len(), 4, "three interruptions are forgiven");
        assert!(ended.attempts.iter().all(|a| a.cause.as_deref() == Some("GpuUnavailable")), "{ended:#?}");
        assert_eq!((stdout(ended), ended.usage), ("", None));
    }
    space.end().await;
}

#[tokio::test]
async fn a_profile_that_is_not_there_and_a_volume_over_the_driver_are_told_at_once() {
    let space = Space::new().await;
    let mut covered = with_profile("hostpath", "true");
    covered["volumes"] = json!([{"path": "/usr/local/nvidia/lib64", "claim": {"name": "mine"}}]);
    let (unknown, covered) =
        tokio::join!(space.run("unknown", with_profile("mig-9g", "true")), space.run("covered", covered));
    for (ended, words) in [
        (&unknown, &["spec.gpuProfile", "mig-9g", "default, hostpath"][..]),
        (&covered, &["spec.volumes[0].path", "/usr/local/nvidia/lib64", "driver"]),
    ] {
        assert_eq!((cause(ended), ended.attempts.len()), ("InvalidSpec", 0), "{ended:#?}");
        let message = ended.message.as_ref().unwrap();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    space.end().await;
}

#[tokio::test]
async fn what_a_profile_says_is_in_the_pod_and_in_the_process() {
    let space = Space::new().await;
    let ended = space.run("strict", with_profile("strict", "echo \"$FROM_PROFILE\"")).await;
    assert_eq!(stdout(&ended), "$(HOME) $$\n", "{ended:#?}");
    let spec = space.pods().get("strict-1").await.unwrap().spec.unwrap();
    assert_eq!(spec.runtime_class_name.as_deref(), Some("nvidia"));
    assert_eq!(spec.node_selector.unwrap()["kubernetes.io/os"], "linux");
    assert!(spec.tolerations.unwrap().iter().any(|t| t.key.as_deref() == Some("gpu")));
    space.end().await;
}

#[tokio::test]
async fn where_a_namespace_forbids_the_hosts_folders_the_run_says_so() {
    let space = Space::new().await;
    let namespaces: Api<Namespace> = Api::all(space.client.clone());
    let baseline = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    namespaces.patch(&space.name, &PatchParams::default(), &Patch::Merge(baseline)).await.unwrap();
    let (host_path, runtime) = tokio::join!(
        space.run("host-path", with_profile("hostpath", "true")),
        space.run("runtime", with_profile("strict", "true")),
    );
    assert_eq!(cause(&runtime), "Completed", "{runtime:#?}");
    assert_eq!(cause(&host_path), "PodSecurity", "{host_path:#?}");
    assert!(host_path.message.unwrap().contains("hostPath"));
    assert!(host_path.result.unwrap().hint.unwrap().contains("privileged"));
    space.end().await;
}

#[tokio::test]
async fn without_gpus_an_image_that_asks_for_all_sees_none_and_our_void_is_why() {
    const COUNT: &str = "ls /dev | grep -c '^nvidia'; echo counted";
    let space = Space::new().await;
    let ended = space.run("none", json!({"image": "localhost:5000/gpu:local", "command": COUNT})).await;
    assert_eq!(stdout(&ended), "0\ncounted\n", "{ended:#?}");

    // The same pod with our variable taken out: the check fails, so it can.
    let mut pod = serde_json::to_value(space.pods().get("none-1").await.unwrap()).unwrap();
    let annotations = pod["metadata"]["annotations"].take();
    pod["metadata"] = json!({"name": "mutant", "annotations": annotations});
    pod.as_object_mut().unwrap().remove("status");
    pod["spec"].as_object_mut().unwrap().remove("nodeName");
    let env = pod["spec"]["containers"][0]["env"].as_array_mut().unwrap();
    let before = env.len();
    env.retain(|variable| variable["name"] != "NVIDIA_VISIBLE_DEVICES");
    assert_eq!(env.len(), before - 1);
    let mutant: Pod = serde_json::from_value(pod).unwrap();
    space.pods().create(&PostParams::default(), &mutant).await.unwrap();
    space
        .pod_until("mutant", "to end", |pod| {
            pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Succeeded"))
        })
        .await;
    let logs = space.logs("mutant").await;
    let devices: u32 = logs.lines().next().unwrap().parse().unwrap();
    assert!(devices > 1, "{logs}");
    space.end().await;
}

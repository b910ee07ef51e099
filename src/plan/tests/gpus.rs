//! A number of GPUs becomes what the pod needs for it.

use k8s_openapi::api::core::v1::{Container, Toleration};

use super::*;
use crate::contract::{GpuFacts, GpuModel, HostDriver, Preflight, Request};
use crate::plan::Driver;
use crate::plan::validate::validate;

fn with_profile(profile: GpuProfile, gpus: u32) -> k8s_openapi::api::core::v1::Pod {
    let settings = Settings { gpu_profiles: BTreeMap::from([("default".to_owned(), profile)]), ..settings() };
    let run = run_of(json!({"command": "true", "resources": {"gpus": gpus}, "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "mine", "operator": "Exists"}]}));
    let observed = nothing_but(&run, PodSeen::Absent);
    created(&plan(&observed, &settings, at(0))).clone()
}

fn profile() -> GpuProfile {
    let toleration = Toleration { key: Some("gpu".into()), operator: Some("Exists".into()), ..Toleration::default() };
    GpuProfile {
        resource_name: "nvidia.com/mig-1g.10gb".into(),
        runtime_class_name: Some("nvidia".into()),
        tolerations: vec![toleration],
        node_selector: BTreeMap::from([("gpu".into(), "yes".into()), ("zone".into(), "b".into())]),
        ..GpuProfile::default()
    }
}

fn visible(container: &Container) -> Vec<Option<&str>> {
    let env = container.env.iter().flatten().filter(|v| v.name == "NVIDIA_VISIBLE_DEVICES");
    env.map(|v| v.value.as_deref()).collect()
}

#[test]
fn gpus_0_sets_void_and_no_limit() {
    let spec = with_profile(profile(), 0).spec.unwrap();
    assert_eq!(visible(&spec.containers[0]), [Some("void")]);
    assert_eq!((spec.runtime_class_name, spec.tolerations.unwrap().len()), (None, 1));
    assert_eq!(spec.node_selector, Some(BTreeMap::from([("zone".into(), "a".into())])));
    assert_eq!(spec.containers[0].image.as_deref(), Some("registry:5000/cpu:1"));
}

#[test]
fn a_limit_of_zero_gpus_is_never_written() {
    let spec = with_profile(profile(), 0).spec.unwrap();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let resources = container.resources.as_ref().unwrap();
        for amounts in [&resources.limits, &resources.requests] {
            assert!(amounts.iter().flatten().all(|(name, amount)| !name.contains("nvidia") && amount.0 != "0"));
        }
    }
}

#[test]
fn a_number_of_gpus_is_a_limit_and_a_request_of_the_profiles_resource_in_the_run_container_only() {
    let spec = with_profile(profile(), 2).spec.unwrap();
    let amount = |container: &Container| {
        let resources = container.resources.clone().unwrap();
        let of = |amounts: Option<BTreeMap<String, _>>| {
            amounts
                .unwrap()
                .get("nvidia.com/mig-1g.10gb")
                .map(|q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| q.0.clone())
        };
        (of(resources.limits), of(resources.requests))
    };
    assert_eq!(amount(&spec.containers[0]), (Some("2".into()), Some("2".into())));
    assert_eq!(amount(&spec.init_containers.as_ref().unwrap()[0]), (None, None));
    assert_eq!(visible(&spec.containers[0]), [] as [Option<&str>; 0], "the device plugin's value must win");
    assert_eq!(spec.containers[0].image.as_deref(), Some("registry:5000/gpu:1"));
}

#[test]
fn a_profile_adds_its_own_and_the_run_wins() {
    let spec = with_profile(profile(), 1).spec.unwrap();
    assert_eq!(spec.runtime_class_name.as_deref(), Some("nvidia"));
    assert_eq!(spec.tolerations.unwrap().len(), 2);
    let selector = BTreeMap::from([("gpu".into(), "yes".into()), ("zone".into(), "a".into())]);
    assert_eq!(spec.node_selector, Some(selector));
}

fn on_the_host() -> GpuProfile {
    let inside = HostDriver {
        mount_path: "/usr/local/nvidia".into(),
        library_dirs: vec!["/usr/local/nvidia/lib64".into()],
        ..HostDriver::default()
    };
    let preflight = Preflight { libraries: vec!["libcuda.so.1".into()], ..Preflight::default() };
    let env = BTreeMap::from([("CAPABILITIES".into(), "$(all)".into()), ("HOME".into(), "/gpu".into())]);
    GpuProfile { driver: Driver::HostPath { path: "/host".into(), inside }, preflight, env, ..profile() }
}

#[test]
fn the_hosts_driver_is_mounted_read_only_in_the_run_container_alone() {
    let spec = with_profile(on_the_host(), 1).spec.unwrap();
    let volume = spec.volumes.unwrap().into_iter().find(|v| v.host_path.is_some()).unwrap();
    assert_eq!((volume.name.as_str(), volume.host_path.unwrap().path.as_str()), ("driver", "/host"));
    let mounts = |container: &Container| -> Vec<_> {
        let mounts = container.volume_mounts.iter().flatten().filter(|m| m.name == "driver");
        mounts.map(|m| (m.mount_path.clone(), m.read_only)).collect()
    };
    assert_eq!(mounts(&spec.containers[0]), [("/usr/local/nvidia".to_owned(), Some(true))]);
    assert_eq!(mounts(&spec.init_containers.unwrap()[0]), []);
    let none = with_profile(on_the_host(), 0).spec.unwrap();
    assert!(none.volumes.unwrap().iter().all(|v| v.host_path.is_none()));
    assert_eq!(mounts(&none.containers[0]), []);
}

#[test]
fn the_runner_is_told_of_driver_and_preflight_and_only_for_gpus() {
    let request = |gpus| -> Request {
        let pod = with_profile(on_the_host(), gpus);
        serde_json::from_str(&pod.metadata.annotations.unwrap()["bundlerun.dev/request"]).unwrap()
    };
    let told = request(2).gpus.unwrap();
    assert_eq!((told.count, told.preflight), (2, on_the_host().preflight));
    assert_eq!(told.driver.unwrap().library_dirs, ["/usr/local/nvidia/lib64"]);
    assert_eq!(request(0).gpus, None);
}

#[test]
fn a_profiles_variables_are_data_the_runs_own_win_and_without_gpus_there_are_none() {
    let settings = Settings { gpu_profiles: BTreeMap::from([("default".to_owned(), on_the_host())]), ..settings() };
    let env = |gpus: u32| {
        let run = run_of(
            json!({"command": "true", "resources": {"gpus": gpus}, "env": [{"name": "HOME", "value": "/mine"}]}),
        );
        let observed = nothing_but(&run, PodSeen::Absent);
        let env = created(&plan(&observed, &settings, at(0))).spec.as_ref().unwrap().containers[0].env.clone().unwrap();
        move |name: &str| -> Vec<String> {
            env.iter().filter(|v| v.name == name).filter_map(|v| v.value.clone()).collect()
        }
    };
    assert_eq!(env(1)("CAPABILITIES"), ["$$(all)"]);
    assert_eq!(env(1)("HOME"), ["/mine"]);
    assert_eq!(env(0)("CAPABILITIES"), [""; 0]);
    assert_eq!(env(0)("NVIDIA_VISIBLE_DEVICES"), ["void"]);
}

#[test]
fn no_volume_hides_the_driver_or_is_hidden_by_it() {
    let settings = Settings { gpu_profiles: BTreeMap::from([("default".to_owned(), on_the_host())]), ..settings() };
    for (path, gpus, fits) in [
        ("/usr/local/nvidia", 1, false),
        ("/usr/local/nvidia/lib64", 1, false),
        ("/usr/local", 1, false),
        ("/usr/local/nvidia", 0, true),
        ("/usr/local/nvidia2", 1, true),
        ("nvidia", 1, true),
    ] {
        let volumes = json!([{"path": "/data", "claim": {"name": "a"}}, {"path": path, "claim": {"name": "b"}}]);
        let run = run_of(json!({"command": "true", "resources": {"gpus": gpus}, "volumes": volumes}));
        let problems = validate(&run, &settings).err().unwrap_or_default();
        assert_eq!(problems.is_empty(), fits, "{path}: {problems:?}");
        assert!(fits || problems[0].starts_with("spec.volumes[1].path: "), "{problems:?}");
    }
}

#[test]
fn an_unknown_profile_ends_the_run_naming_the_known_ones() {
    let settings = Settings {
        gpu_profiles: BTreeMap::from([("default".to_owned(), profile()), ("mig-1g".to_owned(), profile())]),
        ..settings()
    };
    let run = run_of(json!({"command": "true", "gpuProfile": "mig-2g"}));
    let observed = nothing_but(&run, PodSeen::Absent);
    let plan = plan(&observed, &settings, at(0));
    assert_eq!(words(&plan), ["Write Failed", "Tell InvalidSpec"]);
    let message = written(&plan).message.unwrap();
    assert!(message.contains("spec.gpuProfile") && message.contains("default, mig-1g"), "{message}");
}

#[test]
fn gpus_that_are_not_there_are_the_platforms_matter_and_another_attempt_is_due() {
    let record = Record { detail: "0 of 1 devices /dev/nvidia0".into(), ..never_ran(Cause::GpuUnavailable) };
    let plan = look_at(&run(), &pod().reported(&record), 60);
    let status = written(&plan);
    assert_eq!((status.phase, status.reason.as_deref()), (Some(Phase::Pending), Some("GpuUnavailable")));
    assert!(status.message.unwrap().ends_with(": 0 of 1 devices /dev/nvidia0"));
}

#[test]
fn the_devices_are_on_the_object() {
    let models = vec![
        GpuModel { name: Some("NVIDIA H200".into()), uuids: vec!["GPU-a".into(), "GPU-b".into()] },
        GpuModel { name: None, uuids: vec!["GPU-c".into()] },
    ];
    let record = Record { gpus: Some(GpuFacts { driver: Some("570.86.15".into()), models }), ..record(0) };
    let gpus = written(&look_at(&run(), &pod().reported(&record), 60)).gpus;
    let seen: Vec<_> = gpus.iter().map(|g| (g.uuid.as_deref().unwrap(), g.model.as_deref())).collect();
    assert_eq!(seen, [("GPU-a", Some("NVIDIA H200")), ("GPU-b", Some("NVIDIA H200")), ("GPU-c", None)]);
    assert!(gpus.iter().all(|g| g.driver_version.as_deref() == Some("570.86.15")));
}

#[test]
fn nobody_can_make_gpus_visible_without_asking_for_them() {
    let env = json!([{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]);
    let run = run_of(json!({"command": "true", "env": env}));
    let plan = look(&run, PodSeen::Absent, 0);
    let seen = visible(&created(&plan).spec.as_ref().unwrap().containers[0]);
    assert_eq!(seen.last(), Some(&Some("void")), "the last entry of a name is the one that counts");
}

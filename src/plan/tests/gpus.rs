//! A number of GPUs becomes what the pod needs for it.

use k8s_openapi::api::core::v1::{Container, Toleration};

use super::*;

fn with_profile(profile: GpuProfile, gpus: u32) -> k8s_openapi::api::core::v1::Pod {
    let settings = Settings { gpu_profiles: BTreeMap::from([("default".to_owned(), profile)]), ..settings() };
    let run = run_of(json!({"command": "true", "resources": {"gpus": gpus}, "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "mine", "operator": "Exists"}]}));
    let observed = Observed { run: &run, pod: PodSeen::Absent, refusal: None, written_at: None };
    created(&plan(&observed, &settings, at(0))).clone()
}

fn profile() -> GpuProfile {
    let toleration = Toleration { key: Some("gpu".into()), operator: Some("Exists".into()), ..Toleration::default() };
    GpuProfile {
        resource_name: "nvidia.com/mig-1g.10gb".into(),
        runtime_class_name: Some("nvidia".into()),
        tolerations: vec![toleration],
        node_selector: BTreeMap::from([("gpu".into(), "yes".into()), ("zone".into(), "b".into())]),
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

#[test]
fn nobody_can_make_gpus_visible_without_asking_for_them() {
    let env = json!([{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]);
    let run = run_of(json!({"command": "true", "env": env}));
    let plan = look(&run, PodSeen::Absent, 0);
    let seen = visible(&created(&plan).spec.as_ref().unwrap().containers[0]);
    assert_eq!(seen.last(), Some(&Some("void")), "the last entry of a name is the one that counts");
}

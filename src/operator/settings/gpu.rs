//! GPU profiles: what a GPU is on this cluster.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::Toleration;
use serde::Deserialize;
use serde_json::Value;

use super::fields::{Fields, Problems};
use super::names::{is_extended_resource, is_label, is_subdomain};
use crate::api::spec::DEFAULT_GPU_PROFILE;
use crate::contract::{DeviceCount, HostDriver, Preflight};
use crate::names::paths;
use crate::plan::{Driver, GpuProfile};

/// What the resource of NVIDIA's device plugin stands for: whole devices, each with a node of its own.
const WHOLE_NVIDIA: &str = "nvidia.com/gpu";
/// The nodes of NVIDIA's devices, without those for control and for parts of devices.
const NVIDIA_NODES: &str = "/dev/nvidia[0-9]*";
/// Whoever sets it chooses devices, whatever the scheduler gave.
const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";
/// A driver mounted at or above one of these would cover what images need.
const NEEDED_BY_IMAGES: [&str; 13] = [
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/local",
    "/var",
    "/tmp",
    "/opt",
];
/// Nothing can be mounted at or below these.
const TAKEN: [&str; 6] = ["/proc", "/sys", "/dev", "/run", paths::BUNDLE, paths::OURS];

/// Reads all profiles. There is always one named `default`.
pub(in crate::operator) fn profiles(value: Option<Value>, problems: &Problems) -> BTreeMap<String, GpuProfile> {
    let named = match value {
        Some(Value::Object(named)) => named,
        None => serde_json::Map::new(),
        Some(_) => {
            problems.note("gpuProfiles", "must be a map of profiles by name");
            serde_json::Map::new()
        }
    };
    let mut profiles: BTreeMap<_, _> = named
        .into_iter()
        .map(|(name, value)| {
            let path = format!("gpuProfiles.{name}");
            if !is_label(&name) {
                problems.note(&path, "a profile's name has at most 63 lower-case letters, digits and dashes");
            }
            (name, profile(Fields::of(&path, Some(value), problems), problems))
        })
        .collect();
    profiles.entry(DEFAULT_GPU_PROFILE.to_owned()).or_insert_with(|| GpuProfile {
        resource_name: WHOLE_NVIDIA.to_owned(),
        preflight: default_preflight(WHOLE_NVIDIA),
        ..GpuProfile::default()
    });
    profiles
}

fn profile(mut fields: Fields<'_>, problems: &Problems) -> GpuProfile {
    let resource_name = fields.required("resourceName", "what the device plugin advertises, such as nvidia.com/gpu");
    if !resource_name.is_empty() && !is_extended_resource(&resource_name) {
        let path = fields.path("resourceName");
        problems.note(&path, format_args!("{resource_name:?} is no extended resource such as nvidia.com/gpu"));
    }
    let runtime_class_name: Option<String> = fields.get("runtimeClassName");
    if let Some(name) = runtime_class_name.as_ref().filter(|name| !is_subdomain(name)) {
        problems.note(&fields.path("runtimeClassName"), format_args!("{name:?} is no name of a runtime class"));
    }
    let env: BTreeMap<String, String> = fields.get("env").unwrap_or_default();
    for (name, value) in &env {
        if let Some(problem) = bad_variable(name, value) {
            problems.note(&format!("{}.{name}", fields.path("env")), problem);
        }
    }
    let tolerations: Vec<RawToleration> = fields.get("tolerations").unwrap_or_default();
    let preflight = match fields.raw("preflight") {
        None => default_preflight(&resource_name),
        value => preflight(Fields::of(&fields.path("preflight"), value, problems), problems),
    };
    let driver = fields.raw("driver");
    GpuProfile {
        resource_name,
        runtime_class_name,
        tolerations: tolerations.into_iter().map(Toleration::from).collect(),
        node_selector: fields.get("nodeSelector").unwrap_or_default(),
        env,
        preflight,
        driver: self::driver(&fields.path("driver"), driver, problems),
    }
}

/// Kubernetes' own type would let a misspelt field pass.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawToleration {
    key: Option<String>,
    operator: Option<String>,
    value: Option<String>,
    effect: Option<String>,
    toleration_seconds: Option<i64>,
}

impl From<RawToleration> for Toleration {
    fn from(raw: RawToleration) -> Self {
        Self {
            key: raw.key,
            operator: raw.operator,
            value: raw.value,
            effect: raw.effect,
            toleration_seconds: raw.toleration_seconds,
        }
    }
}

/// A whole device has a node of its own. Of anything else we know no rule.
fn default_preflight(resource_name: &str) -> Preflight {
    if resource_name != WHOLE_NVIDIA {
        return Preflight::default();
    }
    Preflight { devices: vec![NVIDIA_NODES.to_owned()], count: DeviceCount::AtLeast, libraries: Vec::new() }
}

fn preflight(mut fields: Fields<'_>, problems: &Problems) -> Preflight {
    let devices: Vec<String> = fields.get("devices").unwrap_or_default();
    for glob in devices.iter().filter(|glob| !glob.starts_with("/dev/")) {
        problems.note(&fields.path("devices"), format_args!("{glob:?} must be a glob below /dev"));
    }
    let count = fields.get("count").unwrap_or(if devices.is_empty() { DeviceCount::Off } else { DeviceCount::AtLeast });
    if devices.is_empty() && count != DeviceCount::Off {
        problems.note(&fields.path("devices"), "name the device nodes that are counted");
    }
    let libraries: Vec<String> = fields.get("libraries").unwrap_or_default();
    for name in libraries.iter().filter(|name| name.is_empty() || name.contains('/')) {
        problems.note(&fields.path("libraries"), format_args!("{name:?} must be a file name such as libcuda.so.1"));
    }
    Preflight { devices, count, libraries }
}

fn driver(path: &str, value: Option<Value>, problems: &Problems) -> Driver {
    match value {
        None => Driver::Runtime,
        Some(Value::String(word)) if word == "runtime" => Driver::Runtime,
        Some(Value::Object(fields)) => {
            let mut fields = Fields::of(path, Some(Value::Object(fields)), problems);
            host_path(fields.section("hostPath"), problems)
        }
        Some(_) => {
            problems.note(path, "must be `runtime` or a map with `hostPath`");
            Driver::Runtime
        }
    }
}

fn host_path(mut fields: Fields<'_>, problems: &Problems) -> Driver {
    let path = fields.required("path", "the folder of the host");
    let mount_path = fields.required("mountPath", "where the container shall see it");
    for (field, text) in [("path", &path), ("mountPath", &mount_path)] {
        if !text.is_empty() && !is_plain(text) {
            problems.note(
                &fields.path(field),
                format_args!("{text:?} must be an absolute path other than /, without . and .."),
            );
        }
    }
    let at = Path::new(&mount_path);
    let covers = NEEDED_BY_IMAGES.iter().any(|needed| Path::new(needed) == at);
    if covers || TAKEN.iter().any(|taken| at.starts_with(taken)) {
        problems.note(&fields.path("mountPath"), format_args!("{mount_path:?} would cover what the container needs"));
    }
    let dirs = |fields: &mut Fields<'_>, name: &'static str, default: &str| -> Vec<String> {
        let dirs: Vec<String> = fields.get(name).unwrap_or_else(|| vec![default.to_owned()]);
        for dir in dirs.iter().filter(|dir| !is_below(dir)) {
            problems.note(&fields.path(name), format_args!("{dir:?} must be relative to path, without . and .."));
        }
        dirs.iter().map(|dir| format!("{}/{dir}", mount_path.trim_end_matches('/'))).collect()
    };
    let library_dirs = dirs(&mut fields, "libraryDirs", "lib64");
    let bin_dirs = dirs(&mut fields, "binDirs", "bin");
    if library_dirs.is_empty() {
        problems.note(&fields.path("libraryDirs"), "name a directory: a driver is its libraries");
    }
    let library_files: Vec<String> = fields.get("libraryFiles").unwrap_or_default();
    for glob in library_files.iter().filter(|glob| glob.is_empty() || glob.contains('/')) {
        problems.note(&fields.path("libraryFiles"), format_args!("{glob:?} must be a glob of file names"));
    }
    Driver::HostPath { path, inside: HostDriver { mount_path, library_dirs, bin_dirs, library_files } }
}

fn bad_variable(name: &str, value: &str) -> Option<&'static str> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Some("no process can have such a variable");
    }
    if name.starts_with("BUNDLE_") || name == "LD_PRELOAD" {
        return Some("set by the operator, or harmful to it");
    }
    (name == VISIBLE && value != "void")
        .then_some("the device plugin sets it: any value but void would give a run devices that are not its own")
}

fn is_plain(path: &str) -> bool {
    let path_ = Path::new(path);
    path_.is_absolute() && path_.components().count() > 1 && !path.contains("/.") && !path.contains([':', '\0'])
}

fn is_below(dir: &str) -> bool {
    !dir.is_empty()
        && !dir.contains([':', '\0'])
        && Path::new(dir).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<BTreeMap<String, GpuProfile>, String> {
        let problems = Problems::default();
        let profiles = profiles(Some(value), &problems);
        problems.into_result().map(|()| profiles).map_err(|problems| problems.join("; "))
    }

    #[test]
    fn a_profile_says_everything() {
        let profiles = read(json!({"mig-1g": {
            "resourceName": "nvidia.com/mig-1g.10gb", "runtimeClassName": "nvidia",
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "nodeSelector": {"gpu": "yes"},
            "env": {"NVIDIA_DRIVER_CAPABILITIES": "all"},
            "preflight": {"devices": ["/dev/nvidia[0-9]*"], "count": "exact", "libraries": ["libcuda.so.1"]},
            "driver": {"hostPath": {"path": "/home/kubernetes/bin/nvidia", "mountPath": "/usr/local/nvidia",
                "libraryDirs": ["lib64", "lib"], "binDirs": ["bin"], "libraryFiles": ["libvulkan*"]}},
        }}))
        .unwrap();
        let profile = &profiles["mig-1g"];
        assert_eq!(profile.tolerations[0].key.as_deref(), Some("gpu"));
        assert_eq!(profile.env["NVIDIA_DRIVER_CAPABILITIES"], "all");
        assert_eq!(profile.preflight.count, DeviceCount::Exact);
        let Driver::HostPath { path, inside } = &profile.driver else { panic!("{profile:?}") };
        assert_eq!(path, "/home/kubernetes/bin/nvidia");
        assert_eq!(inside.library_dirs, ["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib"]);
        assert_eq!(
            (inside.bin_dirs.as_slice(), inside.library_files.as_slice()),
            (&["/usr/local/nvidia/bin".to_owned()][..], &["libvulkan*".to_owned()][..])
        );
        assert_eq!(profiles["default"].resource_name, "nvidia.com/gpu");
    }

    #[test]
    fn what_a_profile_does_not_say_has_a_default() {
        let profiles = read(json!({"default": {"resourceName": "nvidia.com/gpu", "driver": "runtime"},
            "amd": {"resourceName": "amd.com/gpu", "driver": {"hostPath": {"path": "/opt/d", "mountPath": "/opt/d"}}}}))
        .unwrap();
        assert_eq!(profiles["default"].preflight.devices, ["/dev/nvidia[0-9]*"]);
        assert_eq!(profiles["default"].preflight.count, DeviceCount::AtLeast);
        assert_eq!(profiles["amd"].preflight, Preflight::default());
        let Driver::HostPath { inside, .. } = &profiles["amd"].driver else { panic!() };
        assert_eq!(
            (inside.library_dirs.as_slice(), inside.bin_dirs.as_slice()),
            (&["/opt/d/lib64".to_owned()][..], &["/opt/d/bin".to_owned()][..])
        );
    }

    #[test]
    fn each_problem_is_told_with_its_path() {
        let host = |fields: Value| json!({"resourceName": "a.b/c", "driver": {"hostPath": fields}});
        for (profile, want) in [
            (json!({}), "p.resourceName: name what"),
            (json!({"resourceName": "cpu"}), "p.resourceName: \"cpu\" is no extended resource"),
            (json!({"resourceName": "kubernetes.io/gpu"}), "p.resourceName"),
            (json!({"resourceName": "a.b/c", "runtimeClassName": "A B"}), "p.runtimeClassName"),
            (json!({"resourceName": "a.b/c", "tolerations": [{"keyy": "x"}]}), "p.tolerations: unknown field `keyy`"),
            (
                json!({"resourceName": "a.b/c", "nodeselector": {}}),
                "p.nodeselector: unknown field; there are: resourceName",
            ),
            (
                json!({"resourceName": "a.b/c", "env": {"NVIDIA_VISIBLE_DEVICES": "all"}}),
                "p.env.NVIDIA_VISIBLE_DEVICES",
            ),
            (json!({"resourceName": "a.b/c", "env": {"BUNDLE_NAME": "x"}}), "p.env.BUNDLE_NAME"),
            (json!({"resourceName": "a.b/c", "preflight": {"count": "some"}}), "p.preflight.count: unknown variant"),
            (json!({"resourceName": "a.b/c", "preflight": {"count": "exact"}}), "p.preflight.devices: name"),
            (
                json!({"resourceName": "a.b/c", "preflight": {"devices": ["nvidia*"]}}),
                "p.preflight.devices: \"nvidia*\"",
            ),
            (json!({"resourceName": "a.b/c", "preflight": {"libraries": ["/lib/a.so"]}}), "p.preflight.libraries"),
            (json!({"resourceName": "a.b/c", "preflight": {"libs": []}}), "p.preflight.libs: unknown field"),
            (json!({"resourceName": "a.b/c", "driver": "cdi"}), "p.driver: must be"),
            (json!({"resourceName": "a.b/c", "driver": {"hostpath": {}}}), "p.driver.hostpath: unknown field"),
            (host(json!({})), "p.driver.hostPath.path: name"),
            (host(json!({"path": "/", "mountPath": "/a"})), "p.driver.hostPath.path: \"/\""),
            (host(json!({"path": "/a/../b", "mountPath": "/a"})), "p.driver.hostPath.path"),
            (host(json!({"path": "/a", "mountPath": "a"})), "p.driver.hostPath.mountPath"),
            (
                host(json!({"path": "/a", "mountPath": "/usr/lib"})),
                "p.driver.hostPath.mountPath: \"/usr/lib\" would cover",
            ),
            (host(json!({"path": "/a", "mountPath": "/bundle/x"})), "p.driver.hostPath.mountPath"),
            (host(json!({"path": "/a", "mountPath": "/b", "libraryDirs": ["../x"]})), "p.driver.hostPath.libraryDirs"),
            (host(json!({"path": "/a", "mountPath": "/b", "libraryDirs": []})), "p.driver.hostPath.libraryDirs: name"),
            (host(json!({"path": "/a", "mountPath": "/b", "binDirs": ["/bin"]})), "p.driver.hostPath.binDirs"),
            (host(json!({"path": "/a", "mountPath": "/b", "libraryFiles": ["a/b"]})), "p.driver.hostPath.libraryFiles"),
        ] {
            let problems = read(json!({"p": profile})).unwrap_err();
            assert!(problems.contains(&format!("gpuProfiles.{want}")), "{want}: {problems}");
        }
        assert!(read(json!({"A_B": {"resourceName": "a.b/c"}})).unwrap_err().contains("gpuProfiles.A_B"));
        assert!(read(json!([])).unwrap_err().contains("must be a map"));
    }
}

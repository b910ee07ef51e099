//! The settings file: raw YAML -> [`Settings`]. Unknown fields are errors, and all problems are told at once.

mod fields;
mod for_users;
mod gpu;
mod helper;
mod names;
mod pods;
mod proxy;
mod store;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use self::fields::{Fields, Problems};
pub(in crate::operator) use self::for_users::for_users;
use crate::api::{Quantity, duration};
use crate::operator::Failure;
use crate::plan::Settings;

/// An attempt is not given up sooner: two may be alive after that.
const NODE_LOST_AFTER_MIN: Duration = Duration::from_mins(1);

/// Reads and validates the file.
pub(in crate::operator) fn load(path: &Path, helper_image: &str) -> Result<Settings, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|e| format!("cannot read the settings {}: {e}", path.display()))?;
    parse(&text, helper_image)
        .map_err(|problems| format!("settings {}: {}", path.display(), problems.join("; ")).into())
}

/// The error has every problem, each beginning with the path of its field.
pub(in crate::operator) fn parse(text: &str, helper_image: &str) -> Result<Settings, Vec<String>> {
    if text.trim().is_empty() {
        return Err(vec!["the file is empty: set at least images.cpu and images.gpu".into()]);
    }
    let file: Value = serde_saphyr::from_str(text).map_err(|e| vec![e.to_string()])?;
    let problems = Problems::default();
    if helper_image.is_empty() {
        problems.note("--helper-image", "the operator's own image is not known: set it, or HELPER_IMAGE");
    }
    let settings = settings(Fields::of("", Some(file), &problems), helper_image, &problems);
    problems.into_result().map(|()| settings)
}

/// What is wrong with a field becomes a problem, its value anything.
fn settings(mut file: Fields<'_>, helper_image: &str, problems: &Problems) -> Settings {
    let bytes = |fields: &mut Fields<'_>, name, default: &str| {
        let quantity = fields.get(name).unwrap_or_else(|| Quantity::from(default));
        problems.check(&fields.path(name), quantity.bytes()).unwrap_or_default()
    };
    let seconds = |fields: &mut Fields<'_>, name, default: &str| {
        let text: String = fields.get(name).unwrap_or_else(|| default.to_owned());
        Duration::from_secs(problems.check(&fields.path(name), duration::parse_seconds(&text)).unwrap_or_default())
    };
    let mut images = file.section("images");
    let mut defaults = file.section("defaults");
    let mut deadlines = file.section("deadlines");
    let staging_deadline = seconds(&mut deadlines, "staging", "6h");
    let mut node_lost = file.section("nodeLost");
    let node_lost_after = match node_lost.get::<String>("giveUpAfter").as_deref() {
        None | Some("never") => None,
        Some(text) => {
            let after = problems.check("nodeLost.giveUpAfter", duration::parse_seconds(text)).map(Duration::from_secs);
            if after.is_some_and(|after| after < NODE_LOST_AFTER_MIN) {
                let least = NODE_LOST_AFTER_MIN.as_secs();
                problems.note(
                    "nodeLost.giveUpAfter",
                    format_args!("less than {least}s: nodes are silent for a while when they are restarted"),
                );
            }
            after
        }
    };
    let image_volumes = match file.get::<String>("imageVolumes").as_deref() {
        None | Some("auto") => true,
        Some("never") => false,
        Some(other) => {
            problems.note("imageVolumes", format_args!("{other:?} is none of auto, never"));
            false
        }
    };
    let stop_grace = seconds(&mut file, "stopGrace", "30s");
    // What all runs get is never too long for one.
    let max_stop_grace = seconds(&mut file, "maxStopGrace", "10m").max(stop_grace);
    let pod_retention = seconds(&mut file, "podRetention", "1h");
    let (store, registries) = store::read(&mut file, &seconds, problems);
    let (pod_labels, pod_annotations) = pods::metadata(file.section("pods"), problems);
    Settings {
        cpu_image: images.required("cpu", "an image"),
        gpu_image: images.required("gpu", "an image"),
        helper_image: helper_image.to_owned(),
        disk_bytes: bytes(&mut defaults, "disk", "10Gi"),
        shared_memory_bytes: bytes(&mut defaults, "sharedMemory", "1Gi"),
        image_deadline: seconds(&mut deadlines, "imagePull", "10m"),
        config_deadline: seconds(&mut deadlines, "configuration", "5m"),
        starting_deadline: seconds(&mut deadlines, "starting", "1h"),
        node_lost_after,
        stop_grace,
        max_stop_grace,
        pod_retention,
        staging_deadline,
        store,
        image_volumes,
        helper: helper::resources(file.section("helper"), problems),
        pod_labels,
        pod_annotations,
        qos: helper::qos(&mut file, problems),
        pod_resources: true,
        registries,
        proxy: proxy::read(file.section("proxy"), problems),
        gpu_profiles: gpu::profiles(file.raw("gpuProfiles"), problems),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Qos;

    pub(super) fn parse(text: &str, helper_image: &str) -> Result<Settings, String> {
        super::parse(text, helper_image).map_err(|problems| problems.join("; "))
    }

    #[test]
    fn two_images_are_enough() {
        let settings = parse("images: {cpu: a, gpu: b}", "us").unwrap();
        assert_eq!((settings.cpu_image.as_str(), settings.gpu_image.as_str()), ("a", "b"));
        assert_eq!(settings.disk_bytes, 10 << 30);
        assert_eq!((settings.stop_grace, settings.max_stop_grace), (Duration::from_secs(30), Duration::from_mins(10)));
        let most = |text| parse(&format!("images: {{cpu: a, gpu: b}}\n{text}"), "us").unwrap().max_stop_grace;
        assert_eq!(most("stopGrace: 1h"), Duration::from_hours(1), "what all runs get is never too long for one");
        assert_eq!(most("maxStopGrace: 45s"), Duration::from_secs(45));
        let kept = |text| parse(&format!("images: {{cpu: a, gpu: b}}\n{text}"), "us").unwrap().pod_retention;
        assert_eq!((kept(""), kept("podRetention: 0s")), (Duration::from_hours(1), Duration::ZERO));
        assert_eq!(settings.gpu_profiles["default"].resource_name, "nvidia.com/gpu");
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text = "images: {cpu: '', gpus: b}\ndefaults: {disk: 10Q, cpus: 1}\nstopGrace: soon\nmaxStopGrace: late\nimage: c\n\
                    podRetention: 1w\ndeadlines: 5m\ngpuProfiles: {p: {resourceName: x, driver: {hostPath: {path: a}}, more: 1}}";
        let problems = parse(text, "").unwrap_err();
        let fields: Vec<_> = problems.split("; ").filter_map(|p| p.split_once(": ").map(|(field, _)| field)).collect();
        for field in [
            "--helper-image",
            "images.cpu",
            "images.gpu",
            "images.gpus",
            "defaults.disk",
            "defaults.cpus",
            "deadlines",
            "stopGrace",
            "maxStopGrace",
            "podRetention",
            "image",
            "gpuProfiles.p.resourceName",
            "gpuProfiles.p.driver.hostPath.path",
            "gpuProfiles.p.driver.hostPath.mountPath",
            "gpuProfiles.p.more",
        ] {
            assert!(fields.contains(&field), "{field}: {problems}");
        }
    }

    #[test]
    fn the_file_we_ship_is_valid_and_shows_every_setting() {
        let manifest = include_str!("../../../deploy/operator/settings.yaml");
        let manifest: Value = serde_saphyr::from_str(manifest).unwrap();
        let text = manifest["data"]["settings.yaml"].as_str().unwrap();
        assert_eq!(parse(text, "us").unwrap().gpu_profiles.len(), 1);
        // The examples are comments: each is the same line without its mark.
        let examples: Vec<_> = text.lines().map(|line| line.strip_prefix("#| ").unwrap_or(line)).collect();
        let settings = parse(&examples.join("\n"), "us").unwrap();
        assert_eq!(settings.gpu_profiles.keys().collect::<Vec<_>>(), ["amd", "default", "gke", "mig-1g"]);
        assert!(settings.store.is_some() && settings.registries.ca.is_some());
        assert_eq!(settings.helper.cpu_request_millis, Some(50));
        assert_eq!(settings.proxy.env().len(), 3);
    }

    #[test]
    fn users_are_told_what_runs_get_and_no_more() {
        let text = "images: {cpu: a, gpu: b}\nproxy: {http: 'http://me:secret@p'}\nstopGrace: 1m\n\
                    gpuProfiles: {mig: {resourceName: a.b/c, env: {A: secret}, nodeSelector: {gpu: 'yes'}}}";
        let told = for_users(&parse(text, "us").unwrap());
        let value: Value = serde_saphyr::from_str(&told).unwrap();
        assert_eq!((value["images"]["gpu"].as_str(), value["disk"].as_str()), (Some("b"), Some("10Gi")));
        assert_eq!((value["stopGrace"].as_str(), value["keepsOutputs"].as_bool()), (Some("60s"), Some(false)));
        assert_eq!(value["gpuProfiles"]["mig"]["resourceName"], "a.b/c");
        assert_eq!(value["gpuProfiles"]["default"]["resourceName"], "nvidia.com/gpu");
        assert!(!told.contains("secret"), "{told}");
    }

    #[test]
    fn resources_of_the_helper_are_checked() {
        let parse = |text: &str| parse(&format!("images: {{cpu: a, gpu: b}}\n{text}"), "us");
        let set = parse("qos: Guaranteed\nhelper: {resources: {requests: {cpu: 1}, limits: {cpu: '2', memory: 1Gi}}}")
            .unwrap();
        assert_eq!(
            (set.qos, set.helper.cpu_limit_millis, set.helper.memory_limit_bytes),
            (Qos::Guaranteed, Some(2000), Some(1 << 30))
        );
        for (text, field) in [
            ("qos: BestEffort", "qos: "),
            ("helper: {resources: {limits: {memory: 1Mi}}}", "helper.resources.limits.memory: at least"),
            ("helper: {resources: {requests: {cpu: 2}, limits: {cpu: 1}}}", "helper.resources.requests.cpu: is more"),
            ("helper: {resources: {requests: {gpu: 2}}}", "helper.resources.requests.gpu: unknown"),
            ("helper: {cpu: 2}", "helper.cpu: unknown"),
        ] {
            let problems = parse(text).unwrap_err();
            assert!(problems.contains(field), "{text}: {problems}");
        }
    }

    #[test]
    fn labels_and_annotations_of_pods_are_checked() {
        let parse = |text: &str| parse(&format!("images: {{cpu: a, gpu: b}}\npods: {text}"), "us");
        let set = parse("{labels: {team: ml}, annotations: {karpenter.sh/do-not-disrupt: 'true'}}").unwrap();
        assert_eq!((set.pod_labels["team"].as_str(), set.pod_annotations.len()), ("ml", 1));
        for (text, problem) in [
            ("{labels: {'a b': c}}", "pods.labels: \"a b\" is no name"),
            ("{labels: {a: 'b c'}}", "pods.labels.a: \"b c\" is no value"),
            ("{labels: {bundlerun.dev/run: a}}", "pods.labels: \"bundlerun.dev/run\" is the operator's"),
            ("{annotations: {x.kueue.x-k8s.io/a: b}}", "pods.annotations: "),
            ("{annotations: {a: 1}}", "pods.annotations: invalid type"),
            ("{annotation: {a: b}}", "pods.annotation: unknown field"),
        ] {
            let problems = parse(text).unwrap_err();
            assert!(problems.contains(problem), "{text}: {problems}");
        }
        let long = "x".repeat(3000);
        assert!(parse(&format!("{{annotations: {{a: {long}}}}}")).unwrap_err().contains("at most 3000"));
    }

    #[test]
    fn a_node_is_given_up_never_unless_a_time_is_set() {
        let parse = |text: &str| parse(&format!("images: {{cpu: a, gpu: b}}\n{text}"), "us");
        let after = |text: &str| parse(text).unwrap().node_lost_after;
        assert_eq!((after(""), after("nodeLost: {giveUpAfter: never}")), (None, None));
        assert_eq!(after("nodeLost: {giveUpAfter: 10m}"), Some(Duration::from_mins(10)));
        for wrong in ["soon", "5s", "0s"] {
            let problems = parse(&format!("nodeLost: {{giveUpAfter: {wrong}}}")).unwrap_err();
            assert!(problems.starts_with("nodeLost.giveUpAfter: "), "{problems}");
        }
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        assert!(parse("images: {cpu: a, gpu: b}\nimage: c", "us").unwrap_err().contains("image"));
    }
}

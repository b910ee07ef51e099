//! What the admin decides, validated: the operator reads it from its settings file before anything else runs.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Toleration;

use crate::contract::{Background, HostDriver, InputPatience, Preflight, Registries};
use crate::oci::place;
use crate::plan::words::wait_reason::Deadline;

/// An image that the registry refuses is given up after this, or after `deadlines.imagePull` if that is less: the kubelet
/// has asked three times by then.
const IMAGE_REFUSED: Duration = Duration::from_secs(40);
/// The same of one whose registry has no host: as inputs are, whose address has none.
const IMAGE_HOST: Duration = Duration::from_secs(InputPatience::USUAL.refused_seconds);
/// The kubelet tells the end of the run container within so long of the first look at the helper's, or it hangs.
const HUNG: Duration = Duration::from_secs(15);

/// All that a plan needs to know of the admin's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Default image of runs with `gpus: 0`.
    pub cpu_image: String,
    /// Default image of runs with GPUs.
    pub gpu_image: String,
    /// Our own image: the helper container of every pod.
    pub helper_image: String,
    /// `resources.disk` of runs that say none, in bytes.
    pub disk_bytes: u64,
    /// `resources.sharedMemory` of runs that say none, in bytes; never more than the run's memory.
    pub shared_memory_bytes: u64,
    /// Between TERM and KILL, after the time limit and when a run is asked to stop, for runs that say none.
    pub stop_grace: Duration,
    /// The longest that a run may say.
    pub max_stop_grace: Duration,
    /// How long the pod of an attempt is kept after its end, of runs that say nothing.
    pub pod_retention: Duration,
    /// A pod whose image cannot be pulled is given up after this.
    pub image_deadline: Duration,
    /// A pod that waits for a missing Secret, `ConfigMap`, service account or claim is given up after this.
    pub config_deadline: Duration,
    /// An attempt whose node has not started the container after this is ended, and another one follows.
    pub starting_deadline: Duration,
    /// An attempt whose node has been silent for this long is given up, although its command may run on; none: never.
    pub node_lost_after: Option<Duration>,
    /// Inputs that are not in place after this end the attempt.
    pub staging_deadline: Duration,
    /// Where outputs go; none: they go with the pod.
    pub store: Option<Store>,
    /// Whole outputs of other runs are mounted by the nodes, where they can be and every node can.
    pub image_volumes: bool,
    /// What the helper container of every pod may use.
    pub helper: HelperResources,
    /// Labels of every pod; they win over those of runs.
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations of every pod; they win over those of runs.
    pub pod_annotations: BTreeMap<String, String>,
    /// The quality of service of pods.
    pub qos: Qos,
    /// Pods may have resources of their own beside those of their containers (Kubernetes 1.34).
    pub pod_resources: bool,
    /// How registries are spoken to, the store's among them.
    pub registries: Registries,
    /// What is between the helper and everything outside of the cluster.
    pub proxy: Proxy,
    /// By name; `default` is what runs use that name none.
    pub gpu_profiles: BTreeMap<String, GpuProfile>,
}

impl Settings {
    /// How long the operator waits; `None`: it gives up nothing.
    pub(in crate::plan) fn given_up_after(&self, deadline: Deadline) -> Option<Duration> {
        match deadline {
            Deadline::None | Deadline::Staging | Deadline::Refused | Deadline::Absent | Deadline::NoAnswer => None,
            Deadline::AtOnce => Some(Duration::ZERO),
            Deadline::ImagePull => Some(self.image_deadline),
            Deadline::ImageRefused => Some(self.image_deadline.min(IMAGE_REFUSED)),
            Deadline::ImageHost => Some(self.image_deadline.min(IMAGE_HOST)),
            Deadline::Configuration => Some(self.config_deadline),
            Deadline::Starting => Some(self.starting_deadline),
            Deadline::NodeLost => self.node_lost_after,
            Deadline::Hung => Some(HUNG),
        }
    }
}

/// What the helper container may use; what is `None` is the operator's to choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelperResources {
    /// In thousandths of a CPU; 10 by default.
    pub cpu_request_millis: Option<u64>,
    /// In thousandths of a CPU; no limit by default, because hashing and compressing take what is there.
    pub cpu_limit_millis: Option<u64>,
    /// In bytes; 16Mi by default.
    pub memory_request_bytes: Option<u64>,
    /// In bytes; 512Mi by default where it stages or saves, else 64Mi.
    pub memory_limit_bytes: Option<u64>,
}

/// Quality of service, as Kubernetes calls it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Qos {
    /// The helper takes what is free on the node.
    #[default]
    Burstable,
    /// Requests are limits: for nodes that give whole CPUs, and memory and GPUs of one NUMA node.
    Guaranteed,
}

/// A proxy for HTTP. What is not set here is not used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// URL of the one for plain HTTP.
    pub http: Option<String>,
    /// URL of the one for TLS.
    pub https: Option<String>,
    /// Hosts, domains and networks that are reached without it.
    pub no: Vec<String>,
}

impl Proxy {
    /// The variables that programs know it by.
    #[must_use]
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let no = (!self.no.is_empty()).then(|| self.no.join(","));
        let all = [("HTTP_PROXY", self.http.clone()), ("HTTPS_PROXY", self.https.clone()), ("NO_PROXY", no)];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// The registry that keeps the outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// `host[:port][/prefix]`: the repository of a namespace is `<prefix>/<namespace>`.
    pub prefix: String,
    /// Secret with the credentials, of type `kubernetes.io/dockerconfigjson`, in each namespace with runs; a namespace
    /// without it has none.
    pub secret_name: String,
    /// Longest time for saving after the command ended by itself.
    pub deadline: Duration,
    /// Longest time for saving after a pod was drained, evicted or deleted.
    pub when_interrupted: Duration,
    /// No blob may have more bytes; none: as many as is usual.
    pub max_blob_bytes: Option<u64>,
    /// What helpers push while commands run; none: nothing.
    pub background: Option<Background>,
}

impl Store {
    /// The repository for the outputs of a namespace.
    #[must_use]
    pub fn repository(&self, namespace: &str) -> String {
        format!("{}/{namespace}", self.prefix)
    }

    /// Whether a reference names what may be an output of another namespace. Nodes and helpers have the store's login,
    /// which can be one for all. A store that is a whole registry has other images too: only what a namespace's
    /// repository could be is one.
    pub(in crate::plan) fn is_of_another_namespace(&self, reference: &str, namespace: &str) -> bool {
        let (host, prefix) = place(&self.prefix);
        let (of, repository) = place(reference);
        let below = if prefix.is_empty() {
            Some(repository.as_str())
        } else {
            repository.strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('/'))
        };
        let Some(below) = below.filter(|_| of == host) else { return false };
        let first = below.split('/').next().unwrap_or_default();
        first != namespace && (!prefix.is_empty() || first == below)
    }
}

/// What a GPU is on this cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuProfile {
    /// The extended resource a device plugin advertises, such as `nvidia.com/gpu`.
    pub resource_name: String,
    /// Runtime class of GPU pods.
    pub runtime_class_name: Option<String>,
    /// Added to the run's own.
    pub tolerations: Vec<Toleration>,
    /// Added to the run's own; the run's entries win.
    pub node_selector: BTreeMap<String, String>,
    /// Variables of GPU runs; the run's own win.
    pub env: BTreeMap<String, String>,
    /// What must be there before a command starts.
    pub preflight: Preflight,
    /// How the driver gets into the container.
    pub driver: Driver,
}

/// How a GPU driver gets into the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// The container runtime brings it (NVIDIA container toolkit, CDI): nothing to mount.
    #[default]
    Runtime,
    /// A folder of the host, mounted read-only.
    HostPath {
        /// On the host.
        path: String,
        /// What the runner is told of it.
        inside: HostDriver,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(prefix: &str, reference: &str) -> bool {
        let store = Store {
            prefix: prefix.into(),
            secret_name: String::new(),
            deadline: Duration::ZERO,
            when_interrupted: Duration::ZERO,
            max_blob_bytes: None,
            background: None,
        };
        store.is_of_another_namespace(reference, "n")
    }

    #[test]
    fn outputs_of_others_are_known_by_their_place() {
        for (reference, expected) in [
            ("r.example:5000/b/n", false),
            ("r.example:5000/b/n@sha256:0", false),
            ("r.example:5000/b/n/deeper:t", false),
            ("r.example:5000/b/other:t", true),
            ("r.example:5000/b/other/deeper@sha256:0", true),
            ("R.Example:5000/b/other:t", true),
            ("r.example:5000/b/nn:t", true),
            ("r.example:5000/bb/other:t", false),
            ("r.example:5000/tools:t", false),
            ("r.example/b/other:t", false),
            ("python:3", false),
        ] {
            assert_eq!(refused("r.example:5000/b", reference), expected, "{reference}");
        }
        assert!(refused("r.example/b", "r.example:443/b/other") && refused("r.example/b", "r.example./b/other"));
        for reference in ["team/other", "index.docker.io/team/other:t", "registry-1.docker.io/team/other"] {
            assert!(refused("docker.io/team", reference), "{reference}");
        }
        // A whole registry.
        assert!(refused("r.example", "r.example/other:t"));
        assert!(!refused("r.example", "r.example/tools/python:3") && !refused("r.example", "r.example/n:t"));
    }

    #[test]
    fn a_proxy_is_variables() {
        let proxy =
            Proxy { https: Some("http://p:3128".into()), no: vec!["a".into(), "10.0.0.0/8".into()], http: None };
        let env = [("HTTPS_PROXY", "http://p:3128".to_owned()), ("NO_PROXY", "a,10.0.0.0/8".to_owned())];
        assert_eq!(proxy.env(), env);
        assert!(Proxy::default().env().is_empty());
    }
}

//! The node behind the kubelet's back: processes of containers as the host sees them, and the container runtime.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bundlerun::names::RUN_LABEL;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Space, eventually, output};
use crate::turns::Turn;

/// Id of a container of a pod, as the container runtime knows it.
pub fn container_id(pod: &Pod, name: &str) -> String {
    known_container_id(pod, name).unwrap_or_else(|| panic!("{name} has no container: {pod:#?}"))
}

/// The same, where there may be none.
pub fn known_container_id(pod: &Pod, name: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let id = all.filter(|c| c.name == name).find_map(|c| c.container_id.clone())?;
    Some(id.split_once("://")?.1.to_owned())
}

/// The cgroup of a container: of a controller, or the only one there is (version 2).
pub fn cgroup(controller: &str, container: &str) -> PathBuf {
    let own = std::env::var("CGROUP").unwrap();
    let version_1 = Path::new("/sys/fs/cgroup").join(controller).join(&own);
    let root = if version_1.exists() { version_1 } else { Path::new("/sys/fs/cgroup").join(own) };
    let mut find = Command::new("find");
    let found = find.arg(&root).args(["-type", "d", "-name", &format!("*{container}*")]).output().unwrap();
    // It complains of what vanishes meanwhile: other pods do.
    let found = String::from_utf8(found.stdout).unwrap();
    found.lines().next().unwrap_or_else(|| panic!("no cgroup of {container} below {}", root.display())).into()
}

/// The directory of a pod's volume.
pub fn volume(pod: &Pod, name: &str) -> PathBuf {
    let (kubelet, uid) = (std::env::var("KUBELET_ROOT").unwrap(), pod.uid().unwrap());
    PathBuf::from(kubelet).join("pods").join(uid).join("volumes/kubernetes.io~empty-dir").join(name)
}

/// The processes of a container by their numbers on the host, in the order in which they started.
pub fn processes(container: &str) -> Vec<Pid> {
    processes_in(&cgroup("memory", container))
}

/// Those of a cgroup.
pub fn processes_in(cgroup: &Path) -> Vec<Pid> {
    let text = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut numbers: Vec<i32> = text.lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers.into_iter().filter_map(Pid::from_raw).collect()
}

/// PID 1 of a container, by its number on the host.
pub fn first_process(container: &str) -> Pid {
    let is_first = |pid: &Pid| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
        status.lines().filter(|line| line.starts_with("NSpid:")).any(|line| line.split_whitespace().last() == Some("1"))
    };
    processes(container).into_iter().find(is_first).unwrap_or_else(|| panic!("{container} has no first process"))
}

/// Kills PID 1 of a container from the host: from inside the kernel would not let it.
pub fn kill(pod: &Pod, container: &str) {
    kill_process(first_process(&container_id(pod, container)), Signal::KILL).unwrap();
}

/// A line of `/proc/<pid>/status` in bytes, such as `VmHWM`.
pub fn status_bytes(pid: Pid, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().unwrap() * 1024)
}

/// The second node, which takes no pods but while this lives, and the turn of its test with it: other tests know one node.
pub struct SecondNode {
    pub name: String,
    _turn: Option<Arc<Turn>>,
}

impl SecondNode {
    pub fn open(space: &Space) -> Self {
        let name = format!("{}-2", std::env::var("NODE_NAME").unwrap());
        output("kubectl", &["uncordon", &name]);
        Self { name, _turn: space.turn() }
    }

    /// As an administrator does who knows that nothing runs there any more.
    pub fn declare_out_of_service(&self) {
        output("kubectl", &["taint", "nodes", &self.name, &format!("{OUT_OF_SERVICE}=nodeshutdown:NoExecute")]);
    }
}

/// How many devices pods can have there.
pub fn allocatable_gpus(node: &str) -> u32 {
    let gpus = output("kubectl", &["get", "node", node, "-o", r"jsonpath={.status.allocatable.nvidia\.com/gpu}"]);
    gpus.parse().unwrap()
}

/// A node that takes no more pods while this lives: for tests that run alone.
pub struct Cordoned {
    name: String,
    _turn: Option<Arc<Turn>>,
}

impl Cordoned {
    /// The first node.
    pub fn first(space: &Space) -> Self {
        let name = std::env::var("NODE_NAME").unwrap();
        output("kubectl", &["cordon", &name]);
        Self { name, _turn: space.turn() }
    }

    /// The runs that are on it are evicted, and saved; returns when their pods are gone.
    pub fn drain_runs(&self) {
        let selector = format!("--pod-selector={RUN_LABEL}");
        output("kubectl", &["drain", &self.name, &selector, "--force", "--delete-emptydir-data", "--timeout=4m"]);
    }
}

impl Drop for Cordoned {
    fn drop(&mut self) {
        let _ = Command::new("kubectl").args(["uncordon", &self.name]).status();
    }
}

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

impl Drop for SecondNode {
    fn drop(&mut self) {
        let _ = Command::new("kubectl").args(["cordon", &self.name]).status();
        let _ = Command::new("kubectl").args(["taint", "nodes", &self.name, &format!("{OUT_OF_SERVICE}-")]).output();
    }
}

/// A component of the cluster that is dead while this lives.
pub struct Dead(String);

impl Dead {
    /// Kills it. `component`: as `cluster restart` names it.
    pub fn kill(component: &str) -> Self {
        output("deploy/local/cluster", &["stop", component]);
        Self(component.to_owned())
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        let _ = Command::new("deploy/local/cluster").args(["start", &self.0]).status();
    }
}

/// The registry's process.
fn registry() -> Pid {
    let state = Path::new(&std::env::var("KUBECONFIG").unwrap()).parent().unwrap().join("run/registry.status");
    let text = std::fs::read_to_string(state).unwrap();
    // The supervisor's number is of its own namespace.
    let inside: i32 = text.split_whitespace().next().unwrap().parse().unwrap();
    let found = output("pgrep", &["-f", "registry.*serve"]);
    let is_it = |pid: &&str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        numbers.split_whitespace().last() == Some(inside.to_string().as_str())
    };
    Pid::from_raw(found.lines().find(is_it).unwrap().parse().unwrap()).unwrap()
}

/// The cluster's registry gives no answer while this lives: for tests that run alone.
pub struct HeldRegistry(Pid);

impl HeldRegistry {
    pub fn hold() -> Self {
        let pid = registry();
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for HeldRegistry {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Makes the container runtime lose an ended container, as if it had lost its files. It holds what it knows in memory,
/// so it starts anew: for tests that run alone.
pub async fn forget_container(container: &str) {
    let socket = std::env::var("CONTAINERD_SOCKET").unwrap();
    let delete = ["--address", &socket, "--namespace", "k8s.io", "containers", "delete", container];
    eventually("the container to have ended", async || {
        let deleted = Command::new("ctr").args(delete).output().unwrap();
        if deleted.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&deleted.stderr).into_owned()) }
    })
    .await;
    output("deploy/local/cluster", &["restart", "containerd"]);
}

/// This machine's address on the link to the cluster: nodes and pods reach it.
pub fn link_address() -> String {
    std::env::var("NODE_IP").unwrap().rsplit_once('.').unwrap().0.to_owned() + ".1"
}

//! No node takes the pod: what it needs, in numbers, beside what the scheduler says.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;

use super::{Decision, pin};
use crate::contract::{Pin, size_for_people};
use crate::plan::facts::node::Capacity;
use crate::plan::facts::pod::PodFacts;
use crate::plan::pod;
use crate::plan::validate;
use crate::plan::words::wait_reason::Reason;

/// What the scheduler says of a pod with a claim that waits for its volume (its plugin `VolumeBinding`).
const UNBOUND: &str = "unbound immediate PersistentVolumeClaims";
const BIND: &str = "look at the claims with `kubectl describe pvc`: one whose storage class does not exist, or provisions nothing, \
    waits for a volume that somebody makes; the run goes on when it is bound";

impl Decision<'_> {
    /// The scheduler's message with numbers before it, if there are any to tell, and what to do.
    pub(super) fn why_no_node(&self, pod: &PodFacts, message: &str) -> (String, &'static str) {
        let capacity = self.capacity.filter(|capacity| capacity.nodes > 0);
        // Pods in the cache have no containers.
        let needs = || self.needs(&pod.pins().inputs);
        let Numbers { never, not_now } =
            capacity.and_then(|all| Some(numbers(&needs()?, all, message))).unwrap_or_default();
        let reason = match () {
            () if !never.is_empty() => Reason::NoNodeIsLargeEnough,
            () if fits_none(message) => Reason::NoNodeFits,
            () => Reason::Unschedulable,
        };
        let unbound = message.contains(UNBOUND).then(|| self.claims());
        let words = never.into_iter().chain(not_now).chain(unbound.clone()).chain([message.to_owned()]);
        let to_do = if unbound.is_some() { BIND } else { reason.what_to_do() };
        (words.collect::<Vec<_>>().join("; "), to_do)
    }

    /// The claims that the run names, in words: the scheduler does not say which is not bound.
    fn claims(&self) -> String {
        let spec = &self.run.spec;
        let of_inputs = spec.inputs.iter().filter_map(|input| input.claim.as_ref());
        let claims = of_inputs.chain(spec.volumes.iter().map(|volume| &volume.claim));
        let names: BTreeSet<&str> = claims.map(|claim| claim.name.as_str()).collect();
        match names.into_iter().collect::<Vec<_>>().join(", ") {
            names if names.is_empty() => "a claim of the pod has no volume".to_owned(),
            names => format!("a claim of the run has no volume ({names})"),
        }
    }

    /// What the pod of the attempt requests, as the operator makes it today.
    pub(super) fn needs(&self, pins: &BTreeMap<usize, Pin>) -> Option<Needs> {
        let pod = self.made_with(pins)?;
        let disk_bytes = validate::disk_bytes(&self.run.spec.resources, self.settings).ok()?;
        Some(Needs { all: pod::requests(&pod), of_run: pod::requests_of_run(&pod), disk_bytes })
    }

    /// The pod of the attempt, as the operator makes it today.
    pub(super) fn made_with(&self, pins: &BTreeMap<usize, Pin>) -> Option<Pod> {
        let request = validate::validate(self.run, self.settings).ok()?;
        let digests = pin::digests(self.run);
        let attempt = pod::Attempt {
            number: self.attempt,
            requested: self.requested,
            image: self.requested,
            pins,
            digests: &digests,
            account_pull_secrets: &[],
            follows_command: self.follows_command(),
        };
        Some(pod::build(&request, &attempt, self.settings))
    }
}

/// No node takes the pod, and none would if it were empty: labels and taints are in the way, and not those that
/// Kubernetes itself sets and takes away.
fn fits_none(scheduler: &str) -> bool {
    let passes =
        ["Insufficient ", "Too many pods", "free ports", "were unschedulable", "node.kubernetes.io/", "volume"];
    let stays = ["node affinity/selector", "untolerated taint"];
    stays.iter().any(|words| scheduler.contains(words)) && !passes.iter().any(|words| scheduler.contains(words))
}

/// What a pod requests of a node, by resource.
#[derive(Default)]
pub(super) struct Needs {
    all: BTreeMap<String, u64>,
    /// Of that, what the run's own container does.
    of_run: BTreeMap<String, u64>,
    /// `resources.disk`.
    disk_bytes: u64,
}

impl Needs {
    /// ` (64 CPUs of the run, 0.01 CPUs of the operator's helper)`: whose it is, where it is more than the user wrote.
    pub(super) fn shares(&self, resource: &str, needed: u64) -> String {
        let of_run = self.of_run.get(resource).copied().unwrap_or_default();
        let of_helper = needed.saturating_sub(of_run);
        if resource == "ephemeral-storage" && self.disk_bytes > 0 {
            let disk = size_for_people(self.disk_bytes);
            let inputs = needed.saturating_sub(self.disk_bytes.saturating_mul(2));
            let of_inputs = (inputs > 0).then(|| format!(", {} for inputs", size_for_people(inputs)));
            let of_inputs = of_inputs.unwrap_or_default();
            return format!(
                " (resources.disk is {disk}: as much for the working directory, as much for caches{of_inputs})"
            );
        }
        if of_helper == 0 || of_run == 0 {
            return String::new();
        }
        let (of_run, of_helper) = (bare(resource, of_run), bare(resource, of_helper));
        format!(" ({of_run} of the run, {of_helper} of the operator's helper)")
    }
}

#[derive(Default)]
struct Numbers {
    /// What no node could ever give.
    never: Vec<String>,
    /// What other pods have.
    not_now: Vec<String>,
}

/// Labels and taints are not looked at: it is said of how many nodes.
fn numbers(needs: &Needs, capacity: &Capacity, scheduler: &str) -> Numbers {
    let nodes = match capacity.nodes {
        1 => "the only node".to_owned(),
        n => format!("the largest of {n} nodes"),
    };
    let Numbers { mut never, mut not_now } = Numbers::default();
    for (resource, needed) in &needs.all {
        let largest = capacity.largest.get(resource.as_str()).copied().unwrap_or_default();
        let (wants, has) = (amount(resource, *needed), amount(resource, largest));
        let wants = wants + &needs.shares(resource, *needed);
        if largest == 0 && *needed > 0 {
            never.push(format!("no node has {resource}, and the run needs {wants}"));
        } else if *needed > largest {
            never.push(format!("no node has {wants}: {nodes} has {has}"));
        } else if is_short(scheduler, resource) {
            not_now.push(format!("the run needs {wants}, and no node has that free: {nodes} has {has} in all"));
        }
    }
    Numbers { never, not_now }
}

/// `0/3 nodes are available: 2 Insufficient nvidia.com/gpu, 1 node(s) ...`.
fn is_short(scheduler: &str, resource: &str) -> bool {
    let mut said = scheduler.split("Insufficient ").skip(1);
    said.any(|rest| {
        rest.strip_prefix(resource)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || "/-_".contains(c)))
    })
}

fn amount(resource: &str, amount: u64) -> String {
    let bare = bare(resource, amount);
    if is_of_bytes(resource) { format!("{bare} of {resource}") } else { bare }
}

/// The same, where it was said of what.
fn bare(resource: &str, amount: u64) -> String {
    match resource {
        "cpu" if amount == 1000 => "1 CPU".to_owned(),
        "cpu" if amount.is_multiple_of(1000) => format!("{} CPUs", amount / 1000),
        "cpu" => format!("{}.{:03}", amount / 1000, amount % 1000).trim_end_matches('0').to_owned() + " CPUs",
        _ if is_of_bytes(resource) => size_for_people(amount),
        _ => format!("{amount} {resource}"),
    }
}

fn is_of_bytes(resource: &str) -> bool {
    ["memory", "ephemeral-storage"].contains(&resource) || resource.starts_with("hugepages-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(nodes: usize) -> Capacity {
        let largest = [("cpu", 64_000), ("memory", 512 << 30), ("nvidia.com/gpu", 8), ("nvidia.com/gpu-b", 2)];
        let largest = largest.map(|(resource, amount)| (resource.into(), amount)).into();
        Capacity { nodes, largest, ..Capacity::default() }
    }

    fn said(needs: &[(&str, u64)], nodes: usize, scheduler: &str) -> String {
        let all = needs.iter().map(|(resource, amount)| ((*resource).to_owned(), *amount)).collect();
        said_of(&Needs { all, ..Needs::default() }, nodes, scheduler)
    }

    fn said_of(needs: &Needs, nodes: usize, scheduler: &str) -> String {
        let Numbers { never, not_now } = numbers(needs, &capacity(nodes), scheduler);
        never.into_iter().chain(not_now).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_no_node_could_ever_give_is_told_whatever_the_scheduler_says() {
        let tainted = "0/12 nodes are available: 12 node(s) had untolerated taint(s).";
        for (needs, expected) in [
            (("nvidia.com/gpu", 99), "no node has 99 nvidia.com/gpu: the largest of 12 nodes has 8 nvidia.com/gpu"),
            (("cpu", 64_010), "no node has 64.01 CPUs: the largest of 12 nodes has 64 CPUs"),
            (("memory", 513 << 30), "no node has 513.0 GiB of memory: the largest of 12 nodes has 512.0 GiB of memory"),
            (("amd.com/gpu", 1), "no node has amd.com/gpu, and the run needs 1 amd.com/gpu"),
            (("hugepages-3Mi", 6 << 20), "no node has hugepages-3Mi, and the run needs 6.0 MiB of hugepages-3Mi"),
            (("cpu", 64_000), ""),
        ] {
            assert_eq!(said(&[needs], 12, tainted), expected);
        }
    }

    #[test]
    fn what_is_more_than_the_user_wrote_says_whose_it_is() {
        let map = |all: &[(&str, u64)]| all.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
        let needs = Needs {
            all: map(&[("cpu", 64_010), ("ephemeral-storage", 180 << 40), ("memory", (512 << 30) + (16 << 20))]),
            of_run: map(&[("cpu", 64_000), ("ephemeral-storage", 180 << 40), ("memory", 512 << 30)]),
            disk_bytes: 90 << 40,
        };
        let capacity = Capacity {
            nodes: 3,
            largest: [("cpu", 64_000), ("ephemeral-storage", 1 << 40), ("memory", 512 << 30)]
                .map(|(resource, amount)| (resource.into(), amount))
                .into(),
            ..Capacity::default()
        };
        assert_eq!(
            numbers(&needs, &capacity, "").never,
            [
                "no node has 64.01 CPUs (64 CPUs of the run, 0.01 CPUs of the operator's helper): the largest of 3 \
                 nodes has 64 CPUs",
                "no node has 180.0 TiB of ephemeral-storage (resources.disk is 90.0 TiB: as much for the working \
                 directory, as much for caches): the largest of 3 nodes has 1.0 TiB of ephemeral-storage",
                "no node has 512.0 GiB of memory (512.0 GiB of the run, 16.0 MiB of the operator's helper): the largest of 3 nodes has 512.0 GiB of memory",
            ]
        );
        let with_inputs = Needs { all: map(&[("ephemeral-storage", 25 << 30)]), disk_bytes: 10 << 30, ..needs };
        let said = "the run needs 25.0 GiB of ephemeral-storage (resources.disk is 10.0 GiB: as much for the working \
                    directory, as much for caches, 5.0 GiB for inputs), and no node has that free: the largest of 3 \
                    nodes has 1.0 TiB of ephemeral-storage in all";
        assert_eq!(numbers(&with_inputs, &capacity, "Insufficient ephemeral-storage").not_now, [said]);
    }

    #[test]
    fn what_there_is_too_little_of_now_is_told_as_the_scheduler_names_it() {
        let needs = [("cpu", 1010), ("nvidia.com/gpu", 4), ("nvidia.com/gpu-b", 1)];
        let scheduler = "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint(s).";
        let gpus = "the run needs 4 nvidia.com/gpu, and no node has that free: the largest of 2 nodes has 8 nvidia.com/gpu in all";
        assert_eq!(said(&needs, 2, scheduler), gpus);
        assert_eq!(said(&needs, 2, "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."), gpus);
        let cpu = "the run needs 1.01 CPUs, and no node has that free: the only node has 64 CPUs in all";
        assert_eq!(said(&needs, 1, "0/1 nodes are available: 1 Insufficient cpu."), cpu);
        assert_eq!(said(&needs, 2, "0/2 nodes are available: 2 node(s) didn't match node selector."), "");
    }

    #[test]
    fn what_is_in_the_way_of_an_empty_node_is_no_queue() {
        let matches = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
        let tainted = "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s).";
        for (message, expected) in [
            (matches, true),
            (tainted, true),
            ("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s).", false),
            ("0/2 nodes are available: 1 node(s) were unschedulable, 1 node(s) had untolerated taint(s).", false),
            ("0/2 nodes are available: 2 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.", false),
            ("0/2 nodes are available: 2 Insufficient cpu.", false),
        ] {
            assert_eq!(fits_none(message), expected, "{message}");
        }
    }
}

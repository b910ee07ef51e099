//! No node takes the pod: what it needs, in numbers, beside what the scheduler says.

use std::collections::BTreeMap;

use super::lasting::size;
use super::{Decision, pin};
use crate::plan::facts::node::Capacity;
use crate::plan::facts::pod::PodFacts;
use crate::plan::pod;
use crate::plan::validate;

impl Decision<'_> {
    /// The scheduler's message with numbers before it; none: there are none to tell.
    pub(super) fn with_numbers(&self, pod: &PodFacts, message: &str) -> Option<String> {
        let capacity = self.capacity.filter(|capacity| capacity.nodes > 0)?;
        let numbers = numbers(&self.needs(pod)?, capacity, message);
        (!numbers.is_empty()).then(|| format!("{}; {message}", numbers.join("; ")))
    }

    /// What the pod requests, as the operator makes such pods: those in the cache have no containers.
    fn needs(&self, pod: &PodFacts) -> Option<BTreeMap<String, u64>> {
        let request = validate::validate(self.run, self.settings).ok()?;
        let (pins, digests) = (pod.pins().inputs, pin::digests(self.run));
        let attempt = pod::Attempt {
            number: self.attempt,
            requested: self.requested,
            image: self.requested,
            pins: &pins,
            digests: &digests,
            account_pull_secrets: &[],
        };
        Some(pod::requests(&pod::build(&request, &attempt, self.settings)))
    }
}

/// First what no node could ever give. Labels and taints are not looked at: it is said of how many nodes.
fn numbers(needs: &BTreeMap<String, u64>, capacity: &Capacity, scheduler: &str) -> Vec<String> {
    let nodes = match capacity.nodes {
        1 => "the only node".to_owned(),
        n => format!("the largest of {n} nodes"),
    };
    let (mut never, mut not_now) = (Vec::new(), Vec::new());
    for (resource, needed) in needs {
        let largest = capacity.largest.get(resource.as_str()).copied().unwrap_or_default();
        let (wants, has) = (amount(resource, *needed), amount(resource, largest));
        if largest == 0 && *needed > 0 {
            never.push(format!("no node has {resource}, and the run needs {wants}"));
        } else if *needed > largest {
            never.push(format!("no node has {wants}: {nodes} has {has}"));
        } else if is_short(scheduler, resource) {
            not_now.push(format!("the run needs {wants}, and {nodes} has {has}"));
        }
    }
    never.into_iter().chain(not_now).collect()
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
    match resource {
        "cpu" if amount.is_multiple_of(1000) => format!("{} CPUs", amount / 1000),
        "cpu" => format!("{}.{:03}", amount / 1000, amount % 1000).trim_end_matches('0').to_owned() + " CPUs",
        "memory" => format!("{} of memory", size(amount)),
        "ephemeral-storage" => format!("{} of ephemeral-storage", size(amount)),
        _ => format!("{amount} {resource}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(nodes: usize) -> Capacity {
        let largest = [("cpu", 64_000), ("memory", 512 << 30), ("nvidia.com/gpu", 8), ("nvidia.com/gpu-b", 2)];
        Capacity { nodes, largest: largest.map(|(resource, amount)| (resource.into(), amount)).into() }
    }

    fn said(needs: &[(&str, u64)], nodes: usize, scheduler: &str) -> String {
        let needs = needs.iter().map(|(resource, amount)| ((*resource).to_owned(), *amount)).collect();
        numbers(&needs, &capacity(nodes), scheduler).join("; ")
    }

    #[test]
    fn what_no_node_could_ever_give_is_told_whatever_the_scheduler_says() {
        let tainted = "0/12 nodes are available: 12 node(s) had untolerated taint(s).";
        for (needs, expected) in [
            (("nvidia.com/gpu", 99), "no node has 99 nvidia.com/gpu: the largest of 12 nodes has 8 nvidia.com/gpu"),
            (("cpu", 64_010), "no node has 64.01 CPUs: the largest of 12 nodes has 64 CPUs"),
            (("memory", 513 << 30), "no node has 513.0 GiB of memory: the largest of 12 nodes has 512.0 GiB of memory"),
            (("amd.com/gpu", 1), "no node has amd.com/gpu, and the run needs 1 amd.com/gpu"),
            (("cpu", 64_000), ""),
        ] {
            assert_eq!(said(&[needs], 12, tainted), expected);
        }
    }

    #[test]
    fn what_there_is_too_little_of_now_is_told_as_the_scheduler_names_it() {
        let needs = [("cpu", 1010), ("nvidia.com/gpu", 4), ("nvidia.com/gpu-b", 1)];
        let scheduler = "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint(s).";
        let gpus = "the run needs 4 nvidia.com/gpu, and the largest of 2 nodes has 8 nvidia.com/gpu";
        assert_eq!(said(&needs, 2, scheduler), gpus);
        assert_eq!(said(&needs, 2, "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."), gpus);
        let cpu = "the run needs 1.01 CPUs, and the only node has 64 CPUs";
        assert_eq!(said(&needs, 1, "0/1 nodes are available: 1 Insufficient cpu."), cpu);
        assert_eq!(said(&needs, 2, "0/2 nodes are available: 2 node(s) didn't match node selector."), "");
    }
}

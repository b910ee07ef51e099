//! Which nodes the next attempt is rather not put on.

use super::*;

/// The pod's preference, as Kubernetes reads it, after attempts on these nodes that ended for these causes.
fn preference(attempts: &[(&str, &str)]) -> Value {
    let next = u32::try_from(attempts.len()).unwrap() + 1;
    let entry = |(i, (node, cause)): (usize, &(&str, &str))| {
        json!({"attempt": i + 1, "pod": format!("r-{}", i + 1), "uid": format!("p{}", i + 1), "node": node,
            "cause": cause, "startTime": time(1), "finishTime": time(2)})
    };
    let attempts: Vec<_> = attempts.iter().enumerate().map(entry).collect();
    let status = json!({"phase": "Pending", "attempt": next, "attempts": attempts});
    let run = with_status(&run(), &serde_json::from_value(status).unwrap());
    let plan = look(&run, PodSeen::Absent, 300);
    serde_json::to_value(created(&plan)).unwrap()["spec"]["affinity"].clone()
}

#[test]
fn an_attempt_prefers_nodes_where_none_before_it_met_a_cause_of_the_node() {
    for (attempts, avoided) in [
        (&[][..], &[][..]),
        (&[("a", "GpuUnavailable")], &["a"]),
        (&[("a", "UnexpectedAdmissionError")], &["a"]),
        (&[("a", "TopologyAffinityError")], &["a"]),
        (&[("a", "NeverStarted")], &["a"]),
        (&[("a", "StagingFailed")], &["a"]),
        (&[("a", "PodDeleted")], &[]),
        (&[("a", "Evicted")], &[]),
        (&[("a", "NodeOutOfMemory")], &[]),
        (&[("b", "GpuUnavailable"), ("a", "NeverStarted")], &["a", "b"]),
        (&[("a", "GpuUnavailable"), ("b", "PodDeleted")], &["a"]),
        (&[("a", "GpuUnavailable"), ("a", "GpuUnavailable")], &["a"]),
    ] {
        let affinity = preference(attempts);
        if avoided.is_empty() {
            assert_eq!(affinity, Value::Null, "{attempts:?}");
            continue;
        }
        // A preference: a cluster of one node goes on. The API server takes one value in a requirement of a field.
        let fields: Vec<_> =
            avoided.iter().map(|node| json!({"key": "metadata.name", "operator": "NotIn", "values": [node]})).collect();
        let term = json!({"weight": 100, "preference": {"matchFields": fields}});
        let expected = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}});
        assert_eq!(affinity, expected, "{attempts:?}");
    }
}

#[test]
fn an_attempt_that_was_on_no_node_tells_nothing_about_one() {
    let status = json!({"phase": "Pending", "attempt": 2, "attempts": [
        {"attempt": 1, "pod": "r-1", "uid": "p1", "cause": "NeverStarted", "startTime": time(1), "finishTime": time(2)}]});
    let run = with_status(&run(), &serde_json::from_value(status).unwrap());
    assert_eq!(created(&look(&run, PodSeen::Absent, 300)).spec.as_ref().unwrap().affinity, None);
}

//! How large things get.

use super::*;

const STATUS_MAX_BYTES: usize = 32 * 1024;

fn bytes(value: &impl serde::Serialize) -> usize {
    serde_json::to_string(value).unwrap().len()
}

#[test]
fn a_simple_runs_pod_is_below_7_kb() {
    let plan = look(&run(), PodSeen::Absent, 0);
    let size = bytes(created(&plan));
    assert!(size < 7 * 1024, "{size}");
}

#[test]
fn a_simple_runs_object_is_below_4_kb() {
    let run = with_status(&run(), &written(&look_at(&run(), &pod().running(5), 7)));
    let run = with_status(&run, &written(&look_at(&run, &pod().reported(&record(0)), 12)));
    let size = bytes(&run);
    assert!(size < 4 * 1024, "{size}");
}

#[test]
fn the_largest_status_is_below_32_kib() {
    let long = "\"\\".repeat(50_000);
    let name = "x".repeat(253);
    let mut run = run_of(json!({"image": "x".repeat(512), "command": "true", "retry": {"interruptions": 100}}));
    for attempt in 1..=12 {
        let mut pod = pod().of_attempt(attempt).running(5).failed(&name, &long);
        pod.0["metadata"]["name"] = json!(name);
        pod.0["spec"]["nodeName"] = json!(name);
        run = with_status(&run, &written(&look_at(&run, &pod, 12)));
    }
    let last = Record { detail: long.clone(), ..record(1) };
    let told = Message::encode(&Report { record: Some(last), ..Report::default() }, long.as_bytes(), long.as_bytes());
    let pod = pod().of_attempt(13).run_ended(1, "Error").helper_ended(0, &told);
    let status = written(&look_at(&run, &pod, 12));
    assert!(status.output.as_ref().unwrap().stdout_tail.as_ref().unwrap().len() > 1000);
    let size = bytes(&status);
    assert!(size < STATUS_MAX_BYTES, "{size}");
}

#[test]
fn long_messages_are_cut_in_the_middle_and_at_a_character() {
    for text in ["ä".repeat(5000), format!("a{}", "ä".repeat(5000))] {
        let status = written(&look_at(&run(), &pod().unschedulable(&text), 2));
        let message = status.waiting.unwrap().message.unwrap();
        assert!(message.len() <= 1030 && message.contains("ä ... ä"));
    }
}

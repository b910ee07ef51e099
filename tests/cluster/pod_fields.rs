//! What a run may say about its pod: groups, labels, annotations, other resources.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::common::{Space, cause, stdout};
use crate::settings;

#[tokio::test]
async fn a_volume_of_roots_is_writable_for_the_group_and_the_output_is_the_same() {
    let space = Space::new().await;
    let volume = |name: &str| json!([{"path": "disk", "claim": {"name": name}}]);
    for name in ["own", "given"] {
        space.claim_on_disk(name).await;
    }
    let writes = "touch disk/mine && stat -c %g disk/mine && id -u && id -g && id -G";
    let own = json!({"command": writes, "runAsUser": 1000, "volumes": volume("own")});
    let given =
        json!({"command": writes, "runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "volumes": volume("given")});
    // The kubelet sets setgid on the volumes of a pod with a group, and a directory made there has it too.
    let tree = "umask 022; mkdir -p a/b; echo c >a/b/c; chmod 700 a";
    let plain = json!({"command": tree, "runAsUser": 1000});
    let grouped = json!({"command": tree, "runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000});
    let (own, given, plain, grouped) = tokio::join!(
        space.run("own", own),
        space.run("given", given),
        space.run("plain", plain),
        space.run("grouped", grouped)
    );
    for (ended, said) in [(&own, "1000\n1000\n0\n0 1000\n"), (&given, "3000\n1000\n2000\n2000 3000\n")] {
        assert_eq!((cause(ended), stdout(ended)), ("Completed", said), "{ended:#?}");
    }
    for ended in [&plain, &grouped] {
        assert_eq!(cause(ended), "Completed", "{ended:#?}");
    }
    let digest = |ended: &bundlerun::api::BundleRunStatus| {
        ended.output.as_ref().unwrap().bundle.as_ref().unwrap().split('@').nth(1).unwrap().to_owned()
    };
    assert_eq!(digest(&plain), digest(&grouped), "who could write to it is no part of an output");
    space.end().await;
}

#[tokio::test]
async fn labels_annotations_and_other_resources_are_those_of_the_pod() {
    let space = Space::with_own_operators().await;
    settings::changed(&space, |settings| {
        settings["pods"] =
            json!({"labels": {"team": "admins", "cost-center": "4711"}, "annotations": {"example.com/a": "admins"}});
    })
    .await;
    // As an administrator advertises a resource without a device plugin:
    // https://kubernetes.io/docs/tasks/administer-cluster/extended-resource-node/
    let nodes: Api<Node> = Api::all(space.client.clone());
    let node = std::env::var("NODE_NAME").unwrap();
    let advertise = async |amount: Value| {
        let patch = Patch::Merge(json!({"status": {"capacity": {"example.com/dongle": amount}}}));
        nodes.patch_status(&node, &PatchParams::default(), &patch).await.unwrap();
    };
    advertise(json!("1")).await;
    let spec = json!({"command": "true", "podLabels": {"team": "mine", "own": "a"},
        "podAnnotations": {"example.com/a": "mine", "example.com/b": "{}"},
        "resources": {"extended": {"example.com/dongle": 1}}});
    let ended = space.run("one", spec).await;
    assert_eq!(cause(&ended), "Completed", "{ended:#?}");
    let pod = space.pods().get("one-1").await.unwrap();
    let (labels, annotations) = (pod.metadata.labels.unwrap(), pod.metadata.annotations.unwrap());
    assert_eq!(["team", "cost-center", "own"].map(|key| labels[key].as_str()), ["admins", "4711", "a"]);
    assert_eq!(["example.com/a", "example.com/b"].map(|key| annotations[key].as_str()), ["admins", "{}"]);
    let limits = pod.spec.unwrap().containers[0].resources.clone().unwrap().limits.unwrap();
    assert_eq!(limits["example.com/dongle"].0, "1");

    let asks = |amount: u32| json!({"command": "true", "resources": {"extended": {"example.com/dongle": amount}}});
    space.start("two", asks(2)).await;
    let waits = space.waits_at("two", "Scheduling").await.waiting.unwrap();
    assert!(waits.message.as_ref().unwrap().contains("example.com/dongle"), "{waits:#?}");
    let gpus = space.run("gpus", json!({"command": "true", "resources": {"extended": {"nvidia.com/gpu": 1}}})).await;
    assert_eq!(cause(&gpus), "InvalidSpec", "{gpus:#?}");
    advertise(Value::Null).await;
    space.end().await;
}

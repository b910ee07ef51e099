//! Every example ends as its manifest says.

use std::path::Path;

use bundlerun::api::{BundleRun, BundleRunStatus};
use kube::ResourceExt;
use kube::api::PostParams;

use crate::common::{Space, together};

#[tokio::test]
async fn every_example_ends_as_its_manifest_says() {
    let space = Space::new().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let texts: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert!(texts.len() >= 6);
    let ended = together(texts.iter().flat_map(|text| text.split("\n---\n").map(move |run| (text, run))).map(
        async |(text, run)| {
            let example: BundleRun = serde_saphyr::from_str(run).unwrap();
            space.runs().create(&PostParams::default(), &example).await.unwrap();
            (text, space.end_of(&example.name_any()).await)
        },
    ))
    .await;
    for (text, status) in ended {
        let expected = text.lines().find_map(|line| line.strip_prefix("# Ends: ")?.strip_suffix('.'));
        assert_eq!(Some(words(&status).as_str()), expected, "{status:#?}");
    }
    space.end().await;
}

fn words(status: &BundleRunStatus) -> String {
    let phase = status.phase.unwrap();
    let reason = status.reason.as_deref().unwrap_or_default();
    let end = match (status.signal, status.exit_code) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, code) => format!("exit code {}", code.unwrap()),
    };
    format!("{phase:?}, {reason}, {end}")
}

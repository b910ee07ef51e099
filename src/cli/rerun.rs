//! `rerun`: the same again, with the very image and inputs that the first run had.

use std::collections::BTreeMap;

use clap::Args;

use crate::api::spec::{ImageSource, Input};
use crate::api::{BundleRun, BundleRunSpec};
use crate::oci::digest_of;

use super::failure::Failure;
use super::run::{self, Then};
use super::runs;
use super::session::Session;

#[derive(Debug, Args)]
pub(super) struct Rerun {
    /// Name of the run
    of: String,
    /// Name of the new run. Default: one that is generated from the old
    #[arg(long)]
    name: Option<String>,
    /// As the spec says, not by the digests that were recorded: tags and inputs may have become others
    #[arg(long)]
    not_pinned: bool,
    #[command(flatten)]
    then: Then,
}

pub(super) async fn rerun(session: &Session, args: &Rerun) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let old = runs::get(&connection, &args.of).await?;
    check_known(&old)?;
    let Again { spec, not_pinned } = again(&old, !args.not_pinned);
    for what in &not_pinned {
        session.out.note(&format!("not pinned: {what}"));
    }
    let labels = own_labels(old.metadata.labels.unwrap_or_default());
    let metadata = run::metadata(args.name.clone(), &run::rerun_prefix(&args.of), labels);
    run::submit(session, &connection, &BundleRun { metadata, spec, status: None }, &args.then).await
}

/// A run can only be made again when all that it asked for is understood.
pub(super) fn check_known(old: &BundleRun) -> Result<(), Failure> {
    if old.spec.unknown_fields.is_empty() {
        return Ok(());
    }
    let fields = old.spec.unknown_fields.join(", ");
    Err(Failure::new(format!("this version of kubectl-bundle does not know {fields}"))
        .hint("use the one of the cluster's operator: without these it would not be the same run"))
}

/// Without those by which programs know what they made: such as Argo CD would delete a run that it did not make.
pub(super) fn own_labels(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.retain(|key, _| {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let is_below = |of: &str| domain.strip_suffix(of).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let is_kept_by = ["app.kubernetes.io", "helm.sh", "argoproj.io", "toolkit.fluxcd.io"].into_iter().any(is_below);
        !(is_kept_by || domain.starts_with("argocd."))
    });
    labels
}

/// A run to be made again.
pub(super) struct Again {
    pub(super) spec: BundleRunSpec,
    /// What may be another now, in words.
    pub(super) not_pinned: Vec<String>,
}

fn again(old: &BundleRun, is_pinned: bool) -> Again {
    again_but_for(old, is_pinned, |_| false)
}

/// The same, with the inputs at some paths left as they were written: others will take their place.
pub(super) fn again_but_for(old: &BundleRun, is_pinned: bool, is_left: impl Fn(&str) -> bool) -> Again {
    let mut spec = old.spec.clone();
    spec.stop = false;
    spec.suspend = false;
    let mut not_pinned = Vec::new();
    if !is_pinned {
        return Again { spec, not_pinned };
    }
    let status = old.status.clone().unwrap_or_default();
    match status.image.and_then(|image| image.reference) {
        Some(reference) => spec.image = Some(reference),
        None => not_pinned.push("the image: none was recorded".to_owned()),
    }
    for input in spec.inputs.iter_mut().filter(|input| !is_left(&input.path)) {
        let recorded = status.inputs.iter().find(|recorded| recorded.path == input.path);
        let reference = recorded.and_then(|recorded| recorded.reference.clone());
        if let Some(what) = pin(input, reference) {
            not_pinned.push(format!("input {}: {what}", input.path));
        }
    }
    Again { spec, not_pinned }
}

/// Why not, where it cannot be.
fn pin(input: &mut Input, recorded: Option<String>) -> Option<&'static str> {
    match (&input.run, &input.image, recorded) {
        (Some(run), _, Some(reference)) => {
            input.image = Some(ImageSource { reference, path: run.path.clone() });
            input.run = None;
            None
        }
        (None, Some(image), Some(reference)) => {
            input.image = Some(ImageSource { reference, path: image.path.clone() });
            None
        }
        // It is named by its digest: there is nothing else to record.
        (None, Some(image), None) if digest_of(&image.reference).is_some() => None,
        (Some(_), ..) | (None, Some(_), None) => Some("no digest was recorded"),
        _ if input.claim.is_some() => Some("a claim has what is in it now"),
        _ if input.config_map.is_some() => Some("a ConfigMap has what is in it now"),
        _ if input.secret.is_some() => Some("a Secret has what is in it now"),
        // Texts, and downloads with their digests, are what they were.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples::{self, DIGEST};
    use serde_json::json;

    #[test]
    fn image_and_inputs_are_those_that_were_recorded() {
        let mut old = examples::succeeded();
        old.spec.stop = true;
        let Again { spec, not_pinned } = again(&old, true);
        let expected = json!({
            "image": format!("docker.io/library/python@{DIGEST}"),
            "command": "python train.py",
            "resources": {"cpus": "2", "memory": "4Gi"},
            "inputs": [
                {"path": "data", "image": {"reference": format!("r.example/a@{DIGEST}"), "path": "train.csv"}},
                {"path": "scripts", "configMap": {"name": "scripts"}},
            ],
        });
        assert_eq!(serde_json::to_value(spec).unwrap(), expected);
        assert_eq!(not_pinned, ["input scripts: a ConfigMap has what is in it now"]);
    }

    #[test]
    fn what_is_named_by_its_digest_is_pinned() {
        let mut old = examples::succeeded();
        let code = json!({"path": ".", "image": {"reference": format!("r.example/code@{DIGEST}")}});
        let other = json!({"path": "x", "image": {"reference": "r.example/code:latest"}});
        old.spec.inputs = serde_json::from_value(json!([code, other])).unwrap();
        assert_eq!(again(&old, true).not_pinned, ["input x: no digest was recorded"]);
    }

    #[test]
    fn labels_of_programs_that_keep_what_they_made_are_not_taken_over() {
        let labels = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), "x".to_owned())).collect();
        let own = ["sweep", "example.com/team", "kueue.x-k8s.io/queue-name", "myapp.kubernetes.io/a"];
        let others = [
            "app.kubernetes.io/instance",
            "argocd.argoproj.io/instance",
            "argocd.example.com/instance",
            "helm.sh/chart",
            "kustomize.toolkit.fluxcd.io/name",
            "helm.toolkit.fluxcd.io/name",
        ];
        assert_eq!(own_labels(labels(&[&own[..], &others].concat())), labels(&own));
    }

    #[test]
    fn a_run_that_never_started_has_nothing_to_be_pinned_to() {
        let Again { spec, not_pinned } = again(&examples::waiting(), true);
        assert_eq!(spec.image.as_deref(), Some("python:3.13"));
        assert_eq!(not_pinned, ["the image: none was recorded"]);
        assert_eq!(again(&examples::waiting(), false).not_pinned, [""; 0]);
    }
}

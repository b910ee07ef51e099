//! What every pod of a run has beside what the operator gives it: cost centres, hints for autoscalers and meshes.

use std::collections::BTreeMap;

use super::fields::{Fields, Problems};
use super::names::{is_key, is_label_value};
use crate::names::is_kept_key;

/// Kubernetes has room for 256 KiB of annotations, of which a run may take all but 12 KiB.
const ANNOTATIONS_MAX_BYTES: usize = 3000;

/// Labels, and annotations.
pub(super) fn metadata(
    mut pods: Fields<'_>,
    problems: &Problems,
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let labels: BTreeMap<String, String> = pods.get("labels").unwrap_or_default();
    let annotations: BTreeMap<String, String> = pods.get("annotations").unwrap_or_default();
    for (path, values) in [(pods.path("labels"), &labels), (pods.path("annotations"), &annotations)] {
        for key in values.keys() {
            if !is_key(key) {
                problems.note(&path, format_args!("{key:?} is no name such as team or example.com/team"));
            }
            if is_kept_key(key) {
                problems.note(&path, format_args!("{key:?} is the operator's or the queue's to set"));
            }
        }
    }
    for (key, value) in labels.iter().filter(|(_, value)| !is_label_value(value)) {
        problems.note(&format!("{}.{key}", pods.path("labels")), format_args!("{value:?} is no value of a label"));
    }
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > ANNOTATIONS_MAX_BYTES {
        problems.note(
            &pods.path("annotations"),
            format_args!("{bytes} bytes are too many: at most {ANNOTATIONS_MAX_BYTES}"),
        );
    }
    (labels, annotations)
}

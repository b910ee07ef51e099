//! The store of outputs, and how registries are spoken to.

use std::time::Duration;

use super::fields::{Fields, Problems};
use crate::api::Quantity;
use crate::contract::{Background, Registries};
use crate::plan::facts::settings::Store;

/// The Secret with the store's credentials when the settings name none.
const SECRET_NAME: &str = "bundle-store";
/// Certificates travel in an annotation of each pod, beside the command.
const CA_MAX_BYTES: usize = 16 * 1024;
/// Files that a helper pushes at once while the command runs.
const CONNECTIONS: u32 = 2;
/// A registry serves many helpers.
const CONNECTIONS_ALLOWED: std::ops::RangeInclusive<u32> = 1..=16;
/// As much as the large files of the working directory have may have been pushed in vain.
const WASTE_PERCENT: u32 = 100;

/// The least that a blob may have: smaller ones would be too many.
const LEAST_MAX_BLOB: u64 = 1 << 20;

/// Reads `store` and `registries`.
pub(in crate::operator) fn read(
    file: &mut Fields<'_>,
    seconds: &impl Fn(&mut Fields<'_>, &'static str, &str) -> Duration,
    problems: &Problems,
) -> (Option<Store>, Registries) {
    let mut registries = file.section("registries");
    let mut insecure: Vec<String> = registries.get("insecure").unwrap_or_default();
    for host in &insecure {
        if host.is_empty() || host.contains(['/', ' ', '@']) {
            problems.note(&registries.path("insecure"), format_args!("{host:?} is no host or host:port"));
        }
    }
    let ca: Option<String> = registries.get("ca");
    if let Some(ca) = &ca {
        let path = registries.path("ca");
        if !ca.contains("-----BEGIN CERTIFICATE-----") {
            problems.note(&path, "must hold certificates in PEM");
        }
        if ca.len() > CA_MAX_BYTES {
            problems.note(&path, format_args!("has {} bytes, at most {CA_MAX_BYTES} fit", ca.len()));
        }
    }
    let store = file.raw("store").map(|value| {
        let mut store = Fields::of("store", Some(value), problems);
        let prefix = prefix(&mut store, problems);
        if store.get("insecure").unwrap_or(false) {
            insecure.extend(prefix.split('/').next().map(str::to_owned));
        }
        Store {
            prefix,
            secret_name: store.get("secretName").unwrap_or_else(|| SECRET_NAME.to_owned()),
            deadline: seconds(&mut store, "deadline", "1h"),
            when_interrupted: seconds(&mut store, "whenInterrupted", "2m"),
            max_blob_bytes: max_blob_bytes(&mut store, problems),
            background: background(&mut store, seconds, problems),
        }
    });
    insecure.sort();
    insecure.dedup();
    (store, Registries { insecure, ca })
}

fn max_blob_bytes(store: &mut Fields<'_>, problems: &Problems) -> Option<u64> {
    let most: Option<Quantity> = store.get("maxBlobSize");
    let bytes = most.and_then(|most| problems.check(&store.path("maxBlobSize"), most.bytes()))?;
    if bytes < LEAST_MAX_BLOB {
        problems.note(&store.path("maxBlobSize"), "must be at least 1Mi");
    }
    Some(bytes)
}

/// What helpers push while commands run.
fn background(
    store: &mut Fields<'_>,
    seconds: &impl Fn(&mut Fields<'_>, &'static str, &str) -> Duration,
    problems: &Problems,
) -> Option<Background> {
    let mut fields = store.section("background");
    let is_enabled = fields.get("enabled").unwrap_or(true);
    let quiet_seconds = seconds(&mut fields, "quiet", "60s").as_secs();
    let connections = fields.get("connections").unwrap_or(CONNECTIONS);
    if !CONNECTIONS_ALLOWED.contains(&connections) {
        let (least, most) = (CONNECTIONS_ALLOWED.start(), CONNECTIONS_ALLOWED.end());
        problems.note(&fields.path("connections"), format_args!("must be between {least} and {most}"));
    }
    let bandwidth: Option<Quantity> = fields.get("bandwidth");
    let bytes_per_second = bandwidth.and_then(|rate| problems.check(&fields.path("bandwidth"), rate.bytes()));
    if bytes_per_second == Some(0) {
        problems.note(&fields.path("bandwidth"), "must be more than 0; leave it out for no limit");
    }
    let waste_percent = fields.get("wastePercent").unwrap_or(WASTE_PERCENT);
    is_enabled.then_some(Background { quiet_seconds, connections, bytes_per_second, waste_percent })
}

/// `oci://host[:port][/prefix]` without its scheme.
fn prefix(store: &mut Fields<'_>, problems: &Problems) -> String {
    let url = store.required("url", "where outputs go, such as oci://registry.example.com/bundles");
    let prefix = url.strip_prefix("oci://").unwrap_or(&url);
    let mut parts = prefix.split('/');
    let host = parts.next().unwrap_or_default();
    let is_host = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c));
    let is_part = |part: &str| {
        let edges = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(edges) && part.ends_with(edges) && part.chars().all(|c| edges(c) || "._-".contains(c))
    };
    let well_formed = url.starts_with("oci://") && is_host && parts.all(is_part);
    if !url.is_empty() && !well_formed {
        problems.note(&store.path("url"), format_args!("{url:?} is not oci://host[:port][/prefix] in lower case"));
    }
    prefix.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;

    #[test]
    fn a_store_is_a_registry_and_a_prefix() {
        let text =
            "images: {cpu: a, gpu: b}\nstore: {url: 'oci://r.example.com:5000/a/b', insecure: true, deadline: 10m}";
        let settings = parse(text, "us").unwrap();
        let store = settings.store.unwrap();
        assert_eq!(store.repository("ns"), "r.example.com:5000/a/b/ns");
        assert_eq!((store.secret_name.as_str(), store.deadline.as_secs()), ("bundle-store", 600));
        assert_eq!(settings.registries.insecure, ["r.example.com:5000"]);
        assert_eq!(parse("images: {cpu: a, gpu: b}", "us").unwrap().store, None);
    }

    #[test]
    fn large_files_are_pushed_early_unless_that_is_switched_off() {
        let background = |text: &str| {
            let text = format!("images: {{cpu: a, gpu: b}}\nstore: {{url: 'oci://r', background: {text}}}");
            parse(&text, "us").unwrap().store.unwrap().background
        };
        let usual =
            Background { quiet_seconds: 60, connections: 2, bytes_per_second: None, waste_percent: WASTE_PERCENT };
        assert_eq!(background("{}"), Some(usual));
        let other =
            Background { quiet_seconds: 300, connections: 4, bytes_per_second: Some(100 << 20), waste_percent: 0 };
        assert_eq!(background("{quiet: 5m, connections: 4, bandwidth: 100Mi, wastePercent: 0}"), Some(other));
        assert_eq!(background("{enabled: false}"), None);
    }

    #[test]
    fn blobs_have_the_bound_that_is_set() {
        let store = |text: &str| {
            parse(&format!("images: {{cpu: a, gpu: b}}\nstore: {{url: 'oci://r'{text}}}"), "us").unwrap().store.unwrap()
        };
        assert_eq!(store("").max_blob_bytes, None);
        assert_eq!(store(", maxBlobSize: 5Gi").max_blob_bytes, Some(5 << 30));
    }

    #[test]
    fn what_is_no_registry_is_told() {
        for (store, field) in [
            ("store: {}", "store.url"),
            ("store: {url: 'https://r.example.com'}", "store.url"),
            ("store: {url: 'oci://r/A'}", "store.url"),
            ("store: {url: 'oci://'}", "store.url"),
            ("store: {url: 'oci://r/a/'}", "store.url"),
            ("store: {url: 'oci://r', deadline: soon}", "store.deadline"),
            ("store: {url: 'oci://r', more: 1}", "store.more"),
            ("store: {url: 'oci://r', maxBlobSize: 1000Ki}", "store.maxBlobSize"),
            ("store: {url: 'oci://r', maxBlobSize: large}", "store.maxBlobSize"),
            ("store: {url: 'oci://r', background: {quiet: soon}}", "store.background.quiet"),
            ("store: {url: 'oci://r', background: {connections: 0}}", "store.background.connections"),
            ("store: {url: 'oci://r', background: {connections: 17}}", "store.background.connections"),
            ("store: {url: 'oci://r', background: {bandwidth: 0}}", "store.background.bandwidth"),
            ("store: {url: 'oci://r', background: {bandwidth: fast}}", "store.background.bandwidth"),
            ("store: {url: 'oci://r', background: {wastePercent: -1}}", "store.background.wastePercent"),
            ("store: {url: 'oci://r', background: {more: 1}}", "store.background.more"),
            ("registries: {insecure: ['http://r']}", "registries.insecure"),
            ("registries: {ca: nonsense}", "registries.ca"),
        ] {
            let problems = parse(&format!("images: {{cpu: a, gpu: b}}\n{store}"), "us").unwrap_err();
            assert!(problems.contains(&format!("{field}: ")), "{store}: {problems}");
        }
    }
}

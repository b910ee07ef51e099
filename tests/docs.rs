//! The guide agrees with the sources: every cause a run can end with has a line that says what to do.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

fn captures(pattern: &str, text: &str) -> BTreeSet<String> {
    Regex::new(pattern).unwrap().captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// The sources below a folder, without tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| !path.ends_with("tests"))
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .collect()
}

fn text_of(folder: &str) -> String {
    sources(&root().join(folder)).iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// What our sources name as a cause; reasons of Kubernetes that are passed on are not among them.
fn causes() -> BTreeSet<String> {
    let report = read("src/report.rs");
    let of_the_runner = report.split_once("pub enum Cause {").unwrap().1.split_once("\n}").unwrap().0;
    let mut causes = captures(r"(?m)^    (\w+),$", of_the_runner);
    causes.extend(captures(r#"(?:failed|interrupted)\(\s*"(\w+)""#, &text_of("src/plan")));
    causes
}

/// First column of the guide's table.
fn explained() -> BTreeSet<String> {
    let guide = read("docs/images.md");
    let table = guide.split_once("| cause | what to do |").unwrap().1;
    let rows =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next().map(|cell| format!("`{cell}")));
    rows.flat_map(|cell| captures("`([A-Z][A-Za-z]+)`", &cell)).collect()
}

#[test]
fn every_cause_is_in_the_guide() {
    let causes = causes();
    assert!(causes.len() > 25, "{causes:?}");
    let missing: Vec<_> = causes.difference(&explained()).cloned().collect();
    assert!(missing.is_empty(), "docs/images.md, `When it does not work`, lacks: {missing:?}");
}

#[test]
fn every_cause_is_a_value_of_the_label_of_metrics() {
    let known = captures(r#""(\w+)""#, &read("src/operator/metrics/causes.rs"));
    let missing: Vec<_> = causes().difference(&known).cloned().collect();
    assert!(missing.is_empty(), "src/operator/metrics/causes.rs lacks: {missing:?}");
}

#[test]
fn the_guide_explains_no_cause_that_is_none() {
    let text = text_of("src");
    let unknown: Vec<_> = explained()
        .into_iter()
        .filter(|cause| !Regex::new(&format!(r"\b{cause}\b")).unwrap().is_match(&text))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_link_to_a_file_goes_somewhere() {
    for page in ["README.md", "docs/images.md", "docs/bundles.md"] {
        let folder = root().join(page).parent().unwrap().to_owned();
        for link in captures(r"\]\(([^)#]+)[^)]*\)", &read(page)) {
            assert!(link.contains("://") || folder.join(&link).exists(), "{page}: {link}");
        }
    }
}

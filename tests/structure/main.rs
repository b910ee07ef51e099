//! The module order of `src/lib.rs`, kept by reading the sources: a module uses only modules above it, `plan` does no
//! I/O and reads no clock, and the runner knows nothing of Kubernetes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice)]

mod circles;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use regex::Regex;

/// A module and the modules of this crate that it may use, in the order of the map in `src/lib.rs`.
const MAY_USE: [(&str, &[&str]); 12] = [
    ("bugs", &[]),
    ("names", &[]),
    ("oci", &["names"]),
    ("contract", &["names", "oci"]),
    ("api", &["names", "oci", "contract"]),
    ("bundle", &["names", "oci", "contract", "api"]),
    ("plan", &["names", "oci", "contract", "api", "bundle"]),
    ("cluster", &["names", "oci", "contract", "api", "bundle", "plan"]),
    ("operator", &["names", "oci", "contract", "api", "bundle", "plan", "cluster"]),
    ("docs", &["names", "api", "plan", "operator"]),
    // Inside the pod: nothing of Kubernetes.
    ("runner", &["names", "oci", "contract"]),
    ("helper", &["names", "oci", "contract", "bundle", "runner"]),
];
/// May use everything, and nobody uses it.
const LAST: &str = "cli";

/// What a file may not contain: by the begin of its path below `src`.
const FORBIDDEN: [(&str, &[&str], &str); 8] = [
    (
        "plan",
        &[
            r"std::(fs|net|env|process|thread|io)\b",
            r"\b(Instant|SystemTime)\b",
            r"\b(Timestamp|Zoned)::now\b",
            r"\btokio\b|\breqwest\b",
            r"\bkube::[^;]*\b(Client|Api)\b",
            r"\bkube_runtime\b",
            r"\brand\b|\bgetrandom\b",
            r"\b(e?println|dbg)!",
            r"\btracing\b|\blog::",
        ],
        "plan is pure: facts and the time come in, steps go out",
    ),
    ("plan", &[r"crate::operator|crate::cluster"], "plan decides, others act"),
    (
        "runner",
        &[r"\bkube\b", r"\bkube_runtime\b", r"\bk8s_openapi\b", r"\btokio\b", r"\bjiff\b"],
        "the runner stays small and static",
    ),
    ("helper", &[r"\bkube\b", r"\bkube_runtime\b", r"\bk8s_openapi\b"], "the helper has no access to the API server"),
    ("helper", &[r"\beprintln!"], "log_line! makes one line of whatever is said"),
    ("bundle", &[r"\beprintln!"], "log_line! makes one line of whatever is said"),
    ("contract", &[r"\bkube\b", r"\bk8s_openapi\b", r"\btokio\b", r"std::(fs|net|env)\b"], "contract is data"),
    ("names.rs", &[r"\bkube\b", r"\bk8s_openapi\b", r"\btokio\b", r"\buse\b"], "names are strings"),
];

/// What is wrong with a source file. `path` is relative to `src`.
fn problems(path: &str, text: &str) -> Vec<String> {
    let code = code_of(path, text);
    let mut problems = imports(path, &code);
    for (place, patterns, why) in FORBIDDEN {
        if path != place && !path.starts_with(&format!("{place}/")) {
            continue;
        }
        for pattern in patterns {
            if let Some(found) = Regex::new(pattern).unwrap().find(&code) {
                problems.push(format!("{path}: `{}`: {why}", found.as_str()));
            }
        }
    }
    problems
}

/// Without comments, and without tests, which may read files and make clocks.
fn code_of(path: &str, text: &str) -> String {
    if path.contains("/tests/") || path.ends_with("/tests.rs") {
        return String::new();
    }
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    // A `//` in a string is followed by no space; a comment at the end of a line is.
    lines.map(|line| line.split(" // ").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn imports(path: &str, code: &str) -> Vec<String> {
    let module = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    if ["lib", "bin", LAST].contains(&module) {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{path}: `{module}` has no place in the module order: add it to tests/structure")];
    };
    let used = modules_used(path, code);
    let upward = used.iter().filter(|used| *used != module && !allowed.contains(&used.as_str()));
    upward.map(|used| format!("{path}: `{module}` may not use `{used}`")).collect()
}

/// The modules of this crate that are named after `crate::`, in `crate::{...}` or by a `super` that leaves the module.
fn modules_used(path: &str, code: &str) -> BTreeSet<String> {
    let mut used: BTreeSet<String> =
        Regex::new(r"\bcrate::(\w+)").unwrap().captures_iter(code).map(|c| c[1].to_owned()).collect();
    for group in Regex::new(r"\bcrate::\{").unwrap().find_iter(code) {
        used.extend(first_words(&code[group.end()..]));
    }
    // `src/a.rs` and `src/a/mod.rs` are one below the crate, `src/a/b.rs` is two.
    let depth = path.split('/').count() - usize::from(path.ends_with("/mod.rs"));
    let out = format!(r"\b(?:super::){{{depth}}}(\w+)");
    used.extend(Regex::new(&out).unwrap().captures_iter(code).map(|c| c[1].to_owned()).filter(|word| word != "super"));
    used
}

/// The first word of every item of a group of imports, up to its closing brace.
fn first_words(group: &str) -> Vec<String> {
    let (mut depth, mut words, mut word) = (0, Vec::new(), String::new());
    let mut taking = true;
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                words.push(std::mem::take(&mut word));
                taking = true;
            }
            ':' => taking = false,
            c if taking && depth == 0 && !c.is_whitespace() => word.push(c),
            _ => {}
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// All files below `src`, with what is in them.
fn all_sources() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let path = |file: &Path| file.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
    let files: Vec<_> = sources(&src).iter().map(|file| (path(file), fs::read_to_string(file).unwrap())).collect();
    assert!(files.len() > 30, "the sources were not found");
    files
}

#[test]
fn every_module_uses_only_modules_above_it() {
    let problems: Vec<_> = all_sources().iter().flat_map(|(path, text)| problems(path, text)).collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let files: Vec<_> = all_sources().into_iter().map(|(path, text)| (path.clone(), code_of(&path, &text))).collect();
    let circles = circles::circles(&files);
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn the_map_in_lib_rs_has_every_module() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for module in Regex::new(r"(?m)^pub mod (\w+);").unwrap().captures_iter(&lib) {
        let name = &module[1];
        assert!(lib.contains(&format!("//! | `{name}`")) || lib.contains(&format!("//! | [`{name}`]")), "{name}");
    }
}

#[test]
fn the_runner_is_built_without_kubernetes() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--no-default-features", "-e", "normal", "--offline", "--locked", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let packages: BTreeSet<_> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(packages.contains("bundlerun") && packages.contains("serde_json"), "{tree}");
    for heavy in
        ["kube", "kube-client", "kube-core", "kube-runtime", "k8s-openapi", "tokio", "jiff", "schemars", "axum", "clap"]
    {
        assert!(!packages.contains(heavy), "the runner depends on {heavy}");
    }
}

/// What tests make go wrong: the compiler refuses it without debug assertions, and no build for users asks for it.
#[test]
fn no_release_has_faults() {
    let read = |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let refusal = "#[cfg(not(debug_assertions))]\ncompile_error!(";
    assert!(read("src/cluster/client/faults.rs").contains(refusal));
    assert!(read("Cargo.toml").contains("\ndefault = [\"operator\"]\n"));
    for build in ["deploy/build", ".ci/run"] {
        assert!(!read(build).contains("faults"), "{build}");
    }
    let gate = Regex::new(r"(?m)^ *#\[cfg\(feature = .faults.\)\]\n.*$").unwrap();
    let word = Regex::new(r"\bFaults?\b").unwrap();
    for (path, text) in all_sources().iter().filter(|(path, _)| path != "cluster/client/faults.rs") {
        assert!(!word.is_match(&gate.replace_all(text, "")), "{path} has it in every build");
    }
}

#[test]
fn the_checker_sees_what_it_looks_for() {
    let bad = [
        ("names.rs", "use crate::report::Cause;"),
        ("contract/mod.rs", "use crate::api::BundleRun;"),
        ("contract/mod.rs", "use super::api::BundleRun;"),
        ("api/spec.rs", "use crate::plan::plan;"),
        ("api/spec.rs", "use super::super::plan::plan;"),
        ("api/mod.rs", "use super::plan::plan;"),
        ("api/mod.rs", "use crate::{names, plan::{self, Settings}};"),
        ("api/mod.rs", "use crate::{\n    names::{GROUP, KIND},\n    cluster,\n};"),
        ("plan/pod/mod.rs", "fn f() { crate::operator::run() }"),
        ("plan/pod/mod.rs", "use crate::cluster::Cluster;"),
        ("plan/pod/mod.rs", "use crate::runner::Paths;"),
        ("plan/pod/mod.rs", "use std::fs;"),
        ("plan/pod/mod.rs", "let t = std::time::Instant::now();"),
        ("plan/pod/mod.rs", "use std::time::{Duration, SystemTime};"),
        ("plan/pod/mod.rs", "let now = Timestamp::now();"),
        ("plan/pod/mod.rs", "use kube::{Api, ResourceExt};"),
        ("plan/pod/mod.rs", "let c: kube::Client;"),
        ("plan/pod/mod.rs", "tokio::spawn(f)"),
        ("plan/pod/mod.rs", "println!(\"x\")"),
        ("plan/pod/mod.rs", "use tracing::info;"),
        ("plan/pod/mod.rs", "std::env::var(\"X\")"),
        ("cluster/observe.rs", "use crate::operator::Options;"),
        ("runner/mod.rs", "use crate::plan::Settings;"),
        ("runner/mod.rs", "use crate::helper::run;"),
        ("runner/mod.rs", "use kube::Client;"),
        ("runner/mod.rs", "use tokio::fs;"),
        ("helper/mod.rs", "use crate::cluster::Cluster;"),
        ("newcomer/mod.rs", ""),
    ];
    for (path, code) in bad {
        assert!(!problems(path, code).is_empty(), "{path}: {code}");
    }
    let good = [
        ("names.rs", "//! kube's names; no use of anything\npub const A: &str = \"a\";"),
        ("plan/pod/mod.rs", "use crate::api::Phase;\nuse super::settings::Settings;\nuse std::time::Duration;"),
        ("plan/pod/mod.rs", "// std::fs is for others; crate::cluster too\nuse crate::names; // not crate::operator"),
        ("plan/facts.rs", "use kube::Resource;\nuse k8s_openapi::jiff::Timestamp;"),
        ("plan/tests/pods.rs", "use std::fs;"),
        ("plan/gpu.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}"),
        ("cluster/mod.rs", "use crate::{names, plan};\nuse kube::Client;"),
        ("helper/mod.rs", "use crate::runner::Paths;"),
        ("runner/tests.rs", "use crate::helper::run;"),
        ("cli/mod.rs", "use crate::operator::run;"),
    ];
    for (path, code) in good {
        assert_eq!(problems(path, code), Vec::<String>::new());
    }
}

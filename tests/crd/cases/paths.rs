//! Inputs and volumes.

use serde_json::{Value, json};

use super::{Case, accepted, refused};

/// Paths that inputs and volumes may have, and those they may not, with every error.
const GOOD_PATHS: [&str; 18] = [
    "data",
    "data/train",
    ".cache",
    "..data",
    "...",
    "a b",
    "stdout.txt",
    "/data",
    "/etc/app",
    "/tmp/x",
    "/library",
    "/usr/share/x",
    "/var/lib/x",
    "/bundles",
    "/.bundlerun2",
    "/devices",
    "/runs",
    "/home/é",
];
const BAD_PATHS: [(&str, &[&str]); 34] = [
    ("a/", &["must be relative"]),
    ("a//b", &["must be relative"]),
    ("//a", &["must be relative"]),
    ("a:b", &["colons or control characters"]),
    ("a\nb", &["colons or control characters"]),
    ("a\0b", &["colons or control characters"]),
    ("", &["must be relative"]),
    ("/", &["must be relative", "would hide"]),
    ("..", &[". or .. as a part"]),
    ("../a", &[". or .. as a part"]),
    ("a/../b", &[". or .. as a part"]),
    ("./a", &[". or .. as a part"]),
    ("a/.", &[". or .. as a part"]),
    ("/a/..", &[". or .. as a part"]),
    ("/etc", &["would hide"]),
    ("/bin", &["would hide"]),
    ("/sbin", &["would hide"]),
    ("/lib", &["would hide"]),
    ("/lib64", &["would hide"]),
    ("/usr", &["would hide"]),
    ("/var", &["would hide"]),
    ("/tmp", &["would hide"]),
    ("/proc", &["directory of the system"]),
    ("/proc/1", &["directory of the system"]),
    ("/sys/fs", &["directory of the system"]),
    ("/dev/shm", &["directory of the system"]),
    ("/run", &["directory of the system"]),
    ("/var/run/x", &["directory of the system"]),
    ("/.bundlerun", &["directory of the platform"]),
    ("/.bundlerun/bin", &["directory of the platform"]),
    ("/bundle", &["directory of the platform"]),
    ("/bundle/a", &["directory of the platform"]),
    ("stdout", &["output of the command"]),
    ("stderr/a", &["output of the command"]),
];

pub(super) fn volumes() -> Vec<Case> {
    let volume = |path: &str| json!({"path": path, "claim": {"name": "mine"}});
    let list = |paths: &[&str]| json!({"volumes": paths.iter().map(|path| volume(path)).collect::<Vec<_>>()});
    let numbered = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("v{n}")).collect();
        json!({"volumes": names.iter().map(|path| volume(path)).collect::<Vec<_>>()})
    };
    let claim = |claim: Value| json!({"volumes": [{"path": "a", "claim": claim}]});
    let mut cases: Vec<Case> =
        GOOD_PATHS.iter().map(|path| accepted(&format!("volume at {path}"), list(&[path]))).collect();
    for (path, messages) in BAD_PATHS {
        let errors: Vec<_> = messages.iter().map(|message| ("spec.volumes[0].path", *message)).collect();
        cases.push(refused(&format!("volume at {path:?}"), list(&[path]), &errors));
    }
    let inside = ("spec.volumes", "no path may be inside another");
    cases.extend([
        refused("volume at .", list(&["."]), &[("spec.volumes[0].path", "a directory in it, such as data")]),
        accepted("volumes beside each other", list(&["a/b", "a/c", "a/bc", "/a/b"])),
        refused("a volume inside a later one", list(&["a/b", "a"]), &[inside]),
        refused("a volume inside an earlier one", list(&["/a", "/a/b/c"]), &[inside]),
        refused("a path twice", list(&["a", "a"]), &[("spec.volumes[1]", "Duplicate value")]),
        accepted("16 volumes", numbered(16)),
        refused("17 volumes", numbered(17), &[("spec.volumes", "Too many")]),
        accepted("a path of 512", list(&[&"p".repeat(512)])),
        refused("a path of 513", list(&[&"p".repeat(513)]), &[("spec.volumes[0].path", "Too long")]),
        refused(
            "a volume without claim",
            json!({"volumes": [{"path": "a"}]}),
            &[("spec.volumes[0].claim", "Required")],
        ),
        refused("a claim without name", claim(json!({})), &[("spec.volumes[0].claim.name", "Required")]),
        refused(
            "a claim with a bad name",
            claim(json!({"name": "A"})),
            &[("spec.volumes[0].claim.name", "should match")],
        ),
        accepted("a directory of a claim", claim(json!({"name": "a.b", "path": "x/.y/z"}))),
        accepted("a directory of a claim with an odd name", claim(json!({"name": "a", "path": "x:y/z"}))),
        refused(
            "an absolute directory of a claim",
            claim(json!({"name": "a", "path": "/x"})),
            &[("spec.volumes[0].claim.path", "relative to its top")],
        ),
        refused(
            "a directory outside a claim",
            claim(json!({"name": "a", "path": "x/../.."})),
            &[("spec.volumes[0].claim.path", "path in a source must not")],
        ),
    ]);
    cases
}

pub(super) fn inputs() -> Vec<Case> {
    let text = |path: &str| json!({"path": path, "text": "hello"});
    let list = |inputs: &[Value]| json!({"inputs": inputs});
    let mut cases = Vec::new();
    for path in GOOD_PATHS.iter().chain(&["."]) {
        if *path != "." {
            cases.push(accepted(&format!("input at {path}"), list(&[text(path)])));
        }
    }
    for (path, messages) in BAD_PATHS {
        let errors: Vec<_> = messages.iter().map(|message| ("spec.inputs[0].path", *message)).collect();
        cases.push(refused(&format!("input at {path:?}"), list(&[text(path)]), &errors));
    }
    let digest = "0a".repeat(32);
    let sources = [
        json!({"run": {"name": "prepare"}}),
        json!({"run": {"name": "prepare", "path": "a/b.csv"}}),
        json!({"run": {"name": "prepare", "path": "a/b.csv", "snapshot": "latest"}}),
        json!({"image": {"reference": "registry.example.com/models:v3", "path": "weights"}}),
        json!({"claim": {"name": "datasets", "path": "imagenet"}}),
        json!({"configMap": {"name": "scripts"}}),
        json!({"secret": {"name": "token", "key": "a.b"}}),
        json!({"text": ""}),
        json!({"url": {"href": "https://example.com/a?b=c", "sha256": digest}}),
    ];
    for source in &sources {
        let mut input = source.clone();
        input["path"] = json!("a");
        cases.push(accepted(&format!("input from {source}"), list(&[input])));
    }
    for (source, is_file) in sources.iter().zip([false, false, false, false, false, false, true, true, true]) {
        let mut input = source.clone();
        input["path"] = json!(".");
        let name = format!("the entries of {source}");
        let errors = [("spec.inputs[0]", "path . takes the entries of a directory")];
        let input = list(&[input]);
        cases.push(if is_file { refused(&name, input, &errors) } else { accepted(&name, input) });
    }
    // Whatever can be saved can be named.
    for name in [
        "2026-11-26T09:00:00.csv",
        "a b",
        "é\u{1F980}",
        "line\nbreak",
        "\u{1}\u{7f}",
        "...",
        "..a",
        "a\\b",
        "-",
        "$(X)",
        ".wh.a",
    ] {
        for path in [name.to_owned(), format!("dir/{name}"), format!("{name}/file")] {
            let run = json!({"path": "a", "run": {"name": "prepare", "path": path}});
            let image = json!({"path": "b", "image": {"reference": "models:v3", "path": path}});
            let claim = json!({"path": "c", "claim": {"name": "datasets", "path": path}});
            cases.push(accepted(&format!("{path:?} of a source"), list(&[run, image, claim])));
        }
    }
    for path in ["", "/", "/a", "a/", "a//b", "a\0b"] {
        let relative = "relative to its top";
        for (source, field) in [
            (json!({"run": {"name": "a", "path": path}}), "spec.inputs[0].run.path"),
            (json!({"image": {"reference": "a", "path": path}}), "spec.inputs[0].image.path"),
            (json!({"claim": {"name": "a", "path": path}}), "spec.inputs[0].claim.path"),
        ] {
            let mut input = source;
            input["path"] = json!("a");
            cases.push(refused(&format!("{path:?} of {input}"), list(&[input]), &[(field, relative)]));
        }
    }
    let one_source = ("spec.inputs[0]", "exactly one source");
    let dots = "or leave path out for all of the source";
    let bad_sources = [
        (json!({}), vec![one_source]),
        (json!({"text": "", "claim": {"name": "a"}}), vec![one_source]),
        (json!({"run": {"name": "a", "path": ".."}}), vec![("spec.inputs[0].run.path", dots)]),
        (
            json!({"run": {"name": "a", "snapshot": "first"}}),
            vec![("spec.inputs[0].run.snapshot", "Unsupported value")],
        ),
        (json!({"image": {"reference": "a", "path": "b/../c"}}), vec![("spec.inputs[0].image.path", dots)]),
        (json!({"claim": {"name": "a", "path": "."}}), vec![("spec.inputs[0].claim.path", dots)]),
        (json!({"image": {"reference": "A"}}), vec![("spec.inputs[0].image.reference", "must be a reference")]),
        (json!({"url": {"href": "ftp://a", "sha256": digest}}), vec![("spec.inputs[0].url.href", "http or https")]),
        (json!({"url": {"href": "http://a", "sha256": "0A"}}), vec![("spec.inputs[0].url.sha256", "hex digits")]),
    ];
    for (source, errors) in bad_sources {
        let name = format!("input from {source}");
        let mut input = source;
        input["path"] = json!("a");
        cases.push(refused(&name, list(&[input]), &errors));
    }
    for (source, has_mode) in sources.iter().zip([false, false, false, false, false, true, true, true, true]) {
        let mut input = source.clone();
        input["path"] = json!("a");
        input["mode"] = json!(0o755);
        let name = format!("mode of {source}");
        let errors = [("spec.inputs[0].mode", "mode is for text")];
        cases.push(if has_mode { accepted(&name, list(&[input])) } else { refused(&name, list(&[input]), &errors) });
    }
    let numbered = |count: usize| list(&(0..count).map(|n| text(&format!("i{n}"))).collect::<Vec<_>>());
    let long = |path: &str, length: usize| json!({"path": path, "text": "é".repeat(length)});
    let overlap = ("spec.volumes", "no path may be that of an input");
    let with_volume = |input: &str, volume: &str| json!({"inputs": [text(input)], "volumes": [{"path": volume, "claim": {"name": "a"}}]});
    cases.extend([
        accepted("64 inputs", numbered(64)),
        refused("65 inputs", numbered(65), &[("spec.inputs", "Too many")]),
        refused("an input path twice", list(&[text("a"), text("a")]), &[("spec.inputs[1]", "Duplicate value")]),
        refused(
            "an input inside another",
            list(&[text("a"), text("a/b")]),
            &[("spec.inputs", "no path may be inside another")],
        ),
        accepted("texts of 60000 bytes", list(&[long("a", 15_000), long("b", 15_000)])),
        refused(
            "texts of more",
            list(&[long("a", 15_000), long("b", 15_001)]),
            &[("spec.inputs", "60000 bytes of text in all")],
        ),
        refused(
            "a run as its own input",
            list(&[json!({"path": "a", "run": {"name": "run"}})]),
            &[("spec.inputs", "cannot be its own input")],
        ),
        accepted("inputs beside volumes", with_volume("a", "b")),
        refused("an input at a volume", with_volume("a", "a"), &[overlap]),
        refused("an input inside a volume", with_volume("a/b", "a"), &[overlap]),
        refused("an input around a volume", with_volume("a", "a/b"), &[overlap]),
    ]);
    cases
}

pub(super) fn exclude() -> Vec<Case> {
    let exclude = |pattern: &str| json!({"outputs": {"exclude": [pattern]}});
    let mut cases: Vec<Case> = [
        "cache",
        "/cache",
        "./cache",
        "cache/",
        "/cache/",
        "/cache/**",
        "*.tmp",
        "**/*.tmp",
        "/**/*.tmp",
        "**",
        ".hidden",
        "...",
        "..a",
        "a..",
        "a:b",
        "a b",
        "[!a]",
        "\\!a",
        "a!",
        "a,b",
        "{a,b}/c",
        "*.{ckpt,.bak}",
        "/bundles",
        "bundle",
        "a/bundle",
        "line\nbreak",
        "#a",
        "~a",
        "a~",
        "\\~",
        "\\$PWD/a",
        "Outer$Inner.class",
        "$RECYCLE.BIN",
        "**/*$*.class",
    ]
    .map(|pattern| accepted(&format!("exclude {pattern:?}"), exclude(pattern)))
    .into();
    let no_shell = "no shell reads it";
    let (below, dots, choice) = ("must be a path below", ". or .. as a part", "a choice in {}");
    for (pattern, message) in [
        ("/", below),
        ("//", below),
        ("//cache", below),
        ("a//b", below),
        ("a//", below),
        (".//a", below),
        ("a\0b", below),
        (".", dots),
        ("./", dots),
        ("..", dots),
        ("../a", dots),
        ("/..", dots),
        ("./..", dots),
        ("a/../b", dots),
        ("a/..", dots),
        ("a/./b", dots),
        ("a/.", dots),
        ("/.", dots),
        ("././a", dots),
        ("!a", "only leaves out"),
        ("!/a", "only leaves out"),
        ("/bundle", "relative to the working directory"),
        ("/bundle/cache", "relative to the working directory"),
        ("~", no_shell),
        ("~/cache", no_shell),
        ("$PWD/cache", no_shell),
        ("${HOME}/cache", no_shell),
        ("$(pwd)/cache", no_shell),
        ("runs/$NAME", no_shell),
        ("{/a,b}", choice),
        ("{a,../b}", choice),
        ("{a,./b}", choice),
    ] {
        cases.push(refused(&format!("exclude {pattern:?}"), exclude(pattern), &[("spec.outputs.exclude[0]", message)]));
        let of_snapshots = json!({"outputs": {"snapshots": {"exclude": [pattern]}}});
        let at = "spec.outputs.snapshots.exclude[0]";
        cases.push(refused(&format!("exclude from snapshots {pattern:?}"), of_snapshots, &[(at, message)]));
    }
    cases.push(refused(
        "a snapshot every 9s",
        json!({"outputs": {"snapshots": {"every": "9s"}}}),
        &[("spec.outputs.snapshots.every", "from 10s")],
    ));
    cases
}

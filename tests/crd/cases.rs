//! Objects and what the API server says of them. Used in process and against a real API server: both must agree.

use serde_json::{Value, json};

/// One object, or one change of an object.
pub(crate) struct Case {
    /// What it claims.
    pub(crate) name: String,
    /// `metadata.name` of the object.
    pub(crate) object_name: String,
    /// `spec` before the change; none: the object is created.
    pub(crate) old: Option<Value>,
    /// `spec`
    pub(crate) spec: Value,
    /// Not for kube's CEL, which panics on quantities over 38 digits, trims them, and does not know that the order of a
    /// list-map is free.
    pub(crate) only_server: bool,
    /// Every error, as (field, part of the message); none: accepted.
    pub(crate) errors: Vec<(&'static str, &'static str)>,
}

fn case(name: &str, spec: Value, errors: &[(&'static str, &'static str)]) -> Case {
    Case {
        name: name.to_owned(),
        object_name: "run".to_owned(),
        old: None,
        spec,
        only_server: false,
        errors: errors.to_vec(),
    }
}

fn accepted(name: &str, fields: Value) -> Case {
    case(name, with_command(fields), &[])
}

fn refused(name: &str, fields: Value, errors: &[(&'static str, &'static str)]) -> Case {
    assert!(!errors.is_empty(), "{name}");
    case(name, with_command(fields), errors)
}

fn changed(name: &str, old: Value, new: Value, errors: &[(&'static str, &'static str)]) -> Case {
    Case {
        old: Some(with_command(old)),
        ..case(name, with_command(new), errors)
    }
}

/// `fields` and a command, unless they have their own.
fn with_command(fields: Value) -> Value {
    let mut spec = fields;
    if spec.get("command").is_none() && spec.get("argv").is_none() {
        spec["command"] = json!("true");
    }
    spec
}

/// All cases.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = vec![everything()];
    cases.extend(shape());
    cases.extend(commands());
    cases.extend(images());
    cases.extend(env());
    cases.extend(volumes());
    cases.extend(inputs());
    cases.extend(resources());
    cases.extend(durations());
    cases.extend(placement());
    cases.extend(not_yet());
    cases.extend(changes());
    cases
}

/// Every field that works now, at once.
fn everything_spec() -> Value {
    json!({
        "image": "registry.example.com:5000/team/trainer:v1.2",
        "command": "python train.py\necho \"$$ $(NAME)\" # done",
        "env": [
            {"name": "SEED", "value": "7"},
            {"name": "EMPTY", "value": ""},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "token", "optional": true}}},
            {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode.txt"}}},
        ],
        "inputs": [],
        "volumes": [
            {"path": "checkpoints", "claim": {"name": "mine", "path": "a/b"}},
            {"path": "/data", "claim": {"name": "shared"}},
        ],
        "resources": {"gpus": 2, "cpus": "1500m", "memory": "8Gi", "disk": "20Gi", "sharedMemory": "1Gi"},
        "gpuProfile": "default",
        "timeLimit": "1d2h3m4s",
        "outputs": {"exclude": []},
        "retry": {"limit": 0, "interruptions": 3},
        "allowFailedInputs": false,
        "suspend": false,
        "stop": false,
        "nodeSelector": {"example.com/zone": "a", "empty": ""},
        "tolerations": [
            {"key": "dedicated", "operator": "Equal", "value": "ml", "effect": "NoSchedule"},
            {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
        "priorityClassName": "low",
        "schedulerName": "my.scheduler",
        "imagePullSecrets": [{"name": "login"}],
        "serviceAccountName": "research",
        "runAsUser": 1000,
    })
}

fn everything() -> Case {
    case("every field that works now", everything_spec(), &[])
}

fn shape() -> Vec<Case> {
    let long_name = |length: usize| "n".repeat(length);
    vec![
        Case {
            object_name: long_name(52),
            ..accepted("a name of 52 characters", json!({}))
        },
        Case {
            object_name: long_name(53),
            ..refused(
                "a name of 53 characters",
                json!({}),
                &[("", "metadata.name: at most 52 characters")],
            )
        },
        refused(
            "null is no value",
            json!({"image": null}),
            &[("spec.image", "must be of type")],
        ),
        refused(
            "a text is no number",
            json!({"runAsUser": "1"}),
            &[("spec.runAsUser", "must be of type")],
        ),
        accepted("a field we do not have is dropped", json!({"nodeName": "a"})),
    ]
}

fn commands() -> Vec<Case> {
    let one_of = ("spec", "exactly one of command");
    vec![
        case("argv alone", json!({"argv": ["/bin/app", "", "$(A)"]}), &[]),
        case("neither command nor argv", json!({}), &[one_of]),
        case(
            "both command and argv",
            json!({"command": "a", "argv": ["a"]}),
            &[one_of],
        ),
        case(
            "an empty command",
            json!({"command": ""}),
            &[("spec.command", "should be at least")],
        ),
        case(
            "an empty argv",
            json!({"argv": []}),
            &[("spec.argv", "should have at least")],
        ),
        case(
            "an empty program",
            json!({"argv": ["", "a"]}),
            &[("spec.argv", "the program to execute")],
        ),
        case("NUL in command", json!({"command": "a\0b"}), &[("spec.command", "NUL")]),
        case("NUL in argv", json!({"argv": ["a", "b\0"]}), &[("spec.argv[1]", "NUL")]),
        case(
            "control characters in command",
            json!({"command": "printf '\u{1b}[0m\t\r\n'"}),
            &[],
        ),
        case(
            "a command of 100000 bytes",
            json!({"command": "x".repeat(100_000)}),
            &[],
        ),
        case(
            "a command of 100001",
            json!({"command": "x".repeat(100_001)}),
            &[("spec.command", "Too long")],
        ),
        case(
            "a command of too many bytes",
            json!({"command": "é".repeat(50_001)}),
            &[("spec.command", "100000 bytes")],
        ),
        case(
            "argv of 100000 bytes",
            json!({"argv": vec!["x".repeat(20_000); 5]}),
            &[],
        ),
        case(
            "argv of more",
            json!({"argv": vec!["é".repeat(10_001); 5]}),
            &[("spec.argv", "100000 bytes in all")],
        ),
        case(
            "a long argument",
            json!({"argv": ["x".repeat(20_001)]}),
            &[("spec.argv[0]", "Too long")],
        ),
        case("argv of 1024 items", json!({"argv": vec!["x"; 1024]}), &[]),
        case(
            "argv of 1025 items",
            json!({"argv": vec!["x"; 1025]}),
            &[("spec.argv", "Too many")],
        ),
    ]
}

fn images() -> Vec<Case> {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let good = [
        "python".to_owned(),
        "python:3.13".to_owned(),
        "localhost:5000/debian:bookworm".to_owned(),
        "localhost/debian".to_owned(),
        "registry.example.com/a/b__c/d-e.f:V_1".to_owned(),
        "[2001:db8::1]:5000/debian".to_owned(),
        format!("python@{digest}"),
        format!("registry.example.com/python:3.13@{digest}"),
        format!("python@sha512:{}", "0a".repeat(64)),
        format!("a/{}", "b".repeat(510)),
    ];
    let bad = [
        "",
        "Python",
        "docker://python",
        "https://registry.example.com/python",
        "python:",
        "python:3 13",
        "python@",
        "python@sha256:123",
        "-a",
        "a//b",
        "a/",
        "/a",
        "a\n",
        "a:5000/b:c:d",
    ];
    let mut cases: Vec<Case> = good
        .iter()
        .map(|image| accepted(&format!("image {image}"), json!({"image": image})))
        .collect();
    cases.extend(bad.iter().map(|image| {
        let errors = [
            ("spec.image", "should match"),
            ("spec.image", "image must be a reference"),
        ];
        refused(&format!("image {image:?}"), json!({"image": image}), &errors)
    }));
    cases.push(refused(
        "a long image",
        json!({"image": "a".repeat(513)}),
        &[("spec.image", "Too long")],
    ));
    cases
}

fn env() -> Vec<Case> {
    let one = |variable: Value| json!({"env": [variable]});
    let named = |name: &str| one(json!({"name": name, "value": "1"}));
    let mut cases: Vec<Case> = [
        "A",
        "_a",
        "a.b-c",
        ".x",
        "BUNDLE",
        "NVIDIA_DRIVER_CAPABILITIES",
        "PATH",
        "LD_LIBRARY_PATH",
    ]
    .iter()
    .map(|name| accepted(&format!("variable {name}"), named(name)))
    .collect();
    for name in ["1A", "A=B", "A B", "A\n", "é"] {
        cases.push(refused(
            &format!("variable {name:?}"),
            named(name),
            &[("spec.env[0].name", "should match")],
        ));
    }
    for (name, message) in [
        ("BUNDLE_NAME", "BUNDLE_ are set by the operator"),
        ("NVIDIA_VISIBLE_DEVICES", "ask for GPUs with resources.gpus"),
        ("NVIDIA_MIG_CONFIG_DEVICES", "ask for GPUs with resources.gpus"),
        ("NVIDIA_IMEX_CHANNELS", "ask for GPUs with resources.gpus"),
        ("LD_PRELOAD", "set it inside command"),
    ] {
        cases.push(refused(
            &format!("variable {name}"),
            named(name),
            &[("spec.env[0].name", message)],
        ));
    }
    let many = |count: usize| json!({"env": (0..count).map(|n| json!({"name": format!("A{n}"), "value": ""})).collect::<Vec<_>>()});
    let key = json!({"name": "a", "key": "b"});
    let value_or_from = ("spec.env[0]", "exactly one of value and valueFrom");
    let secret_or_config_map = ("spec.env[0].valueFrom", "exactly one of valueFrom.secretKeyRef");
    cases.extend([
        refused(
            "an empty variable name",
            named(""),
            &[
                ("spec.env[0].name", "should be at least"),
                ("spec.env[0].name", "should match"),
            ],
        ),
        refused(
            "a variable without name",
            one(json!({"value": "1"})),
            &[("spec.env[0].name", "Required")],
        ),
        refused(
            "a long variable name",
            named(&"A".repeat(257)),
            &[("spec.env[0].name", "Too long")],
        ),
        refused(
            "a variable twice",
            json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
            &[("spec.env[1]", "Duplicate value")],
        ),
        accepted("256 variables", many(256)),
        refused("257 variables", many(257), &[("spec.env", "Too many")]),
        refused("a variable without value", one(json!({"name": "A"})), &[value_or_from]),
        refused(
            "a variable with both values",
            one(json!({"name": "A", "value": "1", "valueFrom": {"secretKeyRef": key}})),
            &[value_or_from],
        ),
        refused(
            "a value from nowhere",
            one(json!({"name": "A", "valueFrom": {}})),
            &[secret_or_config_map],
        ),
        refused(
            "a value from two places",
            one(json!({"name": "A", "valueFrom": {"secretKeyRef": key, "configMapKeyRef": key}})),
            &[secret_or_config_map],
        ),
        refused(
            "NUL in a value",
            one(json!({"name": "A", "value": "\0"})),
            &[("spec.env[0].value", "NUL")],
        ),
        accepted("a long value", one(json!({"name": "A", "value": "x".repeat(32_768)}))),
        refused(
            "a longer value",
            one(json!({"name": "A", "value": "x".repeat(32_769)})),
            &[("spec.env[0].value", "Too long")],
        ),
        refused(
            "a Secret that no Secret can be named",
            one(json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "A_b", "key": "a/b"}}})),
            &[
                ("spec.env[0].valueFrom.secretKeyRef.key", "should match"),
                ("spec.env[0].valueFrom.secretKeyRef.name", "should match"),
            ],
        ),
    ]);
    cases
}

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
const BAD_PATHS: [(&str, &[&str]); 33] = [
    ("a/", &["should match", "must be relative"]),
    ("a//b", &["should match", "must be relative"]),
    ("//a", &["should match", "must be relative"]),
    ("a:b", &["should match", "must be relative"]),
    ("a\nb", &["should match", "must be relative"]),
    ("", &["should match", "must be relative"]),
    ("/", &["should match", "must be relative", "would hide"]),
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

fn volumes() -> Vec<Case> {
    let volume = |path: &str| json!({"path": path, "claim": {"name": "mine"}});
    let list = |paths: &[&str]| json!({"volumes": paths.iter().map(|path| volume(path)).collect::<Vec<_>>()});
    let numbered = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("v{n}")).collect();
        json!({"volumes": names.iter().map(|path| volume(path)).collect::<Vec<_>>()})
    };
    let claim = |claim: Value| json!({"volumes": [{"path": "a", "claim": claim}]});
    let mut cases: Vec<Case> = GOOD_PATHS
        .iter()
        .map(|path| accepted(&format!("volume at {path}"), list(&[path])))
        .collect();
    for (path, messages) in BAD_PATHS {
        let errors: Vec<_> = messages
            .iter()
            .map(|message| ("spec.volumes[0].path", *message))
            .collect();
        cases.push(refused(&format!("volume at {path:?}"), list(&[path]), &errors));
    }
    let inside = ("spec.volumes", "no path may be inside another");
    cases.extend([
        refused(
            "volume at .",
            list(&["."]),
            &[("spec.volumes[0].path", ". or .. as a part")],
        ),
        accepted("volumes beside each other", list(&["a/b", "a/c", "a/bc", "/a/b"])),
        refused("a volume inside a later one", list(&["a/b", "a"]), &[inside]),
        refused("a volume inside an earlier one", list(&["/a", "/a/b/c"]), &[inside]),
        refused(
            "a path twice",
            list(&["a", "a"]),
            &[("spec.volumes[1]", "Duplicate value")],
        ),
        accepted("16 volumes", numbered(16)),
        refused("17 volumes", numbered(17), &[("spec.volumes", "Too many")]),
        accepted("a path of 512", list(&[&"p".repeat(512)])),
        refused(
            "a path of 513",
            list(&[&"p".repeat(513)]),
            &[("spec.volumes[0].path", "Too long")],
        ),
        refused(
            "a volume without claim",
            json!({"volumes": [{"path": "a"}]}),
            &[("spec.volumes[0].claim", "Required")],
        ),
        refused(
            "a claim without name",
            claim(json!({})),
            &[("spec.volumes[0].claim.name", "Required")],
        ),
        refused(
            "a claim with a bad name",
            claim(json!({"name": "A"})),
            &[("spec.volumes[0].claim.name", "should match")],
        ),
        accepted(
            "a directory of a claim",
            claim(json!({"name": "a.b", "path": "x/.y/z"})),
        ),
        refused(
            "an absolute directory of a claim",
            claim(json!({"name": "a", "path": "/x"})),
            &[("spec.volumes[0].claim.path", "should match")],
        ),
        refused(
            "a directory outside a claim",
            claim(json!({"name": "a", "path": "x/../.."})),
            &[("spec.volumes[0].claim.path", "path in a source")],
        ),
    ]);
    cases
}

const INPUTS_NOT_YET: (&str, &str) = ("spec.inputs", "spec.inputs: not yet supported");

fn inputs() -> Vec<Case> {
    let text = |path: &str| json!({"path": path, "text": "hello"});
    let list = |inputs: &[Value]| json!({"inputs": inputs});
    let mut cases = Vec::new();
    for path in GOOD_PATHS.iter().chain(&["."]) {
        cases.push(refused(
            &format!("input at {path}"),
            list(&[text(path)]),
            &[INPUTS_NOT_YET],
        ));
    }
    for (path, messages) in BAD_PATHS {
        let mut errors = vec![INPUTS_NOT_YET];
        errors.extend(messages.iter().map(|message| ("spec.inputs[0].path", *message)));
        cases.push(refused(&format!("input at {path:?}"), list(&[text(path)]), &errors));
    }
    let digest = "0a".repeat(32);
    let sources = [
        json!({"run": {"name": "prepare"}}),
        json!({"run": {"name": "prepare", "path": "a/b.csv"}}),
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
        cases.push(refused(
            &format!("input from {source}"),
            list(&[input]),
            &[INPUTS_NOT_YET],
        ));
    }
    let one_source = ("spec.inputs[0]", "exactly one source");
    let dots = "path in a source";
    let bad_sources = [
        (json!({}), vec![one_source]),
        (json!({"text": "", "claim": {"name": "a"}}), vec![one_source]),
        (
            json!({"run": {"name": "a", "path": ".."}}),
            vec![("spec.inputs[0].run.path", dots)],
        ),
        (
            json!({"image": {"reference": "a", "path": "b/../c"}}),
            vec![("spec.inputs[0].image.path", dots)],
        ),
        (
            json!({"claim": {"name": "a", "path": "."}}),
            vec![("spec.inputs[0].claim.path", dots)],
        ),
        (
            json!({"image": {"reference": "A"}}),
            vec![("spec.inputs[0].image.reference", "should match")],
        ),
        (
            json!({"url": {"href": "ftp://a", "sha256": digest}}),
            vec![("spec.inputs[0].url.href", "should match")],
        ),
        (
            json!({"url": {"href": "http://a", "sha256": "0A"}}),
            vec![("spec.inputs[0].url.sha256", "should match")],
        ),
    ];
    for (source, errors) in bad_sources {
        let name = format!("input from {source}");
        let mut input = source;
        input["path"] = json!("a");
        let errors: Vec<_> = [INPUTS_NOT_YET].into_iter().chain(errors).collect();
        cases.push(refused(&name, list(&[input]), &errors));
    }
    let numbered = |count: usize| list(&(0..count).map(|n| text(&format!("i{n}"))).collect::<Vec<_>>());
    let long = |path: &str, length: usize| json!({"path": path, "text": "é".repeat(length)});
    let overlap = ("spec.volumes", "no path may be that of an input");
    let with_volume = |input: &str, volume: &str| json!({"inputs": [text(input)], "volumes": [{"path": volume, "claim": {"name": "a"}}]});
    cases.extend([
        refused("64 inputs", numbered(64), &[INPUTS_NOT_YET]),
        refused("65 inputs", numbered(65), &[("spec.inputs", "Too many")]),
        refused(
            "an input path twice",
            list(&[text("a"), text("a")]),
            &[("spec.inputs[1]", "Duplicate value")],
        ),
        refused(
            "an input inside another",
            list(&[text("a"), text("a/b")]),
            &[INPUTS_NOT_YET, ("spec.inputs", "no path may be inside another")],
        ),
        refused(
            "texts of 60000 bytes",
            list(&[long("a", 15_000), long("b", 15_000)]),
            &[INPUTS_NOT_YET],
        ),
        refused(
            "texts of more",
            list(&[long("a", 15_000), long("b", 15_001)]),
            &[INPUTS_NOT_YET, ("spec.inputs", "60000 bytes of text in all")],
        ),
        refused("inputs beside volumes", with_volume("a", "b"), &[INPUTS_NOT_YET]),
        refused(
            "an input at a volume",
            with_volume("a", "a"),
            &[INPUTS_NOT_YET, overlap],
        ),
        refused(
            "an input inside a volume",
            with_volume("a/b", "a"),
            &[INPUTS_NOT_YET, overlap],
        ),
        refused(
            "an input around a volume",
            with_volume("a", "a/b"),
            &[INPUTS_NOT_YET, overlap],
        ),
    ]);
    cases
}

fn resources() -> Vec<Case> {
    let one = |field: &str, value: Value| json!({"resources": {field: value}});
    let mut cases = vec![accepted("no resources", json!({"resources": {}}))];
    for (field, value) in [
        ("gpus", json!(0)),
        ("gpus", json!(1024)),
        ("cpus", json!(1)),
        ("cpus", json!("1m")),
        ("cpus", json!("0.5")),
        ("cpus", json!(".5")),
        ("cpus", json!("1024")),
        ("memory", json!(16_777_216)),
        ("memory", json!("16Mi")),
        ("memory", json!("1.5Gi")),
        ("memory", json!("1e9")),
        ("memory", json!("64Ti")),
        ("disk", json!("1Mi")),
        ("disk", json!("1Pi")),
        ("sharedMemory", json!("1Mi")),
        ("sharedMemory", json!("2Gi")),
    ] {
        cases.push(accepted(&format!("{field} {value}"), one(field, value)));
    }
    for (field, value, at, message) in [
        ("cpus", json!("0"), "spec.resources.cpus", "from 1m to 1024"),
        ("cpus", json!(0), "spec.resources.cpus", "from 1m to 1024"),
        ("cpus", json!(-1), "spec.resources.cpus", "from 1m to 1024"),
        ("cpus", json!("999u"), "spec.resources.cpus", "from 1m to 1024"),
        ("cpus", json!("1024001m"), "spec.resources.cpus", "from 1m to 1024"),
        ("memory", json!("512m"), "spec.resources.memory", "from 16Mi to 64Ti"),
        (
            "memory",
            json!(16_777_215),
            "spec.resources.memory",
            "from 16Mi to 64Ti",
        ),
        ("memory", json!("65Ti"), "spec.resources.memory", "from 16Mi to 64Ti"),
        ("disk", json!("1023Ki"), "spec.resources.disk", "from 1Mi to 1Pi"),
        ("disk", json!("1025Ti"), "spec.resources.disk", "from 1Mi to 1Pi"),
        (
            "sharedMemory",
            json!("1k"),
            "spec.resources.sharedMemory",
            "from 1Mi to 64Ti",
        ),
        (
            "gpus",
            json!(-1),
            "spec.resources.gpus",
            "should be greater than or equal to",
        ),
        (
            "gpus",
            json!(1025),
            "spec.resources.gpus",
            "should be less than or equal to",
        ),
        ("gpus", json!(0.5), "spec.resources.gpus", "must be of type"),
        ("gpus", json!("1"), "spec.resources.gpus", "must be of type"),
        ("cpus", json!(0.5), "spec.resources.cpus", "must be of type"),
        ("memory", json!("1".repeat(33)), "spec.resources.memory", "Too long"),
        (
            "sharedMemory",
            json!("2049Mi"),
            "spec.resources.sharedMemory",
            "must not be more than resources.memory",
        ),
    ] {
        cases.push(refused(
            &format!("{field} {value}"),
            one(field, value),
            &[(at, message)],
        ));
    }
    for value in ["", "1 Gi", "1gb", "1K", "-1", "+1", ".", "1.2.3", "NaN"] {
        let errors = [
            ("spec.resources.memory", "should match"),
            ("spec.resources.memory", "from 16Mi to 64Ti"),
        ];
        cases.push(refused(
            &format!("memory {value:?}"),
            one("memory", json!(value)),
            &errors,
        ));
    }
    let out_of_bounds = ("spec.resources.memory", "from 16Mi to 64Ti");
    let malformed = ("spec.resources.memory", "should match");
    cases.extend([
        Case {
            only_server: true,
            ..refused("memory 1e99", one("memory", json!("1e99")), &[out_of_bounds])
        },
        Case {
            only_server: true,
            ..refused(
                "memory with an end of line",
                one("memory", json!("1Gi\n")),
                &[malformed, out_of_bounds],
            )
        },
        Case {
            only_server: true,
            ..refused(
                "memory 1e1000",
                one("memory", json!("1e1000")),
                &[malformed, out_of_bounds],
            )
        },
        accepted(
            "shared memory as large as memory",
            json!({"resources": {"memory": "4Gi", "sharedMemory": 4_294_967_296_i64}}),
        ),
        refused(
            "shared memory larger than memory",
            json!({"resources": {"memory": "1Gi", "sharedMemory": "1025Mi"}}),
            &[("spec.resources.sharedMemory", "must not be more than resources.memory")],
        ),
    ]);
    cases
}

fn durations() -> Vec<Case> {
    let mut cases: Vec<Case> = ["1s", "365d", "8760h", "90m", "1d12h", "1h1h", "0d1s", "364d23h59m60s"]
        .iter()
        .map(|time| accepted(&format!("time limit {time}"), json!({"timeLimit": time})))
        .collect();
    for time in ["0s", "0d0h", "365d1s", "366d", "8761h", "999999999d"] {
        let errors = [("spec.timeLimit", "timeLimit must be days")];
        cases.push(refused(
            &format!("time limit {time}"),
            json!({"timeLimit": time}),
            &errors,
        ));
    }
    for time in ["", "5", "5 min", "1.5h", "-1s", "1w", "1H", "1h ", "h", "1000000000s"] {
        let errors = [
            ("spec.timeLimit", "should match"),
            ("spec.timeLimit", "timeLimit must be days"),
        ];
        cases.push(refused(
            &format!("time limit {time:?}"),
            json!({"timeLimit": time}),
            &errors,
        ));
    }
    cases.push(refused(
        "a long time limit",
        json!({"timeLimit": "1s".repeat(33)}),
        &[("spec.timeLimit", "Too long")],
    ));
    let not_yet = ("spec.podRetention", "not yet supported");
    cases.push(refused("pod retention 0s", json!({"podRetention": "0s"}), &[not_yet]));
    cases.push(refused(
        "pod retention 366d",
        json!({"podRetention": "366d"}),
        &[not_yet, ("spec.podRetention", "podRetention must be days")],
    ));
    cases
}

fn placement() -> Vec<Case> {
    let selector = |key: &str, value: &str| json!({"nodeSelector": {key: value}});
    let toleration = |toleration: Value| json!({"tolerations": [toleration]});
    let exists = ("spec.tolerations[0]", "operator must be Exists");
    let mut cases = Vec::new();
    for key in ["", "a/b/c", "-a", "A/b", "a b", "/a", "a/"] {
        cases.push(refused(
            &format!("node label {key:?}"),
            selector(key, "a"),
            &[("spec.nodeSelector", "label names")],
        ));
    }
    cases.extend([
        refused(
            "a node label that is too long",
            selector(&"a".repeat(318), "a"),
            &[("spec.nodeSelector", "label names")],
        ),
        refused(
            "a bad label value",
            selector("a", "b c"),
            &[("spec.nodeSelector.a", "should match")],
        ),
        refused(
            "a long label value",
            selector("a", &"b".repeat(64)),
            &[("spec.nodeSelector.a", "Too long")],
        ),
        refused(
            "33 node labels",
            json!({"nodeSelector": (0..33).map(|n| (format!("a{n}"), json!(""))).collect::<serde_json::Map<_, _>>()}),
            &[("spec.nodeSelector", "Too many")],
        ),
        accepted(
            "a toleration by default operator",
            toleration(json!({"key": "a", "value": "b"})),
        ),
        refused("a toleration of nothing", toleration(json!({})), &[exists]),
        refused(
            "a toleration without key",
            toleration(json!({"operator": "Equal", "key": "", "value": "a"})),
            &[exists],
        ),
        refused(
            "a toleration of any value with a value",
            toleration(json!({"operator": "Exists", "value": "a"})),
            &[("spec.tolerations[0]", "there can be no value")],
        ),
        refused(
            "a toleration for a time of what evicts nothing",
            toleration(json!({"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1})),
            &[("spec.tolerations[0]", "needs effect NoExecute")],
        ),
        refused(
            "an unknown operator",
            toleration(json!({"key": "a", "operator": "Like"})),
            &[("spec.tolerations[0].operator", "Unsupported value")],
        ),
        refused(
            "33 tolerations",
            json!({"tolerations": vec![json!({"key": "a"}); 33]}),
            &[("spec.tolerations", "Too many")],
        ),
        accepted("root", json!({"runAsUser": 0})),
        accepted("the largest user id", json!({"runAsUser": 2_147_483_647})),
        refused(
            "a negative user id",
            json!({"runAsUser": -1}),
            &[("spec.runAsUser", "should be greater than")],
        ),
        refused(
            "a user id that is too large",
            json!({"runAsUser": 2_147_483_648_i64}),
            &[("spec.runAsUser", "should be less than")],
        ),
        refused(
            "17 pull secrets",
            json!({"imagePullSecrets": (0..17).map(|n| json!({"name": format!("s{n}")})).collect::<Vec<_>>()}),
            &[("spec.imagePullSecrets", "Too many")],
        ),
        refused(
            "a pull secret twice",
            json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}),
            &[("spec.imagePullSecrets[1]", "Duplicate value")],
        ),
    ]);
    for (field, at) in [
        ("priorityClassName", "spec.priorityClassName"),
        ("schedulerName", "spec.schedulerName"),
        ("serviceAccountName", "spec.serviceAccountName"),
    ] {
        cases.push(refused(
            &format!("{field} with a bad name"),
            json!({field: "A_b"}),
            &[(at, "should match")],
        ));
        cases.push(refused(
            &format!("{field} too long"),
            json!({field: "a".repeat(254)}),
            &[(at, "Too long")],
        ));
    }
    cases
}

fn not_yet() -> Vec<Case> {
    vec![
        refused(
            "gpuProfile",
            json!({"gpuProfile": "mig-1g"}),
            &[("spec.gpuProfile", "spec.gpuProfile: not yet")],
        ),
        refused(
            "gpuProfile with a bad name",
            json!({"gpuProfile": "A"}),
            &[("spec.gpuProfile", "should match"), ("spec.gpuProfile", "not yet")],
        ),
        refused(
            "outputs.exclude",
            json!({"outputs": {"exclude": ["*.tmp"]}}),
            &[("spec.outputs.exclude", "spec.outputs.exclude: not yet")],
        ),
        refused(
            "retry.limit",
            json!({"retry": {"limit": 1}}),
            &[("spec.retry.limit", "spec.retry.limit: not yet")],
        ),
        refused(
            "retry.limit out of bounds",
            json!({"retry": {"limit": 101}}),
            &[
                ("spec.retry.limit", "should be less than"),
                ("spec.retry.limit", "not yet"),
            ],
        ),
        refused(
            "retry.interruptions",
            json!({"retry": {"interruptions": 2}}),
            &[("spec.retry.interruptions", "spec.retry.interruptions: not yet")],
        ),
        refused(
            "allowFailedInputs",
            json!({"allowFailedInputs": true}),
            &[("spec.allowFailedInputs", "spec.allowFailedInputs: not yet")],
        ),
        refused(
            "suspend",
            json!({"suspend": true}),
            &[("spec.suspend", "spec.suspend: not yet")],
        ),
        refused("stop", json!({"stop": true}), &[("spec.stop", "spec.stop: not yet")]),
        refused(
            "podRetention",
            json!({"podRetention": "1h"}),
            &[("spec.podRetention", "spec.podRetention: not yet")],
        ),
        refused(
            "ttlSecondsAfterFinished",
            json!({"ttlSecondsAfterFinished": 60}),
            &[("spec.ttlSecondsAfterFinished", "spec.ttlSecondsAfterFinished: not yet")],
        ),
    ]
}

fn changes() -> Vec<Case> {
    let mut cases = vec![
        changed("the same again", everything_spec(), everything_spec(), &[]),
        changed(
            "suspend and stop may be added",
            json!({}),
            json!({"suspend": false, "stop": false}),
            &[],
        ),
        changed(
            "stop during a run is not yet there",
            json!({}),
            json!({"stop": true}),
            &[("spec.stop", "not yet")],
        ),
        changed(
            "command to argv",
            json!({"command": "a"}),
            json!({"argv": ["a"]}),
            &[
                ("spec.command", "spec.command cannot change"),
                ("spec.argv", "spec.argv cannot change"),
            ],
        ),
        changed(
            "quantities that mean the same",
            json!({"resources": {"cpus": 1, "memory": "2Gi", "disk": "1Gi", "sharedMemory": "1Gi"}}),
            json!({"resources": {"cpus": "1000m", "memory": 2_147_483_648_i64, "disk": "1024Mi", "sharedMemory": "1024Mi"}}),
            &[],
        ),
        Case {
            only_server: true,
            ..changed(
                "the order of variables",
                json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}),
                json!({"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}),
                &[],
            )
        },
        changed(
            "one variable",
            json!({"env": [{"name": "A", "value": "1"}]}),
            json!({"env": [{"name": "A", "value": "2"}]}),
            &[("spec.env", "spec.env cannot change")],
        ),
        changed(
            "inputs added",
            json!({}),
            json!({"inputs": []}),
            &[("spec.inputs", "spec.inputs cannot change")],
        ),
    ];
    let claim = |name: &str| json!([{"path": "a", "claim": {"name": name}}]);
    let fields: [(&str, &'static str, Value, Value); 15] = [
        ("image", "spec.image", json!("a"), json!("b")),
        ("command", "spec.command", json!("a"), json!("b")),
        ("volumes", "spec.volumes", claim("a"), claim("b")),
        ("timeLimit", "spec.timeLimit", json!("1h"), json!("2h")),
        (
            "nodeSelector",
            "spec.nodeSelector",
            json!({"a": "b"}),
            json!({"a": "c"}),
        ),
        (
            "tolerations",
            "spec.tolerations",
            json!([{"key": "a"}]),
            json!([{"key": "b"}]),
        ),
        ("priorityClassName", "spec.priorityClassName", json!("a"), json!("b")),
        ("schedulerName", "spec.schedulerName", json!("a"), json!("b")),
        (
            "imagePullSecrets",
            "spec.imagePullSecrets",
            json!([{"name": "a"}]),
            json!([{"name": "b"}]),
        ),
        ("serviceAccountName", "spec.serviceAccountName", json!("a"), json!("b")),
        ("runAsUser", "spec.runAsUser", json!(1), json!(2)),
        ("gpuProfile", "spec.gpuProfile", json!("default"), Value::Null),
        ("outputs", "spec.outputs", json!({}), Value::Null),
        ("retry", "spec.retry", json!({"limit": 0}), json!({"interruptions": 3})),
        ("allowFailedInputs", "spec.allowFailedInputs", json!(false), Value::Null),
    ];
    for (field, at, one, other) in fields {
        let errors = [(at, "cannot change once the run exists")];
        let spec = |value: &Value| {
            if value.is_null() {
                json!({})
            } else {
                json!({field: value})
            }
        };
        if !other.is_null() {
            cases.push(changed(&format!("{field} changed"), spec(&one), spec(&other), &errors));
        }
        if field != "command" {
            cases.push(changed(&format!("{field} added"), json!({}), spec(&one), &errors));
            cases.push(changed(&format!("{field} removed"), spec(&one), json!({}), &errors));
        }
    }
    let quantities: [(&str, &'static str, Value, Value); 5] = [
        ("gpus", "spec.resources.gpus", json!(1), json!(2)),
        ("cpus", "spec.resources.cpus", json!(1), json!("1001m")),
        ("memory", "spec.resources.memory", json!("2Gi"), json!("2G")),
        ("disk", "spec.resources.disk", json!("2Gi"), json!("3Gi")),
        ("sharedMemory", "spec.resources.sharedMemory", json!("1Gi"), json!("1M")),
    ];
    for (field, at, one, other) in quantities {
        let errors = [(at, "cannot change once the run exists")];
        let spec = |value: &Value| json!({"resources": {field: value}});
        let other = if field == "sharedMemory" { json!("2Mi") } else { other };
        cases.push(changed(&format!("{field} changed"), spec(&one), spec(&other), &errors));
        cases.push(changed(
            &format!("{field} added"),
            json!({"resources": {}}),
            spec(&one),
            &errors,
        ));
        cases.push(changed(
            &format!("{field} removed"),
            spec(&one),
            json!({"resources": {}}),
            &errors,
        ));
    }
    cases.push(changed(
        "resources added",
        json!({}),
        json!({"resources": {"gpus": 1}}),
        &[("spec.resources", "spec.resources cannot change")],
    ));
    cases.push(changed(
        "resources removed",
        json!({"resources": {"gpus": 1}}),
        json!({}),
        &[("spec.resources", "spec.resources cannot change")],
    ));
    cases
}

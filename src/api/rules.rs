//! The rules in CEL that the API server enforces on a `BundleRun`; bounds and patterns stand at the fields themselves.
//!
//! Rules are data, so that every one of them can be tested against an object it accepts and one it refuses. A message
//! names the field and the way out. `oldSelf` makes a rule one for updates only. How CEL is bounded:
//! <https://kubernetes.io/docs/reference/using-api/cel/#resource-constraints>.

use super::{duration, schema};
use crate::names::KEPT_DOMAINS;

/// One rule and where it is evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Path of the schema node that is `self`; `[]` stands for the items of a list, the empty path for the object.
    pub at: &'static str,
    /// The field the error is reported for, relative to `at`; none: `at` itself.
    pub field: Option<String>,
    /// The expression; false refuses the object.
    pub rule: String,
    /// What the user reads.
    pub message: String,
    /// Reported as `Forbidden` instead of `Invalid value`: the value is well-formed, it may just not be there.
    pub forbidden: bool,
}

impl Rule {
    fn new(at: &'static str, rule: impl Into<String>, message: impl Into<String>) -> Self {
        Rule { at, field: None, rule: rule.into(), message: message.into(), forbidden: false }
    }

    fn on(self, field: &str) -> Self {
        Rule { field: Some(format!(".{field}")), ..self }
    }

    fn forbidden(self) -> Self {
        Rule { forbidden: true, ..self }
    }
}

/// All rules, in the order in which errors are listed.
#[must_use]
pub fn all() -> Vec<Rule> {
    let mut rules = command();
    rules.extend(env());
    rules.extend(paths("spec.inputs[].path", "inputs"));
    rules.extend(paths("spec.volumes[].path", "volumes"));
    rules.extend(sources());
    rules.extend(exclude());
    rules.extend(resources());
    rules.extend(times());
    rules.extend(placement());
    rules.extend(pod());
    rules.extend(immutable());
    rules
}

fn command() -> Vec<Rule> {
    vec![
        Rule::new(
            "",
            "self.metadata.name.size() <= 52",
            "metadata.name: at most 52 characters, because the names of pods and saved bundles are made from it; choose a shorter name",
        ),
        Rule::new(
            "spec",
            "has(self.command) != has(self.argv)",
            "spec: set exactly one of command (a line for a shell) and argv (a program and its arguments)",
        ),
        Rule::new("spec.command", NO_NUL, "command must not contain a NUL character: no program can receive it"),
        Rule::new(
            "spec.command",
            "bytes(self).size() <= 100000",
            "command: at most 100000 bytes; put long scripts into the image or a volume",
        ),
        Rule::new("spec.argv[]", NO_NUL, "argv must not contain a NUL character: no program can receive it"),
        Rule::new(
            "spec.argv",
            "self.size() == 0 || self[0] != ''",
            "argv: the first item is the program to execute and cannot be empty",
        ),
        Rule::new(
            "spec.argv",
            "self.map(argument, bytes(argument).size()).sum() <= 100000",
            "argv: at most 100000 bytes in all; put long scripts into the image or a volume",
        ),
        reference("spec.image", "image"),
    ]
}

/// What names an image.
fn reference(at: &'static str, field: &str) -> Rule {
    Rule::new(
        at,
        format!("self.matches(r'{}')", schema::IMAGE),
        format!(
            "{field} must be a reference such as python:3.13, registry.example.com:5000/team/image:v1 or image@sha256:<64 hex digits>: no scheme, no spaces, lower-case repository"
        ),
    )
}

const NO_NUL: &str = r"!self.contains('\u0000')";

const NO_DOTS: &str = "!self.matches('(^|/)[.][.]?(/|$)')";

fn env() -> Vec<Rule> {
    vec![
        Rule::new(
            "spec.env[].name",
            "!self.startsWith('BUNDLE_')",
            "env: names that start with BUNDLE_ are set by the operator; choose another name",
        ),
        Rule::new(
            "spec.env[].name",
            "!(self in ['NVIDIA_VISIBLE_DEVICES', 'NVIDIA_IMEX_CHANNELS']) && !self.startsWith('NVIDIA_MIG_')",
            "env: this variable decides which GPUs a container sees and is set by the platform; ask for GPUs with resources.gpus",
        ),
        Rule::new(
            "spec.env[].name",
            "self != 'LD_PRELOAD'",
            "env: LD_PRELOAD would be loaded into the platform's own processes; set it inside command",
        ),
        Rule::new(
            "spec.env[].value",
            NO_NUL,
            "env: a value must not contain a NUL character: no program can receive it",
        ),
        // The object, with its status, and the pod have to fit etcd's 1.5 MiB.
        Rule::new(
            "spec.env",
            "self.map(variable, has(variable.value) ? bytes(variable.value).size() : 0).sum() <= 200000",
            "env: at most 200000 bytes of values in all; put large values into a file",
        ),
        Rule::new(
            "spec.env[].value",
            "bytes(self).size() <= 100000",
            "env: a value can have at most 100000 bytes; put it into a file",
        ),
        Rule::new(
            "spec.env[]",
            "has(self.value) != has(self.valueFrom)",
            "env: set exactly one of value and valueFrom",
        ),
        Rule::new(
            "spec.env[].valueFrom",
            "has(self.secretKeyRef) != has(self.configMapKeyRef)",
            "env: set exactly one of valueFrom.secretKeyRef and valueFrom.configMapKeyRef",
        ),
    ]
}

/// Where inputs and volumes may be mounted: the same rules for both, but for `.`, which only inputs can be.
fn paths(at: &'static str, field: &str) -> Vec<Rule> {
    let (or_dot, instead) = match field {
        "inputs" => ("self == '.' || ", "write the path out"),
        _ => (
            "",
            "write the path out: a volume cannot be the working directory itself, but a directory in it, such as data",
        ),
    };
    vec![
        Rule::new(
            at,
            format!("self.matches(r'{}')", schema::PATH),
            format!(
                "{field}: path must be relative, such as data/train, or absolute, such as /data, without an empty part or a slash at its end"
            ),
        ),
        // Kubernetes says of mountPath: "Must not contain ':'."
        Rule::new(
            at,
            "!self.matches('[:[:cntrl:]]')",
            format!(
                "{field}: path cannot have colons or control characters, because something is mounted there; choose another name: in its source it may have any"
            ),
        ),
        Rule::new(
            at,
            format!("{or_dot}{NO_DOTS}"),
            format!("{field}: path must not have . or .. as a part; {instead}"),
        ),
        Rule::new(
            at,
            "!self.matches('^(/|/(etc|bin|sbin|lib|lib32|lib64|libx32|usr|var|tmp))$')",
            format!(
                "{field}: path would hide a directory that the image needs; choose a directory below it, or a relative path"
            ),
        ),
        Rule::new(
            at,
            "!self.matches('^/(proc|sys|dev|run|var/run)(/.*)?$')",
            format!("{field}: path is in a directory of the system; choose another path, or a relative one"),
        ),
        Rule::new(
            at,
            "!self.matches('^/([.]bundlerun|bundle)(/.*)?$')",
            format!("{field}: path is in a directory of the platform; for the working directory write a relative path"),
        ),
        Rule::new(
            at,
            "!self.matches('^(stdout|stderr)(/.*)?$')",
            format!(
                "{field}: stdout and stderr in the working directory are the output of the command; choose another path"
            ),
        ),
    ]
}

/// Paths within a source.
const SOURCE_PATHS: [&str; 4] =
    ["spec.inputs[].run.path", "spec.inputs[].image.path", "spec.inputs[].claim.path", "spec.volumes[].claim.path"];

fn sources() -> Vec<Rule> {
    let in_source = |at: &&'static str| {
        [
            Rule::new(
                at,
                format!("self.matches(r'{}')", schema::RELATIVE_PATH),
                "path in a source is relative to its top, such as data/train.csv: no slash at its begin or end, no empty part, no NUL; for all of it leave path out",
            ),
            Rule::new(
                at,
                NO_DOTS,
                "path in a source must not have . or .. as a part; write the path out, or leave path out for all of the source",
            ),
        ]
    };
    let mut rules: Vec<Rule> = SOURCE_PATHS.iter().flat_map(in_source).collect();
    rules.extend([
        reference("spec.inputs[].image.reference", "reference"),
        Rule::new(
            "spec.inputs[].url.href",
            "self.matches('^https?://[^[:space:]]+$')",
            "url.href must be an address with http or https and without spaces, such as https://example.com/data.csv",
        ),
        Rule::new(
            "spec.inputs[].url.sha256",
            "self.matches('^[a-f0-9]{64}$')",
            "url.sha256 must be 64 lower-case hex digits, as sha256sum prints them",
        ),
        Rule::new(
            "spec.inputs[]",
            "[has(self.run), has(self.image), has(self.claim), has(self.configMap), has(self.secret), has(self.text), has(self.url)].filter(source, source).size() == 1",
            "inputs: set exactly one source: run, image, claim, configMap, secret, text or url",
        ),
        Rule::new(
            "spec.inputs[]",
            "!has(self.mode) || has(self.text) || has(self.configMap) || has(self.secret) || has(self.url)",
            "inputs: mode is for text, configMap, secret and url; files of a run, an image or a claim have modes of their own: leave it out",
        )
        .on("mode"),
        Rule::new(
            "spec.inputs",
            "self.all(a, !self.exists(b, a.path.startsWith(b.path + '/')))",
            "inputs: no path may be inside another; choose paths beside each other",
        ),
        Rule::new(
            "",
            "!has(self.spec.inputs) || self.spec.inputs.all(input, !has(input.run) || input.run.name != self.metadata.name)",
            "inputs: a run cannot be its own input; name another run",
        )
        .on("spec.inputs"),
        Rule::new(
            "spec.inputs[]",
            "self.path != '.' || (!has(self.text) && !has(self.url) && !(has(self.configMap) && has(self.configMap.key)) && !(has(self.secret) && has(self.secret.key)))",
            "inputs: path . takes the entries of a directory, and this source is a file; give it a path of its own",
        ),
        Rule::new(
            "spec.inputs",
            "self.map(input, has(input.text) ? bytes(input.text).size() : 0).sum() <= 60000",
            "inputs: at most 60000 bytes of text in all; put long texts into a ConfigMap",
        ),
        Rule::new(
            "spec.volumes",
            "self.all(a, !self.exists(b, a.path.startsWith(b.path + '/')))",
            "volumes: no path may be inside another; choose paths beside each other",
        ),
        Rule::new(
            "spec",
            "!has(self.inputs) || !has(self.volumes) || self.inputs.all(a, !self.volumes.exists(b, a.path == b.path || a.path.startsWith(b.path + '/') || b.path.startsWith(a.path + '/')))",
            "volumes: no path may be that of an input, inside one or around one; choose paths beside each other",
        )
        .on("volumes"),
    ]);
    rules
}

/// What can never match is refused: silence would look like an exclusion. What begins with `/` or `./` is below the
/// working directory, as gitignore reads a leading slash.
fn exclude() -> Vec<Rule> {
    let of = [
        ("spec.outputs.exclude[]", "outputs.exclude"),
        ("spec.outputs.snapshots.exclude[]", "outputs.snapshots.exclude"),
    ];
    of.into_iter().flat_map(|(at, field)| patterns(at, field)).collect()
}

fn patterns(at: &'static str, field: &str) -> Vec<Rule> {
    [
        (
            "!self.startsWith('!')",
            r"a pattern only leaves out, ! takes nothing back; leave that pattern out, or write \! for a name that begins with !",
        ),
        (
            "!self.matches('^~(/|$)') && !self.matches('(^|/)[$]([A-Za-z_][A-Za-z0-9_]*|[{][^}]*[}]|[(][^)]*[)])(/|$)')",
            r"no shell reads it, and ~ and variables stay as they are; for ~/cache or $PWD/cache write cache, or write \~ or \$ for a name that begins so",
        ),
        (
            "!self.matches('^/bundle(/|$)')",
            "patterns are relative to the working directory, which is /bundle; for /bundle/cache write cache, for a directory bundle in it write bundle",
        ),
        (
            r"self.matches(r'^([.]?/)?[^/\x00]+(/[^/\x00]+)*/?$')",
            "a pattern must be a path below the working directory, such as cache, cache/*.tmp or **/*.tmp: no empty part, no NUL",
        ),
        (
            "!self.matches('(^|/)[.][.](/|$)|^[.]/?$|/[.](/|$)')",
            "nothing is saved under a path with . or .. as a part; write the path from the working directory, such as cache or cache/*.tmp",
        ),
        (
            "!self.contains('{') || !self.matches('[{,](/|[.][.]?[/},])')",
            "a choice in {} that begins with /, ./ or ../ matches nothing; write it as it goes on from what is before the {",
        ),
    ]
    .into_iter()
    .map(|(rule, why)| Rule::new(at, rule, format!("{field}: {why}")))
    .collect()
}

fn resources() -> Vec<Rule> {
    let mut rules: Vec<Rule> = [
        ("spec.resources.cpus", "cpus", "1m", "1024", "cores, such as 500m or 8"),
        ("spec.resources.memory", "memory", "16Mi", "64Ti", "bytes, such as 512Mi or 32Gi (m means thousandths)"),
        ("spec.resources.disk", "disk", "1Mi", "1Pi", "bytes, such as 10Gi"),
        ("spec.resources.sharedMemory", "sharedMemory", "1Mi", "64Ti", "bytes, such as 8Gi"),
    ]
    .into_iter()
    .map(|(at, field, least, most, unit)| {
        let quantity = "quantity(string(self))";
        let rule = format!(
            "isQuantity(string(self)) && {quantity}.compareTo(quantity('{least}')) >= 0 && {quantity}.compareTo(quantity('{most}')) <= 0"
        );
        Rule::new(at, rule, format!("resources.{field} must be from {least} to {most} {unit}"))
    })
    .collect();
    let extended = "spec.resources.extended";
    rules.extend([
        Rule::new(
            extended,
            format!(
                "self.all(name, name.matches('^hugepages-[1-9][0-9]*[KMG]i$') || (name.matches(r'{}') && name.matches('^[^/]{{1,244}}/') && !name.matches('^([^/]*[.])?kubernetes[.]io/') && !name.startsWith('requests.')))",
                schema::LABEL_KEY
            ),
            "resources.extended: names are of extended resources, such as rdma/hca, or of huge pages, such as hugepages-2Mi; cpus, memory and disk have fields of their own",
        ),
        Rule::new(
            extended,
            "self.all(name, isQuantity(string(self[name])) && quantity(string(self[name])).isGreaterThan(quantity('0')) && (name.startsWith('hugepages-') || quantity(string(self[name])).isInteger()))",
            "resources.extended: amounts are whole numbers from 1 on, and bytes for huge pages, such as 512Mi",
        ),
        Rule::new(
            extended,
            "self.all(name, !name.matches('^hugepages-[1-9][0-9]*[KMG]i$') || !isQuantity(string(self[name])) || (quantity(name.replace('hugepages-', '')).isInteger() && quantity(string(self[name])).isInteger() && quantity(string(self[name])).asInteger() % quantity(name.replace('hugepages-', '')).asInteger() == 0))",
            "resources.extended: huge pages come in whole pages; ask for a multiple of the size that is in the name, such as 512Mi of hugepages-2Mi",
        ),
    ]);
    rules.push(
        Rule::new(
            "spec.resources",
            "!has(self.sharedMemory) || !isQuantity(string(self.sharedMemory)) || (has(self.memory) ? !isQuantity(string(self.memory)) || quantity(string(self.sharedMemory)).compareTo(quantity(string(self.memory))) <= 0 : quantity(string(self.sharedMemory)).compareTo(quantity('2Gi')) <= 0)",
            "resources.sharedMemory must not be more than resources.memory (2Gi when unset), because it counts as memory; ask for more memory",
        )
        .on("sharedMemory"),
    );
    rules
}

fn times() -> Vec<Rule> {
    let seconds = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)]
        .map(|(unit, seconds)| {
            format!("self.findAll('[0-9]+{unit}').map(part, int(part.replace('{unit}', ''))).sum() * {seconds}")
        })
        .join(" + ");
    [
        ("timeLimit", "spec.timeLimit", "1s", 1),
        ("stopGrace", "spec.stopGrace", "1s", 1),
        ("outputs.snapshots.every", "spec.outputs.snapshots.every", "10s", 10),
        ("retry.backoff", "spec.retry.backoff", "0s", 0),
        ("podRetention", "spec.podRetention", "0s", 0),
    ]
    .into_iter()
    .map(|(field, at, least, least_seconds)| {
        let rule = format!(
            "self.matches('{}') && {seconds} >= {least_seconds} && {seconds} <= {}",
            duration::PATTERN,
            duration::MAX_SECONDS
        );
        let message = format!(
            "{field} must be days, hours, minutes and seconds, such as 1d12h or 90s, from {least} to 365d in all"
        );
        Rule::new(at, rule, message)
    })
    .collect()
}

fn placement() -> Vec<Rule> {
    vec![
        Rule::new(
            "spec.nodeSelector",
            keys_are_names(),
            "nodeSelector: keys must be label names such as zone or example.com/zone, with at most 63 characters behind the slash and 253 before it",
        ),
        Rule::new(
            "spec.tolerations[]",
            format!("!has(self.key) || self.key == '' || ({})", is_key("self.key")),
            "tolerations: key must be a name such as dedicated or example.com/dedicated, with at most 63 characters behind the slash and 253 before it",
        ),
        Rule::new(
            "spec.tolerations[]",
            "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
            "tolerations: without a key the operator must be Exists",
        ),
        Rule::new(
            "spec.tolerations[]",
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
            "tolerations: with operator Exists there can be no value",
        ),
        Rule::new(
            "spec.tolerations[]",
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerations: tolerationSeconds needs effect NoExecute",
        ),
    ]
}

fn is_key(key: &str) -> String {
    format!("{key}.matches(r'{}') && {key}.matches('{}')", schema::LABEL_KEY, schema::LABEL_KEY_LENGTHS)
}

fn keys_are_names() -> String {
    format!("self.all(key, {})", is_key("key"))
}

/// What else the pod has.
fn pod() -> Vec<Rule> {
    let mut rules = vec![
        Rule::new("spec", "!has(self.runAsGroup) || has(self.runAsUser)", "runAsGroup: needs runAsUser; set both")
            .on("runAsGroup"),
        Rule::new(
            "spec.podAnnotations",
            "self.map(key, bytes(key).size() + bytes(self[key]).size()).sum() <= 8000",
            "podAnnotations: at most 8000 bytes in all; put more into a ConfigMap",
        ),
        // The API server takes any profile in them, and a node that has no such profile refuses the pod.
        Rule::new(
            "spec.podAnnotations",
            "!self.exists(key, key.matches('^(container[.]apparmor[.]security[.]beta|(container[.])?seccomp[.]security[.]alpha)[.]kubernetes[.]io/'))",
            "podAnnotations: AppArmor and seccomp profiles are the platform's, and a run has the container runtime's default ones; leave these keys out",
        ),
    ];
    let kept = KEPT_DOMAINS.map(|domain| domain.replace('.', "[.]")).join("|");
    for (at, field) in [("spec.podLabels", "podLabels"), ("spec.podAnnotations", "podAnnotations")] {
        rules.push(Rule::new(
            at,
            keys_are_names(),
            format!(
                "{field}: keys must be names such as team or example.com/team, with at most 63 characters behind the slash and 253 before it"
            ),
        ));
        rules.push(Rule::new(
            at,
            format!("!self.exists(key, key.matches('^([^/]*[.])?({kept})/'))"),
            format!(
                "{field}: keys of {} are the platform's; choose others (a Kueue queue is a label of the BundleRun)",
                KEPT_DOMAINS.join(", ")
            ),
        ));
    }
    rules
}

/// Fields that never change once the run exists; `suspend`, `stop`, `podRetention` and `ttlSecondsAfterFinished` may.
const IMMUTABLE: [&str; 24] = [
    "image",
    "command",
    "argv",
    "env",
    "inputs",
    "volumes",
    "gpuProfile",
    "timeLimit",
    "stopGrace",
    "outputs",
    "retry",
    "allowFailedInputs",
    "onInputFailure",
    "nodeSelector",
    "tolerations",
    "priorityClassName",
    "schedulerName",
    "imagePullSecrets",
    "serviceAccountName",
    "runAsUser",
    "runAsGroup",
    "fsGroup",
    "podLabels",
    "podAnnotations",
];

/// At the parent, not at the field: a rule at a field sees neither its addition nor its removal.
fn immutable() -> Vec<Rule> {
    let rule = |at, field: &str, equal: Option<&str>| {
        let name = if at == "spec" { field.to_owned() } else { format!("resources.{field}") };
        let message = format!(
            "spec.{name} cannot change once the run exists: create a run with another name, or have this one deleted and created anew, record and all (kubectl replace --force; Argo CD: sync options Force=true,Replace=true; Flux: force)"
        );
        let presence = format!("has(self.{field}) == has(oldSelf.{field})");
        let rule = match equal {
            Some(equal) => format!("{presence} && (!has(self.{field}) || {equal})"),
            None => presence,
        };
        Rule::new(at, rule, message).on(field).forbidden()
    };
    let mut rules: Vec<Rule> = IMMUTABLE.iter().map(|field| rule("spec", field, Some(&unchanged(field)))).collect();
    // What is in it is compared one by one: quantities by their value.
    rules.push(rule("spec", "resources", None));
    rules.push(rule("spec.resources", "gpus", Some("self.gpus == oldSelf.gpus")));
    rules.push(rule("spec.resources", "extended", Some("self.extended == oldSelf.extended")));
    for field in ["cpus", "memory", "disk", "sharedMemory"] {
        let equal = format!(
            "(self.{field} == oldSelf.{field} || quantity(string(self.{field})).compareTo(quantity(string(oldSelf.{field}))) == 0)"
        );
        rules.push(rule("spec.resources", field, Some(&equal)));
    }
    rules
}

/// Lists whose order is free. The API server finds their items by key: with one key twice, as it can be stored under
/// another definition, such a list is not even equal to itself.
const LIST_MAPS: [&str; 4] = ["env", "inputs", "volumes", "imagePullSecrets"];

/// These rules hold for every update, that of the status too: what is as it was must pass whatever it is, or nothing
/// could ever be told of the run, and its pod would be held for ever.
fn unchanged(field: &str) -> String {
    let equal = format!("self.{field} == oldSelf.{field}");
    if !LIST_MAPS.contains(&field) {
        return equal;
    }
    format!("({equal} || self.{field}.map(item, item) == oldSelf.{field}.map(item, item))")
}

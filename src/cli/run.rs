//! `run`: a command becomes a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use kube::api::{ObjectMeta, PostParams};

use crate::api::spec::{
    ClaimSource, EnvVar, ImageSource, Input, KeySource, Outputs, Resources, Retry, RunSource, SecretReference,
    Snapshots, Volume, WhichSnapshot,
};
use crate::api::{BundleRun, BundleRunSpec, Quantity};

use super::failure::Failure;
use super::runs;
use super::session::{Answer, Connection, FIELD_MANAGER, Format, Session};
use super::sources::{self, Allowed, Sources};
use super::store::StoreOptions;
use super::upload;
use super::{logs, wait};

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The command. One word is given to the shell as it is; several are quoted, so that each stays what it is
    #[arg(last = true, required = true)]
    command: Vec<String>,
    /// Container image. Default: the administrator's, for GPUs or without
    #[arg(long)]
    image: Option<String>,
    /// Number of whole GPUs
    #[arg(long, default_value_t = 0)]
    gpus: u32,
    /// Name of one of the administrator's GPU profiles
    #[arg(long, value_name = "PROFILE")]
    gpu_profile: Option<String>,
    /// CPU cores, as 8 or 500m. Default: 1
    #[arg(long, value_parser = quantity)]
    cpus: Option<Quantity>,
    /// Memory, as 32Gi. Default: 2Gi
    #[arg(long, value_parser = quantity)]
    memory: Option<Quantity>,
    /// Size that the working directory may reach, as 100Gi
    #[arg(long, value_parser = quantity)]
    disk: Option<Quantity>,
    /// Size of /dev/shm, as 8Gi
    #[arg(long, value_parser = quantity)]
    shared_memory: Option<Quantity>,
    /// How long the command may run, as 1d12h or 30m. Default: no limit
    #[arg(long, value_name = "TIME", value_parser = duration)]
    time: Option<String>,
    /// How long the command has after SIGTERM, as 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    stop_grace: Option<String>,
    /// What the command finds at PATH: the output of a run or a part of it; or snapshot:RUN[/FILE], image:REFERENCE,
    /// claim:NAME[/DIR], configmap:NAME[/KEY], secret:NAME[/KEY]. A colon may stand for the equals sign
    #[arg(short, long, value_name = "PATH=RUN[/FILE]", value_parser = input)]
    input: Vec<Input>,
    /// Upload a directory, less what its .gitignore files name, and have its files, read-only, in the working directory: the
    /// command is what it would be here
    #[arg(long, value_name = "DIR", conflicts_with = "only_checked")]
    code: Option<PathBuf>,
    /// Repository that --code is uploaded to, which the cluster reads too. Default: `$BUNDLE_REPOSITORY`, else where the runs
    /// of the namespace have their outputs
    #[arg(long, value_name = "REPOSITORY[:TAG]", requires = "code")]
    code_to: Option<String>,
    /// A claim that the command may write to
    #[arg(long, value_name = "PATH=CLAIM[/DIR]", value_parser = volume)]
    volume: Vec<Volume>,
    /// Variable of the command; without a value it is that of this shell
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable)]
    env: Vec<EnvVar>,
    /// Go on from the last snapshot after an interruption, or a failure that --retries allows
    #[arg(long)]
    resume: bool,
    /// How often the command may start again after a failure of its own. Default: 0
    #[arg(long, value_name = "NUMBER")]
    retries: Option<u32>,
    /// Keep the working directory every so often while the command runs, as 10m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    snapshots: Option<String>,
    /// Files that are not kept, as '**/*.tmp'
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Secret with a login for the registry of the image
    #[arg(long, value_name = "SECRET")]
    pull_secret: Vec<String>,
    /// Label of the run, for `ls -l`
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Name of the run. Default: a generated one
    #[arg(long)]
    name: Option<String>,
    /// Execute the words as they are, without a shell and its .bashrc
    #[arg(long)]
    argv: bool,
    #[command(flatten)]
    then: Then,
    /// Create nothing: the cluster checks the run, and it is shown as YAML unless -o says otherwise
    #[arg(long = "dry-run", conflicts_with_all = ["wait", "follow"])]
    only_checked: bool,
}

/// What becomes of a run that was made.
#[derive(Clone, Debug, Args)]
pub(super) struct Then {
    /// Wait for its end; a run that does not succeed is exit code 1
    #[arg(long)]
    wait: bool,
    /// Show what the command prints, and wait for its end
    #[arg(short, long)]
    follow: bool,
    /// With --wait or --follow: exit as the command did, where it ended with an exit code other than 0, also one that means
    /// something else here
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    store: StoreOptions,
}

pub(super) async fn run(session: &Session, args: &Run) -> Result<(), Failure> {
    let mut run = made(args);
    let code = args.code.as_deref().map(|dir| sources(dir, &run)).transpose()?;
    let connection = session.connect().await?;
    if let Some(code) = code {
        let to = args.code_to.as_deref();
        run.spec.inputs.push(uploaded(session, &connection, code, to, &args.then.store).await?);
    }
    if args.only_checked {
        let checked = create(&connection, &run, true).await?;
        let asked = args.then.answer.output;
        let format = if asked.is_for_people() { Format::Yaml } else { asked };
        // Only what the user would apply.
        let metadata = ObjectMeta {
            name: checked.metadata.name.filter(|_| run.metadata.name.is_some()),
            namespace: checked.metadata.namespace,
            generate_name: run.metadata.generate_name.clone(),
            labels: run.metadata.labels.clone(),
            ..ObjectMeta::default()
        };
        return session.out.document(format, &BundleRun { metadata, spec: checked.spec, status: None });
    }
    submit(session, &connection, &run, &args.then).await
}

/// What of a directory becomes what is in the working directory.
fn sources(dir: &Path, run: &BundleRun) -> Result<Sources, Failure> {
    let sources = sources::find(dir, Allowed::default())?;
    if sources.file.is_some() {
        return Err(Failure::usage(format!("--code is a directory, and {} is a file", dir.display())));
    }
    let inputs = run.spec.inputs.iter().map(|input| input.path.as_str());
    if inputs.clone().any(|path| path == ".") {
        return Err(Failure::usage("--code is what is at `.`: no other input can be"));
    }
    sources.check_free(inputs.chain(run.spec.volumes.iter().map(|volume| volume.path.as_str())))?;
    Ok(sources)
}

async fn uploaded(
    session: &Session,
    connection: &Connection,
    sources: Sources,
    to: Option<&str>,
    store: &StoreOptions,
) -> Result<Input, Failure> {
    let to = match upload::destination(to)? {
        Some(to) => to,
        None => upload::of_namespace(connection).await?,
    };
    let uploaded = upload::push(session, sources, &to, store).await?;
    Ok(Input {
        path: ".".to_owned(),
        image: Some(ImageSource { reference: uploaded.bundle, path: None }),
        ..Input::default()
    })
}

/// Creates a run and does what shall be done then.
pub(super) async fn submit(
    session: &Session,
    connection: &Connection,
    run: &BundleRun,
    then: &Then,
) -> Result<(), Failure> {
    let created = create(connection, run, false).await?;
    let name = runs::name(&created).to_owned();
    let format = then.answer.output;
    if !(then.wait || then.follow) {
        if format.is_for_people() {
            return session.out.print(&format!("{name}\n"));
        }
        return session.out.runs(format, &[created]);
    }
    session.out.note(&format!("run {name}"));
    let ended = if then.follow {
        logs::follow(session, connection, &name, &then.store).await?
    } else {
        wait::end_of(session, connection, &name).await?
    };
    if !format.is_for_people() {
        session.out.runs(format, std::slice::from_ref(&ended))?;
    }
    wait::verdict(&ended, then.exit_code)
}

pub(super) async fn create(connection: &Connection, run: &BundleRun, dry_run: bool) -> Result<BundleRun, Failure> {
    let params = PostParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()) };
    let asked = runs::asked(connection, "create", run.metadata.name.as_deref());
    connection.runs().create(&params, run).await.map_err(|error| asked.failed(&error))
}

fn made(args: &Run) -> BundleRun {
    let labels: BTreeMap<_, _> = args.label.iter().cloned().collect();
    let command = match (&args.command[..], args.argv) {
        (_, true) => None,
        ([one], false) => Some(one.clone()),
        (words, false) => Some(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")),
    };
    let spec = BundleRunSpec {
        image: args.image.clone(),
        command,
        argv: args.argv.then(|| args.command.clone()),
        env: args.env.clone(),
        inputs: args.input.clone(),
        volumes: args.volume.clone(),
        resources: Resources {
            gpus: args.gpus,
            cpus: args.cpus.clone(),
            memory: args.memory.clone(),
            disk: args.disk.clone(),
            shared_memory: args.shared_memory.clone(),
            ..Resources::default()
        },
        gpu_profile: args.gpu_profile.clone(),
        time_limit: args.time.clone(),
        stop_grace: args.stop_grace.clone(),
        outputs: Outputs {
            exclude: args.exclude.clone(),
            snapshots: args.snapshots.clone().map(|every| Snapshots { every: Some(every), exclude: None }),
        },
        retry: Retry { resume: args.resume, limit: args.retries, ..Retry::default() },
        image_pull_secrets: args.pull_secret.iter().map(|name| SecretReference { name: name.clone() }).collect(),
        ..BundleRunSpec::default()
    };
    BundleRun { metadata: metadata(args.name.clone(), "run-", labels), spec, status: None }
}

/// With this name, or one that the API server makes.
pub(super) fn metadata(name: Option<String>, prefix: &str, labels: BTreeMap<String, String>) -> ObjectMeta {
    let generate_name = name.is_none().then(|| prefix.to_owned());
    ObjectMeta {
        name,
        generate_name,
        labels: Some(labels).filter(|labels| !labels.is_empty()),
        ..ObjectMeta::default()
    }
}

/// For a shell: the same word again.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    // A word with `=` at the begin of a command would be an assignment, as it was in the user's own shell.
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn quantity(text: &str) -> Result<Quantity, String> {
    let quantity: Quantity = serde_json::from_value(text.into()).map_err(|error| error.to_string())?;
    // A number of cores is one as well.
    quantity.millis().map(drop).map_err(|error| error.to_string())?;
    Ok(quantity)
}

fn duration(text: &str) -> Result<String, String> {
    crate::api::duration::parse_seconds(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn variable(text: &str) -> Result<EnvVar, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => (text, std::env::var(text).map_err(|_| format!("{text} is not set here: give it a value"))?),
    };
    if name.is_empty() {
        return Err("a variable has a name".to_owned());
    }
    Ok(EnvVar { name: name.to_owned(), value: Some(value), value_from: None })
}

fn volume(text: &str) -> Result<Volume, String> {
    let (path, rest) = text.split_once(['=', ':']).ok_or("it is PATH=CLAIM[/DIR]")?;
    let (name, dir) = name_and_path(rest)?;
    Ok(Volume { path: path.to_owned(), claim: ClaimSource { name, path: dir } })
}

fn input(text: &str) -> Result<Input, String> {
    let (path, source) = text.split_once(['=', ':']).ok_or("it is PATH=RUN[/FILE]")?;
    if path.is_empty() {
        return Err("before the equals sign is the path where the command finds it".to_owned());
    }
    let mut input = Input { path: path.to_owned(), ..Input::default() };
    let Some((kind, of)) = source.split_once(':') else {
        let (name, path) = name_and_path(source)?;
        input.run = Some(RunSource { name, path, snapshot: None });
        return Ok(input);
    };
    match kind {
        "image" if !of.is_empty() => input.image = Some(ImageSource { reference: of.to_owned(), path: None }),
        "snapshot" => {
            let (name, path) = name_and_path(of)?;
            input.run = Some(RunSource { name, path, snapshot: Some(WhichSnapshot::Latest) });
        }
        "claim" => {
            let (name, path) = name_and_path(of)?;
            input.claim = Some(ClaimSource { name, path });
        }
        "configmap" => {
            let (name, key) = name_and_path(of)?;
            input.config_map = Some(KeySource { name, key });
        }
        "secret" => {
            let (name, key) = name_and_path(of)?;
            input.secret = Some(KeySource { name, key });
        }
        // A colon in a file's name.
        _ if kind.contains('/') => {
            let (name, path) = name_and_path(source)?;
            input.run = Some(RunSource { name, path, snapshot: None });
        }
        _ => return Err(format!("{kind} is none of snapshot, image, claim, configmap, secret")),
    }
    Ok(input)
}

fn name_and_path(text: &str) -> Result<(String, Option<String>), String> {
    let (name, path) = text.split_once('/').unwrap_or((text, ""));
    if name.is_empty() {
        return Err("which one? There is no name".to_owned());
    }
    Ok((name.to_owned(), Some(path.to_owned()).filter(|path| !path.is_empty())))
}

/// Of the generated name of a run that is another one again.
pub(super) fn rerun_prefix(name: &str) -> String {
    // The API server adds five letters, and a run's name has 52 at most.
    let stem = name.get(..name.floor_char_boundary(46)).unwrap_or(name);
    format!("{}-", stem.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::{Value, json};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn parsed(line: &[&str]) -> Result<Value, String> {
        let line = ["run"].iter().chain(line);
        let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        let run = made(&line.run);
        Ok(json!({"metadata": run.metadata, "spec": run.spec}))
    }

    #[test]
    fn a_line_becomes_a_run() {
        let line = [
            "--image",
            "python:3.13",
            "--gpus",
            "2",
            "--cpus",
            "8",
            "--memory",
            "32Gi",
            "--disk",
            "100Gi",
            "--time",
            "1d12h",
            "--input",
            "data=prepare/train.csv",
            "-i",
            "old:before",
            "-e",
            "SEED=7",
            "--resume",
            "--retries",
            "2",
            "--snapshots",
            "10m",
            "--name",
            "train",
            "--label",
            "sweep=a",
            "--",
            "python train.py && echo done",
        ];
        let expected = json!({
            "metadata": {"name": "train", "labels": {"sweep": "a"}},
            "spec": {
                "image": "python:3.13", "command": "python train.py && echo done",
                "env": [{"name": "SEED", "value": "7"}],
                "inputs": [
                    {"path": "data", "run": {"name": "prepare", "path": "train.csv"}},
                    {"path": "old", "run": {"name": "before"}},
                ],
                "resources": {"gpus": 2, "cpus": "8", "memory": "32Gi", "disk": "100Gi"},
                "timeLimit": "1d12h",
                "outputs": {"snapshots": {"every": "10m"}},
                "retry": {"limit": 2, "resume": true},
            },
        });
        assert_eq!(parsed(&line).unwrap(), expected);
    }

    #[test]
    fn several_words_stay_what_they_are() {
        let words = |line: &[&str]| parsed(line).unwrap()["spec"].clone();
        let spec = words(&["--", "echo", "a b", "it's", "", "$HOME", "--x=1"]);
        assert_eq!(spec, json!({"command": r"echo 'a b' 'it'\''s' '' '$HOME' --x=1"}));
        assert_eq!(words(&["--argv", "--", "/app", "$HOME"]), json!({"argv": ["/app", "$HOME"]}));
        assert_eq!(parsed(&["--", "true"]).unwrap()["metadata"], json!({"generateName": "run-"}));
    }

    #[test]
    fn inputs_come_from_where_a_spec_can_have_them_from() {
        for (text, expected) in [
            ("a=b", json!({"path": "a", "run": {"name": "b"}})),
            ("a:b/c/d", json!({"path": "a", "run": {"name": "b", "path": "c/d"}})),
            ("a=b/c:d", json!({"path": "a", "run": {"name": "b", "path": "c:d"}})),
            ("a=snapshot:b", json!({"path": "a", "run": {"name": "b", "snapshot": "latest"}})),
            ("a=image:r:5/x@sha256:1", json!({"path": "a", "image": {"reference": "r:5/x@sha256:1"}})),
            ("a=claim:c/d", json!({"path": "a", "claim": {"name": "c", "path": "d"}})),
            ("a=configmap:c/k", json!({"path": "a", "configMap": {"name": "c", "key": "k"}})),
            ("a:secret:c", json!({"path": "a", "secret": {"name": "c"}})),
        ] {
            assert_eq!(serde_json::to_value(input(text).unwrap()).unwrap(), expected, "{text}");
        }
        for wrong in ["a", "=b", "a=", "a=/b", "a=http://x", "a=claim:", "a=image:"] {
            assert!(input(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said_before_the_cluster_is_asked() {
        for wrong in [
            &["--cpus", "many", "--", "true"][..],
            &["--time", "90", "--", "true"],
            &["-e", "SURELY_NOT_SET_HERE", "--", "true"],
            &["--label", "a", "--", "true"],
            &["--dry-run", "--wait", "--", "true"],
            &["--dry-run", "--code", ".", "--", "true"],
            &["--code-to", "r.example/a", "--", "true"],
            &["--gpus", "1"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_generated_name_has_room() {
        assert_eq!(rerun_prefix("train"), "train-");
        assert_eq!(rerun_prefix(&"x".repeat(52)).len(), 47);
    }
}

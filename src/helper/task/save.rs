//! The child that saves the output.

use crate::bundle::{self, ErrorKind, GivenUp, Progress, SavedBundle, Tree};
use crate::contract::{
    InputSource, NotSaved, ProgressStage, Record, Request, RequestedInput, SaveFailure, SaveRequest, Saved, one_line,
};
use crate::helper::ending::read_record;
use crate::helper::markers::{self, mark_json, read_json};
use crate::helper::mount_points;
use crate::helper::progress::Telling;
use crate::helper::supervise::runtime;
use crate::helper::supervise::saving::{self, FailedTry, SavedOutput};
use crate::helper::task::links;
use crate::helper::task::login::access;
use crate::helper::task::look_up::{self, Pins};
use crate::names::{self, files};
use crate::runner::Paths;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

/// Saves the working directory and leaves the mark of it, or of why not.
pub(in crate::helper) fn save(paths: &Paths, request: &Request) -> Result<(), String> {
    let saved = try_to_save(paths, request);
    if let Err(failed) = &saved {
        mark_json(&paths.bin, files::NOT_SAVED, failed)?;
    }
    saved.map_err(|failed| failed.not_saved.detail)
}

fn try_to_save(paths: &Paths, request: &Request) -> Result<(), FailedTry> {
    let failed = |failure, why: &str, done_bytes| {
        let not_saved = NotSaved { failure, detail: one_line(why) };
        FailedTry { not_saved, done_bytes }
    };
    let helper_failed = |why: String| failed(SaveFailure::HelperFailed, &why, 0);
    let Some(save) = &request.save else { return Err(helper_failed("there is no store to save to".to_owned())) };
    let runtime = runtime().map_err(helper_failed)?;
    let tree = tree(paths, request, save);
    let made_by = made_by(request, save, &look_up::pins(paths), read_record(&paths.record).ok().as_ref());
    let access = access(paths, request);
    let progress = Arc::new(Progress::default());
    let telling = Telling::start(&paths.bin, ProgressStage::Saving, vec![Arc::clone(&progress)]);
    let saved = runtime.block_on(bundle::save(&tree, &save.repository, &save.tag, &made_by, &access, &progress));
    drop(telling);
    match saved {
        Ok(bundle) => {
            let SavedBundle { digest, files, bytes, pushed_bytes, mountable, .. } = bundle;
            let SavedBundle { skipped, withheld, damaged, skipped_names, .. } = bundle;
            let saved = Saved { digest, pushed_bytes, skipped, withheld, damaged, skipped_names, mountable };
            markers::unmark(&paths.bin, files::NOT_SAVED);
            mark_json(&paths.bin, files::SAVED, &SavedOutput { saved, files, bytes }).map_err(helper_failed)
        }
        Err(error) => {
            if !error.damaged.is_empty() {
                note_damage(paths, &error.damaged).map_err(helper_failed)?;
            }
            let done_bytes = progress.done_bytes.load(Ordering::Relaxed);
            Err(failed(failure(error.kind), &error.message, done_bytes))
        }
    }
}

/// Tries that failed to read one entry, one after another.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Damage {
    /// Of the first of them, since the epoch.
    since_ms: u64,
    tries: u32,
}

/// As many tries a disk has.
const TRIES_TO_READ: u32 = 3;

/// What an entry is named by is the bundle's matter.
type Damages = BTreeMap<String, Damage>;

/// Counts another try for these entries. What is not among them can be read again.
fn note_damage(paths: &Paths, entries: &[String]) -> Result<(), String> {
    let known: Damages = read_json(&paths.bin, files::DAMAGED).unwrap_or_default();
    let first = Damage { since_ms: now_ms(), tries: 0 };
    let again = |entry: &String| {
        let damage = known.get(entry).copied().unwrap_or(first);
        (entry.clone(), Damage { tries: damage.tries.saturating_add(1), ..damage })
    };
    mark_json(&paths.bin, files::DAMAGED, &entries.iter().map(again).collect::<Damages>())
}

/// What the output may lack by now: what no try could read for a while, and near the deadline all that cannot be read.
fn given_up(paths: &Paths, save: &SaveRequest) -> GivenUp {
    let known: Damages = read_json(&paths.bin, files::DAMAGED).unwrap_or_default();
    let before = now_ms().saturating_sub(save.give_up_seconds.saturating_mul(1000));
    let is_over = |damage: &Damage| damage.tries >= TRIES_TO_READ && damage.since_ms <= before;
    let entries = known.into_iter().filter(|(_, damage)| is_over(damage)).map(|(entry, _)| entry).collect();
    GivenUp { entries, all_after: saving::give_up_at(paths) }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// What is output of the working directory, and what is not.
fn tree(paths: &Paths, request: &Request, save: &SaveRequest) -> Tree {
    let stubs = mount_points::stubs(paths);
    let linked = request.inputs.iter().enumerate().filter(|(_, input)| input.path == ".");
    let targets: Vec<PathBuf> = linked.map(|(index, _)| paths.sources.join(index.to_string())).collect();
    Tree {
        root: paths.bundle.clone(),
        seen_at: paths.below_root(names::paths::BUNDLE),
        exclude: save.exclude.clone(),
        left_out: stubs.mounted_over,
        left_out_if_empty: stubs.parents,
        left_out_links: links::made(&paths.bundle, &targets),
        outside: [files::STDOUT, files::STDERR].map(|name| (name.to_owned(), paths.output.join(name))).to_vec(),
        given_up: given_up(paths, save),
    }
}

fn failure(kind: ErrorKind) -> SaveFailure {
    match kind {
        ErrorKind::NotFound => SaveFailure::StoreNotFound,
        ErrorKind::Denied => SaveFailure::StoreDenied,
        ErrorKind::Quota => SaveFailure::StoreQuotaExceeded,
        ErrorKind::Unreachable => SaveFailure::StoreUnreachable,
        ErrorKind::Tls => SaveFailure::StoreTls,
        ErrorKind::TooLarge => SaveFailure::OutputTooLarge,
        ErrorKind::Invalid => SaveFailure::StoreCorrupt,
        ErrorKind::DiskFull | ErrorKind::Local => SaveFailure::HelperFailed,
    }
}

/// How the output was made, without any value of the environment: those can be secret.
fn made_by(request: &Request, save: &SaveRequest, pins: &Pins, record: Option<&Record>) -> Value {
    let mut made_by: Map<String, Value> = save.made_by.clone();
    made_by.insert("command".to_owned(), json!(request.command));
    let inputs: Vec<Value> = request
        .inputs
        .iter()
        .enumerate()
        .map(|(index, input)| match digest(input, pins.get(&index)) {
            Some(digest) => json!({"path": input.path, "digest": digest}),
            None => json!({"path": input.path}),
        })
        .collect();
    if !inputs.is_empty() {
        made_by.insert("inputs".to_owned(), Value::Array(inputs));
    }
    if let Some(record) = record {
        // The record without its text, which is for the user of this run.
        let record = Record { detail: String::new(), ..record.clone() };
        made_by.insert("record".to_owned(), json!(record));
    }
    Value::Object(made_by)
}

fn digest(input: &RequestedInput, pin: Option<&String>) -> Option<String> {
    match &input.source {
        InputSource::Image { reference, .. } => {
            pin.cloned().or_else(|| reference.split_once('@').map(|(_, digest)| digest.to_owned()))
        }
        InputSource::Url { sha256, .. } => Some(format!("sha256:{sha256}")),
        InputSource::Text(_) | InputSource::Copied { .. } | InputSource::Mounted { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Command;

    #[test]
    fn what_we_made_is_no_output() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        std::fs::create_dir_all(&paths.bundle).unwrap();
        let input = |path: &str, file| RequestedInput::new(path, InputSource::Mounted { file, shown: false });
        let inputs = vec![input("a/claim", false), input(".", false), input("secret", true)];
        let request =
            Request { inputs, volumes: vec!["ckpt".to_owned()], ..Request::new(Command::Shell(String::new()), 30) };
        mount_points::make(&paths, &request, |index| index == 2).unwrap();
        let listed = paths.sources.join("1");
        std::fs::create_dir_all(listed.join("entry")).unwrap();
        links::make(&listed, &listed, &paths.bundle).unwrap();
        // The command can rename a directory on the way to a mount.
        std::fs::rename(paths.bundle.join("a"), paths.bundle.join("b")).unwrap();

        let save: SaveRequest = serde_json::from_value(json!({
            "repository": "r/b", "tag": "t", "deadlineSeconds": 1, "interruptedSeconds": 1, "exclude": ["*.tmp"],
        }))
        .unwrap();
        let tree = tree(&paths, &request, &save);
        let identity = |path: &str| {
            let stat = rustix::fs::stat(paths.bundle.join(path)).unwrap();
            (stat.st_dev, stat.st_ino)
        };
        assert_eq!(tree.left_out, ["b/claim", "secret", "ckpt"].map(identity));
        assert_eq!(tree.left_out_if_empty, [identity("b")]);
        assert_eq!(tree.left_out_links, [(PathBuf::from("entry"), listed.join("entry"))]);
        assert_eq!((tree.root, tree.exclude), (paths.bundle.clone(), vec!["*.tmp".to_owned()]));
    }

    #[test]
    fn an_entry_is_given_up_after_three_tries_and_some_time() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let save = |seconds: u64| -> SaveRequest {
            serde_json::from_value(json!({
                "repository": "r/b", "tag": "t", "deadlineSeconds": 1, "interruptedSeconds": 1, "giveUpSeconds": seconds,
            }))
            .unwrap()
        };
        let note = |entries: &[&str]| {
            note_damage(&paths, &entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>()).unwrap();
        };
        let given_up = |seconds| given_up(&paths, &save(seconds)).entries.into_iter().collect::<Vec<_>>();
        note(&["a", "b", "c"]);
        note(&["a", "b"]);
        assert!(given_up(0).is_empty());
        note(&["a", "c"]);
        assert_eq!(given_up(0), ["a"], "b can be read again, and c could meanwhile");
        assert!(given_up(60).is_empty(), "three tries in no time say little");
    }

    #[test]
    fn how_it_was_made_names_digests_and_the_end() {
        let input = |path: &str, source| RequestedInput::new(path, source);
        let image = |reference: &str| InputSource::Image { reference: reference.to_owned(), path: None };
        let inputs = vec![
            input("tag", image("r/a:1")),
            input("digest", image("r/a@sha256:aa")),
            input("url", InputSource::Url { href: "https://u:p@h/?sig=s".to_owned(), sha256: "bb".to_owned() }),
            input("text", InputSource::Text("secret?".to_owned())),
        ];
        let request = Request { inputs, ..Request::new(Command::Argv(vec!["train".to_owned()]), 30) };
        let save: SaveRequest = serde_json::from_value(json!({
            "repository": "r/b", "tag": "t", "deadlineSeconds": 1, "interruptedSeconds": 1, "madeBy": {"image": "r/i:1"},
        }))
        .unwrap();
        let record = Record { exit_code: Some(3), detail: "a warning".to_owned(), ..Record::default() };
        let made_by = made_by(&request, &save, &Pins::from([(0, "sha256:cc".to_owned())]), Some(&record));
        assert_eq!(made_by["image"], "r/i:1");
        assert_eq!(made_by["command"], json!({"argv": ["train"]}));
        let want = json!([
            {"path": "tag", "digest": "sha256:cc"}, {"path": "digest", "digest": "sha256:aa"},
            {"path": "url", "digest": "sha256:bb"}, {"path": "text"},
        ]);
        assert_eq!(made_by["inputs"], want);
        assert_eq!((&made_by["record"]["exitCode"], &made_by["record"]["detail"]), (&json!(3), &Value::Null));
        assert!(!made_by.to_string().contains("secret") && !made_by.to_string().contains("sig="));
    }
}

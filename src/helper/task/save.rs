//! The child that saves the output.

use crate::bundle::{self, ErrorKind, GivenUp, Progress, SavedBundle, Tree, free_name, sha256};
use crate::contract::{
    InputSource, NotSaved, ProgressStage, Record, Request, RequestedInput, SaveFailure, SaveRequest, Saved, log_line,
    one_line,
};
use crate::helper::child::runtime;
use crate::helper::error::{Error, log_failure};
use crate::helper::markers::{self, mark_json, read_json};
use crate::helper::mount_points;
use crate::helper::progress::Telling;
use crate::helper::record::{read_record, read_variables};
use crate::helper::room;
use crate::helper::saved::{self, FailedTry, SavedOutput};
use crate::helper::task::login::access;
use crate::helper::task::{copy, resume, stage, url};
use crate::names::{self, files};
use crate::runner::Paths;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the disk may take for what the save can do without.
const NOTE: Duration = Duration::from_secs(5);
/// Bytes of a `ConfigMap` that is told whole.
const MOST_TOLD: u64 = 64 << 10;

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
    let helper_failed = |error: Error| failed(SaveFailure::HelperFailed, &error.to_string(), 0);
    let Some(save) = &request.save else {
        return Err(failed(SaveFailure::HelperFailed, "there is no store to save to", 0));
    };
    let runtime = runtime().map_err(helper_failed)?;
    // A first try need not wait until large files are on the disk. Of one that was killed nothing else is known.
    let keeps_more = markers::is_marked(&paths.bin, files::SAVE_BEGUN);
    if let Err(error) = markers::mark(&paths.bin, files::SAVE_BEGUN, b"") {
        log_line!("bundle-operator helper: another try would send large files again: {error}");
    }
    let tree = Tree { keeps_more, may_be_there: save.follows_command, ..tree(paths, request, save) };
    open_to_owner(&paths.bundle);
    let made_by = made_by(paths, request, save, read_record(&paths.record).ok().as_ref());
    let access = access(paths, request);
    let progress = Arc::new(Progress::default());
    let telling = Telling::start(&paths.bin, ProgressStage::Saving, vec![Arc::clone(&progress)]);
    let saved = runtime.block_on(bundle::save(&tree, &save.repository, Some(&save.tag), &made_by, &access, &progress));
    drop(telling);
    // A thread that waits for a disk without an answer ends with the process, or not at all.
    runtime.shutdown_background();
    match saved {
        Ok(bundle) => {
            let SavedBundle { digest, files, bytes, pushed_bytes, mountable, .. } = bundle;
            let SavedBundle { skipped, withheld, damaged, skipped_names, provenance_failed, .. } = bundle;
            let saved = Saved { digest, pushed_bytes, skipped, withheld, damaged, skipped_names, mountable };
            markers::unmark(&paths.bin, files::NOT_SAVED);
            let unexplained = provenance_failed.map(|why| format!("how it was made is not in the store: {why}"));
            let mut notes = vec![not_as_usual(paths), unexplained.unwrap_or_default()];
            notes.retain(|note| !note.is_empty());
            let note = one_line(&notes.join("; "));
            mark_json(&paths.bin, files::SAVED, &SavedOutput { saved, files, bytes, note }).map_err(helper_failed)
        }
        Err(error) => {
            // What the disk failed to read is said by the error itself, whether it can be counted or not.
            if !error.damaged.is_empty() {
                log_failure(note_damage(paths, &error.damaged));
            }
            let done_bytes = progress.done_bytes.load(Ordering::Relaxed);
            Err(failed(failure(error.kind), &error.message, done_bytes))
        }
    }
}

/// What the command said has another name in the bundle where the command has taken the usual one, and is missing there
/// where it has removed the file. It is but a note: a disk that gives no answer must not cost the mark of a saved output.
fn not_as_usual(paths: &Paths) -> String {
    let (bundle, output) = (paths.bundle.clone(), paths.output.clone());
    let has_run = read_record(&paths.record).is_ok_and(|record| record.started_at_ms.is_some());
    let notes = by_the_disk(move || {
        let is_taken = |name: &str| rustix::fs::lstat(bundle.join(name)).is_ok();
        let note = |name: &'static str| {
            if has_run && rustix::fs::lstat(output.join(name)).is_err_and(|error| error == Errno::NOENT) {
                return Some(format!("the command removed the file of its {name}: what it said is not in the bundle"));
            }
            let ours = free_name(name, is_taken);
            let own = || format!("the working directory has a {name} of the command's own: ours is {ours}");
            (ours != name).then(own)
        };
        [files::STDOUT, files::STDERR].into_iter().filter_map(note).collect::<Vec<_>>().join("; ")
    });
    notes.unwrap_or_default()
}

/// A command with the helper's user may have closed its working directory (`chmod 000 .`): its owner can read it again.
/// The mode of the root is no part of an output. A disk that gives no answer is the save's matter.
fn open_to_owner(root: &Path) {
    let root = root.to_owned();
    by_the_disk(move || {
        let Ok(metadata) = fs::metadata(&root) else { return };
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o500 != 0o500
            && let Err(error) = fs::set_permissions(&root, fs::Permissions::from_mode(mode | 0o700))
        {
            log_line!("bundle-operator helper: cannot open {}: {error}", root.display());
        }
    });
}

/// What is asked of a disk that may give no answer; `None`: it gave none for [`NOTE`], and the thread waits on.
fn by_the_disk<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = mpsc::channel();
    thread::spawn(move || answer.send(ask()));
    answered.recv_timeout(NOTE).ok()
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

/// The mark of so many is not longer than what is set aside for one.
const FEW_DAMAGED: usize = 64;

/// What an entry is named by is the bundle's matter.
type Damages = BTreeMap<String, Damage>;

/// Counts another try for these entries. What is not among them can be read again.
fn note_damage(paths: &Paths, entries: &[String]) -> Result<(), Error> {
    let known: Damages = read_json(&paths.bin, files::DAMAGED).unwrap_or_default();
    let first = Damage { since_ms: now_ms(), tries: 0 };
    let again = |entry: &String| {
        let damage = known.get(entry).copied().unwrap_or(first);
        (entry.clone(), Damage { tries: damage.tries.saturating_add(1), ..damage })
    };
    let all: Damages = entries.iter().map(again).collect();
    // On a full disk there is little room: then some are counted, and the others near the deadline are given up with all.
    mark_json(&paths.bin, files::DAMAGED, &all)
        .or_else(|_| mark_json(&paths.bin, files::DAMAGED, &all.into_iter().take(FEW_DAMAGED).collect::<Damages>()))
}

/// What the output may lack by now: what no try could read for a while, and near the deadline all that cannot be read.
fn given_up(paths: &Paths, save: &SaveRequest) -> GivenUp {
    let known: Damages = read_json(&paths.bin, files::DAMAGED).unwrap_or_default();
    let before = now_ms().saturating_sub(save.give_up_seconds.saturating_mul(1000));
    let is_over = |damage: &Damage| damage.tries >= TRIES_TO_READ && damage.since_ms <= before;
    let entries = known.into_iter().filter(|(_, damage)| is_over(damage)).map(|(entry, _)| entry).collect();
    GivenUp {
        entries,
        all_after: saved::give_up_at(paths),
        hung_after: Some(Duration::from_secs(save.give_up_seconds)),
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// What is output of the working directory, and what is not.
pub(in crate::helper) fn tree(paths: &Paths, request: &Request, save: &SaveRequest) -> Tree {
    Tree {
        exclude: save.exclude.clone(),
        given_up: given_up(paths, save),
        kept: Some(paths.bin.join(files::DIGESTS)),
        max_blob: save.max_blob_bytes,
        most_memory: room::for_entries(paths),
        ..working_directory(paths, request)
    }
}

/// What of the working directory is the command's, whatever becomes of it.
pub(in crate::helper) fn working_directory(paths: &Paths, request: &Request) -> Tree {
    let made = mount_points::made(paths);
    let linked = request.inputs.iter().enumerate().filter(|(_, input)| input.path == ".");
    Tree {
        root: paths.bundle.clone(),
        seen_at: paths.below_root(names::paths::BUNDLE),
        left_out: made.mounted_over,
        left_out_if_empty: made.parents,
        linked_to: linked.map(|(index, _)| paths.sources.join(index.to_string())).collect(),
        outside: [files::STDOUT, files::STDERR].map(|name| (name.to_owned(), paths.output.join(name))).to_vec(),
        ..Tree::default()
    }
}

/// How a save ends that ended with this error.
pub(super) fn failure(kind: ErrorKind) -> SaveFailure {
    match kind {
        ErrorKind::NotFound | ErrorKind::PathNotFound => SaveFailure::StoreNotFound,
        ErrorKind::Denied => SaveFailure::StoreDenied,
        ErrorKind::Quota => SaveFailure::StoreQuotaExceeded,
        ErrorKind::Unreachable | ErrorKind::UnknownHost => SaveFailure::StoreUnreachable,
        ErrorKind::Tls => SaveFailure::StoreTls,
        ErrorKind::TooLarge => SaveFailure::OutputTooLarge,
        ErrorKind::Invalid => SaveFailure::StoreCorrupt,
        ErrorKind::DiskFull | ErrorKind::Local => SaveFailure::HelperFailed,
    }
}

/// How the output was made: what the operator told, and the command, inputs by digest, small ones whole, the record.
fn made_by(paths: &Paths, request: &Request, save: &SaveRequest, record: Option<&Record>) -> Value {
    let mut made_by: Map<String, Value> = save.made_by.clone();
    made_by.insert("command".to_owned(), json!(request.command));
    if let Some(env) = made_by.get_mut("env").and_then(Value::as_array_mut) {
        add_values(env, save, &read_variables(&paths.record));
    }
    let told = made_by.remove("inputs").and_then(|told| Some(told.as_array()?.clone())).unwrap_or_default();
    let digests = stage::digests(paths, &request.inputs);
    let inputs = request.inputs.iter().enumerate().map(|(index, input)| {
        let mut entry = told.get(index).and_then(Value::as_object).cloned().unwrap_or_default();
        entry.insert("path".to_owned(), json!(input.path));
        if let Some(digest) = digest(input, digests.get(&index)) {
            entry.insert("digest".to_owned(), json!(digest));
        }
        entry.extend(contents(paths, index, &input.source));
        Value::Object(entry)
    });
    let inputs: Vec<Value> = inputs.collect();
    if !inputs.is_empty() {
        made_by.insert("inputs".to_owned(), Value::Array(inputs));
    }
    if let Some(from) = resume::resumed(paths) {
        made_by.insert("resumedFrom".to_owned(), json!(from));
    }
    if let Some(record) = record {
        // The record without its text, which is for the user of this run.
        let record = Record { detail: String::new(), ..record.clone() };
        made_by.insert("record".to_owned(), json!(record));
    }
    Value::Object(made_by)
}

/// The values of what comes from `ConfigMaps`, as this attempt had them.
fn add_values(env: &mut [Value], save: &SaveRequest, values: &BTreeMap<String, String>) {
    for var in env.iter_mut().filter_map(Value::as_object_mut) {
        let name =
            var.get("name").and_then(Value::as_str).filter(|name| save.told_variables.iter().any(|told| told == name));
        if let Some(value) = name.and_then(|name| values.get(name)) {
            var.insert("value".to_owned(), json!(value));
        }
    }
}

fn digest(input: &RequestedInput, found: Option<&String>) -> Option<String> {
    match &input.source {
        InputSource::Image { reference, .. } => {
            found.cloned().or_else(|| reference.split_once('@').map(|(_, digest)| digest.to_owned()))
        }
        InputSource::Url { sha256, .. } => Some(format!("sha256:{sha256}")),
        InputSource::Text(text) => Some(sha256(text.as_bytes())),
        InputSource::Snapshot(_) | InputSource::Copied { secret: false, .. } => found.cloned(),
        InputSource::Copied { secret: true, .. } | InputSource::Mounted => None,
    }
}

/// What is told of an input beside its digest, so that nothing but the registry is needed to have it again.
fn contents(paths: &Paths, index: usize, source: &InputSource) -> Map<String, Value> {
    let mut told = Map::new();
    match source {
        InputSource::Text(text) => _ = told.insert("text".to_owned(), json!(text)),
        InputSource::Image { reference, .. } => _ = told.insert("reference".to_owned(), json!(reference)),
        InputSource::Url { href, sha256 } => {
            told.insert("url".to_owned(), json!({"href": url::shown_href(href), "sha256": sha256}));
        }
        InputSource::Copied { file, secret: false, .. } => {
            let place = paths.inputs.join(index.to_string());
            // As a ConfigMap has them.
            let (mut data, mut binary) = (Map::new(), Map::new());
            for (name, content) in copy::contents(&place, file.as_deref(), MOST_TOLD).unwrap_or_default() {
                match String::from_utf8(content) {
                    Ok(text) => _ = data.insert(name, json!(text)),
                    Err(error) => _ = binary.insert(name, json!(STANDARD.encode(error.as_bytes()))),
                }
            }
            let filled = [("data", data), ("binaryData", binary)].into_iter().filter(|(_, files)| !files.is_empty());
            told.extend(filled.map(|(name, files)| (name.to_owned(), Value::Object(files))));
        }
        // Where it is the operator tells.
        InputSource::Snapshot(_) | InputSource::Copied { secret: true, .. } | InputSource::Mounted => {}
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::FileId;
    use crate::contract::Command;
    use crate::helper::markers::tests::SmallDisk;
    use crate::helper::task::links;

    #[test]
    fn a_working_directory_that_was_closed_is_open_to_its_owner_again() {
        let root = tempfile::tempdir().unwrap();
        let mode = || fs::metadata(root.path()).unwrap().permissions().mode() & 0o7777;
        for (closed, open) in [(0o000, 0o700), (0o644, 0o744), (0o311, 0o711), (0o2755, 0o2755)] {
            fs::set_permissions(root.path(), fs::Permissions::from_mode(closed)).unwrap();
            open_to_owner(root.path());
            assert_eq!(mode(), open, "{closed:o}");
        }
    }

    #[test]
    fn on_a_full_disk_some_of_what_cannot_be_read_is_counted() {
        let disk = SmallDisk::new(1 << 20);
        let paths = Paths { bin: disk.0.path().to_owned(), ..Paths::below(disk.0.path()) };
        markers::reserve(&paths.bin).unwrap();
        let entries: Vec<_> = (0..2000_u32).map(|number| sha256(&number.to_le_bytes())).collect();
        note_damage(&paths, &entries).unwrap();
        let counted = || read_json::<Damages>(&paths.bin, files::DAMAGED).unwrap();
        assert_eq!(counted().len(), 2000);
        markers::unmark(&paths.bin, files::DAMAGED);
        disk.fill();
        note_damage(&paths, &entries).unwrap();
        assert_eq!(counted().len(), FEW_DAMAGED);
    }

    #[test]
    fn what_the_command_said_is_named_as_it_is_in_the_bundle() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        fs::create_dir_all(&paths.bundle).unwrap();
        assert_eq!(not_as_usual(&paths), "");
        for (name, ours) in [("stdout", "stdout.run"), ("stdout.run", "stdout.run.run")] {
            fs::write(paths.bundle.join(name), "").unwrap();
            let said = format!("the working directory has a stdout of the command's own: ours is {ours}");
            assert_eq!(not_as_usual(&paths), said);
        }
    }

    #[test]
    fn what_the_command_removed_of_what_it_said_is_told() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        for directory in [&paths.bundle, &paths.output, &paths.record] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(paths.output.join("stderr"), "").unwrap();
        assert_eq!(not_as_usual(&paths), "", "nothing has run that could have said something");
        let record = Record { exit_code: Some(0), started_at_ms: Some(1), ..Record::default() };
        fs::write(paths.record.join(files::RECORD), serde_json::to_vec(&record).unwrap()).unwrap();
        let told = "the command removed the file of its stdout: what it said is not in the bundle";
        assert_eq!(not_as_usual(&paths), told);
    }

    /// In a list of files one name is one entry: the FIFO's, which says that it is no output.
    #[test]
    fn what_is_no_output_takes_a_name_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        fs::create_dir_all(&paths.bundle).unwrap();
        let (at, kind) = (paths.bundle.join("stderr"), rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(rustix::fs::CWD, at, kind, rustix::fs::Mode::from_raw_mode(0o644), 0).unwrap();
        assert_eq!(not_as_usual(&paths), "the working directory has a stderr of the command's own: ours is stderr.run");
    }

    #[test]
    fn what_we_made_is_no_output() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        fs::create_dir_all(&paths.bundle).unwrap();
        let input = |path: &str| RequestedInput::new(path, InputSource::Mounted);
        let secret = RequestedInput::new("secret", InputSource::secret("s", Some("k".to_owned())));
        let inputs = vec![input("a/claim"), input("."), secret];
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
            FileId::from(&stat)
        };
        assert_eq!(tree.left_out, ["b/claim", "secret", "ckpt"].map(identity));
        assert_eq!(tree.left_out_if_empty, [identity("b")]);
        assert_eq!(tree.linked_to, [listed]);
        assert_eq!((tree.root, tree.exclude), (paths.bundle.clone(), vec!["*.tmp".to_owned()]));
    }

    #[test]
    fn names_that_the_command_has_taken_are_told() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        std::fs::create_dir_all(paths.bundle.join("stdout")).unwrap();
        assert_eq!(not_as_usual(&paths), "the working directory has a stdout of the command's own: ours is stdout.run");
        std::os::unix::fs::symlink("nowhere", paths.bundle.join("stderr")).unwrap();
        assert!(not_as_usual(&paths).ends_with(
            "own: ours is stdout.run; the working directory has a stderr of the command's own: ours is stderr.run"
        ));
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
    fn how_it_was_made_has_small_inputs_whole_all_by_digest_and_the_end() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        std::fs::create_dir_all(paths.inputs.join("4")).unwrap();
        std::fs::create_dir_all(&paths.bin).unwrap();
        std::fs::write(paths.inputs.join("4/a"), "alpha").unwrap();
        std::fs::write(paths.inputs.join("4/b"), b"\xff").unwrap();
        std::fs::write(paths.inputs.join("5"), "x".repeat(64 << 10)).unwrap();
        std::fs::write(paths.inputs.join("6"), "x".repeat((64 << 10) + 1)).unwrap();
        mark_json(&paths.bin, files::PINNED, &json!({"0": "sha256:cc"})).unwrap();
        std::fs::create_dir_all(paths.secrets.join("8")).unwrap();
        std::fs::write(paths.secrets.join("8/k"), "secret").unwrap();
        for index in [4, 5, 6, 8] {
            markers::mark(&paths.bin, &format!("staged.{index}"), format!("sha256:{index}").as_bytes()).unwrap();
        }
        let input = |path: &str, source| RequestedInput::new(path, source);
        let image = |reference: &str| InputSource::Image { reference: reference.to_owned(), path: None };
        let key = |key: &str| InputSource::config_map("map", Some(key.to_owned()));
        let inputs = vec![
            input("tag", image("r/a:1")),
            input("digest", image("r/a@sha256:aa")),
            input("url", InputSource::Url { href: "https://u:secret@h/f?sig=s".to_owned(), sha256: "bb".to_owned() }),
            input("text", InputSource::Text("abc".to_owned())),
            input("map", InputSource::config_map("map", None)),
            input("key", key("k")),
            input("large", key("k")),
            input("claim", InputSource::Mounted),
            input("hidden", InputSource::secret("s", None)),
        ];
        let request = Request { inputs, ..Request::new(Command::Argv(vec!["train".to_owned()]), 30) };
        let mut save: SaveRequest = serde_json::from_value(json!({
            "repository": "r/b", "tag": "t", "deadlineSeconds": 1, "interruptedSeconds": 1, "madeBy": {"image": "r/i:1"},
        }))
        .unwrap();
        let record = Record { exit_code: Some(3), detail: "a warning".to_owned(), ..Record::default() };
        let told = made_by(&paths, &request, &save, Some(&record));
        assert_eq!(told["image"], "r/i:1");
        assert_eq!(told["command"], json!({"argv": ["train"]}));
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let want = json!([
            {"path": "tag", "digest": "sha256:cc", "reference": "r/a:1"},
            {"path": "digest", "digest": "sha256:aa", "reference": "r/a@sha256:aa"},
            {"path": "url", "digest": "sha256:bb", "url": {"href": "https://h/f", "sha256": "bb"}},
            {"path": "text", "digest": text, "text": "abc"},
            {"path": "map", "digest": "sha256:4", "data": {"a": "alpha"}, "binaryData": {"b": "/w=="}},
            {"path": "key", "digest": "sha256:5", "data": {"k": "x".repeat(64 << 10)}},
            {"path": "large", "digest": "sha256:6"},
            {"path": "claim"},
            {"path": "hidden"},
        ]);
        assert_eq!(told["inputs"], want);
        assert_eq!((&told["record"]["exitCode"], &told["record"]["detail"]), (&json!(3), &Value::Null));
        assert!(!told.to_string().contains("secret") && !told.to_string().contains("sig="));

        // What the operator knows of them stays.
        let sources: Vec<_> = (0..9).map(|index| json!({"path": "p", "configMap": {"name": index}})).collect();
        save.made_by.insert("inputs".to_owned(), sources.into());
        let told = made_by(&paths, &request, &save, None);
        assert_eq!(told["inputs"][7], json!({"path": "claim", "configMap": {"name": 7}}));
        assert_eq!(told["inputs"][3], json!({"path": "text", "configMap": {"name": 3}, "digest": text, "text": "abc"}));
    }
}

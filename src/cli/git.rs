//! What Git says of a directory: the commit, the branch, and what is not committed.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// As much of a difference is kept: all that is uploaded is in the bundle itself.
const LARGEST_DIFF: u64 = 64 << 10;
/// More names of changed files are not read.
const MOST_NAMES: u64 = 4 << 20;

/// A working tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkingTree {
    /// Checked out.
    pub(super) commit: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) branch: Option<String>,
    /// Something is not committed.
    pub(super) is_changed: bool,
    /// From the commit, of files that Git knows. None: nothing, or too much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) diff: Option<String>,
}

impl WorkingTree {
    /// For people.
    pub(super) fn summary(&self) -> String {
        let commit = self.commit.get(..12).unwrap_or(&self.commit);
        let branch = self.branch.as_ref().map_or_else(String::new, |branch| format!(" on {branch}"));
        let changes = if self.is_changed { ", with changes that are not committed" } else { "" };
        format!("commit {commit}{branch}{changes}")
    }
}

/// Asks Git about a directory, or about one file of it. Where there is no Git, or no commit, it says nothing. Of what
/// `is_left_out`, by absolute paths, nothing is told.
pub(super) fn working_tree(
    dir: &Path,
    file: Option<&Path>,
    is_left_out: impl Fn(&Path) -> bool,
) -> Option<WorkingTree> {
    let line = |words: &[&str]| {
        let (text, is_whole) = git(dir, words.iter().map(OsString::from), LARGEST_DIFF)?;
        let text = String::from_utf8(text).ok().filter(|_| is_whole)?;
        Some(text.trim_end().to_owned())
    };
    let commit = line(&["rev-parse", "--verify", "HEAD"])?;
    let top = PathBuf::from(line(&["rev-parse", "--show-toplevel"])?);
    let branch = line(&["symbolic-ref", "--short", "--quiet", "HEAD"]);
    let what = file.map_or(OsString::from("."), |file| magic("literal", file));

    let words = ["status", "--porcelain", "-z", "--no-renames", "--"].map(OsString::from);
    let (status, is_whole) = git(dir, words.into_iter().chain([what.clone()]), MOST_NAMES)?;
    // Two letters, a space, a path.
    let paths = status.split(|byte| *byte == 0).filter_map(|entry| entry.get(3..));
    let paths = paths.map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
    let (secret, changed): (Vec<_>, Vec<_>) = paths.partition(|path| is_left_out(&top.join(path)));

    let mut diff = None;
    if is_whole && !changed.is_empty() {
        let words =
            ["diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--submodule=short", "HEAD", "--"];
        let words = words.map(OsString::from).into_iter().chain([what]);
        let words = words.chain(secret.iter().map(|path| magic("top,exclude,literal", path)));
        let (text, is_whole) = git(dir, words, LARGEST_DIFF)?;
        diff = Some(String::from_utf8_lossy(&text).into_owned()).filter(|diff| is_whole && !diff.is_empty());
    }
    Some(WorkingTree { commit, branch, is_changed: !changed.is_empty(), diff })
}

/// Files of a directory, by their paths from there, that are in Git although a .gitignore names them.
pub(super) fn tracked_though_ignored(dir: &Path) -> Vec<PathBuf> {
    let words = ["ls-files", "--cached", "--ignored", "--exclude-standard", "-z"].map(OsString::from);
    let (text, _) = git(dir, words, MOST_NAMES).unwrap_or_default();
    // The last one has its end, or is cut off.
    let paths = text.split_inclusive(|byte| *byte == 0).filter_map(|path| path.strip_suffix(&[0]));
    paths.map(|path| PathBuf::from(OsString::from_vec(path.to_vec()))).collect()
}

/// A path as Git takes it, whatever characters it has.
fn magic(words: &str, path: &Path) -> OsString {
    let mut pathspec = OsString::from(format!(":({words})"));
    pathspec.push(path);
    pathspec
}

/// What Git prints, and whether it is all of it: no more is read than so many bytes. None: it is not there, or fails.
fn git(dir: &Path, words: impl IntoIterator<Item = OsString>, most: u64) -> Option<(Vec<u8>, bool)> {
    let mut command = Command::new("git");
    // Nothing is written or fetched, and no watcher or hook is started. Filters that a repository's configuration names
    // are, as by each `git status`.
    for setting in
        ["core.fsmonitor=false", "core.hooksPath=/dev/null", "core.quotePath=false", "diff.autoRefreshIndex=false"]
    {
        command.args(["-c", setting]);
    }
    command.args(words).current_dir(dir);
    for other in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        command.env_remove(other);
    }
    command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_NO_LAZY_FETCH", "1").env("LC_ALL", "C");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut text = Vec::new();
    let read = child.stdout.take()?.take(most.saturating_add(1)).read_to_end(&mut text);
    let is_whole = u64::try_from(text.len()).is_ok_and(|bytes| bytes <= most);
    // It writes to nobody, and ends of it.
    let status = child.wait().ok()?;
    (read.is_ok() && (status.success() || !is_whole)).then_some((text, is_whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn run(dir: &Path, words: &str) {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]);
        let output = git.args(words.split(' ')).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn commit_branch_and_what_is_not_committed_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let told = |file: Option<&str>| {
            working_tree(dir, file.map(Path::new), |path| path.file_name().is_some_and(|name| name == ".env"))
        };
        assert_eq!(told(None), None, "there is no repository");
        run(dir, "init -q -b work");
        assert_eq!(told(None), None, "there is no commit");
        for name in ["a", ".env", "b c"] {
            fs::write(dir.join(name), "one\n").unwrap();
        }
        run(dir, "add -A");
        run(dir, "commit -q -m first");
        let clean = told(None).unwrap();
        assert_eq!(
            (clean.commit.len(), clean.branch.as_deref(), clean.is_changed, &clean.diff),
            (40, Some("work"), false, &None)
        );
        assert_eq!(clean.summary(), format!("commit {} on work", clean.commit.get(..12).unwrap()));

        // What is left out is left out here as well.
        fs::write(dir.join(".env"), "token\n").unwrap();
        assert_eq!(told(None).unwrap(), clean);
        fs::write(dir.join("b c"), "two\n").unwrap();
        let changed = told(None).unwrap();
        let diff = changed.diff.clone().unwrap();
        assert!(changed.is_changed && diff.contains("-one\n+two\n") && !diff.contains("token"), "{diff}");
        assert!(changed.summary().ends_with(" on work, with changes that are not committed"));
        assert_eq!((told(Some("a")).unwrap(), told(Some("b c")).unwrap()), (clean.clone(), changed));

        // A new file is a change of which Git knows no difference, and a large difference is not kept.
        fs::write(dir.join("new"), "x").unwrap();
        let new = told(Some("new")).unwrap();
        assert_eq!((new.is_changed, new.diff), (true, None));
        fs::write(dir.join("a"), "line\n".repeat(1 << 20)).unwrap();
        let large = told(Some("a")).unwrap();
        assert_eq!((large.is_changed, large.diff), (true, None));

        run(dir, "checkout -q --detach");
        assert_eq!(told(Some("a")).unwrap().branch, None);
    }
}

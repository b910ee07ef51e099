//! What of a directory is uploaded: not what Git ignores, not what may be a secret, and nothing that is large by accident.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::WalkBuilder;
use rustix::fs::Access;

use crate::contract::size_for_people;

use super::clean;
use super::failure::Failure;
use super::git;

/// A larger file is more often a checkpoint or data than code.
const LARGE: u64 = 100 << 20;

/// What Git has of a directory, or a repository within it: it is another with every command of Git's.
const GIT: &str = ".git";

/// Names that keys, passwords and logins have, with those of directories that are full of them.
const SECRETS: [&str; 39] = [
    "*.env",
    ".env.*",
    ".envrc",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.ppk",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "id_*_sk",
    "kaggle.json",
    ".huggingface",
    ".cache/huggingface/token",
    ".config/gh",
    ".config/rclone",
    ".s3cfg",
    "*.tfstate",
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".config/gcloud",
    "application_default_credentials.json",
    ".kube",
    "kubeconfig",
    "*.kubeconfig",
    ".docker/config.json",
    ".dockercfg",
    ".netrc",
    ".pgpass",
    ".pypirc",
    ".npmrc",
    ".git-credentials",
];

/// What the user says of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowed {
    /// Files whose names say that they hold secrets.
    pub(super) secrets: bool,
    /// Files of more than [`LARGE`].
    pub(super) large: bool,
    /// What .gitignore files name.
    pub(super) ignored: bool,
}

/// What is uploaded.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The directory that it is in, without links on the way.
    pub(super) root: PathBuf,
    /// Paths from there, of directories too. As for Git, there is none with nothing in it: what the command writes there would
    /// be refused, as the directories of an input are read-only.
    pub(super) only: BTreeSet<Vec<u8>>,
    /// Paths from there of what is no part of it though Git does not ignore it, with the reason, for people.
    pub(super) left_out: Vec<String>,
    /// What is no part of it because Git ignores it, without what is in directories of which all is ignored.
    pub(super) ignored: Vec<String>,
    /// Links that lead to nothing of it, with their targets, for people.
    pub(super) dangling: Vec<String>,
    /// The path of the one file that is all of it, if it is no directory.
    pub(super) file: Option<PathBuf>,
    /// What was left out without a look at it.
    pub(super) secrets: Secrets,
}

impl Sources {
    /// Nothing of the directory has the name that another input, or a volume, has in the working directory.
    pub(super) fn check_free<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Result<(), Failure> {
        for path in paths {
            let first = path.split('/').find(|part| *part != ".").unwrap_or_default();
            if !first.is_empty() && self.only.contains(first.as_bytes()) {
                return Err(Failure::new(format!(
                    "{} has an entry {first}, where the run has {path}",
                    self.root.display()
                ))
                .hint("give that another path, or name the entry in a .gitignore"));
            }
        }
        Ok(())
    }
}

/// Says of a path whether it, or a directory that it is in, has the name of a secret.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets(GlobSet);

impl Secrets {
    /// None, if the user says so.
    fn new(allowed: Allowed) -> Result<Self, Failure> {
        let mut set = GlobSetBuilder::new();
        for name in SECRETS.iter().filter(|_| !allowed.secrets) {
            let glob = GlobBuilder::new(&format!("**/{name}")).literal_separator(true).case_insensitive(true).build();
            set.add(glob.map_err(|error| Failure::new(error.to_string()))?);
        }
        set.build().map(Self).map_err(|error| Failure::new(error.to_string()))
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        path.ancestors().any(|path| self.0.is_match(path))
    }
}

/// What of a directory is uploaded, or that one file is.
pub(super) fn find(target: &Path, allowed: Allowed) -> Result<Sources, Failure> {
    let secrets = Secrets::new(allowed)?;
    let unreadable = |error| Failure::new(format!("cannot read {}: {error}", target.display()));
    let place = target.canonicalize().map_err(unreadable)?;
    if secrets.has(&place) || secrets.has(target) {
        return Err(Failure::new(format!("{} has a name that secrets have", place.display()))
            .hint("kubectl bundle upload --include-secrets uploads it all the same"));
    }
    let metadata = fs::metadata(&place).map_err(unreadable)?;
    let mut found = Found { sources: Sources { secrets, ..Sources::default() }, ..Found::default() };
    if metadata.is_dir() {
        found.sources.root = place;
        found.walk(allowed);
    } else {
        let (Some(root), Some(name), true) = (place.parent(), place.file_name(), metadata.is_file()) else {
            return Err(Failure::new(format!("{} is neither a file nor a directory", target.display())));
        };
        found.sources.root = PathBuf::from(root);
        found.sources.file = Some(PathBuf::from(name));
        found.file(Path::new(name), metadata.len());
    }
    let sources = found.checked(allowed)?;
    if sources.only.is_empty() {
        return Err(Failure::new(format!("there is nothing to upload in {}", target.display()))
            .hint("files that a .gitignore names are left out"));
    }
    Ok(sources)
}

#[derive(Debug, Default)]
struct Found {
    sources: Sources,
    /// With what they lead to, if that is there.
    links: Vec<(PathBuf, PathBuf)>,
    large: Vec<String>,
    unreadable: Vec<String>,
}

impl Found {
    fn walk(&mut self, allowed: Allowed) {
        let root = self.sources.root.clone();
        let (secrets, hidden) = (self.sources.secrets.clone(), Arc::new(Mutex::new(Vec::new())));
        let (from, to) = (root.clone(), Arc::clone(&hidden));
        // Git reads the files above a directory only up to the top of its repository.
        let is_in_repository = root.ancestors().any(|dir| dir.join(GIT).exists());
        let mut walk = WalkBuilder::new(&root);
        walk.hidden(false).ignore(false).parents(is_in_repository).require_git(is_in_repository);
        if allowed.ignored {
            walk.standard_filters(false);
        }
        walk.filter_entry(move |entry| {
            let path = entry.path().strip_prefix(&from).unwrap_or(entry.path());
            if entry.file_name() == OsStr::new(GIT) {
                return false;
            }
            let is_secret = entry.depth() > 0 && secrets.has(entry.path());
            if is_secret {
                to.lock().unwrap_or_else(PoisonError::into_inner).push(shown(path));
            }
            !is_secret
        });
        let (mut seen, mut directories) = (BTreeSet::new(), vec![root.clone()]);
        for entry in walk.build() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.unreadable.push(clean::line(&error.to_string()));
                    continue;
                }
            };
            if entry.depth() > 0
                && let Ok(path) = entry.path().strip_prefix(&root)
            {
                self.entry(path);
                seen.insert(path.to_owned());
            }
            if entry.depth() > 0 && entry.file_type().is_some_and(|kind| kind.is_dir()) {
                directories.push(entry.into_path());
            }
        }
        // What was added to Git all the same is ignored by nobody.
        for path in git::tracked_though_ignored(&root) {
            if !self.sources.secrets.has(&root.join(&path)) {
                self.entry(&path);
            }
        }
        self.ignored(&directories, &seen);
        let mut hidden = hidden.lock().unwrap_or_else(PoisonError::into_inner);
        self.sources.left_out.extend(hidden.drain(..).map(|path| format!("{path} (the name of a secret)")));
        self.sources.left_out.sort_unstable();
    }

    /// What is in these directories and was not seen.
    fn ignored(&mut self, directories: &[PathBuf], seen: &BTreeSet<PathBuf>) {
        let Sources { root, only, secrets, ignored, .. } = &mut self.sources;
        let entries = directories.iter().flat_map(fs::read_dir).flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let Ok(below) = path.strip_prefix(&*root) else { continue };
            let is_part = seen.contains(below) || only.contains(below.as_os_str().as_bytes());
            if !is_part && !secrets.has(&path) && path.file_name() != Some(OsStr::new(GIT)) {
                ignored.push(shown(below));
            }
        }
        ignored.sort_unstable();
    }

    /// What is not there any more is no part of it.
    fn entry(&mut self, path: &Path) {
        let whole = self.sources.root.join(path);
        let Ok(metadata) = whole.symlink_metadata() else { return };
        if metadata.is_file() {
            self.file(path, metadata.len());
        } else if metadata.is_symlink() {
            self.add(path);
            self.links.extend(whole.canonicalize().map(|target| (path.to_owned(), target)));
        } else if !metadata.is_dir() {
            self.sources.left_out.push(format!("{} (neither a file, a directory nor a link)", shown(path)));
        }
    }

    fn file(&mut self, path: &Path, size: u64) {
        if size > LARGE {
            self.large.push(format!("{} ({})", shown(path), size_for_people(size)));
        }
        if let Err(error) = rustix::fs::access(self.sources.root.join(path), Access::READ_OK) {
            self.unreadable.push(format!("{}: {error}", shown(path)));
        }
        self.add(path);
    }

    fn add(&mut self, path: &Path) {
        let with_directories = path.ancestors().filter(|path| !path.as_os_str().is_empty());
        self.sources.only.extend(with_directories.map(|path| path.as_os_str().as_bytes().to_vec()));
    }

    fn checked(self, allowed: Allowed) -> Result<Sources, Failure> {
        let Self { mut sources, links, mut large, mut unreadable, .. } = self;
        if !unreadable.is_empty() {
            return Err(Failure::new(format!("not all of it can be read:{}", list(&mut unreadable)))
                .hint("files that a .gitignore names are left out"));
        }
        if !large.is_empty() && !allowed.large {
            let most = size_for_people(LARGE);
            return Err(Failure::new(format!(
                "files of more than {most} are uploaded only if you say so:{}",
                list(&mut large)
            ))
            .hint(
                "name them in a .gitignore to leave them out; kubectl bundle upload --allow-large uploads them, \
                     and run has what it prints as an input: -i PATH=image:REFERENCE",
            ));
        }
        for (link, target) in links {
            let inside = target.strip_prefix(&sources.root).ok().map(|path| path.as_os_str().as_bytes());
            if !inside.is_some_and(|path| path.is_empty() || sources.only.contains(path)) {
                sources.dangling.push(format!("{} -> {}", shown(&link), shown(&target)));
            }
        }
        sources.dangling.sort_unstable();
        Ok(sources)
    }
}

/// Lines, each indented.
fn list(paths: &mut [String]) -> String {
    paths.sort_unstable();
    format!("\n  {}", paths.join("\n  "))
}

fn shown(path: &Path) -> String {
    clean::line(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A tree with a file under each of these names, as large as its name says.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        dir
    }

    fn paths(sources: &Sources) -> Vec<String> {
        sources.only.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    #[test]
    fn what_git_ignores_is_left_out() {
        let dir =
            tree(&["train.py", "lib/a.py", "lib/a.pyc", "data/big.bin", "data/keep.csv", ".config.toml", "out/x"]);
        fs::write(dir.path().join(".gitignore"), "*.pyc\n/out/\n").unwrap();
        fs::write(dir.path().join("data/.gitignore"), "*\n!keep.csv\n").unwrap();
        let expected = [".config.toml", ".gitignore", "data", "data/keep.csv", "lib", "lib/a.py", "train.py"];
        let found = find(dir.path(), Allowed::default()).unwrap();
        assert_eq!(paths(&found), expected, "without a repository");
        assert_eq!(found.ignored, ["data/.gitignore", "data/big.bin", "lib/a.pyc", "out"]);
        let all = find(dir.path(), Allowed { ignored: true, ..Allowed::default() }).unwrap();
        assert_eq!((paths(&all).len(), all.ignored.len()), (expected.len() + 5, 0));

        // Within a repository, its files above the directory count, and those above the repository do not.
        let dir =
            tree(&["repo/.git/HEAD", "repo/sub/a.log", "repo/sub/b", "repo/sub/.git/HEAD", "repo/sub/inner/c.log"]);
        fs::write(dir.path().join(".gitignore"), "*\n").unwrap();
        fs::write(dir.path().join("repo/.gitignore"), "*.log\n").unwrap();
        fs::remove_dir_all(dir.path().join("repo/sub/.git")).unwrap();
        let sub = find(&dir.path().join("repo/sub"), Allowed::default()).unwrap();
        assert_eq!(paths(&sub), ["b"]);
        assert_eq!(paths(&find(&dir.path().join("repo"), Allowed::default()).unwrap()), [".gitignore", "sub", "sub/b"]);
    }

    #[test]
    fn secrets_are_left_out_and_named_unless_the_user_wants_them() {
        let secrets = [
            ".env",
            ".env.local",
            "deep/.ENV",
            "certs/server.pem",
            "id_rsa",
            "home/.ssh/config",
            "home/.aws/credentials",
            ".docker/config.json",
            ".netrc",
            "kubeconfig",
            "a.kubeconfig",
        ];
        let plain = ["env", "environment.yml", "pem", ".docker/Dockerfile", "id_rsa.pub", "config.json"];
        let dir = tree(&[&secrets[..], &plain, &[".git/config", "ignored/.env"]].concat());
        fs::write(dir.path().join(".gitignore"), "ignored\n").unwrap();
        let sources = find(dir.path(), Allowed::default()).unwrap();
        let left = paths(&sources);
        for name in secrets {
            assert!(!left.contains(&name.to_owned()), "{name}");
            // Of a directory, that is named.
            let named = |what: &str| sources.left_out.contains(&format!("{what} (the name of a secret)"));
            assert!(
                Path::new(name).ancestors().any(|path| named(path.to_str().unwrap())),
                "{name}: {:?}",
                sources.left_out
            );
        }
        assert!(plain.iter().all(|name| left.contains(&(*name).to_owned())), "{left:?}");
        assert!(!left.iter().any(|path| path.starts_with(".git/") || path == ".git"));
        assert_eq!(sources.left_out.len(), secrets.len(), "what Git ignores is not named: {:?}", sources.left_out);

        let all = find(dir.path(), Allowed { secrets: true, ..Allowed::default() }).unwrap();
        assert!(secrets.iter().all(|name| paths(&all).contains(&(*name).to_owned())) && all.left_out.is_empty());
        assert!(!paths(&all).contains(&".git".to_owned()), "it is no secret, and is never part of it");
        for named in ["home/.aws", "id_rsa", "home/.ssh/config"] {
            let refused = find(&dir.path().join(named), Allowed::default()).unwrap_err();
            assert!(refused.message.ends_with("has a name that secrets have"), "{}", refused.message);
        }
    }

    #[test]
    fn the_directory_that_is_uploaded_counts_for_the_names_of_secrets() {
        let dir = tree(&[".docker/config.json", ".docker/Dockerfile", ".config/gcloud/credentials.db", ".config/x"]);
        let left = |name: &str| paths(&find(&dir.path().join(name), Allowed::default()).unwrap());
        assert_eq!(left(".docker"), ["Dockerfile"]);
        assert_eq!(left(".config"), ["x"]);
        symlink("config/dev", dir.path().join("prod.env")).unwrap();
        fs::create_dir(dir.path().join("config")).unwrap();
        fs::write(dir.path().join("config/dev"), "").unwrap();
        assert!(find(&dir.path().join("prod.env"), Allowed::default()).is_err(), "its own name counts");
    }

    #[test]
    fn all_large_files_are_named_and_refused_unless_the_user_wants_them() {
        let dir = tree(&["a", "run/model.pt", "exact"]);
        for (name, size) in [("a", LARGE + 1), ("run/model.pt", 3 * LARGE), ("exact", LARGE)] {
            fs::File::options().write(true).open(dir.path().join(name)).unwrap().set_len(size).unwrap();
        }
        let refused = find(dir.path(), Allowed::default()).unwrap_err();
        let expected = "files of more than 100.0 MiB are uploaded only if you say so:\n  a (100.0 MiB)\n  run/model.pt (300.0 MiB)";
        assert_eq!(refused.message, expected);
        let all = find(dir.path(), Allowed { large: true, ..Allowed::default() }).unwrap();
        assert_eq!(paths(&all), ["a", "exact", "run", "run/model.pt"]);
        assert!(find(&dir.path().join("a"), Allowed::default()).is_err());
    }

    #[test]
    fn links_that_lead_to_what_is_not_uploaded_are_named() {
        let dir = tree(&["a", ".env", "d/b"]);
        for (link, target) in [("ok", "a"), ("d/up", ".."), ("secret", ".env"), ("out", "/proc"), ("broken", "nowhere")]
        {
            symlink(target, dir.path().join(link)).unwrap();
        }
        let sources = find(dir.path(), Allowed::default()).unwrap();
        let root = dir.path().canonicalize().unwrap();
        assert_eq!(sources.dangling, ["out -> /proc".to_owned(), format!("secret -> {}/.env", root.display())]);
        assert!(paths(&sources).contains(&"broken".to_owned()), "a link is uploaded as what it is");
    }

    #[test]
    fn one_file_is_found_in_its_directory_and_nothing_is_refused() {
        let dir = tree(&["data/points.csv", "data/other"]);
        fs::write(dir.path().join(".gitignore"), "*.csv\n").unwrap();
        let sources = find(&dir.path().join("data/points.csv"), Allowed::default()).unwrap();
        assert_eq!((paths(&sources), sources.file), (vec!["points.csv".to_owned()], Some(PathBuf::from("points.csv"))));
        fs::create_dir(dir.path().join("empty")).unwrap();
        let error = find(&dir.path().join("empty"), Allowed::default()).unwrap_err();
        assert!(error.message.starts_with("there is nothing to upload in"), "{}", error.message);
        assert!(find(&dir.path().join("nowhere"), Allowed::default()).is_err());
        assert!(find(Path::new("/dev/null"), Allowed::default()).is_err());
    }

    #[test]
    fn an_entry_does_not_take_the_place_of_an_input() {
        let dir = tree(&["data/a", "train.py", "ignored/b"]);
        fs::write(dir.path().join(".gitignore"), "ignored\n").unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        let sources = find(dir.path(), Allowed::default()).unwrap();
        sources.check_free(["out", "ignored/b", "/data", "a", "train", "."]).unwrap();
        for taken in ["data", "./data/b", "data/a", "train.py"] {
            assert!(
                sources.check_free(["a", taken]).unwrap_err().message.ends_with(&format!("where the run has {taken}"))
            );
        }
    }
}

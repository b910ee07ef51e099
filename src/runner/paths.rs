//! Where things are: the pod's mounts, or the same tree below another root.

#[cfg(feature = "operator")]
use crate::contract::InputSource;
use crate::names::{PROGRESS_PORT, paths};
use std::path::{Path, PathBuf};

/// The directories and files that the runner and the helper meet in.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `/`: the image's and the host's own files are below it.
    pub root: PathBuf,
    /// Working directory and HOME of the command; the containers have it at different places.
    pub bundle: PathBuf,
    /// What the command says.
    pub output: PathBuf,
    /// Caches of the command.
    pub cache: PathBuf,
    /// The runner and the helper's marks.
    pub bin: PathBuf,
    /// What the runner leaves for the helper.
    pub record: PathBuf,
    /// The request.
    pub request: PathBuf,
    /// What the helper stages.
    pub inputs: PathBuf,
    /// What the helper stages of Secrets.
    pub secrets: PathBuf,
    /// What the kubelet mounts for the helper, and what it mounts for inputs at `.`.
    pub sources: PathBuf,
    /// Credentials of registries.
    pub credentials: PathBuf,
    /// The operator as it lies in our image.
    pub operator_binary: PathBuf,
    /// The runner as it lies in our image.
    pub runner_in_image: PathBuf,
    /// Where the kubelet reads the helper's last words.
    pub termination_message: PathBuf,
    /// Mount of the container's cgroup.
    pub cgroup: PathBuf,
    /// Directories that have the image's shell when PATH does not lead to it.
    pub shells: Vec<PathBuf>,
    /// Where the helper tells its progress.
    pub progress_port: u16,
}

impl Default for Paths {
    /// The paths in the run container.
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Paths {
    /// The paths in the helper container, or the same tree below another root, for tests.
    #[must_use]
    pub fn of_helper(root: &Path) -> Self {
        let paths = Self::below(root);
        if root == Path::new("/") { Self { bundle: paths::WORK.into(), ..paths } } else { paths }
    }

    /// The same tree below `root`, for tests.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        Self {
            root: root.to_owned(),
            bundle: at(paths::BUNDLE),
            output: at(paths::OUTPUT),
            cache: at(paths::CACHE),
            bin: at(paths::BIN),
            record: at(paths::RECORD),
            request: at(paths::REQUEST),
            inputs: at(paths::INPUTS),
            secrets: at(paths::SECRETS),
            sources: at(paths::SOURCES),
            credentials: at(paths::CREDENTIALS),
            operator_binary: at(paths::OPERATOR_BINARY),
            runner_in_image: at(paths::RUNNER_IN_IMAGE),
            termination_message: at(paths::TERMINATION_MESSAGE),
            cgroup: at("/sys/fs/cgroup"),
            shells: ["/bin", "/usr/bin", "/usr/local/bin"].map(at).to_vec(),
            progress_port: PROGRESS_PORT,
        }
    }

    /// Where the helper puts an input of the request, by its index.
    #[cfg(feature = "operator")]
    pub(crate) fn place(&self, index: usize, source: &InputSource) -> PathBuf {
        let volume = if source.is_secret() { &self.secrets } else { &self.inputs };
        volume.join(index.to_string())
    }

    /// Where a path of the container is.
    pub(crate) fn below_root(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The path as the container has it, for people.
    pub(crate) fn shown(&self, path: &Path) -> String {
        Path::new("/").join(path.strip_prefix(&self.root).unwrap_or(path)).display().to_string()
    }
}

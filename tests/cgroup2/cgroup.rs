//! Control groups as the kubelet makes them, and processes in them as the container runtime starts them.

use crate::sandbox::Sandbox;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MOUNT: &str = "/sys/fs/cgroup";

pub(crate) const MIB: u64 = 1024 * 1024;

/// A control group of a test's own.
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// A pod's: there may be containers below it.
    pub(crate) fn pod(name: &str) -> Self {
        let pod = Self::make(&Path::new(MOUNT).join(name));
        fs::write(pod.path.join("cgroup.subtree_control"), "+cpu +memory +pids").unwrap();
        pod
    }

    /// A container's.
    pub(crate) fn container(&self, name: &str) -> Self {
        Self::make(&self.path.join(name))
    }

    fn make(path: &Path) -> Self {
        fs::create_dir(path).unwrap();
        Self { path: path.to_owned() }
    }

    pub(crate) fn limit(self, bytes: u64) -> Self {
        fs::write(self.path.join("memory.max"), bytes.to_string()).unwrap();
        self
    }

    /// One dies, all die: since Kubernetes 1.28.
    pub(crate) fn all_die_together(self) -> Self {
        fs::write(self.path.join("memory.oom.group"), "1").unwrap();
        self
    }

    /// The number in a file, or the one after `key` in it.
    pub(crate) fn number(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(self.path.join(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().parse().unwrap()
    }

    /// `command`, which is one of the sandbox, as a container: it sees this group and what is below as all there is.
    pub(crate) fn contain(&self, command: &Command, sandbox: &Sandbox) -> Command {
        const ENTER: &str = r#"
            echo $$ >"$1/cgroup.procs" && shift && exec /usr/bin/unshare --cgroup --mount /bin/sh -c '
                /bin/mount -t cgroup2 cgroup2 "$1" && shift && exec "$@"' - "$@""#;
        fs::create_dir_all(&sandbox.paths.cgroup).unwrap();
        let mut contained = Command::new("/bin/sh");
        contained.args(["-c", ENTER, "-"]).arg(&self.path).arg(&sandbox.paths.cgroup);
        contained.arg(command.get_program()).args(command.get_args());
        contained
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        // The kernel takes its time to let go of the last process.
        while fs::remove_dir(&self.path).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

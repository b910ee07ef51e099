//! Images made for a test, without a daemon: one layer of a few files on a base of the local registry.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::output;

/// What to put on which base. Bases are shared, so an image costs one small layer.
#[derive(Clone, Default)]
pub struct Recipe {
    /// `NAME:TAG` in the registry; empty: nothing below, not even an environment.
    pub base: &'static str,
    /// Path, content and mode. A name that begins with `.wh.` takes the file of that name out of the base.
    pub files: Vec<(&'static str, Vec<u8>, u32)>,
    /// Directories with their mode, where it matters.
    pub directories: Vec<(&'static str, u32)>,
    /// WORKDIR.
    pub workdir: Option<&'static str>,
    /// USER.
    pub user: Option<&'static str>,
    /// ENV, `NAME=VALUE`.
    pub env: Vec<&'static str>,
}

impl Recipe {
    /// Makes the image and returns the reference that pods use.
    pub fn push(&self, name: &str) -> String {
        let registry = std::env::var("REGISTRY_HOST").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (root, layer) = (dir.path().join("root"), dir.path().join("layer.tar"));
        self.fill(&root);
        let layer = layer.to_str().unwrap();
        output(
            "tar",
            &[
                "--create",
                "--owner=0",
                "--group=0",
                "--mtime=@0",
                "--sort=name",
                "--numeric-owner",
                "--directory",
                root.to_str().unwrap(),
                "--file",
                layer,
                ".",
            ],
        );
        let tag = format!("{registry}/{name}");
        let mut base = format!("{registry}/{}", self.base);
        let mut args = vec!["mutate", "--insecure", "--tag", &tag];
        if self.base.is_empty() {
            output("crane", &["append", "--insecure", "--new_layer", layer, "--new_tag", &tag]);
            base.clone_from(&tag);
            args.extend(["--set-platform", "linux/amd64"]);
        } else {
            args.extend(["--append", layer]);
        }
        args.extend(self.workdir.iter().flat_map(|value| ["--workdir", value]));
        args.extend(self.user.iter().flat_map(|value| ["--user", value]));
        args.extend(self.env.iter().flat_map(|value| ["--env", value]));
        args.push(&base);
        output("crane", &args);
        format!("{}/{name}", std::env::var("REGISTRY_NODE").unwrap())
    }

    fn fill(&self, root: &Path) {
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        fs::create_dir_all(root).unwrap();
        mode(root, 0o755);
        for (path, content, bits) in &self.files {
            let path = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            mode(&path, *bits);
        }
        for (path, bits) in &self.directories {
            let path = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(&path).unwrap();
            mode(&path, *bits);
        }
    }
}

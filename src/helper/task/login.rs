//! Who we are to registries: Docker configuration files in Secrets, which the kubelet mounts for the helper alone.

use crate::bundle::Access;
use crate::contract::Registries;
use crate::names::files;
use crate::runner::Paths;
use std::fs::File;
use std::io::Read;

/// A Secret holds no more.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads what is mounted, in order. A Secret that does not exist is an empty directory: what needs it is denied.
pub(in crate::helper) fn access(paths: &Paths, registries: &Registries) -> Access {
    let directories = (0..).map(|n: u32| paths.credentials.join(n.to_string())).take_while(|dir| dir.is_dir());
    let docker_configs = directories
        .filter_map(|dir| {
            let mut text = String::new();
            File::open(dir.join(files::DOCKER_CONFIG)).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
            Some(text)
        })
        .collect();
    Access { registries: registries.clone(), docker_configs, ..Access::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_secret_that_is_missing_leaves_the_others() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let registries = Registries { insecure: vec!["localhost:5000".to_owned()], ca: None };
        assert!(access(&paths, &registries).docker_configs.is_empty());
        for (n, text) in [(0, None), (1, Some("{\"auths\":{}}")), (3, Some("never read"))] {
            let dir = paths.credentials.join(n.to_string());
            fs::create_dir_all(&dir).unwrap();
            if let Some(text) = text {
                fs::write(dir.join(".dockerconfigjson"), text).unwrap();
            }
        }
        let access = access(&paths, &registries);
        assert_eq!(access.docker_configs, ["{\"auths\":{}}"]);
        assert_eq!(access.registries, registries);
    }
}

//! Who we are to registries: Docker configuration files in Secrets, which the kubelet mounts for the helper alone.

use crate::bundle::{Access, StoreAccess};
use crate::contract::Request;
use crate::names::files;
use crate::runner::Paths;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A Secret holds no more.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads what is mounted, in order. A Secret that does not exist is an empty directory: what needs it is denied. The
/// first is the store's, if there is a store.
pub(in crate::helper) fn access(paths: &Paths, request: &Request) -> Access {
    let directories = (0..).map(|n: u32| paths.credentials.join(n.to_string())).take_while(|dir| dir.is_dir());
    let (of_store, own): (Vec<_>, Vec<_>) =
        directories.enumerate().partition(|(number, _)| *number == 0 && request.save.is_some());
    let read = |dirs: Vec<(usize, _)>| dirs.iter().filter_map(|(_, dir)| docker_config(dir)).collect();
    let repositories = request.save.iter().map(|save| &save.repository).chain(&request.own_repositories);
    let store = StoreAccess { repositories: repositories.cloned().collect(), docker_configs: read(of_store) };
    Access { registries: request.registries.clone(), docker_configs: read(own), store }
}

/// As the kubelet takes Secrets of both types for pulling; those of `OpenShift` are of the older one.
fn docker_config(dir: impl AsRef<Path>) -> Option<String> {
    let read = |name| {
        let mut text = String::new();
        File::open(dir.as_ref().join(name)).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        Some(text)
    };
    read(files::DOCKER_CONFIG).or_else(|| Some(format!("{{\"auths\":{}}}", read(files::DOCKER_CFG)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Command, Registries, SaveRequest};
    use std::fs;

    #[test]
    fn a_secret_that_is_missing_leaves_the_others() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let registries = Registries { insecure: vec!["localhost:5000".to_owned()], ca: None };
        let request = Request { registries, ..Request::new(Command::Shell(String::new()), 30) };
        assert!(access(&paths, &request).docker_configs.is_empty());
        for (n, text) in [(0, None), (1, Some("{\"auths\":{}}")), (3, Some("never read"))] {
            let dir = paths.credentials.join(n.to_string());
            fs::create_dir_all(&dir).unwrap();
            if let Some(text) = text {
                fs::write(dir.join(".dockerconfigjson"), text).unwrap();
            }
        }
        let access = access(&paths, &request);
        assert_eq!(access.docker_configs, ["{\"auths\":{}}"]);
        assert_eq!(access.registries, request.registries);
        assert!(access.store.docker_configs.is_empty());
    }

    #[test]
    fn a_secret_of_the_older_type_has_the_same_logins() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(".dockercfg"), r#"{"h:1":{"username":"u","password":"p"}}"#).unwrap();
        assert_eq!(docker_config(&root).unwrap(), r#"{"auths":{"h:1":{"username":"u","password":"p"}}}"#);
        fs::write(root.path().join(".dockerconfigjson"), "{}").unwrap();
        assert_eq!(docker_config(&root).unwrap(), "{}");
    }

    #[test]
    fn the_first_is_the_stores_and_for_outputs_of_the_namespace_alone() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        for text in ["0", "1", "2"] {
            let dir = paths.credentials.join(text);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(".dockerconfigjson"), text).unwrap();
        }
        let save: SaveRequest = serde_json::from_value(serde_json::json!({
            "repository": "r/b/n", "tag": "t", "deadlineSeconds": 1, "interruptedSeconds": 1,
        }))
        .unwrap();
        let own_repositories = vec!["old/b/n".to_owned()];
        let mut request =
            Request { save: Some(save), own_repositories, ..Request::new(Command::Shell(String::new()), 30) };
        let Access { docker_configs, store, .. } = access(&paths, &request);
        assert_eq!(
            (store.docker_configs, docker_configs),
            (vec!["0".to_owned()], vec!["1".to_owned(), "2".to_owned()])
        );
        assert_eq!(store.repositories, ["r/b/n", "old/b/n"]);
        request.save = None;
        let Access { docker_configs, store, .. } = access(&paths, &request);
        assert_eq!((store.docker_configs.len(), docker_configs.len()), (0, 3));
    }
}

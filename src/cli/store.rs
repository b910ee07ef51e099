//! The store with the saved outputs, read with the user's own logins.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::BundleRun;
use crate::bundle::Access;
use crate::contract::Registries;
use crate::oci::Reference;

use super::failure::Failure;
use super::runs;
use super::session::{Connection, Session};

/// How the registry of a store is reached.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct StoreOptions {
    /// host[:port] of a registry that speaks plain HTTP, as 10.0.0.1:5000; this machine's need not be named
    #[arg(long, value_name = "HOST", env = "BUNDLE_INSECURE_REGISTRY", value_delimiter = ',')]
    insecure_registry: Vec<String>,
    /// Certificate authority of the registry, PEM
    #[arg(long, value_name = "FILE", env = "BUNDLE_REGISTRY_CA")]
    registry_ca: Option<PathBuf>,
}

/// What is read, as users name it: a run, an attempt of it, or a bundle itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Run(&'a str),
    Attempt(&'a str, u32),
    Bundle(&'a str),
}

pub(super) fn target(text: &str) -> Result<Target<'_>, Failure> {
    let plain = text.strip_prefix("bundle://").unwrap_or(text);
    if plain.len() < text.len() || plain.contains('/') {
        return Ok(Target::Bundle(plain));
    }
    match text.split_once('@') {
        None => Ok(Target::Run(text)),
        Some((name, number)) => number
            .parse()
            .map(|number| Target::Attempt(name, number))
            .map_err(|_| Failure::usage(format!("{text} is neither RUN, nor RUN@ATTEMPT, nor REPOSITORY@sha256:..."))),
    }
}

/// A saved output.
pub(super) struct Saved {
    /// By digest, or as the user named it.
    pub(super) reference: String,
    /// For files of it on this machine.
    pub(super) name: String,
    /// How it is read.
    pub(super) access: Access,
}

/// What was named, with the run if it is one.
pub(super) enum Named<'a> {
    Run { run: Box<BundleRun>, connection: Connection, attempt: Option<u32> },
    Bundle(&'a str),
}

/// Asks for the run, if one is named.
pub(super) async fn named<'a>(session: &Session, text: &'a str) -> Result<Named<'a>, Failure> {
    let (name, attempt) = match target(text)? {
        Target::Bundle(reference) => return Ok(Named::Bundle(reference)),
        Target::Run(name) => (name, None),
        Target::Attempt(name, number) => (name, Some(number)),
    };
    let connection = session.connect().await?;
    let run = Box::new(runs::get(&connection, name).await?);
    Ok(Named::Run { run, connection, attempt })
}

/// The bundle of a run, of `RUN@ATTEMPT`, or the one that was named itself.
pub(super) fn saved(session: &Session, named: &Named<'_>, options: &StoreOptions) -> Result<Saved, Failure> {
    let (reference, name) = match named {
        Named::Bundle(reference) => ((*reference).to_owned(), name_of(reference)?),
        Named::Run { run, attempt, .. } => (reference(run, *attempt)?, runs::name(run).to_owned()),
    };
    let access = access(session, &reference, options)?;
    Ok(Saved { reference, name, access })
}

/// Both of these.
pub(super) async fn find(session: &Session, text: &str, options: &StoreOptions) -> Result<Saved, Failure> {
    saved(session, &named(session, text).await?, options)
}

/// Files of a bundle that was named itself are named after the last part of its repository.
fn name_of(reference: &str) -> Result<String, Failure> {
    let repository = parsed(reference)?.repository;
    Ok(repository.rsplit('/').next().unwrap_or(&repository).to_owned())
}

fn parsed(reference: &str) -> Result<Reference, Failure> {
    Reference::parse(reference).map_err(|error| Failure::usage(error.to_string()))
}

/// By digest, of an attempt, or of the last.
pub(super) fn reference(run: &BundleRun, attempt: Option<u32>) -> Result<String, Failure> {
    let status = run.status.clone().unwrap_or_default();
    let name = runs::name(run);
    if let Some(number) = attempt.filter(|number| Some(*number) != status.attempt) {
        let bundle = runs::recorded(run, number)?.bundle;
        return bundle.ok_or_else(|| Failure::new(format!("attempt {number} of {name} left no saved output")));
    }
    if let Some(bundle) = status.output.and_then(|output| output.bundle) {
        return Ok(bundle);
    }
    if !run.is_over() {
        return Err(Failure::new(format!("the output of {name} is not saved yet: it is {}", runs::state(run)))
            .hint(format!("kubectl bundle wait {name}; while its command runs: kubectl bundle cp {name}:. DIR")));
    }
    let saved = status.conditions.iter().find(|condition| condition.type_ == "OutputSaved");
    let why = saved.map(|condition| format!(": {} ({})", condition.message, condition.reason)).unwrap_or_default();
    Err(Failure::new(format!("the output of {name} was not saved{why}")).hint(format!("kubectl bundle why {name}")))
}

/// With the logins of Docker and Podman.
pub(super) fn access(session: &Session, reference: &str, options: &StoreOptions) -> Result<Access, Failure> {
    let host = parsed(reference)?.host;
    let mut insecure = options.insecure_registry.clone();
    if is_this_machine(&host) {
        insecure.push(host.clone());
    }
    let ca = match &options.registry_ca {
        None => None,
        Some(file) => {
            let unreadable = |error| Failure::new(format!("cannot read {}: {error}", file.display()));
            Some(fs::read_to_string(file).map_err(unreadable)?)
        }
    };
    let configs: Vec<String> = config_files().iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    let mut docker_configs = Vec::new();
    for config in configs {
        match from_helper(&config, &host) {
            Ok(login) => docker_configs.extend(login),
            Err(why) => session.out.note(&why),
        }
        docker_configs.push(config);
    }
    let registries = Registries { insecure, ca };
    Ok(Access { registries, docker_configs, ..Access::default() })
}

/// Docker takes these for plain HTTP, too.
fn is_this_machine(host: &str) -> bool {
    // A name that only looks like an address is somebody else's.
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
    match name.strip_prefix('[') {
        Some(address) => {
            address.strip_suffix(']').and_then(|address| address.parse().ok()) == Some(Ipv6Addr::LOCALHOST)
        }
        None => name == "localhost" || name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback()),
    }
}

fn config_files() -> Vec<PathBuf> {
    let dir = |name: &str| env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let docker = dir("DOCKER_CONFIG").or_else(|| Some(dir("HOME")?.join(".docker")));
    let docker = docker.map(|dir| dir.join("config.json"));
    let podman = dir("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    docker.into_iter().chain(podman).collect()
}

/// What a configuration says of programs that keep logins.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Helpers {
    creds_store: Option<String>,
    cred_helpers: std::collections::BTreeMap<String, String>,
}

/// What such a program answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Login {
    username: String,
    secret: String,
}

/// The login that Docker's helper program has for a host, as a configuration; none: it has none.
fn from_helper(config: &str, host: &str) -> Result<Option<String>, String> {
    let Ok(Helpers { creds_store, cred_helpers }) = serde_json::from_str(config) else { return Ok(None) };
    let Some(helper) = cred_helpers.get(host).cloned().or(creds_store) else { return Ok(None) };
    let program = format!("docker-credential-{helper}");
    let server = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
    let failed = |error: std::io::Error| format!("{program} of the Docker configuration gives no login: {error}");
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(server.as_bytes()).map_err(failed)?;
    }
    let answer = child.wait_with_output().map_err(failed)?;
    // With an exit code it says that it has none.
    if !answer.status.success() {
        return Ok(None);
    }
    // A message of the parser could quote a part of the secret.
    let Login { username, secret } =
        serde_json::from_slice(&answer.stdout).map_err(|_| format!("{program} gave no login that is understood"))?;
    Ok(Some(json!({"auths": {host: auth(&username, &secret)}}).to_string()))
}

fn auth(username: &str, secret: &str) -> Value {
    // Docker's own mark for a token.
    if username == "<token>" {
        json!({"identitytoken": secret})
    } else {
        json!({"username": username, "password": secret})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples::{self, DIGEST};
    use crate::cli::failure::Kind;

    #[test]
    fn a_target_is_a_run_an_attempt_or_a_bundle() {
        assert_eq!(target("train").unwrap(), Target::Run("train"));
        assert_eq!(target("train@2").unwrap(), Target::Attempt("train", 2));
        assert_eq!(target("r.example/a@sha256:1").unwrap(), Target::Bundle("r.example/a@sha256:1"));
        assert_eq!(target("bundle://r.example/a@sha256:1").unwrap(), Target::Bundle("r.example/a@sha256:1"));
        assert!(target("train@last").is_err());
    }

    #[test]
    fn a_bundle_is_named_after_its_repository() {
        let name = |reference: &str| name_of(reference).unwrap();
        assert_eq!(name(&format!("r.example:5000/bundles/train@{DIGEST}")), "train");
        assert_eq!(name("r.example/bundles/train:1"), "train");
        assert_eq!(name_of("r.example/bundles/train@sha256:1").unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn what_was_not_saved_says_why() {
        assert_eq!(reference(&examples::succeeded(), None).unwrap(), format!("r.example/a@{DIGEST}"));
        assert_eq!(reference(&examples::succeeded(), Some(1)).unwrap(), format!("r.example/a@{DIGEST}"));
        let said = |run: &BundleRun, attempt| reference(run, attempt).unwrap_err().message;
        assert_eq!(
            said(&examples::waiting(), None),
            "the output of big is not saved yet: it is Pending (Unschedulable)"
        );
        assert_eq!(said(&examples::failed(), None), "the output of wrong was not saved");
        assert_eq!(said(&examples::failed(), Some(1)), "attempt 1 of wrong left no saved output");
        assert_eq!(said(&examples::failed(), Some(7)), "wrong has no record of an attempt 7");
    }

    #[test]
    fn only_registries_of_this_machine_are_asked_in_plain_text_unasked() {
        for host in ["localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "[::1]", "localhost"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "r.example",
            "10.0.0.1:5000",
            "localhost.example:5000",
            "127.0.0.1.evil.example",
            "127.evil.example:5000",
            "127.0.0.1@evil.example",
            "[::1].evil.example",
            "[::2]:5000",
            "::1",
            "127.0.0.1:5000:80",
            "",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn a_configuration_without_a_helper_asks_none_and_one_that_is_not_there_is_named() {
        assert_eq!(from_helper(r#"{"auths": {}}"#, "r.example"), Ok(None));
        assert_eq!(from_helper("no JSON", "r.example"), Ok(None));
        let config = r#"{"credHelpers": {"r.example": "surely-not-there"}}"#;
        assert_eq!(from_helper(config, "other.example"), Ok(None));
        let error = from_helper(config, "r.example").unwrap_err();
        assert!(error.starts_with("docker-credential-surely-not-there of the Docker configuration"), "{error}");
    }

    #[test]
    fn a_token_is_no_password() {
        assert_eq!(auth("<token>", "t"), json!({"identitytoken": "t"}));
        assert_eq!(auth("u", "p"), json!({"username": "u", "password": "p"}));
    }
}

//! What verbs share: the options, the connection as the kubeconfig says, and the way to the terminal.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use serde::Serialize;
use serde_json::json;

use crate::api::BundleRun;
use crate::names;

use super::clean;
use super::failure::Failure;
use super::paint::Paint;

/// Who wrote an object.
pub(super) const FIELD_MANAGER: &str = "kubectl-bundle";

/// Options of every verb.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every verb")]
pub(super) struct Global {
    /// Namespace of the runs. Default: that of the context
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// Context of the kubeconfig. Default: the current one
    #[arg(long, global = true)]
    context: Option<String>,
    /// The kubeconfig. Default: $KUBECONFIG, else ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl Global {
    /// The same cluster for `kubectl`.
    pub(super) fn for_kubectl(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        if let Some(context) = &self.context {
            words.extend(["--context".into(), context.into()]);
        }
        if let Some(file) = &self.kubeconfig {
            words.extend(["--kubeconfig".into(), file.into()]);
        }
        words
    }
}

/// Of verbs that answer with something else than bytes.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Answer {
    /// How the answer is written
    #[arg(short, long = "output", value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// The same with more columns.
    Wide,
    /// For programs.
    Json,
    /// The same as YAML.
    Yaml,
    /// Only which object it is, as `kubectl` takes it.
    Name,
}

impl Format {
    pub(super) fn is_for_people(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// One call of the program.
pub(super) struct Session {
    pub(super) global: Global,
    pub(super) out: Out,
}

/// A cluster that was asked for.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) namespace: String,
}

impl Connection {
    pub(super) fn runs(&self) -> Api<BundleRun> {
        self.api()
    }

    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

impl Session {
    /// With the user's own kubeconfig and rights; within a pod without one, with those of its service account.
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        // The one of all TLS in this program; it fails only when there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = self.config().await?;
        config.connect_timeout = Some(Duration::from_secs(10));
        let namespace = self.global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| {
            Failure::new(format!("the kubeconfig cannot be used: {}", super::failure::chain(&error)))
        })?;
        Ok(Connection { client, namespace })
    }

    async fn config(&self) -> Result<Config, Failure> {
        let unusable = |error: kube::config::KubeconfigError| {
            Failure::new(format!("no cluster: {}", super::failure::chain(&error)))
                .hint("name a kubeconfig by --kubeconfig or KUBECONFIG, and one of its contexts by --context")
        };
        let options = KubeConfigOptions { context: self.global.context.clone(), ..KubeConfigOptions::default() };
        let file = match &self.global.kubeconfig {
            Some(file) => Kubeconfig::read_from(file).map_err(unusable)?,
            None => match Kubeconfig::read() {
                Ok(file) => file,
                Err(error) => return Config::incluster().map_err(|_| unusable(error)),
            },
        };
        Config::from_custom_kubeconfig(file, &options).await.map_err(unusable)
    }
}

/// The way to whoever reads what is written: nothing is written but through it.
#[derive(Clone, Copy)]
pub(super) struct Out {
    /// A person looks at it, whose terminal must be left alone.
    pub(super) is_terminal: bool,
    pub(super) paint: Paint,
}

#[allow(clippy::unused_self)] // who writes has one
impl Out {
    pub(super) fn new() -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self { is_terminal, paint: Paint::on(is_terminal) }
    }

    /// Text that is clean already.
    pub(super) fn print(self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// What nobody looks at with a terminal, or is clean already.
    pub(super) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// For the person at the other end, who may have sent the answer elsewhere.
    pub(super) fn note(self, text: &str) {
        let _ = writeln!(io::stderr(), "{}", clean::text(text).trim_end());
    }

    /// An object, or a document of ours, for programs.
    pub(super) fn document(self, format: Format, value: &impl Serialize) -> Result<(), Failure> {
        let unwritable = |error: String| Failure::new(format!("cannot write the answer: {error}"));
        let text = if format == Format::Yaml {
            serde_saphyr::to_string(value).map_err(|error| unwritable(error.to_string()))?
        } else {
            let json = serde_json::to_string_pretty(value).map_err(|error| unwritable(error.to_string()))?;
            format!("{json}\n")
        };
        if self.is_terminal { self.print(&clean::text(&text)) } else { self.print(&text) }
    }

    /// Runs for programs: one as it is, several as a list.
    pub(super) fn runs(self, format: Format, runs: &[BundleRun]) -> Result<(), Failure> {
        match (format, runs) {
            (Format::Name, runs) => {
                self.print(&runs.iter().map(|run| qualified_name(&run.name_any())).collect::<String>())
            }
            (_, [run]) => self.document(format, run),
            (_, runs) => self.list(format, runs),
        }
    }

    /// As `kubectl get` has it.
    pub(super) fn list(self, format: Format, runs: &[BundleRun]) -> Result<(), Failure> {
        if format == Format::Name {
            return self.runs(format, runs);
        }
        self.document(format, &json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": runs}))
    }
}

/// Of a run, with the end of the line.
pub(super) fn qualified_name(name: &str) -> String {
    format!("{}.{}/{}\n", names::KIND.to_lowercase(), names::GROUP, clean::line(name))
}

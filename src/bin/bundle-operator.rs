//! The operator, and the helper container of its pods: one binary, one image.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use bundlerun::helper::{self, Task};
use bundlerun::runner::Paths;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(version, about = "Runs BundleRuns on Kubernetes")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator until SIGTERM.
    Run {
        /// The settings file.
        #[arg(long, env = "SETTINGS", default_value = "/etc/bundlerun/settings.yaml")]
        settings: PathBuf,
        /// Where /healthz and /readyz are served.
        #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
        /// This very image, for the helper container of every pod.
        #[arg(long, env = "HELPER_IMAGE")]
        helper_image: String,
        /// Name of this operator's pod, for events.
        #[arg(long, env = "POD_NAME")]
        instance: Option<String>,
    },
    /// Print the CustomResourceDefinition.
    Crd,
    /// In the helper container of a run's pod.
    Helper {
        /// Holds the container's tree, for tests.
        #[arg(long, hide = true, global = true, default_value = "/")]
        root: PathBuf,
        #[command(subcommand)]
        task: Helper,
    },
}

#[derive(Subcommand)]
enum Helper {
    /// Prepare, stage, watch, save and report: the container's main process.
    Run,
    /// Wait until the run container may start: the container's postStart hook.
    Prepared,
    /// A child of the main process: find out what inputs are.
    #[command(hide = true)]
    LookUp,
    /// A child of the main process: put inputs in place.
    #[command(hide = true)]
    Stage,
    /// A child of the main process: save the output.
    #[command(hide = true)]
    Save,
}

fn main() -> ExitCode {
    // The one of all TLS in this program; it fails only when there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Cli::parse().command {
        Command::Run { settings, listen, helper_image, instance } => {
            run_operator(bundlerun::operator::Options { settings, listen, helper_image, instance })
        }
        Command::Crd => match bundlerun::api::crd::crd_yaml() {
            Ok(yaml) => {
                print!("{yaml}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        Command::Helper { root, task } => run_helper(&Paths::below(&root), &task),
    }
}

fn run_helper(paths: &Paths, task: &Helper) -> ExitCode {
    match task {
        Helper::Run => helper::run(paths),
        Helper::Prepared => helper::wait_prepared(paths),
        Helper::LookUp => helper::run_task(paths, Task::LookUp),
        Helper::Stage => helper::run_task(paths, Task::Stage),
        Helper::Save => helper::run_task(paths, Task::Save),
    }
}

fn run_operator(options: bundlerun::operator::Options) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube=warn"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let result = tokio::runtime::Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(bundlerun::operator::run(options)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ended");
            ExitCode::FAILURE
        }
    }
}

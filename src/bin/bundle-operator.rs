//! The operator, and the helper container of its pods: one binary, one image.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bundlerun::bundle::Part;
use bundlerun::docs::Page;
use bundlerun::helper::{self, Look, Task};
use bundlerun::operator::{self, Failure, LogFormat, Options, SmokeTest, Uninstall};
use bundlerun::runner::Paths;
use clap::{ArgAction, Parser, Subcommand};

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
        /// Where /healthz, /readyz and /metrics are served.
        #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
        /// This very image, for the helper container of every pod.
        #[arg(long, env = "HELPER_IMAGE")]
        helper_image: String,
        /// Name of this operator's pod, for events.
        #[arg(long, env = "POD_NAME")]
        instance: Option<String>,
        /// Namespace of this operator's pod, for the lease.
        #[arg(long, env = "POD_NAMESPACE")]
        namespace: Option<String>,
        /// Act only while holding a lease, so that several replicas may run.
        #[arg(long, env = "LEADER_ELECTION", default_value_t = false, action = ArgAction::Set,
            default_missing_value = "true", num_args = 0..=1)]
        leader_election: bool,
        /// Look after the runs of these namespaces alone; empty: of all.
        #[arg(long, env = "NAMESPACES", value_delimiter = ',')]
        namespaces: Vec<String>,
        /// How log lines are written.
        #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
        log_format: LogFormat,
    },
    /// Remove our finalizer from all pods before the operator is uninstalled; exits with 1 and lists what remains.
    #[command(alias = "release")]
    Uninstall {
        /// The operator's Deployment, scaled to nothing first.
        #[arg(long, value_name = "DEPLOYMENT", requires = "namespace")]
        scale_down: Option<String>,
        /// Namespace of that Deployment.
        #[arg(long)]
        namespace: Option<String>,
        /// In these namespaces alone; empty: in all.
        #[arg(long, env = "NAMESPACES", value_delimiter = ',')]
        namespaces: Vec<String>,
        /// Name of the pod this runs in, which is not waited for.
        #[arg(long, env = "POD_NAME")]
        instance: Option<String>,
        /// Longest time for all of it.
        #[arg(long, default_value = "5m", value_parser = duration)]
        timeout: Duration,
    },
    /// Make a small BundleRun, wait for its end, print its record and delete it: the exit code says success.
    SmokeTest {
        /// Where.
        #[arg(long)]
        namespace: String,
        /// Its image; the default of the operator's settings when not given.
        #[arg(long)]
        image: Option<String>,
        /// Its user; the image's own when not given. Namespaces at the Pod Security level restricted need one.
        #[arg(long)]
        run_as_user: Option<i64>,
        /// Longest wait for its end.
        #[arg(long, default_value = "5m", value_parser = duration)]
        timeout: Duration,
    },
    /// Check a settings file without a cluster: print what it means, or every problem with the path of its field.
    CheckSettings {
        /// The text of `settings.yaml`; `-` reads the standard input.
        file: PathBuf,
    },
    /// Print the CustomResourceDefinition.
    Crd,
    /// Print a generated page of the documentation.
    #[command(hide = true)]
    Page {
        /// Its name.
        #[arg(value_parser = page)]
        page: Page,
    },
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
    /// A child of the main process: ask the store whether it would accept the output.
    #[command(hide = true)]
    CheckStore,
    /// A child of the main process: save the output.
    #[command(hide = true)]
    Save,
    /// A child of the main process: count what is in the working directory.
    #[command(hide = true)]
    Measure,
    /// A child of the main process: end the run when it fills its disk.
    #[command(hide = true)]
    WatchDisk,
    /// A child of the main process: push large files while the command runs.
    #[command(hide = true)]
    PushEarly,
    /// A child of the main process: take the snapshot that the command waits for.
    #[command(hide = true)]
    Snapshot,
    /// A child of the main process: take a snapshot that nobody waits for.
    #[command(hide = true)]
    RegularSnapshot,
    /// For `kubectl bundle files`: what is in the working directory, a JSON object a line.
    List,
    /// For `kubectl bundle cat`: a file in the working directory, or a part of it.
    Read {
        /// From the working directory.
        path: String,
        /// So many of the first lines.
        #[arg(long)]
        head: Option<u64>,
        /// So many of the last lines.
        #[arg(long)]
        tail: Option<u64>,
        /// So many of the last bytes.
        #[arg(long)]
        last: Option<u64>,
        /// From this byte on.
        #[arg(long)]
        from: Option<u64>,
        /// To before this byte.
        #[arg(long, requires = "from")]
        to: Option<u64>,
    },
}

fn main() -> ExitCode {
    // The one of all TLS in this program; it fails only when there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Cli::parse().command {
        Command::Run {
            settings,
            listen,
            helper_image,
            instance,
            namespace,
            leader_election,
            namespaces,
            log_format,
        } => {
            let namespaces = named(namespaces);
            finish(
                log_format,
                operator::run(Options {
                    settings,
                    listen,
                    helper_image,
                    instance,
                    namespace,
                    leader_election,
                    namespaces,
                    #[cfg(feature = "faults")]
                    faults: bundlerun::cluster::Faults::default(),
                }),
            )
        }
        Command::Uninstall { scale_down, namespace, namespaces, instance, timeout } => finish(
            LogFormat::Text,
            operator::uninstall(Uninstall {
                scale_down: namespace.zip(scale_down),
                namespaces: named(namespaces),
                own_pod: instance,
                timeout,
            }),
        ),
        Command::SmokeTest { namespace, image, run_as_user, timeout } => {
            finish(LogFormat::Text, operator::smoke_test(SmokeTest { namespace, image, run_as_user, timeout }))
        }
        Command::CheckSettings { file } => print_text(operator::check_settings(&file)),
        Command::Crd => print_text(bundlerun::api::crd::crd_yaml()),
        Command::Page { page } => print_text(page.text()),
        Command::Helper { root, task } => run_helper(&Paths::of_helper(&root), &task),
    }
}

fn run_helper(paths: &Paths, task: &Helper) -> ExitCode {
    match task {
        Helper::Run => helper::run(paths),
        Helper::Prepared => helper::wait_prepared(paths),
        Helper::LookUp => helper::run_task(paths, Task::LookUp),
        Helper::Stage => helper::run_task(paths, Task::Stage),
        Helper::CheckStore => helper::run_task(paths, Task::CheckStore),
        Helper::Save => helper::run_task(paths, Task::Save),
        Helper::Measure => helper::run_task(paths, Task::Measure),
        Helper::PushEarly => helper::run_task(paths, Task::PushEarly),
        Helper::Snapshot => helper::run_task(paths, Task::Snapshot),
        Helper::RegularSnapshot => helper::run_task(paths, Task::RegularSnapshot),
        Helper::WatchDisk => helper::run_task(paths, Task::WatchDisk),
        Helper::List => helper::look(paths, &Look::List),
        Helper::Read { path, head, tail, last, from, to } => {
            let part = head.map(Part::FirstLines).or(tail.map(Part::LastLines)).or(last.map(Part::LastBytes));
            let part = part.or(from.map(|from| Part::Bytes(from, *to)));
            helper::look(paths, &Look::Read { path: path.clone(), part })
        }
    }
}

fn print_text(text: Result<String, impl Display>) -> ExitCode {
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn page(name: &str) -> Result<Page, String> {
    Page::ALL.into_iter().find(|page| page.name() == name).ok_or_else(|| "there is no such page".to_owned())
}

/// As in the API: `90s`, `5m`.
fn duration(text: &str) -> Result<Duration, String> {
    bundlerun::api::duration::parse_seconds(text).map(Duration::from_secs).map_err(|error| error.to_string())
}

/// An empty variable names nothing.
fn named(namespaces: Vec<String>) -> Vec<String> {
    namespaces.into_iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn finish(log: LogFormat, work: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let _log = match operator::start_log(log) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("bundle-operator: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| runtime.block_on(work));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ended");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_a_spec() {
        let timeout = |text: &str| {
            let smoke_test = ["bundle-operator", "smoke-test", "--namespace", "n", "--timeout", text];
            let uninstall = ["bundle-operator", "uninstall", "--timeout", text];
            [&smoke_test[..], &uninstall].map(|args| match Cli::try_parse_from(args).map(|cli| cli.command) {
                Ok(Command::SmokeTest { timeout, .. } | Command::Uninstall { timeout, .. }) => Some(timeout),
                _ => None,
            })
        };
        assert_eq!(timeout("1m30s"), [Some(Duration::from_secs(90)); 2]);
        assert_eq!(timeout("90"), [None; 2], "of what is not said");
    }
}

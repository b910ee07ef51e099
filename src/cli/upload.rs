//! `upload`: a directory of this machine becomes a bundle that runs can use.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use kube::api::ListParams;
use serde::Serialize;
use serde_json::json;

use crate::bundle::{self, ErrorKind, Progress, SavedBundle, Tree};
use crate::cluster::GuardedRun;
use crate::contract::{first_of, size_for_people};
use crate::oci::{Reference, without_tag_and_digest};

use super::failure::Failure;
use super::git::{self, WorkingTree};
use super::meter;
use super::runs;
use super::session::{Answer, Connection, Format, Session};
use super::sources::{self, Allowed, Sources};
use super::store::{self, StoreOptions};

/// Where uploads go that say nothing else.
const REPOSITORY: &str = "BUNDLE_REPOSITORY";
/// Runs of one answer, of which one says where the store is.
const PAGE: u32 = 50;

#[derive(Debug, Args)]
pub(super) struct Upload {
    /// A directory, less what its .gitignore files name; or one file
    path: PathBuf,
    /// Repository that the cluster reads too, with a tag of yours or without. Default: `$BUNDLE_REPOSITORY`, else where the
    /// runs of the namespace have their outputs
    #[arg(long, value_name = "REPOSITORY[:TAG]")]
    to: Option<String>,
    /// Also files with names that secrets have, as .env and *.pem, which are left out else
    #[arg(long)]
    include_secrets: bool,
    /// Also what .gitignore files name, which is left out else
    #[arg(long)]
    include_ignored: bool,
    /// Also files of more than 100 MiB, which are refused else
    #[arg(long)]
    allow_large: bool,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    store: StoreOptions,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Uploaded {
    /// By digest.
    pub(super) bundle: String,
    files: u64,
    bytes: u64,
    /// What the store had not.
    sent_bytes: u64,
    /// With the reason.
    left_out: Vec<String>,
    /// Without the difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    git: Option<WorkingTree>,
}

pub(super) async fn upload(session: &Session, args: &Upload) -> Result<(), Failure> {
    let allowed = Allowed { secrets: args.include_secrets, large: args.allow_large, ignored: args.include_ignored };
    let given = destination(args.to.as_deref())?;
    let sources = sources::find(&args.path, allowed)?;
    let to = match given {
        Some(to) => to,
        None => of_namespace(&session.connect().await?).await?,
    };
    let uploaded = push(session, sources, &to, &args.store).await?;
    match args.answer.output {
        Format::Table | Format::Wide | Format::Name => session.out.print(&format!("{}\n", uploaded.bundle)),
        format => session.out.document(format, &uploaded),
    }
}

/// Where a bundle goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Destination {
    repository: String,
    /// None: that of its digest, which nothing else ever has.
    tag: Option<String>,
}

/// As the user says it, or the environment.
pub(super) fn destination(given: Option<&str>) -> Result<Option<Destination>, Failure> {
    let from_environment = || env::var(REPOSITORY).ok().filter(|text| !text.is_empty());
    let Some(text) = given.map(str::to_owned).or_else(from_environment) else { return Ok(None) };
    Reference::parse(&text).map_err(|error| Failure::usage(error.to_string()))?;
    if text.contains('@') {
        return Err(Failure::usage(format!("{text}: what is uploaded has its own digest")));
    }
    let repository = without_tag_and_digest(&text).to_owned();
    let tag = text.strip_prefix(&repository).and_then(|rest| rest.strip_prefix(':')).map(str::to_owned);
    Ok(Some(Destination { repository, tag }))
}

/// The store's repository for the namespace: none of its settings can be read by users, but its runs say it.
pub(super) async fn of_namespace(connection: &Connection) -> Result<Destination, Failure> {
    let asked = runs::asked(connection, "list", None);
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = connection.api::<GuardedRun>().list(&params).await.map_err(|error| asked.failed(&error))?;
        let (known, _) = runs::split(page.items);
        let of_run = |run: &crate::api::BundleRun| run.status.as_ref()?.output.as_ref()?.bundle.clone();
        // The store may have been moved.
        let newest = known.iter().filter_map(|run| Some((run.metadata.creation_timestamp.clone(), of_run(run)?))).max();
        if let Some((_, bundle)) = newest {
            return Ok(Destination { repository: without_tag_and_digest(&bundle).to_owned(), tag: None });
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            let namespace = &connection.namespace;
            return Err(Failure::new(format!(
                "where to? No run of namespace {namespace} has a saved output, which would say where the store is"
            ))
            .hint(format!(
                "name a repository that the cluster can read by --to, or by --code-to of run; or set {REPOSITORY}. The \
                 administrator knows that of the store: its outputs are in PREFIX/{namespace}"
            )));
        }
    }
}

/// Uploads what was found, and says to people what is no part of it.
pub(super) async fn push(
    session: &Session,
    sources: Sources,
    to: &Destination,
    options: &StoreOptions,
) -> Result<Uploaded, Failure> {
    let Sources { root, only, left_out, ignored, dangling, file, secrets } = sources;
    if !ignored.is_empty() {
        session.out.note(&format!("not uploaded, as .gitignore files say: {}", first_of(&ignored)));
    }
    for (what, paths) in [("left out", &left_out), ("links to what is not uploaded", &dangling)] {
        if !paths.is_empty() {
            session.out.note(&format!("{what}: {}", paths.join(", ")));
        }
    }
    let git = git::working_tree(&root, file.as_deref(), |path| secrets.has(path));
    let made_by = json!({"upload": {"git": git}});
    // What was sent before is asked for, so that only the rest is sent.
    let tree = Tree { root, only: Some(Arc::new(only)), may_be_there: true, ..Tree::default() };
    let access = store::access(session, &to.repository, options)?;

    let progress = Progress::default();
    let started = Instant::now();
    let work = bundle::save(&tree, &to.repository, to.tag.as_deref(), &made_by, &access, &progress);
    let work =
        Box::pin(async { meter::watched(work, &progress, started, "").await.map_err(|error| failed(error, to)) });
    let interrupted = || Failure::interrupted("interrupted: there is no bundle; what was sent is not sent again");
    let saved = runs::or_interrupted(work, interrupted).await?;
    session.out.note(&summary(&saved, started.elapsed()));
    if !saved.skipped_names.is_empty() {
        session.out.note(&format!("left out: {}", skipped(&saved)));
    }
    if let Some(why) = &saved.provenance_failed {
        session.out.note(&format!("the store does not know of which commit it is: {why}"));
    }
    uploaded(to, saved, left_out, git)
}

fn failed(error: bundle::Error, to: &Destination) -> Failure {
    let kind = error.kind;
    let failure = Failure::from(error);
    match kind {
        ErrorKind::Denied => failure.hint(format!(
            "log in with `docker login` as someone who may write to {}, or upload elsewhere: --to, or --code-to of run",
            to.repository
        )),
        ErrorKind::NotFound => failure.hint(format!("is there a repository {}?", to.repository)),
        _ => failure,
    }
}

/// Of the directories of other file systems, and of what was not there any more.
fn skipped(saved: &SavedBundle) -> String {
    let named = saved.skipped_names.len() as u64;
    let more = saved.skipped.checked_sub(named).filter(|more| *more > 0);
    let more = more.map_or_else(String::new, |more| format!(" and {more} more"));
    format!("{}{more}", saved.skipped_names.join(", "))
}

fn uploaded(
    to: &Destination,
    saved: SavedBundle,
    mut left_out: Vec<String>,
    git: Option<WorkingTree>,
) -> Result<Uploaded, Failure> {
    let SavedBundle { digest, files, bytes, pushed_bytes, withheld, skipped_names, .. } = saved;
    // It could be read a moment before.
    if withheld > 0 {
        return Err(Failure::new(format!("not all of it could be read: {}", skipped_names.join(", ")))
            .hint("try again when nothing writes to it"));
    }
    left_out.extend(skipped_names);
    let git = git.map(|git| WorkingTree { diff: None, ..git });
    let bundle = format!("{}@{digest}", to.repository);
    Ok(Uploaded { bundle, files, bytes, sent_bytes: pushed_bytes, left_out, git })
}

fn summary(saved: &SavedBundle, took: Duration) -> String {
    let files = if saved.files == 1 { "1 file".to_owned() } else { format!("{} files", saved.files) };
    let size = size_for_people(saved.bytes);
    match saved.pushed_bytes {
        0 => format!("{files}, {size}: the store has them all"),
        pushed => format!("{files}, {size}; uploaded {}", meter::summary(pushed, took)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples::{self, DIGEST};
    use crate::cli::failure::Kind;

    #[test]
    fn a_destination_is_a_repository_with_or_without_a_tag() {
        let to = |text| destination(Some(text)).map(|to| to.unwrap());
        let is = |repository: &str, tag: Option<&str>| {
            Ok(Destination { repository: repository.to_owned(), tag: tag.map(str::to_owned) })
        };
        assert_eq!(to("r.example:5000/a/b"), is("r.example:5000/a/b", None));
        assert_eq!(to("r.example:5000/a/b:v1"), is("r.example:5000/a/b", Some("v1")));
        for wrong in [&format!("r.example/a@{DIGEST}"), "r.example/A", "r.example/a:b c"] {
            assert_eq!(to(wrong).unwrap_err().kind, Kind::Usage, "{wrong}");
        }
    }

    #[tokio::test]
    async fn runs_of_the_namespace_say_where_its_store_is() {
        let list = |runs: Vec<crate::api::BundleRun>, next: &str| {
            let metadata = json!({"resourceVersion": "1", "continue": next});
            (
                200,
                json!({"kind": "BundleRunList", "apiVersion": "bundlerun.dev/v1alpha1", "metadata": metadata, "items": runs}),
            )
        };
        let pages = move |query: &str| {
            if !query.contains("continue=") {
                return list(vec![examples::waiting(), examples::failed()], "more");
            }
            let (mut moved, old) = (examples::succeeded(), examples::succeeded());
            let status = moved.status.as_mut().unwrap();
            status.output.as_mut().unwrap().bundle = Some(format!("new.example:5000/b/a@{DIGEST}"));
            moved.metadata.creation_timestamp = Some(serde_json::from_value(json!("2026-11-26T09:30:00Z")).unwrap());
            list(vec![moved, old], "")
        };
        let to = of_namespace(&examples::connection(move |_, query| pages(query))).await.unwrap();
        assert_eq!(to, Destination { repository: "new.example:5000/b/a".to_owned(), tag: None });

        let none =
            of_namespace(&examples::connection(move |_, _| list(vec![examples::waiting()], ""))).await.unwrap_err();
        assert!(none.message.starts_with("where to? No run of namespace a has"), "{}", none.message);
        assert!(none.hint.unwrap().contains("--to"));
    }

    #[test]
    fn what_the_store_has_is_not_counted_as_uploaded() {
        let saved = |pushed_bytes| SavedBundle {
            digest: DIGEST.to_owned(),
            files: 2,
            bytes: 2048,
            pushed_bytes,
            skipped: 0,
            withheld: 0,
            damaged: 0,
            skipped_names: Vec::new(),
            provenance_failed: None,
            mountable: true,
        };
        assert_eq!(summary(&saved(0), Duration::from_secs(1)), "2 files, 2.0 KiB: the store has them all");
        assert_eq!(summary(&saved(3072), Duration::from_secs(2)), "2 files, 2.0 KiB; uploaded 3.0 KiB in 2s");
        let to = destination(Some("r.example/a")).unwrap().unwrap();
        assert_eq!(uploaded(&to, saved(0), Vec::new(), None).unwrap().bundle, format!("r.example/a@{DIGEST}"));
        let lacks = SavedBundle { skipped: 3, skipped_names: vec!["mnt (another file system)".to_owned()], ..saved(0) };
        assert_eq!(skipped(&lacks), "mnt (another file system) and 2 more");
        let withheld = SavedBundle { withheld: 1, skipped_names: vec!["a (why)".to_owned()], ..saved(0) };
        assert_eq!(
            uploaded(&to, withheld, Vec::new(), None).unwrap_err().message,
            "not all of it could be read: a (why)"
        );
    }
}

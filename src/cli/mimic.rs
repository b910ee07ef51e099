//! `mimic`: all that was made from one run, made again from another.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use crate::api::spec::RunSource;
use crate::api::{BundleRun, BundleRunSpec};

use super::clean;
use super::failure::Failure;
use super::lineage::{self, Here, Use};
use super::rerun::{Again, again_but_for, check_known, own_labels};
use super::run;
use super::runs;
use super::session::{Answer, Connection, Session};
use super::store::StoreOptions;

#[derive(Debug, Args)]
pub(super) struct Mimic {
    /// Run from whose output others were made
    old: String,
    /// Run whose output takes its place. It need not have ended: the new runs wait for it
    new: String,
    /// Only what this run was made from, and itself; several times for several
    #[arg(long, value_name = "RUN")]
    to: Vec<String>,
    /// As the specs say, not by the digests that were recorded: tags and other inputs may have become others
    #[arg(long)]
    not_pinned: bool,
    /// Create nothing: show what would be made again, and from what
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    store: StoreOptions,
}

pub(super) async fn mimic(session: &Session, args: &Mimic) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let old = runs::get(&connection, &args.old).await?;
    check_new(&runs::get(&connection, &args.new).await?)?;
    let all = Here::new(session, Some(connection.clone()), &args.store).all().await?;
    let copies = copies(&lineage::uses(&all, &old), &args.old, &args.new, &args.to)?;
    let of = |copy: &Copy| all.iter().find(|run| runs::name(run) == copy.of);
    // Before anything is made: half of it would help nobody.
    for run in copies.iter().filter_map(of) {
        check_known(run)?;
    }
    if args.dry_run {
        return show(session, args, &copies);
    }

    let mut made = Vec::new();
    let all = copies.iter().filter_map(|copy| Some((copy, of(copy)?)));
    let done = make(session, &connection, args, all, &mut made).await;
    if !args.answer.output.is_for_people() {
        session.out.runs(args.answer.output, &made)?;
    }
    done.map_err(|failure| Failure {
        message: format!("{} of {} runs were made, then: {}", made.len(), copies.len(), failure.message),
        ..failure
    })
}

/// Whoever has it as an input would fail, or wait for ever.
fn check_new(new: &BundleRun) -> Result<(), Failure> {
    let has_output =
        new.status.as_ref().is_some_and(|status| status.output.iter().any(|output| output.bundle.is_some()));
    if new.is_over() && !has_output {
        let name = runs::name(new);
        let failure =
            Failure::new(format!("{name} has no saved output to take the other's place: it is {}", runs::state(new)));
        return Err(failure.hint(format!("kubectl bundle why {name}")));
    }
    Ok(())
}

/// Creates the copies, parents first; `made` has those that there are also when one fails.
async fn make<'a>(
    session: &Session,
    connection: &Connection,
    args: &Mimic,
    copies: impl Iterator<Item = (&'a Copy, &'a BundleRun)>,
    made: &mut Vec<BundleRun>,
) -> Result<(), Failure> {
    let mut names = BTreeMap::from([(args.old.clone(), args.new.clone())]);
    for (copy, run) in copies {
        let is_replaced = |path: &str| copy.inputs.contains_key(path);
        let Again { spec, not_pinned } = again_but_for(run, !args.not_pinned, is_replaced);
        for what in &not_pinned {
            session.out.note(&format!("{}: not pinned: {what}", copy.of));
        }
        let labels = own_labels(run.metadata.labels.clone().unwrap_or_default());
        let metadata = run::metadata(None, &run::rerun_prefix(&copy.of), labels);
        let spec = with_inputs(spec, copy, &names);
        let created = run::create(connection, &BundleRun { metadata, spec, status: None }, false).await?;
        names.insert(copy.of.clone(), runs::name(&created).to_owned());
        if args.answer.output.is_for_people() {
            session.out.print(&format!("{} -> {}\n", copy.of, runs::name(&created)))?;
        }
        made.push(created);
    }
    Ok(())
}

fn show(session: &Session, args: &Mimic, copies: &[Copy]) -> Result<(), Failure> {
    if !args.answer.output.is_for_people() {
        let copies: Vec<_> = copies.iter().map(|copy| json!({"run": copy.of, "inputs": copy.inputs})).collect();
        return session.out.document(args.answer.output, &json!({"copies": copies}));
    }
    for copy in copies {
        let from = |(path, of): (&String, &String)| {
            let of = if *of == args.old { args.new.clone() } else { format!("the new {of}") };
            clean::line(&format!("{path} from {of}"))
        };
        let inputs: Vec<String> = copy.inputs.iter().map(from).collect();
        session.out.print(&format!("{} again, with {}\n", copy.of, inputs.join(", ")))?;
    }
    Ok(())
}

/// A run to be made again.
#[derive(Debug, PartialEq, Eq)]
struct Copy {
    /// Its name.
    of: String,
    /// By the paths of its inputs that become others: the run whose place another takes.
    inputs: BTreeMap<String, String>,
}

/// What is to be made again, each after all that it is made from.
fn copies(uses: &[Use], old: &str, new: &str, to: &[String]) -> Result<Vec<Copy>, Failure> {
    let mut inputs: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for Use { parent, child, paths } in uses {
        let of_child = inputs.entry(child).or_default();
        of_child.extend(paths.iter().map(|path| (path.clone(), parent.clone())));
    }
    if inputs.is_empty() {
        let hint = format!("kubectl bundle tree {old} --children");
        return Err(Failure::new(format!("nothing in this namespace was made from {old}")).hint(hint));
    }
    // What replaces it would wait for itself.
    if inputs.contains_key(new) {
        return Err(Failure::usage(format!("{new} was itself made from {old}: it cannot take its place")));
    }
    if let Some(other) = to.iter().find(|name| !inputs.contains_key(name.as_str())) {
        return Err(Failure::usage(format!("{other} was not made from {old}")));
    }
    let wanted = needed(&inputs, to);
    let mut copies: Vec<Copy> = Vec::new();
    let mut left: Vec<&str> = inputs.keys().copied().filter(|name| wanted.contains(name)).collect();
    while !left.is_empty() {
        let is_made = |name: &String| name == old || copies.iter().any(|copy| copy.of == *name);
        let is_ready = |name: &&str| inputs.get(*name).is_some_and(|inputs| inputs.values().all(is_made));
        let (ready, rest): (Vec<&str>, Vec<&str>) = left.into_iter().partition(is_ready);
        if ready.is_empty() {
            return Err(Failure::new(format!("{} are made from each other", rest.join(", "))));
        }
        copies.extend(
            ready
                .into_iter()
                .map(|name| Copy { of: name.to_owned(), inputs: inputs.get(name).cloned().unwrap_or_default() }),
        );
        left = rest;
    }
    Ok(copies)
}

/// These runs and all between the old one and them; without any all there are.
fn needed<'a>(inputs: &BTreeMap<&'a str, BTreeMap<String, String>>, to: &[String]) -> Vec<&'a str> {
    if to.is_empty() {
        return inputs.keys().copied().collect();
    }
    let mut needed: Vec<&str> = Vec::new();
    let mut open: Vec<&String> = to.iter().collect();
    while let Some(name) = open.pop() {
        let Some((known, from)) = inputs.get_key_value(name.as_str()) else { continue };
        if !needed.contains(known) {
            needed.push(known);
            open.extend(from.values());
        }
    }
    needed
}

/// The spec that is made again, with the runs that take the place of others.
fn with_inputs(mut spec: BundleRunSpec, copy: &Copy, names: &BTreeMap<String, String>) -> BundleRunSpec {
    for input in &mut spec.inputs {
        let Some(name) = copy.inputs.get(&input.path).and_then(|of| names.get(of)) else { continue };
        let path = input.image.take().and_then(|image| image.path);
        let source = input.run.take().unwrap_or(RunSource { name: String::new(), path, snapshot: None });
        input.run = Some(RunSource { name: name.clone(), ..source });
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples::{self, DIGEST};

    fn made_from(parent: &str, child: &str, paths: &str) -> Use {
        let paths = paths.split(' ').map(str::to_owned).collect();
        Use { parent: parent.to_owned(), child: child.to_owned(), paths }
    }

    fn pipeline() -> Vec<Use> {
        [
            ("raw", "prepare", "in"),
            ("raw", "look", "x y"),
            ("prepare", "test", "data"),
            ("prepare", "train", "data"),
            ("train", "test", "model"),
        ]
        .map(|(parent, child, paths)| made_from(parent, child, paths))
        .into()
    }

    fn named(copies: &[Copy]) -> Vec<&str> {
        copies.iter().map(|copy| copy.of.as_str()).collect()
    }

    #[test]
    fn each_is_made_after_all_that_it_is_made_from() {
        let all = copies(&pipeline(), "raw", "new", &[]).unwrap();
        assert_eq!(named(&all), ["look", "prepare", "train", "test"]);
        let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(path, of)| ((*path).to_owned(), (*of).to_owned())).collect()
        };
        assert_eq!(all[0].inputs, of(&[("x", "raw"), ("y", "raw")]));
        assert_eq!(all[3].inputs, of(&[("data", "prepare"), ("model", "train")]));
        let some = copies(&pipeline(), "raw", "new", &["train".to_owned()]).unwrap();
        assert_eq!(named(&some), ["prepare", "train"]);
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_made() {
        let refused = |uses: &[Use], new: &str, to: &[&str]| {
            let to: Vec<String> = to.iter().map(|name| (*name).to_owned()).collect();
            copies(uses, "raw", new, &to).unwrap_err().message
        };
        assert_eq!(refused(&[], "new", &[]), "nothing in this namespace was made from raw");
        assert_eq!(refused(&pipeline(), "train", &[]), "train was itself made from raw: it cannot take its place");
        assert_eq!(refused(&pipeline(), "new", &["other"]), "other was not made from raw");
        let circle = [made_from("raw", "a", "x"), made_from("a", "b", "x"), made_from("b", "a", "y")];
        assert_eq!(refused(&circle, "new", &[]), "a, b are made from each other");
    }

    #[test]
    fn what_has_no_output_takes_nobodys_place() {
        check_new(&examples::succeeded()).unwrap();
        check_new(&examples::waiting()).unwrap();
        assert!(check_new(&examples::failed()).unwrap_err().message.contains("no saved output"));
    }

    #[test]
    fn what_takes_the_place_of_another_is_a_run_and_the_rest_is_pinned() {
        let old = examples::succeeded();
        let Again { spec, .. } = again_but_for(&old, true, |path| path == "data");
        let inputs = [("data".to_owned(), "prepare".to_owned())].into();
        let names = [("prepare".to_owned(), "prepare-x1".to_owned())].into();
        let spec = with_inputs(spec, &Copy { of: "train".to_owned(), inputs }, &names);
        let spec = serde_json::to_value(spec).unwrap();
        assert_eq!(spec["image"], format!("docker.io/library/python@{DIGEST}"));
        assert_eq!(spec["inputs"][0], json!({"path": "data", "run": {"name": "prepare-x1", "path": "train.csv"}}));
    }
}

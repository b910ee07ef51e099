//! What runs were made from, back to where it is not known any more, and what was made from them.
//!
//! A run that is there says it by its status, one that was deleted by the document beside its output in the store. What
//! came up before is not followed again: a circle ends, and what many runs share is looked up once.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::ListParams;
use serde::Serialize;
use serde_json::Value;

use crate::api::spec::Input;
use crate::api::status::RecordedInput;
use crate::api::{BundleRun, Phase};
use crate::bundle::{self, ErrorKind};
use crate::cluster::GuardedRun;
use crate::oci::{Digest, Reference, by_digest, digest_of};

use super::failure::Failure;
use super::git::WorkingTree;
use super::info;
use super::runs;
use super::session::{Connection, Session};
use super::store::{self, StoreOptions};

/// Steps back, or forth. Many readers of JSON take no more than 128 levels, and each step is three.
const DEEPEST: usize = 40;
/// For what the store says of one bundle.
const PATIENCE: Duration = Duration::from_secs(20);

/// A run, or a bundle of one that is not there any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<String>,
    /// Of a run that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phase: Option<Phase>,
    /// By digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bundle: Option<String>,
    /// That ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<String>,
    /// Why no more is known, and what else is to be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
    /// It is in this tree before, with what it was made from.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) again: bool,
    pub(super) inputs: Vec<MadeFrom>,
}

impl Node {
    fn add(&mut self, note: &str) {
        let notes = self.note.iter().map(String::as_str).chain([note]);
        self.note = Some(notes.collect::<Vec<_>>().join("; "));
    }
}

/// An input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MadeFrom {
    pub(super) path: String,
    /// As `run --input` takes it.
    pub(super) source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    /// The bundle or image, by digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<String>,
    /// None: no run is known to have made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<Box<Node>>,
}

/// A run that has another's output as an input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Child {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<String>,
    pub(super) phase: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bundle: Option<String>,
    /// Where it has that output.
    pub(super) paths: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) again: bool,
    pub(super) children: Vec<Child>,
}

/// Where it is looked up.
pub(super) trait Records {
    /// The namespace of the runs.
    fn namespace(&self) -> Option<&str>;

    /// The run that has this name now.
    fn run(&mut self, name: &str) -> impl Future<Output = Result<Option<BundleRun>, Failure>>;

    /// What the store says of how a bundle was made; why not, if it does not answer.
    fn provenance(&mut self, reference: &str) -> impl Future<Output = Result<Vec<Value>, String>>;
}

/// A search for what something was made from. It keeps its own stack: no chain of runs is too long for it.
pub(super) struct Search<R> {
    records: R,
    seen: BTreeSet<String>,
}

/// What is looked up.
enum Wanted {
    Run(Box<BundleRun>),
    /// One that is, or will be, an input.
    InputRun {
        name: String,
        uid: Option<String>,
        reference: Option<String>,
    },
    /// With the uid of the run that has made it, where that is known.
    Bundle {
        reference: String,
        uid: Option<String>,
    },
}

/// What came of it, with what is looked up next.
#[derive(Default)]
struct Answer {
    node: Node,
    inputs: Vec<(Input, RecordedInput)>,
    /// Something is known of how it was made.
    is_known: bool,
}

/// A place in the tree: an input of one of the nodes that were found.
#[derive(Clone, Copy)]
struct Place {
    node: usize,
    input: usize,
    depth: usize,
}

impl<R: Records> Search<R> {
    pub(super) fn new(records: R) -> Self {
        Self { records, seen: BTreeSet::new() }
    }

    pub(super) async fn of_run(&mut self, run: &BundleRun) -> Result<Node, Failure> {
        self.tree(Wanted::Run(Box::new(run.clone()))).await
    }

    pub(super) async fn of_bundle(&mut self, reference: &str) -> Result<Node, Failure> {
        self.tree(Wanted::Bundle { reference: reference.to_owned(), uid: None }).await
    }

    async fn tree(&mut self, top: Wanted) -> Result<Node, Failure> {
        let mut found: Vec<(Option<Place>, Node)> = Vec::new();
        let mut next: Vec<(Option<Place>, Wanted)> = vec![(None, top)];
        while let Some((place, wanted)) = next.pop() {
            let depth = place.map_or(0, |place| place.depth);
            let Answer { mut node, inputs, is_known } = Box::pin(self.look_up(wanted, depth)).await?;
            // An image that nobody has made here is but an input.
            if place.is_some() && !is_known {
                continue;
            }
            let mut below = Vec::new();
            for (index, (input, recorded)) in inputs.into_iter().enumerate() {
                let (made_from, wanted) = input_of(&input, recorded);
                node.inputs.push(made_from);
                let place = Place { node: found.len(), input: index, depth: depth + 1 };
                below.extend(wanted.map(|wanted| (Some(place), wanted)));
            }
            // The first of them is looked up first.
            next.extend(below.into_iter().rev());
            found.push((place, node));
        }
        // Below what is found later than it: from the end, everything is put where it belongs.
        while let Some((place, node)) = found.pop() {
            let Some(Place { node: above, input, .. }) = place else { return Ok(node) };
            if let Some(place) = found.get_mut(above).and_then(|(_, node)| node.inputs.get_mut(input)) {
                place.from = Some(Box::new(node));
            }
        }
        Ok(Node::default())
    }

    /// Not what is in this tree before, or too deep in it.
    fn enter(&mut self, node: &mut Node, key: String, depth: usize) -> bool {
        if depth > DEEPEST {
            node.add(&format!("what is deeper than {DEEPEST} steps is not looked up"));
            return false;
        }
        node.again = !self.seen.insert(key);
        !node.again
    }

    async fn look_up(&mut self, wanted: Wanted, depth: usize) -> Result<Answer, Failure> {
        match wanted {
            Wanted::Run(run) => Ok(self.run(&run, depth)),
            Wanted::InputRun { name, uid, reference } => self.input_run(name, uid, reference, depth).await,
            Wanted::Bundle { reference, uid } => self.bundle(&reference, uid.as_deref(), depth).await,
        }
    }

    fn run(&mut self, run: &BundleRun, depth: usize) -> Answer {
        let status = run.status.clone().unwrap_or_default();
        let mut node = Node {
            name: run.metadata.name.clone(),
            namespace: run.namespace(),
            uid: run.uid(),
            phase: Some(runs::phase(run)),
            bundle: status.output.and_then(|output| output.bundle),
            image: status.image.and_then(|image| image.reference),
            ..Node::default()
        };
        let key = run.uid().unwrap_or_else(|| run.name_any());
        if !self.enter(&mut node, key, depth) {
            return Answer { node, is_known: true, inputs: Vec::new() };
        }
        let recorded = |input: &Input| status.inputs.iter().find(|recorded| recorded.path == input.path).cloned();
        let inputs = run.spec.inputs.iter().map(|input| (input.clone(), recorded(input).unwrap_or_default()));
        Answer { node, is_known: true, inputs: inputs.collect() }
    }

    /// Of its name there may be another one now.
    async fn input_run(
        &mut self,
        name: String,
        uid: Option<String>,
        reference: Option<String>,
        depth: usize,
    ) -> Result<Answer, Failure> {
        let there = self.records.run(&name).await?;
        // Before it is pinned, it is the one that has the name.
        if let Some(run) = there.filter(|run| uid.is_none() || run.uid() == uid) {
            return Ok(self.run(&run, depth));
        }
        let mut answer = match reference {
            Some(reference) => self.bundle(&reference, uid.as_deref(), depth).await?,
            None => Answer::default(),
        };
        if !answer.is_known && answer.node.note.is_none() {
            answer.node.add("it is not there");
        }
        answer.node.name.get_or_insert(name);
        Ok(Answer { is_known: true, ..answer })
    }

    async fn bundle(&mut self, reference: &str, uid: Option<&str>, depth: usize) -> Result<Answer, Failure> {
        let node = Node { bundle: Some(reference.to_owned()), uid: uid.map(str::to_owned), ..Node::default() };
        let mut answer = Answer { node, is_known: true, inputs: Vec::new() };
        let node = &mut answer.node;
        if !self.enter(node, format!("{reference} {}", uid.unwrap_or_default()), depth) {
            return Ok(answer);
        }
        let documents = match self.records.provenance(reference).await {
            Ok(documents) => documents,
            Err(why) => {
                node.add(&format!("how it was made is not known: {why}"));
                return Ok(answer);
            }
        };
        let text = |document: &Value, field: &str| document.get(field).and_then(Value::as_str).map(str::to_owned);
        let is_of_run = |document: &&Value| uid.is_some() && text(document, "uid").as_deref() == uid;
        let Some(document) = documents.iter().find(is_of_run).or(documents.first()) else {
            node.add("the store does not say how it was made");
            return Ok(Answer { is_known: uid.is_some(), ..answer });
        };
        (node.name, node.namespace, node.uid) =
            (text(document, "name"), text(document, "namespace"), text(document, "uid"));
        if let Some(name) = node.name.as_deref().filter(|_| self.records.namespace() == node.namespace.as_deref())
            && let Some(run) = self.records.run(name).await?
            && run.uid() == node.uid
        {
            return Ok(self.run(&run, depth));
        }
        match (self.records.namespace(), node.namespace.as_deref()) {
            (Some(here), Some(there)) if here != there => node.add(&format!("of namespace {there}")),
            (Some(_), Some(_)) => node.add("not there any more"),
            _ => {}
        }
        match uid {
            None if documents.len() > 1 => {
                node.add(&format!("{} runs have made the same, and this is one of them", documents.len()));
            }
            Some(_) if node.uid.as_deref() != uid => node.add("another run that has made the same"),
            _ => {}
        }
        if let Some(upload) = document.get("upload") {
            let git = serde_json::from_value::<WorkingTree>(upload.get("git").cloned().unwrap_or_default());
            node.add(&git.map_or_else(|_| "uploaded".to_owned(), |git| format!("uploaded: {}", git.summary())));
        }
        node.image = image(text(document, "image"), text(document, "imageDigest"));
        let inputs: Vec<&Value> = document.get("inputs").and_then(Value::as_array).into_iter().flatten().collect();
        answer.inputs = inputs.iter().filter_map(|entry| read(entry)).collect();
        if answer.inputs.len() < inputs.len() {
            node.add("not all of its inputs are understood");
        }
        // Whoever may write to the store can write such a document: it leads to no other host.
        let here = host(reference);
        for (_, recorded) in &mut answer.inputs {
            if let Some(there) = recorded.reference.take_if(|there| host(there) != here) {
                node.add(&format!("{there} is on another host, and not looked up"));
            }
        }
        Ok(answer)
    }
}

/// An input, and where it came from if that can be looked up.
fn input_of(input: &Input, recorded: RecordedInput) -> (MadeFrom, Option<Wanted>) {
    let reference = pinned(&recorded);
    let wanted = match (&input.run, &reference) {
        (Some(run), reference) => {
            Some(Wanted::InputRun { name: run.name.clone(), uid: recorded.run_uid, reference: reference.clone() })
        }
        (None, Some(reference)) if input.image.is_some() => {
            Some(Wanted::Bundle { reference: reference.clone(), uid: None })
        }
        _ => None,
    };
    let (path, source) = (input.path.clone(), info::source(input));
    (MadeFrom { path, source, digest: recorded.digest, reference, from: None }, wanted)
}

fn host(reference: &str) -> Option<String> {
    Reference::parse(reference).ok().map(|reference| reference.host)
}

/// An input as a document of the store has it: what the spec says, and what was recorded.
fn read(entry: &Value) -> Option<(Input, RecordedInput)> {
    let [input, recorded] = [entry.clone(), entry.clone()];
    Some((serde_json::from_value(input).ok()?, serde_json::from_value(recorded).ok()?))
}

fn image(name: Option<String>, digest: Option<String>) -> Option<String> {
    match (name, digest) {
        (Some(name), Some(digest)) if !name.contains('@') => Some(by_digest(&name, &digest)),
        (name, _) => name,
    }
}

/// What was recorded of an image or a bundle.
fn pinned(recorded: &RecordedInput) -> Option<String> {
    let reference = recorded.reference.as_deref()?;
    if digest_of(reference).is_some() {
        return Some(reference.to_owned());
    }
    let digest = recorded.digest.as_ref()?;
    Some(by_digest(reference, digest))
}

/// All of a tree, from the top, without what is in it again.
pub(super) fn nodes(node: &Node) -> Vec<&Node> {
    let (mut found, mut next) = (Vec::new(), vec![node]);
    while let Some(node) = next.pop() {
        if !node.again {
            found.push(node);
        }
        next.extend(node.inputs.iter().rev().filter_map(|input| input.from.as_deref()));
    }
    found
}

/// The bundles of a tree, each once, with the names of the runs that made them: that of the top, and those that were
/// inputs.
pub(super) fn bundles(node: &Node) -> Vec<(Option<&str>, &str)> {
    let mut seen = BTreeSet::new();
    let inputs = nodes(node).into_iter().flat_map(|node| &node.inputs);
    let inputs = inputs.filter_map(|input| Some((input.from.as_deref()?.name.as_deref(), input.reference.as_deref()?)));
    let top = node.bundle.as_deref().map(|bundle| (node.name.as_deref(), bundle));
    top.into_iter().chain(inputs).filter(|(_, reference)| seen.insert(digest_of(reference))).collect()
}

/// The runs among `all` that were made from a run, or a bundle, and what was made from those.
pub(super) fn children(all: &[BundleRun], of: &Node) -> Vec<Child> {
    let parent = Parent { uid: of.uid.clone(), name: of.name.clone(), bundles: digests(of.bundle.iter()) };
    // The attempts of a run can have left bundles as well.
    let run = all.iter().find(|run| of.uid.is_some() && run.uid() == of.uid);
    let parent = run.map_or(parent, Parent::from);
    children_of(all, &parent, &mut parent.uid.iter().cloned().collect(), 1)
}

/// A run that has another's output as an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) parent: String,
    pub(super) child: String,
    /// Where it has that output.
    pub(super) paths: Vec<String>,
}

/// All that was made from a run of these, and from that in turn.
pub(super) fn uses(all: &[BundleRun], of: &BundleRun) -> Vec<Use> {
    let mut found = Vec::new();
    let mut seen: BTreeSet<Option<String>> = [of.uid()].into();
    let mut open = vec![of];
    while let Some(parent) = open.pop() {
        let known = Parent::from(parent);
        for run in all.iter().filter(|run| run.uid() != parent.uid()) {
            let paths = known.paths_in(run);
            if paths.is_empty() {
                continue;
            }
            found.push(Use { parent: parent.name_any(), child: run.name_any(), paths });
            if seen.insert(run.uid()) {
                open.push(run);
            }
        }
    }
    found
}

struct Parent {
    uid: Option<String>,
    name: Option<String>,
    bundles: BTreeSet<Digest>,
}

impl From<&BundleRun> for Parent {
    fn from(run: &BundleRun) -> Self {
        let status = run.status.as_ref();
        let output = status.and_then(|status| status.output.as_ref()?.bundle.as_ref());
        let attempts = status.into_iter().flat_map(|status| &status.attempts);
        let bundles = digests(output.into_iter().chain(attempts.filter_map(|attempt| attempt.bundle.as_ref())));
        Self { uid: run.uid(), name: run.metadata.name.clone(), bundles }
    }
}

fn digests<'a>(references: impl Iterator<Item = &'a String>) -> BTreeSet<Digest> {
    references.filter_map(|reference| digest_of(reference)).collect()
}

impl Parent {
    /// Where a run has it as an input.
    fn paths_in(&self, run: &BundleRun) -> Vec<String> {
        let recorded = run.status.as_ref().map(|status| &status.inputs[..]).unwrap_or_default();
        let is_it = |input: &&Input| match recorded.iter().find(|recorded| recorded.path == input.path) {
            Some(RecordedInput { run_uid: Some(uid), .. }) => Some(uid) == self.uid.as_ref(),
            Some(recorded) => {
                let digest = pinned(recorded).and_then(|reference| digest_of(&reference));
                digest.is_some_and(|digest| self.bundles.contains(&digest))
            }
            // It waits for it.
            None => !run.is_over() && input.run.as_ref().is_some_and(|of| Some(&of.name) == self.name.as_ref()),
        };
        run.spec.inputs.iter().filter(is_it).map(|input| input.path.clone()).collect()
    }
}

fn children_of(all: &[BundleRun], parent: &Parent, seen: &mut BTreeSet<String>, depth: usize) -> Vec<Child> {
    let mut found = Vec::new();
    for run in all {
        let paths = parent.paths_in(run);
        if paths.is_empty() || run.uid() == parent.uid {
            continue;
        }
        let again = !seen.insert(run.uid().unwrap_or_else(|| run.name_any()));
        let children =
            if again || depth >= DEEPEST { Vec::new() } else { children_of(all, &run.into(), seen, depth + 1) };
        let bundle = run.status.as_ref().and_then(|status| status.output.as_ref()?.bundle.clone());
        found.push(Child {
            name: run.name_any(),
            uid: run.uid(),
            phase: runs::phase(run),
            bundle,
            paths,
            again,
            children,
        });
    }
    found
}

/// The cluster and the store of the user.
pub(super) struct Here<'a> {
    session: &'a Session,
    /// None: the store alone is asked.
    connection: Option<Connection>,
    options: &'a StoreOptions,
    asked: BTreeMap<String, Option<BundleRun>>,
    /// Why these hosts are not asked again.
    silent: BTreeMap<String, String>,
}

impl<'a> Here<'a> {
    pub(super) fn new(session: &'a Session, connection: Option<Connection>, options: &'a StoreOptions) -> Self {
        Self { session, connection, options, asked: BTreeMap::new(), silent: BTreeMap::new() }
    }

    /// All runs of the namespace, which are not asked for one by one then.
    pub(super) async fn all(&mut self) -> Result<Vec<BundleRun>, Failure> {
        let Some(connection) = &self.connection else { return Ok(Vec::new()) };
        let asked = runs::asked(connection, "list", None);
        let all = runs::pages(&connection.api::<GuardedRun>(), ListParams::default(), asked).await?;
        let all = runs::understood(self.session, all);
        self.asked = all.iter().map(|run| (run.name_any(), Some(run.clone()))).collect();
        Ok(all)
    }
}

impl Records for Here<'_> {
    fn namespace(&self) -> Option<&str> {
        self.connection.as_ref().map(|connection| connection.namespace.as_str())
    }

    async fn run(&mut self, name: &str) -> Result<Option<BundleRun>, Failure> {
        if let Some(known) = self.asked.get(name) {
            return Ok(known.clone());
        }
        let Some(connection) = &self.connection else { return Ok(None) };
        let found = connection.runs().get_opt(name).await;
        let found = found.map_err(|error| runs::asked(connection, "get", Some(name)).failed(&error))?;
        self.asked.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    async fn provenance(&mut self, reference: &str) -> Result<Vec<Value>, String> {
        let host = Reference::parse(reference).map_err(|error| error.to_string())?.host;
        if let Some(why) = self.silent.get(&host) {
            return Err(why.clone());
        }
        let access = store::access(self.session, reference, self.options).map_err(|failure| failure.message)?;
        let late = |_| format!("{host} gave no answer within {}s", PATIENCE.as_secs());
        let answer = tokio::time::timeout(PATIENCE, bundle::provenance(reference, &access)).await;
        let why = match answer.map_err(late) {
            Ok(Ok(documents)) => return Ok(documents),
            Ok(Err(error)) if is_silence(error.kind) => error.message,
            Ok(Err(error)) => return Err(error.message),
            Err(why) => why,
        };
        self.silent.insert(host, why.clone());
        Err(why)
    }
}

/// The next request would have no answer either.
fn is_silence(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unreachable | ErrorKind::UnknownHost | ErrorKind::Tls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest(letter: char) -> String {
        format!("sha256:{}", letter.to_string().repeat(64))
    }

    fn bundle_of(letter: char) -> String {
        format!("r.example/a@{}", digest(letter))
    }

    /// With inputs: path, run, its uid, and the letter of its bundle; no letter: it is not pinned yet.
    fn run(name: &str, letter: Option<char>, inputs: &[(&str, &str, Option<char>)]) -> BundleRun {
        let spec: Vec<_> = inputs.iter().map(|(path, run, _)| json!({"path": path, "run": {"name": run}})).collect();
        let pinned = inputs.iter().filter_map(|(path, run, letter)| {
            let letter = (*letter)?;
            Some(json!({"path": path, "digest": digest(letter), "reference": bundle_of(letter), "runUid": format!("u-{run}")}))
        });
        let status = match letter {
            Some(letter) => {
                json!({"phase": "Succeeded", "inputs": pinned.collect::<Vec<_>>(), "output": {"bundle": bundle_of(letter)}})
            }
            None => json!({"phase": "Waiting", "inputs": pinned.collect::<Vec<_>>()}),
        };
        let run = json!({
            "apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun",
            "metadata": {"name": name, "namespace": "a", "uid": format!("u-{name}")},
            "spec": {"command": "true", "inputs": spec}, "status": status,
        });
        serde_json::from_value(run).unwrap()
    }

    /// Counts what is asked for.
    #[derive(Default)]
    struct Fake {
        runs: Vec<BundleRun>,
        store: BTreeMap<String, Result<Vec<Value>, String>>,
        requests: usize,
    }

    impl Records for Fake {
        fn namespace(&self) -> Option<&str> {
            Some("a")
        }

        async fn run(&mut self, name: &str) -> Result<Option<BundleRun>, Failure> {
            Ok(self.runs.iter().find(|run| run.name_any() == name).cloned())
        }

        async fn provenance(&mut self, reference: &str) -> Result<Vec<Value>, String> {
            self.requests += 1;
            self.store.get(reference).cloned().unwrap_or(Ok(Vec::new()))
        }
    }

    fn names(node: &Node) -> Vec<String> {
        let mut names = vec![node.name.clone().unwrap_or_default()];
        let from = node.inputs.iter().filter_map(|input| input.from.as_deref());
        names.extend(from.flat_map(self::names));
        names
    }

    #[tokio::test]
    async fn a_document_of_the_store_leads_to_no_other_host() {
        let there = format!("127.0.0.1:9000/x@{}", digest('2'));
        let input = |path: &str, reference: &str| json!({"path": path, "image": {"reference": reference}, "reference": reference});
        let inputs = [input("there", &there), input("here", &bundle_of('3'))];
        let document = json!({"name": "made", "namespace": "b", "uid": "u", "inputs": inputs});
        let store = BTreeMap::from([(bundle_of('1'), Ok(vec![document]))]);
        let mut search = Search::new(Fake { store, ..Fake::default() });
        let node = search.of_bundle(&bundle_of('1')).await.unwrap();
        assert_eq!(search.records.requests, 2, "of the top and of what is here");
        assert!(node.note.unwrap().contains("is on another host, and not looked up"));
        assert_eq!(node.inputs[0].reference, None, "nor verified");
    }

    #[tokio::test]
    async fn a_run_that_is_there_says_what_it_was_made_from() {
        let runs = vec![
            run("raw", Some('1'), &[]),
            run("prepare", Some('2'), &[("raw", "raw", Some('1'))]),
            run("train", Some('3'), &[("data", "prepare", Some('2')), ("raw", "raw", Some('1'))]),
        ];
        let mut search = Search::new(Fake { runs: runs.clone(), ..Fake::default() });
        let node = search.of_run(&runs[2]).await.unwrap();
        assert_eq!(names(&node), ["train", "prepare", "raw", "raw"]);
        assert!(node.inputs[1].from.as_ref().unwrap().again, "it is in the tree before");
        let found: Vec<_> = nodes(&node).iter().map(|node| node.name.as_deref().unwrap()).collect();
        assert_eq!(found, ["train", "prepare", "raw"]);
        let found: Vec<_> = bundles(&node).into_iter().map(|(name, of)| (name.unwrap(), of.to_owned())).collect();
        assert_eq!(found, [("train", bundle_of('3')), ("prepare", bundle_of('2')), ("raw", bundle_of('1'))]);
        assert_eq!(search.records.requests, 0, "the store is not asked for what the cluster knows");
    }

    #[tokio::test]
    async fn a_run_that_was_deleted_is_known_from_the_store() {
        // Another one has its name now.
        let other = BundleRun {
            metadata: kube::api::ObjectMeta { uid: Some("u-other".to_owned()), ..run("prepare", None, &[]).metadata },
            ..run("prepare", Some('9'), &[])
        };
        let train = run("train", Some('3'), &[("data", "prepare", Some('2'))]);
        let told = |uid: &str| {
            json!({
                "namespace": "a", "name": "prepare", "uid": uid, "image": "python:3.13", "imageDigest": digest('5'),
                "inputs": [{"path": "raw", "run": {"name": "raw"}, "reference": bundle_of('1'), "digest": digest('1'), "runUid": "u-raw"},
                    {"path": "a", "text": "x", "digest": digest('7')}],
            })
        };
        let store = BTreeMap::from([
            (bundle_of('2'), Ok(vec![told("u-first"), told("u-prepare")])),
            (bundle_of('1'), Err("r.example gave no answer".to_owned())),
        ]);
        let mut search = Search::new(Fake { runs: vec![other], store, requests: 0 });
        let node = search.of_run(&train).await.unwrap();
        let prepare = node.inputs[0].from.as_ref().unwrap();
        assert_eq!((prepare.uid.as_deref(), prepare.phase), (Some("u-prepare"), None));
        assert_eq!(prepare.note.as_deref(), Some("not there any more"));
        assert_eq!(prepare.image, Some(format!("python@{}", digest('5'))));
        assert_eq!(prepare.inputs[1].source, "a text");
        let twin = Fake { store: BTreeMap::from([(bundle_of('2'), Ok(vec![told("u-first")]))]), ..Fake::default() };
        let of_twin = Search::new(twin).of_run(&train).await.unwrap();
        let said = of_twin.inputs[0].from.as_ref().unwrap().note.clone();
        assert_eq!(said.as_deref(), Some("not there any more; another run that has made the same"));
        let raw = prepare.inputs[0].from.as_ref().unwrap();
        assert_eq!(raw.name.as_deref(), Some("raw"));
        assert_eq!(raw.note.as_deref(), Some("how it was made is not known: r.example gave no answer"));
    }

    #[tokio::test]
    async fn a_circle_comes_to_an_end_and_so_does_an_endless_chain() {
        let runs = vec![run("a", Some('1'), &[("b", "b", Some('2'))]), run("b", Some('2'), &[("a", "a", Some('1'))])];
        let mut search = Search::new(Fake { runs: runs.clone(), ..Fake::default() });
        assert_eq!(names(&search.of_run(&runs[0]).await.unwrap()), ["a", "b", "a"]);
        let of_each = children(&runs, &search.of_run(&runs[1]).await.unwrap());
        assert_eq!((of_each[0].name.as_str(), of_each[0].children.len(), of_each.len()), ("a", 1, 1));

        let chain: Vec<_> =
            (0..=2 * DEEPEST).map(|n| run(&n.to_string(), None, &[("x", &(n + 1).to_string(), None)])).collect();
        let mut search = Search::new(Fake { runs: chain.clone(), ..Fake::default() });
        assert_eq!(names(&search.of_run(&chain[0]).await.unwrap()).len(), DEEPEST + 2);
    }

    #[tokio::test]
    async fn an_image_that_no_run_made_has_no_origin_and_a_missing_run_is_named() {
        let mut train = run("train", Some('3'), &[("data", "gone", None)]);
        let image = json!({"path": "model", "image": {"reference": bundle_of('8')}});
        train.spec.inputs.push(serde_json::from_value(image).unwrap());
        let pinned = json!({"path": "model", "digest": digest('8'), "reference": bundle_of('8')});
        train.status.as_mut().unwrap().inputs.push(serde_json::from_value(pinned).unwrap());
        let node = Search::new(Fake::default()).of_run(&train).await.unwrap();
        let gone = node.inputs[0].from.as_ref().unwrap();
        assert_eq!((gone.name.as_deref(), gone.note.as_deref()), (Some("gone"), Some("it is not there")));
        assert_eq!((&node.inputs[1].from, &node.inputs[1].reference), (&None, &Some(bundle_of('8'))));
    }

    #[test]
    fn what_was_made_from_a_run_is_found_once_however_long_the_chain() {
        let length = 3 * DEEPEST;
        let mut all = vec![run("0", None, &[])];
        all.extend((1..length).map(|n| run(&n.to_string(), None, &[("x", &(n - 1).to_string(), None)])));
        all.push(run("both", None, &[("a", "0", None), ("b", "1", None), ("c", "1", None)]));
        let found = uses(&all, &all[0]);
        assert_eq!(found.len(), length - 1 + 2);
        let of_both: Vec<_> = found.iter().filter(|of| of.child == "both").map(|of| of.paths.concat()).collect();
        assert_eq!(of_both, ["a", "bc"]);
        let circle = [run("a", None, &[("x", "b", None)]), run("b", None, &[("x", "a", None)])];
        assert_eq!(uses(&circle, &circle[0]).len(), 2);
    }

    #[test]
    fn children_are_found_by_uid_by_digest_and_by_the_name_they_wait_for() {
        let mut by_digest = run("by-digest", Some('4'), &[]);
        by_digest
            .spec
            .inputs
            .push(serde_json::from_value(json!({"path": "m", "image": {"reference": bundle_of('1')}})).unwrap());
        let pinned = json!({"path": "m", "digest": digest('1'), "reference": bundle_of('1')});
        by_digest.status.as_mut().unwrap().inputs.push(serde_json::from_value(pinned).unwrap());
        let all = [
            run("raw", Some('1'), &[]),
            run("same", Some('1'), &[]),
            run("by-uid", Some('2'), &[("x", "raw", Some('1'))]),
            run("of-same", Some('2'), &[("x", "same", Some('1'))]),
            run("waits", None, &[("x", "raw", None)]),
            run("below", Some('5'), &[("x", "by-uid", Some('2'))]),
            by_digest,
        ];
        let node = Node {
            uid: Some("u-raw".to_owned()),
            name: Some("raw".to_owned()),
            bundle: Some(bundle_of('1')),
            ..Node::default()
        };
        let found = children(&all, &node);
        assert_eq!(found.iter().map(|child| child.name.as_str()).collect::<Vec<_>>(), ["by-uid", "waits", "by-digest"]);
        assert_eq!(found[0].children[0].name, "below");
        assert_eq!(found[1].paths, ["x"]);
    }
}

//! What is in one of our bundles, read from its list of entries, and the files in it by ranges of its layers.

use super::destination::{Budget, Maker, checked};
use super::feed::{Feed, Need, feed};
use crate::bundle::digest::{Digest, Digester};
use crate::bundle::error::shown;
use crate::bundle::format::image::{Descriptor, Manifest};
use crate::bundle::format::list_index::{self, IndexPlace, ListMember};
use crate::bundle::format::listing::{self, Listed, ListedAs, ListedFile};
use crate::bundle::registry::{Download, Repository};
use crate::bundle::{Error, ErrorKind, Kind, Progress};
use crate::names::paths;
use futures::stream::{self, StreamExt, TryStreamExt};
use rustix::fd::OwnedFd;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Larger indices are those of more than 10,000,000 entries.
const LARGEST_INDEX: u64 = 64 << 20;
const LARGEST_MEMBER: u64 = 4 << 20;
/// Less than it between two wanted files is read and thrown away: a request costs more.
const GAP: u64 = 256 << 10;
const AT_ONCE: usize = 4;
const COPY: usize = 128 << 10;

/// So many symbolic links are followed on the way to one path: as many as the kernel does (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// A bundle whose index is read.
pub(in crate::bundle) struct Bundle<'a> {
    repository: &'a Repository,
    layers: &'a [Descriptor],
    list: &'a Descriptor,
    members: Vec<ListMember>,
}

impl<'a> Bundle<'a> {
    /// None, if the image is no bundle of ours.
    pub(in crate::bundle) async fn open(
        repository: &'a Repository,
        manifest: &'a Manifest,
    ) -> Result<Option<Self>, Error> {
        let Some((list, place)) = manifest.bundle_index()? else { return Ok(None) };
        let IndexPlace { offset, size, digest } = place;
        if size > LARGEST_INDEX {
            return Err(Error::too_large("the index of the bundle"));
        }
        let index = repository.blob_part(&list.digest, offset, size).await?;
        if Digest::of(&index) != digest {
            return Err(Error::invalid(format!("{} gave another index than the bundle's", repository.host())));
        }
        let layers = manifest.layers.split_last().map_or(&[][..], |(_, content)| content);
        Ok(Some(Self { repository, layers, list, members: list_index::read(&index)? }))
    }

    /// What is at a path: a file or a directory, under its own path. Symbolic links are followed inside of the bundle.
    pub(in crate::bundle) async fn lookup(&self, path: &[u8]) -> Result<Listed, Error> {
        let mut way = Way::to(path);
        let mut straight_on = true;
        loop {
            // Hardly a path leads through links: what is left of it is asked for at once.
            if straight_on && let Some(end) = way.straight() {
                match self.entry(&end).await? {
                    Some(Listed { what: ListedAs::Link { .. }, .. }) | None => {}
                    Some(found) => return Way::arrive(found),
                }
            }
            straight_on = false;
            let Some(name) = way.rest.pop() else {
                let found = self.entry(&way.at).await?.ok_or_else(|| way.not_there())?;
                return Way::arrive(found);
            };
            if name == b".." {
                way.up()?;
                continue;
            }
            let next = below(&way.at, &name);
            let found = self.entry(&next).await?.ok_or_else(|| way.not_there())?;
            match &found.what {
                ListedAs::Link { target } => {
                    way.follow(&next, target)?;
                    straight_on = true;
                }
                ListedAs::Directory { .. } if !way.rest.is_empty() => way.at = next,
                _ if way.rest.is_empty() => return Way::arrive(found),
                _ => return Err(way.not_there()),
            }
        }
    }

    async fn entry(&self, path: &[u8]) -> Result<Option<Listed>, Error> {
        let members = list_index::members_for(&self.members, path)?;
        // The first member has it, if any: it begins at the path or before.
        let Some(member) = members.first() else { return Ok(None) };
        let mut found = None;
        self.read_members(std::slice::from_ref(member), |entry| {
            if entry.path == path {
                found = Some(entry);
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// What is at a path and below it, sorted.
    pub(in crate::bundle) async fn entries(&self, path: &[u8]) -> Result<Vec<Listed>, Error> {
        let mut entries = vec![];
        self.each(path, |entry| {
            entries.push(entry);
            Ok(())
        })
        .await?;
        Ok(entries)
    }

    /// Gives what is at a path and below it to `take`, sorted. All of it is never in memory at once.
    async fn each(&self, path: &[u8], mut take: impl FnMut(Listed) -> Result<(), Error> + Send) -> Result<(), Error> {
        let below = [path, b"/"].concat();
        let is_wanted = |entry: &Listed| path.is_empty() || entry.path == path || entry.path.starts_with(&below);
        let members = list_index::members_for(&self.members, path)?;
        self.read_members(members, |entry| if is_wanted(&entry) { take(entry) } else { Ok(()) }).await
    }

    async fn read_members(
        &self,
        members: &[ListMember],
        mut take: impl FnMut(Listed) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let outside = || Error::invalid("the bundle's index points outside of its list");
        let (Some(first), Some(last)) = (members.first(), members.last()) else { return Ok(()) };
        let end = last.offset.checked_add(last.size).filter(|end| *end <= self.list.size).ok_or_else(outside)?;
        let mut download = Download::new(self.repository, self.list.digest, first.offset, end);
        let (mut pending, mut position) = (vec![], first.offset);
        for member in members {
            if member.offset != position || member.size > LARGEST_MEMBER {
                return Err(outside());
            }
            let size = usize::try_from(member.size).map_err(|_| outside())?;
            while pending.len() < size {
                pending.extend_from_slice(&download.chunk().await?.ok_or_else(outside)?);
            }
            let rest = pending.split_off(size);
            listing::read_member(member, &pending)?.into_iter().try_for_each(&mut take)?;
            pending = rest;
            position += member.size;
        }
        Ok(())
    }

    /// Bytes of a file, to whoever takes them, as they come. Their digest is known to be right only at the end.
    pub(in crate::bundle) async fn read(
        &self,
        file: &ListedFile,
        progress: Option<&Progress>,
        take: impl FnMut(&[u8]) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let mut take = take;
        let download = self.download(file.layer, file.offset, file.offset.saturating_add(file.size))?;
        let (size, digest) = (file.size, file.digest);
        feed(download, Need::Some, progress, move |mut feed| {
            copy(&mut feed, size, &digest, "the file", &mut vec![0; COPY], &mut take)
        })
        .await
    }

    fn download(&self, layer: usize, start: u64, end: u64) -> Result<Download<'_>, Error> {
        let layer = self.layers.get(layer).filter(|layer| end <= layer.size);
        let layer = layer.ok_or_else(|| Error::invalid("the bundle's list has a file that is in no layer"))?;
        Ok(Download::new(self.repository, layer.digest, start, end))
    }

    /// Puts what is in a directory of the bundle into a place. An entry takes about 75 bytes of memory and its path.
    pub(in crate::bundle) async fn fetch(
        &self,
        dir: &[u8],
        root: Arc<OwnedFd>,
        budget: &Budget,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut planner = Planner::new(dir, budget);
        self.each(dir, |entry| planner.add(entry)).await?;
        let tree = planner.finish();
        let bytes = tree.segments.iter().map(|segment| segment.end - segment.start);
        progress.total_bytes.store(bytes.fold(0, u64::saturating_add), Ordering::Relaxed);
        let Tree { directories, segments, empty, links, hard_links } = tree;
        let for_start = root.clone();
        let directories = crate::bundle::blocking::blocking(move || {
            let mut maker = Maker::new(for_start);
            maker.clear()?;
            for (path, _) in &directories {
                maker.directory(path)?;
            }
            for (path, mode) in empty {
                maker.file(&path)?.finish(mode)?;
            }
            Ok(directories)
        })
        .await?;
        let segments = segments.into_iter().map(|segment| {
            let root = root.clone();
            async move {
                let download = self.download(segment.layer, segment.start, segment.end)?;
                feed(download, Need::Some, Some(progress), move |feed| segment.write(feed, Maker::new(root))).await
            }
        });
        stream::iter(segments).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        crate::bundle::blocking::blocking(move || {
            let mut maker = Maker::new(root);
            for (path, to) in hard_links {
                maker.hard_link(&path, &to)?;
            }
            for (path, target) in links {
                maker.link(&path, &target)?;
            }
            for (path, mode) in directories.iter().rev() {
                maker.directory_mode(path, *mode)?;
            }
            maker.finish();
            Ok(())
        })
        .await
    }
}

/// The way to a path, which may lead through symbolic links.
struct Way<'a> {
    asked: &'a [u8],
    /// A directory of the bundle, by its own path.
    at: Vec<u8>,
    /// What is to go from there: names and `..`, the next one last.
    rest: Vec<Vec<u8>>,
    /// The last link that was followed, and its target.
    through: Option<(Vec<u8>, Vec<u8>)>,
    links: usize,
}

impl<'a> Way<'a> {
    fn to(path: &'a [u8]) -> Self {
        let mut way = Self { asked: path, at: vec![], rest: vec![], through: None, links: 0 };
        way.push(path);
        way
    }

    fn push(&mut self, path: &[u8]) {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
        self.rest.extend(names.rev().map(<[u8]>::to_vec));
    }

    /// The end of the way, if it does not lead through links.
    fn straight(&self) -> Option<Vec<u8>> {
        let up = self.rest.iter().any(|name| name == b"..");
        (!up).then(|| self.rest.iter().rev().fold(self.at.clone(), |at, name| below(&at, name)))
    }

    fn up(&mut self) -> Result<(), Error> {
        if self.at.is_empty() {
            return Err(self.leads_out());
        }
        let end = self.at.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.at.truncate(end);
        Ok(())
    }

    /// Goes on behind a link, which is in the directory that was reached. In the pod of the run the bundle was at
    /// `/bundle`: so links into it are written there.
    fn follow(&mut self, link: &[u8], target: &[u8]) -> Result<(), Error> {
        self.links += 1;
        self.through = Some((link.to_vec(), target.to_vec()));
        if self.links > MOST_LINKS {
            let asked = shown(self.asked);
            return Err(Error::invalid(format!("{asked:?} leads through more than {MOST_LINKS} symbolic links")));
        }
        if target.first() != Some(&b'/') {
            self.push(target);
            return Ok(());
        }
        match target.strip_prefix(paths::BUNDLE.as_bytes()) {
            Some(inside @ ([] | [b'/', ..])) => {
                self.at.clear();
                self.push(inside);
                Ok(())
            }
            _ => Err(self.leads_out()),
        }
    }

    fn arrive(found: Listed) -> Result<Listed, Error> {
        match &found.what {
            ListedAs::Skipped { reason } => {
                let message = format!("{:?} was not saved: {reason}", shown(&found.path));
                Err(Error::new(ErrorKind::NotFound, message))
            }
            _ => Ok(found),
        }
    }

    fn not_there(&self) -> Error {
        let (asked, link) = (shown(self.asked), self.link());
        Error::new(ErrorKind::NotFound, format!("{asked:?} is not in the bundle{link}"))
    }

    fn leads_out(&self) -> Error {
        let (asked, link) = (shown(self.asked), self.link());
        Error::invalid(format!("{asked:?} leads out of the bundle{link}"))
    }

    /// For people: where the last link points.
    fn link(&self) -> String {
        let Some((link, target)) = &self.through else { return String::new() };
        format!(": {:?} is a symbolic link to {:?}", shown(link), shown(target))
    }
}

fn below(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// What is to be made in a place; paths from there.
#[derive(Default)]
struct Tree {
    /// Parents before their children.
    directories: Vec<(Vec<u8>, u32)>,
    segments: Vec<Segment>,
    empty: Vec<(Vec<u8>, u32)>,
    links: Vec<(Vec<u8>, Vec<u8>)>,
    hard_links: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Makes a [`Tree`] of entries, one after the other.
struct Planner<'a> {
    dir: &'a [u8],
    budget: &'a Budget,
    tree: Tree,
    /// For names of files whose first name is not in the directory: which of them came first.
    first_here: HashMap<Vec<u8>, Vec<u8>>,
    layers: BTreeMap<usize, Vec<StagedFile>>,
}

impl<'a> Planner<'a> {
    fn new(dir: &'a [u8], budget: &'a Budget) -> Self {
        Self { dir, budget, tree: Tree::default(), first_here: HashMap::new(), layers: BTreeMap::new() }
    }

    /// From the directory; `None` for that itself and for what is elsewhere.
    fn path_here(&self, path: &[u8]) -> Option<Box<[u8]>> {
        if self.dir.is_empty() {
            return (!path.is_empty()).then(|| path.into());
        }
        path.strip_prefix(self.dir)?.strip_prefix(b"/").map(Into::into)
    }

    fn add(&mut self, entry: Listed) -> Result<(), Error> {
        let Some(path) = self.path_here(&entry.path) else { return Ok(()) };
        checked(&path)?;
        self.budget.entry()?;
        match entry.what {
            ListedAs::Directory { mode } => self.tree.directories.push((path.into(), mode)),
            ListedAs::Link { target } => self.tree.links.push((path.into(), target)),
            ListedAs::Skipped { .. } => {}
            ListedAs::File(file) => self.file(path, file)?,
        }
        Ok(())
    }

    fn file(&mut self, path: Box<[u8]>, file: ListedFile) -> Result<(), Error> {
        if let Some(first) = file.same_as {
            if let Some(here) = self.path_here(&first) {
                checked(&here)?;
                self.tree.hard_links.push((path.into(), here.into()));
                return Ok(());
            }
            if let Some(here) = self.first_here.get(&first) {
                self.tree.hard_links.push((path.into(), here.clone()));
                return Ok(());
            }
            self.first_here.insert(first, path.to_vec());
        }
        self.budget.bytes(file.size)?;
        if file.size == 0 {
            self.tree.empty.push((path.into(), file.mode));
            return Ok(());
        }
        let ListedFile { mode, size, digest, offset, .. } = file;
        self.layers.entry(file.layer).or_default().push(StagedFile { path, offset, size, digest, mode });
        Ok(())
    }

    fn finish(self) -> Tree {
        let mut tree = self.tree;
        for (layer, mut files) in self.layers {
            files.sort_unstable_by_key(|file| file.offset);
            let mut segments: Vec<Segment> = vec![];
            for file in files {
                match segments.last_mut() {
                    Some(segment) if segment.goes_on_with(&file) => segment.add(file),
                    _ => segments.push(Segment::new(layer, file)),
                }
            }
            tree.segments.extend(segments);
        }
        tree
    }
}

/// A file that is to be made: there may be a million of them.
struct StagedFile {
    path: Box<[u8]>,
    /// Of the content in the layer.
    offset: u64,
    size: u64,
    digest: Digest,
    mode: u32,
}

/// Files that are read from a layer in one go.
struct Segment {
    layer: usize,
    start: u64,
    end: u64,
    files: Vec<StagedFile>,
}

impl Segment {
    fn new(layer: usize, file: StagedFile) -> Self {
        let end = file.offset.saturating_add(file.size);
        Self { layer, start: file.offset, end, files: vec![file] }
    }

    fn goes_on_with(&self, file: &StagedFile) -> bool {
        file.offset.checked_sub(self.end).is_some_and(|gap| gap <= GAP)
    }

    fn add(&mut self, file: StagedFile) {
        self.end = file.offset.saturating_add(file.size);
        self.files.push(file);
    }

    fn write(self, mut feed: Feed, mut maker: Maker) -> Result<(), Error> {
        let mut buffer = vec![0; COPY];
        let mut position = self.start;
        for file in self.files {
            let StagedFile { path, offset, size, digest, mode } = file;
            skip(&mut feed, offset - position, &mut buffer)?;
            let mut new = maker.file(&path)?;
            copy(&mut feed, size, &digest, &shown(&path), &mut buffer, &mut |bytes| new.write(bytes))?;
            new.finish(mode)?;
            position = offset.saturating_add(size);
        }
        Ok(())
    }
}

fn skip(feed: &mut Feed, mut bytes: u64, buffer: &mut [u8]) -> Result<(), Error> {
    while bytes > 0 {
        bytes -= part(feed, bytes, buffer)?.len() as u64;
    }
    Ok(())
}

/// Gives a file's bytes to `take`; an error, if they are not those that the list says.
fn copy(
    feed: &mut Feed,
    size: u64,
    digest: &Digest,
    name: &str,
    buffer: &mut [u8],
    take: &mut impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut left, mut digester) = (size, Digester::default());
    while left > 0 {
        let bytes = part(feed, left, buffer)?;
        digester.update(bytes);
        left -= bytes.len() as u64;
        take(bytes)?;
    }
    if digester.finish() == *digest {
        return Ok(());
    }
    Err(Error::invalid(format!("{name:?} has another sha256 in its layer than in the bundle's list")))
}

fn part<'a>(feed: &mut Feed, most: u64, buffer: &'a mut [u8]) -> Result<&'a [u8], Error> {
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
    let part = buffer.get_mut(..most).unwrap_or_default();
    match feed.read(part) {
        Ok(0) => Err(Error::invalid("a layer ends in the middle of a file")),
        Ok(got) => Ok(buffer.get(..got).unwrap_or_default()),
        Err(error) => Err(Error::new(ErrorKind::Unreachable, error.to_string())),
    }
}

/// What an input can be.
pub(in crate::bundle) fn kind_of(listed: &Listed) -> Option<Kind> {
    match listed.what {
        ListedAs::Directory { .. } => Some(Kind::Directory),
        ListedAs::File(_) => Some(Kind::File),
        ListedAs::Link { .. } | ListedAs::Skipped { .. } => None,
    }
}

//! What is in one of our bundles, read from its list of entries, and the files in it by ranges of its layers.

use super::budget::Budget;
use super::destination::{Made, Maker, Piece};
use super::feed::{Need, feed};
use super::staged::{Content, LayerRange, Planner, Segment, Tree, copy, ranges_of, time_of};
use super::way::{Way, below};
use crate::bundle::digest::Digest;
use crate::bundle::format::image::{Descriptor, Manifest};
use crate::bundle::format::list_index::{self, IndexPlace, ListMember};
use crate::bundle::format::listing::{self, Listed, ListedAs, ListedFile};
use crate::bundle::registry::{Download, Repository};
use crate::bundle::{Error, Kind, Progress};
use futures::stream::{self, StreamExt, TryStreamExt};
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Larger indices are those of more than 10,000,000 entries.
const LARGEST_INDEX: u64 = 64 << 20;
const LARGEST_MEMBER: u64 = 4 << 20;
const AT_ONCE: usize = 4;

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

    /// A file piece by piece, to whoever takes it, as it comes. Their digest is known to be right only at the end.
    pub(in crate::bundle) async fn read(
        &self,
        file: &ListedFile,
        progress: Option<&Progress>,
        mut take: impl FnMut(Piece<'_>) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let download = self.download(&ranges_of(file))?;
        let content = Content::from(file);
        feed(download, Need::Some, progress, move |mut feed| copy(&mut feed, &content, "the file", &mut take)).await
    }

    pub(super) fn download(&self, ranges: &[LayerRange]) -> Result<Download<'_>, Error> {
        let nowhere = || Error::invalid("the bundle's list has a file that is in no layer");
        let mut download: Option<Download<'_>> = None;
        for LayerRange { layer, start, end } in ranges {
            let layer = self.layers.get(*layer).filter(|layer| *end <= layer.size).ok_or_else(nowhere)?;
            download = Some(match download {
                None => Download::new(self.repository, layer.digest, *start, *end),
                Some(download) => download.then(layer.digest, *start, *end),
            });
        }
        download.ok_or_else(nowhere)
    }

    /// Puts what is in a directory of the bundle into a place. How much memory an entry takes: see [`Planner`].
    pub(in crate::bundle) async fn fetch(
        &self,
        dir: &[u8],
        maker: Maker,
        budget: &Budget,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut planner = Planner::new(dir, budget);
        self.each(dir, |entry| planner.add(entry)).await?;
        self.put(planner, maker, vec![], progress).await
    }

    /// Puts all of a snapshot back into a working directory, without what the command said. These paths, what is below them
    /// and the directories on the way to them stay what they are.
    pub(in crate::bundle) async fn restore(
        &self,
        root: Arc<OwnedFd>,
        stay: Vec<Vec<u8>>,
        budget: &Budget,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut planner = Planner::new(&[], budget).without_ours();
        self.each(&[], |entry| planner.add(entry)).await?;
        self.put(planner, Maker::new(root).made(Made::AsItWas), stay, progress).await
    }

    async fn put(
        &self,
        planner: Planner<'_>,
        mut maker: Maker,
        stay: Vec<Vec<u8>>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let budget = planner.budget().clone();
        let Tree { directories, segments, empty, links, hard_links, held: _held } = planner.finish();
        let bytes = segments.iter().map(Segment::bytes);
        progress.total_bytes.store(bytes.fold(0, u64::saturating_add), Ordering::Relaxed);
        let (directories, mut maker) = crate::bundle::blocking::blocking(move || {
            maker.clear_but(&stay)?;
            directories.each(|path, _, _| maker.directory(path))?;
            empty.each(|path, [mode, time @ ..], _| maker.file(path)?.finish(mode_of(mode), time_of(time)))?;
            Ok((directories, maker))
        })
        .await?;
        let segments = segments.into_iter().map(|segment| {
            let maker = maker.another().counting(&budget);
            async move {
                let download = self.download(&segment.ranges)?;
                feed(download, Need::Some, Some(progress), move |feed| segment.write(feed, maker)).await
            }
        });
        stream::iter(segments).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        crate::bundle::blocking::blocking(move || {
            hard_links.each(|path, [], to| maker.hard_link(path, to))?;
            links.each(|path, [], target| maker.link(path, target))?;
            let mut closed = vec![];
            directories.each(|path, [mode], _| {
                let mode = mode_of(mode);
                if maker.closes(mode) {
                    closed.push((path.to_vec(), mode));
                    return Ok(());
                }
                maker.directory_mode(path, mode)
            })?;
            // Nobody but root could enter what is in them.
            closed.iter().rev().try_for_each(|(path, mode)| maker.directory_mode(path, *mode))?;
            maker.finish();
            Ok(())
        })
        .await
    }
}

fn mode_of(number: u64) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

/// What an input can be.
pub(in crate::bundle) fn kind_of(listed: &Listed) -> Option<Kind> {
    match listed.what {
        ListedAs::Directory { .. } => Some(Kind::Directory),
        ListedAs::File(_) => Some(Kind::File),
        ListedAs::Link { .. } | ListedAs::Skipped { .. } => None,
    }
}

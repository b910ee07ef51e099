//! The way to a path in a bundle, which may lead through symbolic links. They are followed inside of the bundle.

use crate::bundle::error::shown;
use crate::bundle::format::listing::{Listed, ListedAs};
use crate::bundle::{Error, ErrorKind};
use crate::names::paths;

/// So many symbolic links are followed on the way to one path: as many as the kernel does (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// The way to a path, which may lead through symbolic links.
pub(super) struct Way<'a> {
    asked: &'a [u8],
    /// A directory of the bundle, by its own path.
    pub(super) at: Vec<u8>,
    /// What is to go from there: names and `..`, the next one last.
    pub(super) rest: Vec<Vec<u8>>,
    /// The last link that was followed, and its target.
    through: Option<(Vec<u8>, Vec<u8>)>,
    links: usize,
}

impl<'a> Way<'a> {
    pub(super) fn to(path: &'a [u8]) -> Self {
        let mut way = Self { asked: path, at: vec![], rest: vec![], through: None, links: 0 };
        way.push(path);
        way
    }

    fn push(&mut self, path: &[u8]) {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
        self.rest.extend(names.rev().map(<[u8]>::to_vec));
    }

    /// The end of the way, if it does not lead through links.
    pub(super) fn straight(&self) -> Option<Vec<u8>> {
        let up = self.rest.iter().any(|name| name == b"..");
        (!up).then(|| self.rest.iter().rev().fold(self.at.clone(), |at, name| below(&at, name)))
    }

    pub(super) fn up(&mut self) -> Result<(), Error> {
        if self.at.is_empty() {
            return Err(self.leads_out());
        }
        let end = self.at.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.at.truncate(end);
        Ok(())
    }

    /// Goes on behind a link, which is in the directory that was reached. In the pod of the run the bundle was at
    /// `/bundle`: so links into it are written there.
    pub(super) fn follow(&mut self, link: &[u8], target: &[u8]) -> Result<(), Error> {
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

    pub(super) fn arrive(found: Listed) -> Result<Listed, Error> {
        match &found.what {
            ListedAs::Skipped { reason } => {
                let message = format!("{:?} was not saved: {reason}", shown(&found.path));
                Err(Error::new(ErrorKind::PathNotFound, message))
            }
            _ => Ok(found),
        }
    }

    pub(super) fn not_there(&self) -> Error {
        let (asked, link) = (shown(self.asked), self.link());
        Error::new(ErrorKind::PathNotFound, format!("{asked:?} is not in the bundle{link}"))
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

pub(super) fn below(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

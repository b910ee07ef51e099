//! Paths in the layers of an image: how they lie to the one that is wanted, and which of them mean deletions.

use super::destination::checked;
use crate::bundle::Error;

/// A name as it is in the archive, as a path from the root of the image; the root itself is empty.
pub(in crate::bundle) fn path_of(name: &[u8]) -> Result<&[u8], Error> {
    let mut path = name;
    while let Some(rest) = path.strip_prefix(b"./") {
        path = rest;
    }
    if path == b"." || path == b"./" || path.is_empty() { Ok(&[]) } else { checked(path) }
}

/// How a path lies to the one that is wanted.
pub(in crate::bundle) enum Relation<'a> {
    /// The wanted one, or below it, from there.
    Wanted(&'a [u8]),
    /// The wanted one is below it.
    Above,
    Beside,
}

pub(in crate::bundle) fn relation<'a>(path: &'a [u8], wanted: &[u8]) -> Relation<'a> {
    if wanted.is_empty() {
        return Relation::Wanted(path);
    }
    if path.is_empty() {
        return Relation::Above;
    }
    match path.strip_prefix(wanted) {
        Some([]) => Relation::Wanted(&[]),
        Some([b'/', below @ ..]) => Relation::Wanted(below),
        _ if wanted.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/")) => Relation::Above,
        _ => Relation::Beside,
    }
}

/// What a name that begins with `.wh.` asks for.
pub(in crate::bundle) enum Whiteout<'a> {
    /// What lower layers have at this path.
    Path(Vec<u8>),
    /// What lower layers have in this directory.
    Below(&'a [u8]),
    /// Notes of a storage driver.
    Nothing,
}

pub(in crate::bundle) fn whiteout(path: &[u8]) -> Option<Whiteout<'_>> {
    let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&[][..], path),
    };
    let hidden = name.strip_prefix(b".wh.")?;
    Some(match hidden {
        b".wh..opq" => Whiteout::Below(dir),
        _ if hidden.starts_with(b".wh.") || hidden.is_empty() => Whiteout::Nothing,
        _ if dir.is_empty() => Whiteout::Path(hidden.to_vec()),
        _ => Whiteout::Path([dir, b"/", hidden].concat()),
    })
}

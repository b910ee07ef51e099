//! What is at a path of an image, as far as one layer knows.

use super::artifact::Content;
use super::layer_path::{Relation, Whiteout, path_of, relation, whiteout};
use super::unpack::{count_read, open};
use crate::bundle::error::shown;
use crate::bundle::format::tar_reader::Kind as MemberKind;
use crate::bundle::{Error, Kind};
use std::io::Read;

/// What one layer says of a path.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::bundle) enum Seen {
    Here(Kind),
    /// It is nothing that can be an input.
    Unusable(String),
    /// It is not there, whatever lower layers have.
    Gone,
    /// Lower layers know.
    Nothing,
}

/// Looks for a path in a layer, as far as needed.
pub(in crate::bundle) fn look(content: &Content, layer: impl Read + 'static, wanted: &[u8]) -> Result<Seen, Error> {
    let mut layer = open(content, layer)?;
    let (mut seen, mut gone, mut entries) = (Seen::Nothing, false, 0);
    while let Some(member) = layer.next()? {
        count_read(&mut entries)?;
        let path = path_of(&member.name)?;
        if let Some(whiteout) = whiteout(path) {
            gone |= match whiteout {
                Whiteout::Path(path) => !matches!(relation(wanted, &path), Relation::Beside | Relation::Above),
                Whiteout::Below(dir) => dir.is_empty() || matches!(relation(wanted, dir), Relation::Wanted([_, ..])),
                Whiteout::Nothing => false,
            };
            continue;
        }
        match (relation(path, wanted), member.kind) {
            (Relation::Beside, _) | (Relation::Above, MemberKind::Directory) => {}
            (Relation::Above, MemberKind::Symlink(target)) => {
                return Ok(Seen::Unusable(format!(
                    "{:?} is a symbolic link to {:?}: name the path without links",
                    shown(path),
                    shown(&target)
                )));
            }
            (Relation::Above, _) => gone = true,
            (Relation::Wanted([]), MemberKind::Directory) => return Ok(Seen::Here(Kind::Directory)),
            (Relation::Wanted([]), MemberKind::File | MemberKind::Hardlink(_)) => return Ok(Seen::Here(Kind::File)),
            (Relation::Wanted([]), MemberKind::Symlink(target)) => {
                let (path, target) = (shown(path), shown(&target));
                return Ok(Seen::Unusable(format!("{path:?} is a symbolic link: name what it points to, {target:?}")));
            }
            (Relation::Wanted([]), MemberKind::LeftOut(what) | MemberKind::Other(what)) => {
                return Ok(Seen::Unusable(format!("{:?} is {what}", shown(path))));
            }
            // Its own entry may follow.
            (Relation::Wanted(_), _) => seen = Seen::Here(Kind::Directory),
        }
    }
    Ok(if seen == Seen::Nothing && gone { Seen::Gone } else { seen })
}

//! All of a bundle, compared with its digests: every blob with that of the manifest, every file with that of the list.

use super::Image;
use super::contents::Bundle;
use super::feed::{Need, feed};
use super::staged::{LayerRange, ranges_of};
use crate::bundle::digest::{Digest, Digester};
use crate::bundle::error::shown;
use crate::bundle::format::image::Descriptor;
use crate::bundle::format::listing::{Listed, ListedAs};
use crate::bundle::registry::{Download, Repository};
use crate::bundle::{Access, Error, ErrorKind, Progress};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What is read at once.
const BUFFER: usize = 128 << 10;

/// A bundle, or another image, that was read whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The configuration and the layers.
    pub blobs: u64,
    /// Of a bundle: files by their names.
    pub files: u64,
    /// Of the blobs.
    pub bytes: u64,
    /// What is not as it was saved, in words.
    pub problems: Vec<String>,
}

/// Reads a bundle, or the blobs of another image.
///
/// # Errors
/// See [`ErrorKind`]: when it cannot be read. What is read and is wrong is no error.
pub async fn verify(reference: &str, access: &Access, progress: &Progress) -> Result<Verified, Error> {
    let image = Image::open(reference, access).await?;
    let bundle = Bundle::open(&image.repository, &image.manifest).await?;
    let entries = match &bundle {
        Some(bundle) => bundle.entries(&[]).await?,
        None => vec![],
    };
    let layers = &image.manifest.layers;
    let blobs: Vec<&Descriptor> = [&image.manifest.config].into_iter().chain(layers).collect();
    let bytes = blobs.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size));
    progress.total_bytes.store(bytes, Ordering::Relaxed);

    let Plan { files, mut extents, mut problems } = Plan::new(entries, layers);
    let mut verified = Verified { blobs: blobs.len() as u64, files: files.len() as u64, bytes, problems: vec![] };
    let files = Arc::new(files);
    let mut begun = HashMap::new();
    for (number, blob) in blobs.iter().enumerate() {
        // The first is the configuration.
        let extents = number.checked_sub(1).and_then(|layer| extents.remove(&layer)).unwrap_or_default();
        let before = progress.done_bytes.load(Ordering::Relaxed);
        match check(&image.repository, blob, Check { extents, files: files.clone(), begun }, progress).await {
            Ok((found, rest)) => {
                problems.extend(found);
                begun = rest;
            }
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Invalid) => {
                problems.push(error.message);
                begun = HashMap::new();
            }
            Err(error) => return Err(error),
        }
        // A blob that is missing was all that there is of it.
        progress.done_bytes.store(before.saturating_add(blob.size), Ordering::Relaxed);
    }
    let mut known = BTreeSet::new();
    problems.retain(|problem| known.insert(problem.clone()));
    verified.problems = problems;
    Ok(verified)
}

/// What is to be compared.
#[derive(Default)]
struct Plan {
    files: Vec<File>,
    /// By the number of their layer, in its order.
    extents: BTreeMap<usize, Vec<Extent>>,
    problems: Vec<String>,
}

struct File {
    path: Vec<u8>,
    /// Of what is in the layers.
    digest: Digest,
    bytes: u64,
}

/// Bytes of a file in a layer.
#[derive(Clone, Copy)]
struct Extent {
    start: u64,
    end: u64,
    /// Its number.
    file: usize,
    /// Where they begin in the file.
    at: u64,
}

impl Plan {
    fn new(entries: Vec<Listed>, layers: &[Descriptor]) -> Self {
        let mut plan = Self::default();
        for Listed { path, what } in entries {
            let ListedAs::File(file) = what else { continue };
            let number = plan.files.len();
            plan.files.push(File { path, digest: file.digest, bytes: file.bytes() });
            if file.bytes() == 0 && file.digest != Digest::of(&[]) {
                plan.wrong(number, "is empty, and its sha256 is not that of nothing");
            }
            let mut at = 0_u64;
            for LayerRange { layer, start, end } in ranges_of(&file) {
                if layers.get(layer).is_none_or(|layer| end > layer.size) {
                    plan.wrong(number, "is in no layer");
                } else if start < end {
                    plan.extents.entry(layer).or_default().push(Extent { start, end, file: number, at });
                }
                at = at.saturating_add(end.saturating_sub(start));
            }
        }
        for extents in plan.extents.values_mut() {
            extents.sort_by_key(|extent| (extent.start, extent.end));
        }
        plan
    }

    fn wrong(&mut self, file: usize, why: &str) {
        let path = self.files.get(file).map(|file| shown(&file.path)).unwrap_or_default();
        self.problems.push(format!("{path:?} {why}"));
    }
}

/// One blob, with what is in it.
struct Check {
    extents: Vec<Extent>,
    files: Arc<Vec<File>>,
    /// Files of which earlier layers have the begin.
    begun: HashMap<usize, Digester>,
}

async fn check(
    repository: &Repository,
    blob: &Descriptor,
    check: Check,
    progress: &Progress,
) -> Result<(Vec<String>, HashMap<usize, Digester>), Error> {
    let (digest, size) = (blob.digest, blob.size);
    let download = Download::new(repository, digest, 0, size);
    feed(download, Need::Some, Some(progress), move |bytes| check.read(&mut Hashed::new(bytes), &digest, size)).await
}

impl Check {
    /// Returns what is wrong, and the files of which later layers have the rest.
    fn read<R: Read>(
        mut self,
        blob: &mut Hashed<R>,
        digest: &Digest,
        size: u64,
    ) -> Result<(Vec<String>, HashMap<usize, Digester>), Error> {
        let mut problems = vec![];
        let mut last: Option<(Extent, Digester)> = None;
        for extent in &self.extents {
            let Some(file) = self.files.get(extent.file) else { continue };
            let begun = if extent.at == 0 { Some(Digester::default()) } else { self.begun.remove(&extent.file) };
            let Some(mut digester) = begun else {
                problems.push(format!(
                    "{:?} cannot be compared: a blob with a part of it cannot be read",
                    shown(&file.path)
                ));
                continue;
            };
            match &last {
                // Another name of the same file.
                Some((of, known)) if (of.start, of.end, of.at) == (extent.start, extent.end, extent.at) => {
                    digester = known.clone();
                }
                _ if extent.start < blob.at => {
                    problems.push(format!("{:?} overlaps another file", shown(&file.path)));
                    continue;
                }
                _ => {
                    blob.pass(extent.start, None)?;
                    blob.pass(extent.end, Some(&mut digester))?;
                }
            }
            last = Some((*extent, digester.clone()));
            if extent.at + (extent.end - extent.start) < file.bytes {
                self.begun.insert(extent.file, digester);
            } else if digester.finish() != file.digest {
                problems.push(format!("{:?} has another sha256 than the bundle's list says", shown(&file.path)));
            }
        }
        blob.pass(size, None)?;
        let found = blob.digester.clone().finish();
        if found != *digest {
            problems.push(format!("the blob {digest} has the sha256 {}", found.hex()));
        }
        Ok((problems, self.begun))
    }
}

/// Hashes all that is read.
struct Hashed<R> {
    from: R,
    digester: Digester,
    at: u64,
    buffer: Vec<u8>,
}

impl<R: Read> Hashed<R> {
    fn new(from: R) -> Self {
        Self { from, digester: Digester::default(), at: 0, buffer: vec![0; BUFFER] }
    }

    /// Reads up to `end`, and hashes it for a file as well.
    fn pass(&mut self, end: u64, mut file: Option<&mut Digester>) -> Result<(), Error> {
        while self.at < end {
            let most = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(self.buffer.len());
            let part = self.buffer.get_mut(..most).unwrap_or_default();
            let got = match self.from.read(part) {
                Ok(0) => return Err(Error::invalid("a blob is shorter than the manifest says")),
                Ok(got) => part.get(..got).unwrap_or_default(),
                Err(error) => return Err(Error::unreachable(error.to_string())),
            };
            self.digester.update(got);
            if let Some(file) = &mut file {
                file.update(got);
            }
            self.at += got.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::format::listing::{ListedFile, ListedPart};

    fn file(path: &str, content: &[u8], layer: usize, offset: u64) -> Listed {
        let file = ListedFile {
            mode: 0o644,
            size: content.len() as u64,
            digest: Digest::of(content),
            layer,
            offset,
            parts: vec![],
            same_as: None,
            stored: None,
            modified: None,
            ours: false,
        };
        Listed { path: path.as_bytes().to_vec(), what: ListedAs::File(file) }
    }

    fn in_parts(path: &str, content: &[u8], parts: &[(usize, u64, u64)]) -> Listed {
        let mut listed = file(path, content, 0, 0);
        if let ListedAs::File(file) = &mut listed.what {
            file.parts = parts
                .iter()
                .map(|(layer, offset, bytes)| ListedPart { layer: *layer, offset: *offset, bytes: *bytes })
                .collect();
        }
        listed
    }

    fn problems(entries: Vec<Listed>, layers: &[&[u8]]) -> Vec<String> {
        let descriptors: Vec<_> =
            layers.iter().map(|layer| Descriptor::new("x", Digest::of(layer), layer.len() as u64)).collect();
        let Plan { files, mut extents, mut problems } = Plan::new(entries, &descriptors);
        let (files, mut begun) = (Arc::new(files), HashMap::new());
        for (number, (layer, descriptor)) in layers.iter().zip(&descriptors).enumerate() {
            let extents = extents.remove(&number).unwrap_or_default();
            let check = Check { extents, files: files.clone(), begun };
            let (found, rest) = check.read(&mut Hashed::new(*layer), &descriptor.digest, descriptor.size).unwrap();
            problems.extend(found);
            begun = rest;
        }
        problems
    }

    #[test]
    fn files_are_compared_wherever_they_are() {
        let entries = || {
            vec![
                file("a", b"one", 0, 2),
                file("b", b"two", 0, 7),
                file("another-name", b"two", 0, 7),
                file("empty", b"", 1, 0),
                in_parts("large", b"threefour", &[(0, 10, 5), (1, 1, 4)]),
            ]
        };
        assert_eq!(problems(entries(), &[b"..one..twothree", b".four"]), [""; 0]);
        let wrong = |name: &str| format!("{name:?} has another sha256 than the bundle's list says");
        let found = problems(entries(), &[b"..One..Twothree", b".Four"]);
        assert_eq!(found, ["a", "b", "another-name", "large"].map(wrong));
    }

    #[test]
    fn a_list_that_leads_nowhere_is_wrong() {
        let entries = vec![
            file("a", b"one", 0, 0),
            file("overlaps", b"ne", 0, 1),
            file("beyond", b"one", 0, 2),
            file("nowhere", b"x", 7, 0),
        ];
        let expected =
            [r#""beyond" is in no layer"#, r#""nowhere" is in no layer"#, r#""overlaps" overlaps another file"#];
        assert_eq!(problems(entries, &[b"one"]), expected);
        let mut empty = file("empty", b"", 0, 0);
        if let ListedAs::File(file) = &mut empty.what {
            file.digest = Digest::of(b"x");
        }
        assert_eq!(problems(vec![empty], &[b""]).len(), 1);
    }

    #[test]
    fn a_blob_is_compared_whole() {
        let check = || Check { extents: vec![], files: Arc::default(), begun: HashMap::new() };
        let read = |bytes: &[u8], of: &[u8]| check().read(&mut Hashed::new(bytes), &Digest::of(of), of.len() as u64);
        assert_eq!(read(b"same", b"same").unwrap().0, [""; 0]);
        assert_eq!(read(b"same", b"some").unwrap().0.len(), 1);
        assert_eq!(read(b"sam", b"same").err().map(|error| error.kind), Some(ErrorKind::Invalid));
    }
}

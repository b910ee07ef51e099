//! Globs of one path: `*`, `?` and `[a-z]` within each of its names.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is there below `root` for an absolute pattern, in order.
pub(crate) fn find(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    for name in pattern.split('/').filter(|name| !name.is_empty()) {
        found = found.iter().flat_map(|dir| entries(dir, name)).collect();
    }
    found
}

fn entries(dir: &Path, pattern: &str) -> Vec<PathBuf> {
    if !pattern.contains(['*', '?', '[']) {
        let path = dir.join(pattern);
        return if path.exists() { vec![path] } else { vec![] };
    }
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| matches(pattern, entry.file_name().as_bytes()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Whether a name is as the pattern says. A pattern of the admin's: its length bounds the work.
pub(crate) fn matches(pattern: &str, name: &[u8]) -> bool {
    all_of(pattern.as_bytes(), name)
}

fn all_of(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            all_of(rest, name) || name.split_first().is_some_and(|(_, shorter)| all_of(pattern, shorter))
        }
        (Some((b'?', rest)), Some((_, name))) => all_of(rest, name),
        (Some((b'[', rest)), Some((byte, name))) => match rest.iter().position(|b| *b == b']') {
            Some(end) => {
                let (set, rest) = rest.split_at(end);
                in_set(set, *byte) && all_of(rest.get(1..).unwrap_or_default(), name)
            }
            None => *byte == b'[' && all_of(rest, name),
        },
        (Some((wanted, rest)), Some((byte, name))) => wanted == byte && all_of(rest, name),
        _ => false,
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    match set {
        [from, b'-', to, rest @ ..] => (*from..=*to).contains(&byte) || in_set(rest, byte),
        [one, rest @ ..] => *one == byte || in_set(rest, byte),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (pattern, yes, no) in [
            ("nvidia[0-9]*", &["nvidia0", "nvidia15"][..], &["nvidia", "nvidiactl", "nvidia-uvm", "xnvidia0"][..]),
            ("libcuda.so*", &["libcuda.so", "libcuda.so.1"], &["libcudart.so.12", "libcudasso"]),
            ("renderD12?", &["renderD128"], &["renderD12", "renderD1280"]),
            ("lib*_nvidia.so*", &["libGLX_nvidia.so.0"], &["libnvidia.so"]),
            ("[ab-]x", &["ax", "-x"], &["cx", "x"]),
            ("[", &["["], &["", "[["]),
            ("", &[], &["a"]),
        ] {
            for name in yes {
                assert!(matches(pattern, name.as_bytes()), "{pattern} {name}");
            }
            for name in no {
                assert!(!matches(pattern, name.as_bytes()), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn paths() {
        let root = tempfile::tempdir().unwrap();
        for name in ["dev/dri/renderD128", "dev/dri/renderD129", "dev/dri/card0", "dev/kfd"] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let names = |pattern| -> Vec<String> {
            let found = find(root.path(), pattern);
            found.iter().map(|p| p.strip_prefix(root.path()).unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("/dev/dri/render*"), ["dev/dri/renderD128", "dev/dri/renderD129"]);
        assert_eq!(names("/d?v/kfd"), ["dev/kfd"]);
        assert_eq!(names("/dev/nvidia*"), [""; 0]);
        assert_eq!(names("/no/such"), [""; 0]);
    }
}

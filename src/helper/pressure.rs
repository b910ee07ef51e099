//! Whether others on this node wait for its disk or its memory, as the kernel tells it (PSI).
//!
//! <https://docs.kernel.org/accounting/psi.html>

use std::fs;
use std::path::Path;

/// Percent of the last ten seconds in which some process waited.
const HIGH: [(&str, f32); 2] = [("proc/pressure/io", 40.0), ("proc/pressure/memory", 10.0)];

/// What nobody waits for shall wait. A kernel that does not tell holds nothing up.
pub(super) fn is_high(root: &Path) -> bool {
    let waited = |file| fs::read_to_string(root.join(file)).ok().and_then(|text| some_of_ten_seconds(&text));
    HIGH.iter().any(|(file, most)| waited(file).is_some_and(|percent| percent > *most))
}

fn some_of_ten_seconds(text: &str) -> Option<f32> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_the_disk_or_for_memory_goes_first() {
        let root = tempfile::tempdir().unwrap();
        assert!(!is_high(root.path()), "a kernel without it");
        fs::create_dir_all(root.path().join("proc/pressure")).unwrap();
        for (io, memory, high) in
            [("39.99", "9.99", false), ("40.01", "0.00", true), ("0.00", "10.01", true), ("x", "", false)]
        {
            for (name, avg10) in [("io", io), ("memory", memory)] {
                let text =
                    format!("some avg10={avg10} avg60=99.00 avg300=99.00 total=1\nfull avg10=99.00 avg60=0.00\n");
                fs::write(root.path().join("proc/pressure").join(name), text).unwrap();
            }
            assert_eq!(is_high(root.path()), high, "{io} {memory}");
        }
    }
}

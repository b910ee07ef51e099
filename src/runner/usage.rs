//! What the run used: from the cgroup, of version 1 or 2, and from the processes that were reaped.

use super::sys;
use crate::report::Usage;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Everything used until now.
pub(crate) fn measure(cgroup: &Path, wall: Duration) -> Usage {
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).ok();
    let children = sys::children_usage();
    let peak = read("memory.peak").or_else(|| read("memory/memory.max_usage_in_bytes"));
    let events = read("memory.events").or_else(|| read("memory/memory.oom_control"));
    Usage {
        wall_ms: millis(wall),
        cpu_user_ms: millis(children.user),
        cpu_system_ms: millis(children.system),
        memory_peak_bytes: peak.and_then(|text| peak_in(&text)).unwrap_or(children.memory_peak_bytes),
        oom_kills: events.and_then(|text| oom_kills_in(&text)).unwrap_or(0),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `memory.peak` (v2, Linux 5.19) and `memory.max_usage_in_bytes` (v1) are one number.
fn peak_in(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `memory.events` (v2) and `memory.oom_control` (v1, Linux 4.13) both have a line `oom_kill <number>`.
fn oom_kills_in(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_cgroups_are_read() {
        let v2 = "low 0\nhigh 0\nmax 5\noom 2\noom_kill 1\noom_group_kill 0\n";
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        let v1_before_4_13 = "oom_kill_disable 0\nunder_oom 0\n";
        assert_eq!(oom_kills_in(v2), Some(1));
        assert_eq!(oom_kills_in(v1), Some(3));
        assert_eq!(oom_kills_in(v1_before_4_13), None);
        assert_eq!(peak_in("73400320\n"), Some(73_400_320));
        assert_eq!(peak_in("max\n"), None);
    }

    #[test]
    fn the_cgroup_goes_before_the_largest_process() {
        for (peak, events) in
            [("memory.peak", "memory.events"), ("memory/memory.max_usage_in_bytes", "memory/memory.oom_control")]
        {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("memory")).unwrap();
            fs::write(dir.path().join(peak), "4096\n").unwrap();
            fs::write(dir.path().join(events), "oom_kill 2\n").unwrap();
            let usage = measure(dir.path(), Duration::from_millis(7));
            assert_eq!((usage.wall_ms, usage.memory_peak_bytes, usage.oom_kills), (7, 4096, 2));
        }
    }
}

//! What the run used: from the cgroup, of version 1 or 2, and from the processes that were reaped.

use super::sys;
use crate::contract::Usage;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Everything used until now, but for what the runner itself computed.
pub(crate) fn measure(cgroup: &Path, wall: Duration) -> Usage {
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).ok();
    let children = sys::children_usage();
    let peak = read("memory.peak").or_else(|| read("memory/memory.max_usage_in_bytes"));
    let (oom_kills, limit_was_hit) = oom(cgroup);
    let own = sys::own_usage();
    let (user, system) = of_the_run(cpu(cgroup), (own.user, own.system), (children.user, children.system));
    Usage {
        wall_ms: millis(wall),
        cpu_user_ms: millis(user),
        cpu_system_ms: millis(system),
        memory_peak_bytes: peak.and_then(|text| peak_in(&text)).unwrap_or(children.memory_peak_bytes),
        oom_kills: if limit_was_hit { oom_kills } else { 0 },
        oom_kills_from_outside: if limit_was_hit { 0 } else { oom_kills },
    }
}

/// User and system time of the run, of what the cgroup, this process and its children used.
fn of_the_run(cgroup: Option<Cpu>, own: Cpu, children: Cpu) -> Cpu {
    let Some((user, system)) = cgroup else { return children };
    let (user, system) = (user.saturating_sub(own.0), system.saturating_sub(own.1));
    // The kernel does not add a child to a parent that ignores its end: then the cgroup tells more. It ticks in
    // hundredths of a second: else the children tell more.
    if user + system > children.0 + children.1 + TICK { (user, system) } else { children }
}

/// Processes of the cgroup that the kernel killed for memory, and whether the cgroup's own limit can have been why.
fn oom(cgroup: &Path) -> (u64, bool) {
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).ok();
    if let Some(text) = read("memory.events") {
        return (number_in(&text, "oom_kill ").unwrap_or(0), number_in(&text, "oom ") != Some(0));
    }
    // `oom_kill` is of Linux 4.13. Not by `memory.failcnt`: Linux 6.18 leaves it 0.
    let kills = read("memory/memory.oom_control").and_then(|text| number_in(&text, "oom_kill ")).unwrap_or(0);
    let number = |file| read(file).and_then(|text| text.trim().parse::<u64>().ok());
    let limit_was_hit = match (number("memory/memory.max_usage_in_bytes"), number("memory/memory.limit_in_bytes")) {
        (Some(peak), Some(limit)) => peak.saturating_add(NEAR_LIMIT_BYTES) >= limit,
        _ => true,
    };
    (kills, limit_was_hit)
}

/// What is charged at once can be more than what is left below the limit.
const NEAR_LIMIT_BYTES: u64 = 1024 * 1024;

/// Of `cpuacct.stat`: `USER_HZ` is 100 wherever Linux runs.
const TICK: Duration = Duration::from_millis(10);

/// User and system time.
type Cpu = (Duration, Duration);

/// Of all processes of the cgroup.
fn cpu(cgroup: &Path) -> Option<Cpu> {
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).ok();
    if let Some(text) = read("cpu.stat") {
        let micros = |key| number_in(&text, key).map(Duration::from_micros);
        return Some((micros("user_usec ")?, micros("system_usec ")?));
    }
    let text = read("cpuacct/cpuacct.stat")?;
    let ticks = |key| number_in(&text, key).and_then(|n| u32::try_from(n).ok()).map(|n| TICK * n);
    Some((ticks("user ")?, ticks("system ")?))
}

/// The number after `key` in lines of keys and numbers.
fn number_in(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `memory.peak` (v2, Linux 5.19) and `memory.max_usage_in_bytes` (v1) are one number.
fn peak_in(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_one_number() {
        assert_eq!(peak_in("73400320\n"), Some(73_400_320));
        assert_eq!(peak_in("max\n"), None);
    }

    #[test]
    fn an_oom_is_the_limits_or_comes_from_outside() {
        let v1 = |kills: &'static str, peak: &'static str| {
            tree(&[
                ("memory/memory.oom_control", kills),
                ("memory/memory.max_usage_in_bytes", peak),
                ("memory/memory.limit_in_bytes", "67108864\n"),
            ])
        };
        let v2 = |events: &'static str| tree(&[("memory.events", events)]);
        for (dir, kills) in [
            (v2("low 0\nhigh 0\nmax 5\noom 2\noom_kill 3\noom_group_kill 0\n"), (3, 0)),
            (v2("low 0\nhigh 0\nmax 5\noom 0\noom_kill 3\noom_group_kill 0\n"), (0, 3)),
            (v2("low 0\nhigh 0\nmax 5\noom 0\noom_kill 0\noom_group_kill 0\n"), (0, 0)),
            (v1("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "67108864\n"), (3, 0)),
            (v1("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "66900000\n"), (3, 0)),
            (v1("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "40000000\n"), (0, 3)),
            (v1("oom_kill_disable 0\nunder_oom 0\n", "67108864\n"), (0, 0)),
            (tree(&[]), (0, 0)),
        ] {
            let usage = measure(dir.path(), Duration::ZERO);
            assert_eq!((usage.oom_kills, usage.oom_kills_from_outside), kills);
        }
    }

    /// The layout of cgroup v2 (Linux 6.1) as the processes of a container see it.
    const V2: [(&str, &str); 6] = [
        ("cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n"),
        (
            "cpu.stat",
            "usage_usec 5218034\nuser_usec 4105210\nsystem_usec 1112824\nnr_periods 312\nnr_throttled 45\n\
             throttled_usec 1803322\nnr_bursts 0\nburst_usec 0\n",
        ),
        ("memory.max", "536870912\n"),
        ("memory.peak", "322961408\n"),
        ("memory.events", "low 0\nhigh 0\nmax 41\noom 2\noom_kill 1\noom_group_kill 0\n"),
        ("memory.events.local", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
    ];

    /// The same of cgroup v1: a directory for each controller.
    const V1: [(&str, &str); 6] = [
        ("cpuacct/cpuacct.stat", "user 410\nsystem 111\n"),
        ("cpuacct/cpuacct.usage", "5218034123\n"),
        ("memory/memory.failcnt", "0\n"),
        ("memory/memory.limit_in_bytes", "322961408\n"),
        ("memory/memory.max_usage_in_bytes", "322961408\n"),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
    ];

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn both_versions_tell_the_same() {
        for files in [V2.as_slice(), &V1] {
            let dir = tree(files);
            let usage = measure(dir.path(), Duration::from_millis(7));
            assert_eq!((usage.wall_ms, usage.memory_peak_bytes, usage.oom_kills), (7, 322_961_408, 1));
            let (user, system) = cpu(dir.path()).unwrap();
            assert_eq!((user.as_millis() / 10, system.as_millis() / 10), (410, 111));
        }
    }

    #[test]
    fn the_run_used_what_the_cgroup_did_less_what_the_runner_did() {
        let ms = |user, system| (Duration::from_millis(user), Duration::from_millis(system));
        for (cgroup, own, children, want) in [
            (None, ms(9, 9), ms(70, 30), ms(70, 30)),
            (Some(ms(4100, 1110)), ms(100, 10), ms(0, 0), ms(4000, 1100)),
            (Some(ms(4100, 1110)), ms(100, 10), ms(3999, 1099), ms(3999, 1099)),
            (Some(ms(10, 0)), ms(20, 20), ms(5, 5), ms(5, 5)),
        ] {
            assert_eq!(of_the_run(cgroup, own, children), want, "{cgroup:?} {own:?} {children:?}");
        }
    }

    #[test]
    fn without_a_cgroup_the_processes_tell() {
        let dir = tree(&[]);
        std::process::Command::new("true").status().unwrap();
        let usage = measure(dir.path(), Duration::ZERO);
        assert!(usage.memory_peak_bytes > 100_000, "{usage:?}");
        assert_eq!((cpu(dir.path()), usage.oom_kills), (None, 0));
    }

    #[test]
    fn files_of_older_kernels_are_read_as_far_as_they_go() {
        // memory.peak is of Linux 5.19.
        let dir = tree(&[V2[1], V2[4]]);
        std::process::Command::new("true").status().unwrap();
        let usage = measure(dir.path(), Duration::ZERO);
        assert!(usage.memory_peak_bytes > 100_000, "of the largest process: {usage:?}");
        assert_eq!(usage.oom_kills, 1);
    }
}

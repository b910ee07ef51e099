//! Text for people: within documents of a bounded size, sizes and times.

/// Longest `detail` of a record, in bytes.
pub const DETAIL_MAX_BYTES: usize = 200;

/// Text for a `detail`: one line, without control characters, at most [`DETAIL_MAX_BYTES`].
#[must_use]
pub fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    first_bytes(text.trim(), DETAIL_MAX_BYTES)
}

pub(super) fn first_bytes(text: &str, most: usize) -> String {
    text.split_at(text.floor_char_boundary(most)).0.trim_end().to_owned()
}

/// As people read it: `1.2 GiB`.
#[must_use]
pub fn size_for_people(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = "B";
    for next in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

/// A duration for people, in the notation of `timeLimit`: its two largest units, and milliseconds below a second.
#[must_use]
pub fn time_for_people(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, 0) => format!("{ms}ms"),
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes}m"),
        (days, hours, _, _) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size_for_people(bytes), shown);
        }
    }

    #[test]
    fn durations_have_their_two_largest_units() {
        let (second, minute, hour, day) = (1_000, 60_000, 3_600_000, 86_400_000);
        for (ms, words) in [
            (0, "0ms"),
            (999, "999ms"),
            (second, "1s"),
            (3_999, "3s"),
            (minute - 1, "59s"),
            (minute, "1m0s"),
            (hour - 1, "59m59s"),
            (hour, "1h0m"),
            (day - 1, "23h59m"),
            (day, "1d0h"),
            (9 * day + 5 * hour + 59 * minute, "9d5h"),
        ] {
            assert_eq!(time_for_people(ms), words, "{ms}");
        }
    }
}

//! A log with a time before each line, as the API server gives it: the times are taken away, and what was seen before a
//! connection broke is not seen again.

use jiff::Timestamp;

/// No time is longer.
const LONGEST_STAMP: usize = 64;

/// What has passed of a log.
#[derive(Default)]
pub(super) struct Stamps {
    place: Place,
    /// Of the last line that passed.
    last: Option<Timestamp>,
    /// How many lines of that very time have passed.
    passed: usize,
    /// How many of them this connection has given.
    given: usize,
    /// Bytes of the last line that passed before the connection broke within it.
    cut: Option<usize>,
}

enum Place {
    /// Before a line, or in its time.
    Stamp(Vec<u8>),
    /// In a line that passes, after so many bytes of it; the first of them were seen before.
    Line { bytes: usize, seen: usize },
    /// In a line that is not shown: it was seen before, or has no time and is not the command's, as when the kubelet
    /// says that it has no log any more.
    Hidden,
}

impl Default for Place {
    fn default() -> Self {
        Self::Stamp(Vec::new())
    }
}

impl Stamps {
    /// From when on the next connection is asked for lines.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.last
    }

    /// Another connection begins, with the lines since [`Self::since`].
    pub(super) fn reconnected(&mut self) {
        // A connection that broke before it came to that line leaves it cut.
        if let Place::Line { bytes, seen } = std::mem::take(&mut self.place) {
            self.cut = Some(bytes.max(seen));
        }
        self.given = 0;
    }

    /// Adds what is new of these bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.place = self.next(*byte, out);
        }
    }

    fn next(&mut self, byte: u8, out: &mut Vec<u8>) -> Place {
        match std::mem::take(&mut self.place) {
            Place::Stamp(mut stamp) if byte != b' ' && byte != b'\n' && stamp.len() < LONGEST_STAMP => {
                stamp.push(byte);
                Place::Stamp(stamp)
            }
            Place::Stamp(stamp) => {
                let time = str::from_utf8(&stamp).ok().and_then(|text| text.parse().ok());
                let Some(time) = time else {
                    return if byte == b'\n' { Place::default() } else { Place::Hidden };
                };
                match self.line_of(time) {
                    place if byte == b' ' => place,
                    // Of an empty line, should it have no space.
                    Place::Line { seen: 0, .. } => {
                        out.push(byte);
                        Place::default()
                    }
                    _ => Place::default(),
                }
            }
            Place::Line { bytes, seen } => {
                if bytes >= seen {
                    out.push(byte);
                }
                if byte == b'\n' { Place::default() } else { Place::Line { bytes: bytes + 1, seen } }
            }
            Place::Hidden if byte == b'\n' => Place::default(),
            Place::Hidden => Place::Hidden,
        }
    }

    fn line_of(&mut self, time: Timestamp) -> Place {
        if self.last.is_some_and(|last| time < last) {
            return Place::Hidden;
        }
        if self.last == Some(time) {
            self.given += 1;
            if self.given == self.passed
                && let Some(seen) = self.cut.take()
            {
                return Place::Line { bytes: 0, seen };
            }
            if self.given <= self.passed {
                return Place::Hidden;
            }
            self.passed += 1;
        } else {
            self.last = Some(time);
            self.passed = 1;
            self.given = 1;
        }
        Place::Line { bytes: 0, seen: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log() -> String {
        let line = |time: &str, text: &str| format!("2026-11-26T09:00:{time}Z {text}\n");
        [
            line("00", "first"),
            line("00.5", "at once"),
            line("00.5", "at once"),
            line("00.5", ""),
            line("01.123456789", "a longer line with spaces"),
            line("02", "last"),
        ]
        .concat()
    }

    const SHOWN: &str = "first\nat once\nat once\n\na longer line with spaces\nlast\n";

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn times_are_taken_away_and_what_the_command_did_not_print() {
        let (mut stamps, mut out) = (Stamps::default(), Vec::new());
        stamps.feed(log().as_bytes(), &mut out);
        stamps.feed(b"unable to read the log\n", &mut out);
        stamps.feed(b"unable to retrieve container logs for containerd://53af", &mut out);
        stamps.reconnected();
        assert_eq!(text(out), SHOWN);
    }

    proptest! {
        /// The API server is asked by the second, so that it gives lines again.
        #[test]
        fn nothing_is_missing_and_nothing_twice_wherever_it_breaks(cuts in prop::collection::vec(0..180_usize, 0..4)) {
            let log = log();
            let (mut stamps, mut out) = (Stamps::default(), Vec::new());
            for cut in cuts.into_iter().map(Some).chain([None]) {
                let since = stamps.since().map_or(0, Timestamp::as_second);
                let is_given = |line: &&str| {
                    let time: Timestamp = line.split(' ').next().unwrap().parse().unwrap();
                    time.as_second() >= since
                };
                let given = log.split_inclusive('\n').filter(is_given).collect::<String>();
                stamps.reconnected();
                let end = cut.unwrap_or(given.len()).min(given.len());
                stamps.feed(&given.as_bytes()[..end], &mut out);
            }
            prop_assert_eq!(text(out), SHOWN);
        }
    }
}

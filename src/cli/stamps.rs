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
    /// After a connection broke: nothing new has come yet.
    catches_up: bool,
    /// The line that passes has an earlier time than one before it: the two streams of a command are written side by side.
    is_late: bool,
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
    /// From when on the next connection is asked for lines: the begin of the second of the last one, for the client asks by
    /// the second, and rounds up as well as down.
    pub(super) fn since(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.last?.as_second()).ok()
    }

    /// Another connection begins, with the lines since [`Self::since`].
    pub(super) fn reconnected(&mut self) {
        // A connection that broke before it came to that line leaves it cut.
        if let Place::Line { bytes, seen } = std::mem::take(&mut self.place)
            && !self.is_late
        {
            self.cut = Some(bytes.max(seen));
        }
        self.catches_up = self.last.is_some();
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
                let time: Option<Timestamp> = str::from_utf8(&stamp).ok().and_then(|text| text.parse().ok());
                let Some(time) = time else {
                    return if byte == b'\n' { Place::default() } else { Place::Hidden };
                };
                // What is left of a line that was cut does not come after a later one.
                if self.last.is_some_and(|last| time > last) && self.cut.take().is_some_and(|bytes| bytes > 0) {
                    out.push(b'\n');
                }
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
        self.is_late = self.last.is_some_and(|last| time < last);
        if self.is_late {
            return if self.catches_up { Place::Hidden } else { Place::Line { bytes: 0, seen: 0 } };
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
        self.catches_up = false;
        Place::Line { bytes: 0, seen: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::LogParams;
    use proptest::prelude::*;

    /// What the client makes of it, and the API server is asked for.
    fn asked(since: Option<Timestamp>) -> Timestamp {
        let params = LogParams { since_time: since, ..LogParams::default() };
        let request = kube::core::Request::new("/pods").logs("p", &params).unwrap();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let since = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "sinceTime");
        since.map_or(Timestamp::UNIX_EPOCH, |(_, time)| time.parse().unwrap())
    }

    fn log() -> String {
        let line = |time: &str, text: &str| format!("2026-11-26T09:00:{time}Z {text}\n");
        [
            line("00", "first"),
            line("00.5", "at once"),
            line("00.5", "at once"),
            line("00.5", ""),
            line("01.723456789", "a longer line with spaces"),
            line("01.9", "before the next second"),
            line("02", "last"),
        ]
        .concat()
    }

    const SHOWN: &str = "first\nat once\nat once\n\na longer line with spaces\nbefore the next second\nlast\n";

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

    #[test]
    fn a_line_that_was_cut_and_is_not_given_again_cuts_no_other() {
        let (mut stamps, mut out) = (Stamps::default(), Vec::new());
        stamps.feed(b"2026-11-26T09:00:01Z half", &mut out);
        stamps.reconnected();
        stamps.feed(b"2026-11-26T09:00:02Z next\n", &mut out);
        stamps.reconnected();
        stamps.feed(b"2026-11-26T09:00:02Z next\n2026-11-26T09:00:02Z another\n", &mut out);
        assert_eq!(text(out), "half\nnext\nanother\n");
    }

    #[test]
    fn a_line_of_one_stream_that_is_written_after_a_later_one_of_the_other_is_not_lost() {
        let (mut stamps, mut out) = (Stamps::default(), Vec::new());
        let log = b"2026-11-26T09:00:01.2Z later\n2026-11-26T09:00:01.1Z earlier\n";
        stamps.feed(log, &mut out);
        stamps.reconnected();
        stamps.feed(&[&log[..], b"2026-11-26T09:00:02Z last\n"].concat(), &mut out);
        assert_eq!(text(out), "later\nearlier\nlast\n");
    }

    proptest! {
        /// The API server is asked by the second, so that it gives lines again.
        #[test]
        fn nothing_is_missing_and_nothing_twice_wherever_it_breaks(cuts in prop::collection::vec(0..240_usize, 0..4)) {
            let log = log();
            let (mut stamps, mut out) = (Stamps::default(), Vec::new());
            for cut in cuts.into_iter().map(Some).chain([None]) {
                let since = asked(stamps.since());
                let is_given = |line: &&str| {
                    let time: Timestamp = line.split(' ').next().unwrap().parse().unwrap();
                    time >= since
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

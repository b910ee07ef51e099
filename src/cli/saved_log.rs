//! What a command printed, from the saved output, else the end of it that is on the run.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::BundleRun;
use crate::api::status::Attempt;
use crate::bundle::{self, ErrorKind};
use crate::names;

use super::failure::{Failure, Kind};
use super::runs;
use super::session::Session;
use super::sink::{Sink, Stream};
use super::store::{self, StoreOptions};

pub(super) fn not_started(run: &BundleRun) -> Failure {
    let name = runs::name(run);
    let failure = Failure::new(format!("{name} has printed nothing: it is {}", runs::state(run)));
    if run.is_over() {
        return failure.hint(format!("kubectl bundle why {name}"));
    }
    failure.hint(format!("-f waits for it; `kubectl bundle why {name}` says what it waits for"))
}

/// From the store, else from the run itself.
pub(super) async fn saved(
    session: &Session,
    run: &BundleRun,
    attempt: &Attempt,
    options: &StoreOptions,
    tail: Option<u32>,
) -> Result<(), Failure> {
    let status = run.status.clone().unwrap_or_default();
    let is_last = status.attempt == Some(attempt.attempt);
    let output = status.output.unwrap_or_default();
    let reference = attempt.bundle.clone().or(output.bundle.filter(|_| is_last));
    let said = attempt.message.iter().chain(status.message.iter().filter(|_| is_last)).map(String::as_str);
    let said = said.collect::<Vec<_>>().join("; ");
    // The end of it is on the run: no need to ask elsewhere.
    let mut why = "its output was not saved".to_owned();
    if let Some(reference) = &reference {
        let shown = Arc::new(AtomicU64::new(0));
        match from_store(session, reference, &said, options, tail, &shown).await {
            Ok(()) => return Ok(()),
            // The end of it after a part of it would be another text.
            Err(failure) if failure.kind == Kind::NotRead || shown.load(Ordering::Relaxed) > 0 => return Err(failure),
            Err(failure) => why = failure.message,
        }
    }
    if !is_last {
        return Err(Failure::new(format!("nothing is left of attempt {}: {why}", attempt.attempt)));
    }
    let (stdout, stderr) = (output.stdout_tail.unwrap_or_default(), output.stderr_tail.unwrap_or_default());
    if stdout.is_empty() && stderr.is_empty() && !run.is_over() {
        return Err(not_started(run));
    }
    session.out.note(&format!("only the end of it, as it is on the run: {why}"));
    for (end, stream) in [(stdout, Stream::Out), (stderr, Stream::Err)] {
        let mut text = Text::new(Sink::new(session.out, stream), tail);
        text.write_all(end.as_bytes())?;
        text.finish()?;
    }
    Ok(())
}

async fn from_store(
    session: &Session,
    reference: &str,
    said: &str,
    options: &StoreOptions,
    tail: Option<u32>,
    shown: &Arc<AtomicU64>,
) -> Result<(), Failure> {
    let access = store::access(session, reference, options)?;
    for (name, stream) in [(names::files::STDOUT, Stream::Out), (names::files::STDERR, Stream::Err)] {
        let text = Text { shown: shown.clone(), ..Text::new(Sink::new(session.out, stream), tail) };
        match bundle::read_file(reference, ours(name, said), &access, text).await {
            Ok(mut text) => text.finish()?,
            // The command removed it, or it is excluded.
            Err(error) if error.kind == ErrorKind::PathNotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The file of a saved output that has what the command printed. Where the command has made one of the usual name the
/// message of the attempt says what ours is; a list of the files does not tell the two apart.
fn ours<'a>(name: &'a str, said: &'a str) -> &'a str {
    let mark = format!("a {name} of the command's own: ours is ");
    let Some((_, after)) = said.split_once(&mark) else { return name };
    let end = after.find(|c: char| !(c.is_ascii_lowercase() || c == '.')).unwrap_or(after.len());
    let other = after.get(..end).unwrap_or_default().trim_end_matches('.');
    let is_ours = other.strip_prefix(name).is_some_and(|more| more.replace(".run", "").is_empty());
    if is_ours { other } else { name }
}

/// A text on its way: all of it, or its last lines.
struct Text {
    sink: Sink,
    last: Option<LastLines>,
    /// Bytes that were passed on.
    shown: Arc<AtomicU64>,
}

impl Text {
    fn new(sink: Sink, tail: Option<u32>) -> Self {
        let last = tail.map(|tail| LastLines::new(usize::try_from(tail).unwrap_or(usize::MAX)));
        Self { sink, last, shown: Arc::default() }
    }

    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.shown.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.sink.write_all(bytes)
    }

    fn finish(&mut self) -> io::Result<()> {
        for line in self.last.take().into_iter().flat_map(|last| last.lines) {
            self.pass(&line)?;
        }
        self.sink.finish()
    }
}

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.last {
            Some(last) => last.feed(bytes),
            None => self.pass(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Memory for last lines: of what is more, the end.
const LARGEST_TAIL: usize = 64 << 20;

/// The last lines of a text of any size.
struct LastLines {
    most: usize,
    largest: usize,
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl LastLines {
    fn new(most: usize) -> Self {
        Self { most, largest: LARGEST_TAIL, lines: VecDeque::new(), bytes: 0 }
    }

    fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.bytes += piece.len();
            match self.lines.back_mut() {
                Some(line) if !line.ends_with(b"\n") => line.extend_from_slice(piece),
                _ => self.lines.push_back(piece.to_vec()),
            }
            while self.lines.len() > self.most || self.bytes > self.largest && self.lines.len() > 1 {
                self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
            }
        }
        // Half of it at once: to move the rest for each piece would take long.
        if self.bytes > self.largest
            && let Some(line) = self.lines.front_mut()
        {
            self.bytes -= line.drain(..line.len() - self.largest / 2).count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(largest: usize, tail: usize, pieces: &[&str]) -> String {
        let mut last = LastLines { largest, ..LastLines::new(tail) };
        for piece in pieces {
            last.feed(piece.as_bytes());
        }
        let kept = last.lines.into_iter().flatten().collect::<Vec<u8>>();
        assert_eq!(last.bytes, kept.len());
        String::from_utf8(kept).unwrap()
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        for (tail, shown) in [(0, ""), (1, "c"), (2, "b\nc"), (9, "a\nb\nc")] {
            assert_eq!(last(LARGEST_TAIL, tail, &["a\nb\nc"]), shown, "{tail}");
            assert_eq!(last(LARGEST_TAIL, tail, &["a", "\n", "b\n", "c"]), shown, "{tail}");
        }
        assert_eq!(last(LARGEST_TAIL, 1, &["a\n", "b", "c\n"]), "bc\n");
    }

    #[test]
    fn last_lines_take_little_memory_whatever_they_are() {
        let line = "0123456789\n";
        assert_eq!(last(40, 1000, &[line; 100]), line.repeat(3));
        let endless = last(40, 1, &["0123456789"; 100]);
        assert!(endless.len() <= 40 && endless.ends_with("0123456789"), "{endless}");
    }

    #[test]
    fn the_file_of_what_was_printed_is_that_which_the_message_names() {
        let said = "the command exited with 0; the working directory has a stdout of the command's own: ours is \
                    stdout.run; the working directory has a stderr of the command's own: ours is stderr.run.run";
        assert_eq!((ours("stdout", said), ours("stderr", said)), ("stdout.run", "stderr.run.run"));
        // A file of the command that has such a name is no sign.
        assert_eq!(ours("stdout", "the command exited with 0"), "stdout");
        let fake = "a stdout of the command's own: ours is stdout.txt";
        assert_eq!(ours("stdout", fake), "stdout");
        assert_eq!(ours("stdout", "a stdout of the command's own: ours is stdout.run."), "stdout.run");
    }
}

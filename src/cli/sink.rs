//! Where the bytes of a log or a file go: a terminal gets what may be shown of them, everything else gets all.

use std::io::{self, Write};

use super::clean::Cleaner;
use super::session::Out;

/// Standard output, or standard error.
pub(super) struct Sink {
    stream: Stream,
    /// None: nobody looks at it with a terminal.
    cleaner: Option<Cleaner>,
    /// On a terminal: what comes next does not stand at the begin of a line.
    is_within_line: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

impl Sink {
    pub(super) fn new(out: Out, stream: Stream) -> Self {
        let is_terminal = match stream {
            Stream::Out => out.is_terminal,
            Stream::Err => io::IsTerminal::is_terminal(&io::stderr()),
        };
        Self { stream, cleaner: is_terminal.then(Cleaner::default), is_within_line: false }
    }

    /// At the end of the text: on a terminal the next one begins a line.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let Some(cleaner) = &mut self.cleaner else { return Ok(()) };
        let mut rest = String::new();
        cleaner.finish(&mut rest);
        self.note_end(&rest);
        if self.is_within_line {
            rest.push('\n');
            self.is_within_line = false;
        }
        self.pass(rest.as_bytes())
    }

    fn note_end(&mut self, text: &str) {
        if let Some(last) = text.chars().next_back() {
            self.is_within_line = last != '\n';
        }
    }

    fn pass(&self, bytes: &[u8]) -> io::Result<()> {
        match self.stream {
            Stream::Out => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Stream::Err => io::stderr().lock().write_all(bytes),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.cleaner {
            None => self.pass(bytes)?,
            Some(cleaner) => {
                let mut text = String::new();
                cleaner.feed(bytes, &mut text);
                self.note_end(&text);
                self.pass(text.as_bytes())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

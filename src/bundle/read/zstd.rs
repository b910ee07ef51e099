//! Zstd streams of strangers. Each frame asks for a window, which is memory: all streams of this process share what there is
//! for windows, and one that needs more than is free waits until others have ended.

use std::io::{self, Read};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_memory_allocation as OUT_OF_MEMORY;
use zstd::zstd_safe::{DCtx, ErrorCode, InBuffer, OutBuffer, get_error_name};

/// A frame may ask for as many bytes: as many as the zstd program gives without being told to.
const LARGEST_WINDOW: u64 = 128 << 20;
/// A header of a frame is not longer.
const LONGEST_HEADER: usize = 18;
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const READ: usize = 128 << 10;

/// Of this process. One frame of the largest kind at a time, or many of the usual 2 to 8 MiB: a child has 384 MiB for all.
pub(super) static WINDOWS: Windows = Windows::of(LARGEST_WINDOW);

/// Memory for windows, in bytes.
pub(super) struct Windows {
    free: Mutex<u64>,
    freed: Condvar,
}

/// It is free again when this is dropped.
struct Window {
    of: &'static Windows,
    bytes: u64,
}

impl Windows {
    const fn of(bytes: u64) -> Self {
        Self { free: Mutex::new(bytes), freed: Condvar::new() }
    }

    fn free(&self) -> MutexGuard<'_, u64> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for it. Nobody who waits has a window: so those who have one end some time.
    fn take(&'static self, bytes: u64) -> Window {
        let mut free = self.free();
        while *free < bytes {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        Window { of: self, bytes }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        *self.of.free() += self.bytes;
        self.of.freed.notify_all();
    }
}

/// What zstd frames hold, one after the other.
pub(super) struct Decoder<R> {
    inner: R,
    /// What was read; from here to there, it is not decoded yet.
    read: Vec<u8>,
    from: usize,
    to: usize,
    /// A frame has begun and not ended.
    in_frame: bool,
    windows: &'static Windows,
    /// Declared before the window that its memory is of, so that it is dropped before it.
    context: Option<DCtx<'static>>,
    window: Option<Window>,
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(inner: R, windows: &'static Windows) -> Self {
        let read = vec![0; READ];
        Self { inner, read, from: 0, to: 0, in_frame: false, windows, context: None, window: None }
    }

    fn waiting(&self) -> &[u8] {
        self.read.get(self.from..self.to).unwrap_or_default()
    }

    /// Reads until so many bytes wait to be decoded, or to the end.
    fn fill(&mut self, least: usize) -> io::Result<()> {
        if self.to - self.from >= least {
            return Ok(());
        }
        self.read.copy_within(self.from..self.to, 0);
        self.to -= self.from;
        self.from = 0;
        while self.to < least {
            match self.inner.read(self.read.get_mut(self.to..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(got) => self.to += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes ready for the frame that begins here; false: nothing follows.
    fn begin_frame(&mut self) -> io::Result<bool> {
        self.fill(LONGEST_HEADER)?;
        if self.waiting().is_empty() {
            self.give_back();
            return Ok(false);
        }

        let needed = window(self.waiting());
        if needed > LARGEST_WINDOW {
            let (needed, most) = (needed >> 20, LARGEST_WINDOW >> 20);
            let why = format!("a zstd frame that asks for {needed} MiB of memory, more than {most}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if self.window.as_ref().is_none_or(|window| window.bytes < needed) {
            // What it has goes first: two that have some and wait for more would wait forever.
            self.give_back();
            self.window = Some(self.windows.take(needed));
        }
        if self.context.is_none() {
            self.context = Some(DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?);
        }
        self.in_frame = true;
        Ok(true)
    }

    fn give_back(&mut self) {
        self.context = None;
        self.window = None;
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() && (self.in_frame || self.begin_frame()?) {
            let waiting = self.read.get(self.from..self.to).unwrap_or_default();
            let Some(context) = &mut self.context else { break };
            let (mut input, mut output) = (InBuffer::around(waiting), OutBuffer::around(buffer));
            let left = context.decompress_stream(&mut output, &mut input).map_err(failed)?;
            let (taken, made) = (input.pos(), output.pos());
            self.from += taken;
            self.in_frame = left > 0;

            if made > 0 {
                return Ok(made);
            }
            if self.in_frame && self.from == self.to {
                self.fill(1)?;
                if self.waiting().is_empty() {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle of a zstd frame"));
                }
            }
        }
        Ok(0)
    }
}

fn failed(code: ErrorCode) -> io::Error {
    if code == 0_usize.wrapping_sub(OUT_OF_MEMORY as usize) {
        io::ErrorKind::OutOfMemory.into()
    } else {
        io::Error::new(io::ErrorKind::InvalidData, get_error_name(code))
    }
}

/// The window of the frame that begins so (RFC 8878, 3.1.1.1). What is no frame, or not whole, needs none.
fn window(frame: &[u8]) -> u64 {
    let Some([descriptor, rest @ ..]) = frame.strip_prefix(&MAGIC) else { return 0 };
    if descriptor & 0x20 == 0 {
        let byte = rest.first().copied().unwrap_or(0);
        let base = 1_u64 << (10 + (byte >> 3));
        return base + base / 8 * u64::from(byte & 7);
    }

    // A single segment: as large as its content.
    let (dictionary, (length, more)) = (
        match descriptor & 3 {
            3 => 4,
            few => usize::from(few),
        },
        match descriptor >> 6 {
            0 => (1, 0),
            1 => (2, 256),
            2 => (4, 0),
            _ => (8, 0),
        },
    );
    let size = rest.get(dictionary..dictionary + length).unwrap_or_default();
    size.iter().rev().fold(0_u64, |size, byte| size << 8 | u64::from(*byte)).saturating_add(more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::thread;
    use std::time::Duration;

    fn windows(bytes: u64) -> &'static Windows {
        Box::leak(Box::new(Windows::of(bytes)))
    }

    /// A frame that asks for a window of 2 to the power of `log` bytes and holds these few.
    fn frame(log: u8, content: &[u8]) -> Vec<u8> {
        let block = u32::try_from(content.len()).unwrap() << 3 | 1;
        [&MAGIC[..], &[0, (log - 10) << 3], &block.to_le_bytes()[..3], content].concat()
    }

    fn decoded(stream: impl Read) -> io::Result<Vec<u8>> {
        let mut all = vec![];
        Decoder::new(stream, windows(LARGEST_WINDOW)).read_to_end(&mut all).map(|_| all)
    }

    /// Gives one byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(1);
            self.0.read(&mut buffer[..most])
        }
    }

    #[test]
    fn frames_of_any_kind_and_length_are_read_as_the_library_writes_them() {
        let text: Vec<u8> = (0..700_000_u32).flat_map(|number| (number % 251 * number).to_le_bytes()).collect();
        let mut streamed = zstd::Encoder::new(vec![], 3).unwrap();
        streamed.include_checksum(true).unwrap();
        io::copy(&mut &*text, &mut streamed).unwrap();
        let streamed = streamed.finish().unwrap();
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let sizes = [0, 1, 255, 256, 257, 70_000, text.len()].map(|size| &text[..size]);
        for single in sizes.map(|text| zstd::bulk::compress(text, 3).unwrap()) {
            let content = zstd::bulk::decompress(&single, text.len()).unwrap();
            let all =
                [&single[..], &skippable, &frame(20, b"small"), &streamed, &frame(27, b"large"), &single].concat();
            let want = [&content[..], b"small", &text, b"large", &content].concat();
            assert!(decoded(&*all).unwrap() == want && decoded(Slow(&all)).unwrap() == want, "{}", content.len());
        }
        assert_eq!(decoded(&b""[..]).unwrap(), b"");
    }

    #[test]
    fn what_is_not_whole_or_asks_for_too_much_is_an_error() {
        let whole = frame(20, b"small");
        for end in 1..whole.len() {
            assert!(decoded(&whole[..end]).is_err(), "{end} bytes");
        }
        assert!(decoded(&*[&whole[..], b"no frame"].concat()).is_err());
        for log in [28, 31, 41] {
            let error = decoded(&*frame(log, b"large")).unwrap_err();
            let said = format!("a zstd frame that asks for {} MiB of memory, more than 128", 1_u64 << (log - 20));
            assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::InvalidData, said));
        }
    }

    #[test]
    fn a_stream_has_its_window_until_it_ends_and_gives_it_back_before_it_takes_more() {
        let windows = windows(LARGEST_WINDOW);
        let free = || *windows.free();
        let all = [frame(20, b"a"), frame(23, b"b"), frame(20, b"c"), frame(27, b"d")].concat();
        let mut stream = Decoder::new(&*all, windows);
        for taken in [1 << 20, 8 << 20, 8 << 20, LARGEST_WINDOW] {
            stream.read_exact(&mut [0]).unwrap();
            assert_eq!(free(), LARGEST_WINDOW - taken);
        }
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        assert_eq!(free(), LARGEST_WINDOW, "it has ended");
        let mut cut_off = Decoder::new(&*all, windows);
        cut_off.read_exact(&mut [0]).unwrap();
        drop(cut_off);
        assert_eq!(free(), LARGEST_WINDOW, "it was given up");
    }

    const MEMORY_OF: &str = "TEST_ZSTD_STREAMS";

    /// Runs the test below in a process of its own with so much memory.
    fn with_memory(mib: u64, streams: &str) -> bool {
        let mut command = Command::new("prlimit");
        command.arg(format!("--data={}", mib << 20)).arg(std::env::current_exe().unwrap());
        command.args(["--exact", "bundle::read::zstd::tests::streams_of_a_process"]).env(MEMORY_OF, streams);
        command.output().unwrap().status.success()
    }

    #[test]
    fn streams_of_the_largest_window_share_the_memory_of_one() {
        assert!(with_memory(256, "4"));
        // Less than one needs is no fault of the stream.
        assert!(with_memory(100, "none"));
    }

    #[test]
    fn streams_of_a_process() {
        let Ok(streams) = std::env::var(MEMORY_OF) else { return };
        let read = || {
            // Long enough to meet the others, were they not made to wait.
            let slow = io::Cursor::new(frame(27, b"large")).chain(Pause).chain(io::Cursor::new(frame(27, b"r")));
            io::copy(&mut Decoder::new(slow, &WINDOWS), &mut io::sink()).map_err(|error| error.kind())
        };
        if streams == "none" {
            assert_eq!(read(), Err(io::ErrorKind::OutOfMemory));
            return;
        }
        let all: Vec<_> = (0..4).map(|_| thread::spawn(read)).collect();
        assert!(all.into_iter().all(|stream| stream.join().unwrap() == Ok(6)));
    }

    struct Pause;

    impl Read for Pause {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            thread::sleep(Duration::from_millis(100));
            Ok(0)
        }
    }
}

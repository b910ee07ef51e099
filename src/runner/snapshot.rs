//! The program that a command runs when its working directory is worth keeping: it asks the helper for a snapshot, and waits
//! for the answer.

use super::{Paths, request};
use crate::contract::SnapshotAnswer;
use crate::contract::duration::{DurationError, parse_seconds};
use crate::names::files;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: snapshot [--timeout TIME] [--no-wait]

Keeps the working directory as it is now in the store, and prints where it is there. What is in it must not be
written meanwhile. The run goes on from its last snapshot with `retry.resume`.

  --timeout TIME  wait at most this long, as in 30s, 1m30s or 2h (10m)
  --no-wait       ask for it, and do not wait

Exit codes: 0 it is in the store; 1 it failed, with the reason on standard error; 2 wrong usage; 3 there is no store;
4 no answer in time";
const TIMEOUT: Duration = Duration::from_mins(10);
const LOOK: Duration = Duration::from_millis(20);
#[cfg(feature = "operator")]
const NAME_LEN: usize = 16;
/// An answer is one line.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;
const NO_STORE: u8 = 3;
const TOO_LATE: u8 = 4;

/// Whether a file in the directory of requests is one.
#[cfg(feature = "operator")]
pub(crate) fn is_name(name: &str) -> bool {
    let number = name.strip_prefix(UNAWAITED).unwrap_or(name);
    number.len() == NAME_LEN && number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Nobody waits for the answer to a request of this name.
#[cfg(feature = "operator")]
pub(crate) fn is_unawaited(name: &str) -> bool {
    name.starts_with(UNAWAITED)
}

/// Before the name of a request that nobody waits for.
const UNAWAITED: &str = "n-";

struct Options {
    timeout: Duration,
    waits: bool,
    paths: Paths,
}

/// The program. `--root DIR`: the container's tree, for tests.
pub(super) fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let said = match options(args) {
        Ok(Some(options)) => ask(&options),
        Ok(None) => Ok(USAGE.to_owned()),
        Err(why) => Err((WRONG_USAGE, format!("{why}\n{USAGE}"))),
    };
    match said {
        Ok(text) => {
            if !text.is_empty() {
                // It is in the store, whether or not somebody reads this.
                let _ = writeln!(io::stdout(), "{text}");
            }
            ExitCode::SUCCESS
        }
        Err((code, why)) => {
            eprintln!("snapshot: {why}");
            ExitCode::from(code)
        }
    }
}

/// None: help is asked for.
fn options(args: impl Iterator<Item = OsString>) -> Result<Option<Options>, String> {
    let mut options = Options { timeout: TIMEOUT, waits: true, paths: Paths::default() };
    let mut args = args.map(|arg| arg.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        let (name, mut value) = match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        let mut value = || value.take().or_else(|| args.next()).ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--help" | "-h" => return Ok(None),
            "--no-wait" => options.waits = false,
            "--timeout" => {
                let text = value()?;
                options.timeout = time(&text).map_err(|error| format!("--timeout: {error}"))?;
            }
            "--root" => options.paths = Paths::below(Path::new(&value()?)),
            _ => return Err(format!("{name} is no option")),
        }
    }
    Ok(Some(options))
}

/// As `timeLimit` is written, or a number of seconds.
fn time(text: &str) -> Result<Duration, DurationError> {
    text.parse().or_else(|_| parse_seconds(text)).map(Duration::from_secs)
}

/// What is to be printed, or the exit code and why.
fn ask(options: &Options) -> Result<String, (u8, String)> {
    let paths = &options.paths;
    let request = request::read(&paths.request).map_err(|never_ran| (FAILED, never_ran.detail))?;
    if request.save.and_then(|save| save.snapshots).is_none() {
        return Err((NO_STORE, "this cluster has no store for outputs: ask the administrator".to_owned()));
    }
    let begin = Instant::now();
    let (name, asked) = place(&paths.record.join(files::SNAPSHOTS), options.waits)
        .map_err(|error| (FAILED, format!("cannot ask the helper container: {error}")))?;
    if !options.waits {
        return Ok(String::new());
    }
    let answer = paths.bin.join(files::SNAPSHOTS).join(name);
    let end = loop {
        if let Some(answer) = read(&answer) {
            break match answer {
                SnapshotAnswer::Taken(reference) => Ok(reference),
                SnapshotAnswer::Failed(why) => Err((FAILED, why)),
            };
        }
        if begin.elapsed() >= options.timeout {
            let seconds = options.timeout.as_secs();
            break Err((TOO_LATE, format!("no answer within {seconds} s; the snapshot may still be taken")));
        }
        std::thread::sleep(LOOK);
    };
    // The helper takes its answer away for that.
    let _ = fs::remove_file(asked);
    end
}

/// Makes a request, of a name that nobody else has.
fn place(dir: &Path, waits: bool) -> io::Result<(String, std::path::PathBuf)> {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    let name = format!("{}{:016x}", if waits { "" } else { UNAWAITED }, hasher.finish());
    let file = dir.join(&name);
    File::create_new(&file)?;
    Ok((name, file))
}

fn read(file: &Path) -> Option<SnapshotAnswer> {
    use std::io::Read;
    let mut text = vec![];
    File::open(file).ok()?.take(ANSWER_MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_a_spec() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("1m30s", 90), ("2h", 7200), ("1d", 86_400), ("45", 45)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "m", "1.5h", "-1s", "10 m", "18446744073709551615h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}

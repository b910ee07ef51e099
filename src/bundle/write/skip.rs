//! What is left out of a bundle, and what that means for it.

use rustix::io::Errno;
use std::time::Duration;

/// Whose doing it is that an entry is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bundle) enum Because {
    /// It is no output: sockets, other file systems.
    NoOutput,
    /// It is not there any more.
    Gone,
    /// It would be output, had the run's processes let us read it.
    OfTheRun,
    /// The machine fails to give it. It can pass by itself, so a bundle without it is the last resort.
    OfTheMachine,
    /// The machine gives no answer, and has had its time.
    Hung,
}

/// An entry that is listed in the bundle and is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) struct Skip {
    /// For people, as in "a.sock (a socket)".
    pub(in crate::bundle) why: Box<str>,
    pub(in crate::bundle) because: Because,
}

impl Skip {
    pub(in crate::bundle) fn no_output(why: &str) -> Self {
        Self { why: why.into(), because: Because::NoOutput }
    }

    fn gone(why: &str) -> Self {
        Self { why: why.into(), because: Because::Gone }
    }

    pub(in crate::bundle) fn of_the_run(why: &str) -> Self {
        Self { why: why.into(), because: Because::OfTheRun }
    }

    /// What it means that an entry could not be opened, looked at or read.
    pub(in crate::bundle) fn unreadable(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR => Self::gone("vanished while the output was saved"),
            Errno::LOOP => Self::gone("became a link while the output was saved"),
            // What a socket says that took the name of a file.
            Errno::NXIO => Self::no_output("was no regular file any more"),
            Errno::XDEV => Self::no_output("another file system"),
            Errno::ACCESS | Errno::PERM => Self::of_the_run(&format!("cannot be read: {error}")),
            // EIO, ESTALE, ENOMEM, EMFILE, ENFILE, and whatever else a disk, a network or a kernel comes up with.
            _ => Self { why: format!("cannot be read: {error}").into(), because: Because::OfTheMachine },
        }
    }

    /// What had the name is not there any more.
    pub(in crate::bundle) fn is_gone(&self) -> bool {
        self.because == Because::Gone
    }

    /// The disk gave no answer for so long.
    pub(in crate::bundle) fn hung(time: Duration) -> Self {
        let why = format!("the disk gave no answer for {} s", time.as_secs());
        Self { why: why.into(), because: Because::Hung }
    }

    pub(in crate::bundle) fn is_of_the_machine(&self) -> bool {
        self.because == Because::OfTheMachine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_run_did_is_left_out_for_good() {
        let because = |error| Skip::unreadable(error).because;
        for error in [Errno::NOENT, Errno::NOTDIR, Errno::LOOP] {
            assert_eq!(because(error), Because::Gone, "{error}");
        }
        for error in [Errno::XDEV, Errno::NXIO] {
            assert_eq!(because(error), Because::NoOutput, "{error}");
        }
        for error in [Errno::ACCESS, Errno::PERM] {
            assert_eq!(because(error), Because::OfTheRun, "{error}");
        }
        let of_the_machine = [
            Errno::IO,
            Errno::NOMEM,
            Errno::MFILE,
            Errno::NFILE,
            Errno::STALE,
            Errno::TIMEDOUT,
            Errno::NOTCONN,
            Errno::AGAIN,
            Errno::NODEV,
            Errno::UCLEAN,
        ];
        for error in of_the_machine {
            assert_eq!(because(error), Because::OfTheMachine, "{error}");
        }
    }
}

//! Who is told to end, and when. Pure: a look at the processes and the time come in, signals go out.
//!
//! An ordered end leaves time to the process that handles the signal, and nobody it needs ends before it. So:
//!
//! 1. A shell with living children waits for them: it is stopped, so that it does not go on to its next command, and what
//!    is below it is looked at. It is told itself only when it catches the signal and all its children are asynchronous:
//!    then it is in `wait`, which a trap interrupts.
//! 2. Any other process that does not catch the signal, or blocks it in all its threads, goes on, and what is below it is
//!    looked at.
//! 3. The first that catches it is told. What is below it is its own business.
//! 4. Who reads its standard input from a pipe is told only when nobody of rule 3 is left: it ends with its input.
//! 5. When nobody is left, from below: a shell gets TERM and then goes on, which ends it before its next command unless it
//!    has a trap. What else is left has [`END_OF_INPUT`] to end by itself, then it gets TERM, then KILL.
//! 6. Who loses its parent on the way is told by the same rules, unless it is a forked copy of that parent: then it has its
//!    parent's handlers, and has only [`END_OF_INPUT`].
//! 7. Where nobody handles the signal all get it, at once.
//!
//! Everybody is told once. Who was told may start whatever it needs for its end.

use rustix::process::Signal;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a process may take to notice that its input has ended, or its child, and to end by itself.
const END_OF_INPUT: Duration = Duration::from_secs(2);
/// How long one that handles no signal may take to go when it is told.
const TERM_IS_NOT_ENOUGH: Duration = Duration::from_secs(1);
/// Handlers that the record names.
const NAMED: usize = 2;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    Killed(i32),
}

impl End {
    /// As `wait` encodes it.
    pub(crate) fn of_wait_status(raw: i32) -> Self {
        match raw & 0x7f {
            0 => End::Exited((raw >> 8) & 0xff),
            signal => End::Killed(signal),
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Exited(code) => write!(f, "exit status {code}"),
            End::Killed(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// A signal in a set of signals.
fn mask(signal: Signal) -> u64 {
    u32::try_from(signal.as_raw() - 1).ok().and_then(|bit| 1u64.checked_shl(bit)).unwrap_or(0)
}

/// A process: the number alone is given to another one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) pid: i32,
    /// In ticks since the machine's start.
    pub(crate) started: u64,
}

/// A process at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: Id,
    pub(crate) parent: i32,
    /// It has ended and its parent has not asked how.
    pub(crate) is_zombie: bool,
    /// How a zombie ended, where that can be seen.
    pub(crate) end: Option<End>,
    /// Base name of its program.
    pub(crate) program: String,
    /// Its arguments, each with a NUL after it.
    pub(crate) command_line: Vec<u8>,
    /// Signals as bits, the first is 1.
    pub(crate) caught: u64,
    pub(crate) ignored: u64,
    /// In all threads.
    pub(crate) blocked: u64,
    /// Its standard input is a pipe.
    pub(crate) reads_pipe: bool,
}

impl Process {
    fn catches(&self, signal: Signal) -> bool {
        self.caught & !self.blocked & mask(signal) != 0 && !self.is_exiting()
    }

    /// Its memory is gone, so what it was can no longer be read; it can still have children for a moment.
    fn is_exiting(&self) -> bool {
        self.command_line.is_empty()
    }

    /// Shells give this to what they do not wait for.
    fn is_asynchronous(&self) -> bool {
        self.ignored & mask(Signal::INT) != 0
    }

    fn is_shell(&self) -> bool {
        let stem = |name: &str| -> String {
            name.trim_start_matches('-').chars().take_while(char::is_ascii_alphabetic).collect()
        };
        let named = |name: &str| matches!(stem(name).as_str(), "bash" | "sh" | "dash" | "ash" | "zsh" | "ksh" | "mksh");
        if stem(&self.program) != "busybox" {
            return named(&self.program);
        }
        // Many a program in one: which, its arguments say.
        let words: Vec<std::borrow::Cow<str>> =
            self.command_line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let base_name = |index: usize| words.get(index).and_then(|word| word.rsplit('/').next()).unwrap_or_default();
        named(base_name(usize::from(base_name(0) == "busybox")))
    }

    fn is_copy_of(&self, identity: &Identity) -> bool {
        self.program == identity.0 && self.command_line == identity.1
    }

    fn identity(&self) -> Identity {
        (self.program.clone(), self.command_line.clone())
    }
}

/// A forked process has those of its parent until it executes something.
type Identity = (String, Vec<u8>);

/// What was done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It handles the signal.
    Handler,
    /// All got it.
    All,
    /// A shell, when those below it had ended.
    Shell,
    /// What does not handle it, after its time, at that moment.
    Rest(Instant),
    Killed,
}

/// What is remembered of a process.
#[derive(Clone, Debug, Default)]
struct Known {
    told: Option<Told>,
    stopped: bool,
    /// Of the last parent that was not the runner.
    below: Option<Identity>,
    /// It has nobody below it and nothing to wait for, since then.
    idle_since: Option<Instant>,
}

/// A process that handled the signal.
#[derive(Clone, Debug)]
struct Handler {
    id: Id,
    program: String,
    end: Option<End>,
}

/// The end of all that a command has started, once it is ordered.
#[derive(Debug)]
pub(crate) struct Ending {
    signal: Signal,
    known: BTreeMap<Id, Known>,
    handlers: Vec<Handler>,
    /// Since when nobody of rule 3 is left.
    none_left_since: Option<Instant>,
}

/// What one look finds, sorted by the rules.
#[derive(Default)]
struct Found<'a> {
    shells_to_stop: Vec<&'a Process>,
    handlers: Vec<&'a Process>,
    readers: Vec<&'a Process>,
    /// All that nobody has told and that is below nobody who was told.
    untold: Vec<&'a Process>,
    /// Of these, with nobody below; and whether it is a forked copy of an ended parent.
    leaves: Vec<(&'a Process, bool)>,
}

impl Ending {
    /// `signal` is the platform's.
    pub(crate) fn ordered(signal: Signal) -> Self {
        Self { signal, known: BTreeMap::new(), handlers: vec![], none_left_since: None }
    }

    pub(crate) fn signal(&self) -> Signal {
        self.signal
    }

    /// What to send, in this order, after a look at all processes below `runner`.
    pub(crate) fn look(&mut self, processes: &[Process], runner: i32, now: Instant) -> Vec<(i32, Signal)> {
        self.note(processes, runner);
        let living: Vec<&Process> = processes.iter().filter(|process| !process.is_zombie).collect();
        let mut found = Found::default();
        self.sort(&living, runner, None, &mut found);

        let handles =
            !found.handlers.is_empty() || living.iter().any(|process| self.told(process.id) == Some(Told::Handler));
        if handles {
            self.none_left_since = None;
        }
        let had_handlers = !self.handlers.is_empty() || handles;
        let since = (!handles).then(|| *self.none_left_since.get_or_insert(now));
        let is_over = since.is_some_and(|since| now >= since + END_OF_INPUT);
        let mut signals = vec![];
        if !handles && !had_handlers && found.readers.is_empty() {
            self.tell_all(&found.untold, &mut signals);
            return signals;
        }
        for shell in &found.shells_to_stop {
            self.known.entry(shell.id).or_default().stopped = true;
            signals.push((shell.id.pid, Signal::STOP));
        }
        for handler in &found.handlers {
            self.tell_handler(handler, &mut signals);
        }
        if handles {
            return signals;
        }
        if !found.readers.is_empty() {
            if !had_handlers || is_over {
                for reader in &found.readers {
                    self.tell_handler(reader, &mut signals);
                }
            }
            return signals;
        }
        for (process, is_copy) in &found.leaves {
            self.end_leaf(process, *is_copy, now, &mut signals);
        }
        self.kill_what_stays(&living, now, &mut signals);
        signals
    }

    /// The grace is over: shells that are stopped are ended as shells are, so that the record has their end and not our
    /// KILL, and everything else is killed.
    pub(crate) fn last_look(&mut self, processes: &[Process], runner: i32) -> Vec<(i32, Signal)> {
        self.note(processes, runner);
        let mut signals = vec![];
        let (stopped, rest): (Vec<_>, Vec<_>) = processes
            .iter()
            .filter(|process| !process.is_zombie)
            .partition(|process| self.is_stopped(process.id) && self.told(process.id).is_none());
        for process in &stopped {
            self.known.entry(process.id).or_default().told = Some(Told::Shell);
            signals.push((process.id.pid, Signal::TERM));
        }
        signals.extend(rest.iter().map(|process| (process.id.pid, Signal::KILL)));
        signals.extend(stopped.iter().map(|process| (process.id.pid, Signal::CONT)));
        signals
    }

    /// A process that was waited for.
    pub(crate) fn note_end(&mut self, pid: i32, status: End) {
        if let Some(handler) = self.handlers.iter_mut().rev().find(|handler| handler.id.pid == pid) {
            handler.end.get_or_insert(status);
        }
    }

    /// Who handled the signal, and how that ended; None: nobody but `command` itself.
    pub(crate) fn handled_by_others(&self, command: i32) -> Option<String> {
        let others: Vec<&Handler> = self.handlers.iter().filter(|handler| handler.id.pid != command).collect();
        let named = others.iter().take(NAMED).map(|handler| {
            let end = handler.end.map_or_else(|| "ended".to_owned(), |end| end.to_string());
            format!("{} (process {}): {end}", handler.program, handler.id.pid)
        });
        let mut named: Vec<String> = named.collect();
        if others.len() > NAMED {
            named.push(format!("and {} more", others.len() - NAMED));
        }
        let name = signal_name(self.signal);
        (!named.is_empty()).then(|| format!("{name} was handled by {}", named.join(", ")))
    }

    fn note(&mut self, processes: &[Process], runner: i32) {
        for process in processes {
            if let Some(end) = process.end
                && let Some(handler) = self.handlers.iter_mut().find(|handler| handler.id == process.id)
            {
                handler.end.get_or_insert(end);
            }
            let known = self.known.entry(process.id).or_default();
            if process.parent != runner
                && let Some(parent) = processes.iter().find(|parent| parent.id.pid == process.parent)
                && !parent.is_exiting()
            {
                known.below = Some(parent.identity());
            }
        }
    }

    fn told(&self, id: Id) -> Option<Told> {
        self.known.get(&id).and_then(|known| known.told)
    }

    fn is_stopped(&self, id: Id) -> bool {
        self.known.get(&id).is_some_and(|known| known.stopped)
    }

    /// Goes through what is below `parent`. `copied`: the parent is a forked copy of one that has ended, and was like this.
    fn sort<'a>(&self, living: &[&'a Process], parent: i32, copied: Option<&Identity>, found: &mut Found<'a>) {
        for process in living.iter().filter(|process| process.parent == parent) {
            if self.told(process.id).is_some() {
                continue;
            }
            let pid = process.id.pid;
            let children = || living.iter().filter(move |child| child.parent == pid);
            let has_children = children().next().is_some();
            let known_below = self.known.get(&process.id).and_then(|known| known.below.as_ref());
            let is_forked = known_below.is_some_and(|below| process.is_copy_of(below));
            let lost_its_original = copied.is_some_and(|copied| process.is_copy_of(copied))
                || (is_forked && Self::has_lost_parent(process, living));
            let is_shell = process.is_shell();
            found.untold.push(process);

            if lost_its_original && !is_shell {
                if !has_children {
                    found.leaves.push((process, true));
                }
                self.sort(living, pid, Some(&process.identity()), found);
                continue;
            }
            let waits_asynchronously =
                has_children && process.catches(self.signal) && children().all(|child| child.is_asynchronous());
            if is_shell && (has_children || self.is_stopped(process.id)) && !waits_asynchronously {
                // `| while read line; do ...; done` is a filter: it ends with its input, and must go on until then.
                let is_filter = is_forked && process.reads_pipe;
                if !is_filter && !self.is_stopped(process.id) {
                    found.shells_to_stop.push(process);
                }
            } else if process.catches(self.signal) {
                let list = if process.reads_pipe { &mut found.readers } else { &mut found.handlers };
                list.push(process);
                continue;
            }
            if !has_children {
                found.leaves.push((process, false));
            }
            self.sort(living, pid, None, found);
        }
    }

    /// What had another parent, and is the runner's now.
    fn has_lost_parent(process: &Process, living: &[&Process]) -> bool {
        !living.iter().any(|parent| parent.id.pid == process.parent)
    }

    fn tell_handler(&mut self, process: &Process, signals: &mut Vec<(i32, Signal)>) {
        let known = self.known.entry(process.id).or_default();
        known.told = Some(Told::Handler);
        signals.push((process.id.pid, self.signal));
        if known.stopped {
            signals.push((process.id.pid, Signal::CONT));
        }
        self.handlers.push(Handler { id: process.id, program: process.program.clone(), end: None });
    }

    fn tell_all(&mut self, untold: &[&Process], signals: &mut Vec<(i32, Signal)>) {
        for process in untold {
            self.known.entry(process.id).or_default().told = Some(Told::All);
            signals.push((process.id.pid, self.signal));
        }
    }

    /// TERM whatever the platform's signal is: a shell whose child has ended by itself takes no notice of INT.
    fn end_leaf(&mut self, process: &Process, is_copy: bool, now: Instant, signals: &mut Vec<(i32, Signal)>) {
        let known = self.known.entry(process.id).or_default();
        let idle_since = *known.idle_since.get_or_insert(now);
        if process.is_shell() && (known.stopped || !process.reads_pipe) {
            known.told = Some(Told::Shell);
            signals.extend([(process.id.pid, Signal::TERM), (process.id.pid, Signal::CONT)]);
        } else if now >= idle_since + END_OF_INPUT {
            // A copy would begin what its original has done.
            let (told, signal) = if is_copy { (Told::Killed, Signal::KILL) } else { (Told::Rest(now), Signal::TERM) };
            known.told = Some(told);
            signals.push((process.id.pid, signal));
        }
    }

    fn kill_what_stays(&mut self, living: &[&Process], now: Instant, signals: &mut Vec<(i32, Signal)>) {
        for process in living {
            if let Some(known) = self.known.get_mut(&process.id)
                && let Some(Told::Rest(at)) = known.told
                && now >= at + TERM_IS_NOT_ENOUGH
            {
                known.told = Some(Told::Killed);
                signals.push((process.id.pid, Signal::KILL));
            }
        }
    }
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::INT => "SIGINT",
        Signal::QUIT => "SIGQUIT",
        _ => "SIGTERM",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNER: i32 = 1;
    const TERM: u64 = 1 << 14;
    const INT: u64 = 1 << 1;

    /// A process that handles nothing.
    fn plain(pid: i32, parent: i32, command_line: &str) -> Process {
        let program = command_line.split(' ').next().unwrap_or_default().to_owned();
        Process {
            id: Id { pid, started: 7 },
            parent,
            is_zombie: false,
            end: None,
            program,
            command_line: command_line.replace(' ', "\0").into_bytes(),
            caught: 0,
            ignored: 0,
            blocked: 0,
            reads_pipe: false,
        }
    }

    fn handler(pid: i32, parent: i32, command_line: &str) -> Process {
        Process { caught: TERM | INT, ..plain(pid, parent, command_line) }
    }

    fn asynchronous(process: Process) -> Process {
        Process { ignored: process.ignored | INT, ..process }
    }

    fn piped(process: Process) -> Process {
        Process { reads_pipe: true, ..process }
    }

    fn zombie(process: Process, end: End) -> Process {
        Process { is_zombie: true, end: Some(end), ..process }
    }

    /// Signals as words.
    fn words(signals: &[(i32, Signal)]) -> String {
        let name = |signal: Signal| match signal {
            Signal::TERM => "TERM",
            Signal::INT => "INT",
            Signal::KILL => "KILL",
            Signal::STOP => "STOP",
            Signal::CONT => "CONT",
            _ => "?",
        };
        signals.iter().map(|(pid, signal)| format!("{} {pid}", name(*signal))).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn the_first_look_tells_who_handles_the_signal_and_nobody_it_needs() {
        let shell = |pid, parent| plain(pid, parent, "bash -c x");
        let trap = |pid, parent| handler(pid, parent, "bash -c x");
        for (name, processes, want) in [
            ("nobody", vec![], ""),
            ("a program of argv", vec![handler(2, 1, "python t.py")], "TERM 2"),
            ("a child of a shell", vec![shell(2, 1), handler(3, 2, "python t.py")], "STOP 2, TERM 3"),
            (
                "a grandchild behind launchers",
                vec![shell(2, 1), plain(3, 2, "python launch.py"), handler(4, 3, "python t.py")],
                "STOP 2, TERM 4",
            ),
            (
                "its workers are its business",
                vec![shell(2, 1), handler(3, 2, "python t.py"), handler(4, 3, "python t.py"), plain(5, 3, "python w")],
                "STOP 2, TERM 3",
            ),
            (
                "what is behind a pipe ends with its input",
                vec![
                    shell(2, 1),
                    handler(3, 2, "python t.py"),
                    piped(plain(4, 2, "tee log")),
                    piped(handler(5, 2, "go")),
                ],
                "STOP 2, TERM 3",
            ),
            (
                "a handler with a pipe for input and nobody else",
                vec![shell(2, 1), plain(3, 2, "yes"), piped(handler(4, 2, "python t.py"))],
                "STOP 2, TERM 4",
            ),
            ("a trap and a child that is waited for", vec![trap(2, 1), handler(3, 2, "python t.py")], "STOP 2, TERM 3"),
            (
                "a trap and `wait` for background jobs",
                vec![trap(2, 1), asynchronous(handler(3, 2, "python t.py")), asynchronous(plain(4, 2, "sleep 9"))],
                "TERM 2",
            ),
            (
                "a trap, background jobs and one that is waited for",
                vec![trap(2, 1), asynchronous(handler(3, 2, "python t.py")), plain(4, 2, "sleep 9")],
                "STOP 2, TERM 3",
            ),
            (
                "`wait` for background jobs without a trap",
                vec![shell(2, 1), asynchronous(handler(3, 2, "python a")), asynchronous(handler(4, 2, "python b"))],
                "STOP 2, TERM 3, TERM 4",
            ),
            (
                "a trap and a child that has ended",
                vec![trap(2, 1), zombie(plain(3, 2, "sleep 0"), End::Exited(0))],
                "TERM 2",
            ),
            ("a trap that loops over short programs", vec![trap(2, 1), plain(3, 2, "sleep 0.1")], "TERM 2, TERM 3"),
            (
                "nobody handles it",
                vec![shell(2, 1), plain(3, 2, "sleep 9"), plain(4, 1, "d")],
                "TERM 2, TERM 3, TERM 4",
            ),
            (
                "a signal that all threads block is waited for, as by tini",
                vec![Process { blocked: TERM, ..handler(2, 1, "tini") }, handler(3, 2, "python t.py")],
                "TERM 3",
            ),
            ("subshells", vec![shell(2, 1), shell(3, 2), handler(4, 3, "python t.py")], "STOP 2, STOP 3, TERM 4"),
            (
                "a loop that reads a pipe is a filter",
                vec![shell(2, 1), handler(3, 2, "python t.py"), piped(shell(4, 2)), piped(plain(5, 4, "date"))],
                "STOP 2, TERM 3",
            ),
            (
                "a daemon in a session of its own",
                vec![shell(2, 1), plain(3, 2, "sleep 9"), handler(4, 1, "python daemon")],
                "STOP 2, TERM 4",
            ),
        ] {
            let mut ending = Ending::ordered(Signal::TERM);
            let now = Instant::now();
            assert_eq!(words(&ending.look(&processes, RUNNER, now)), want, "{name}");
            assert_eq!(words(&ending.look(&processes, RUNNER, now)), "", "{name}: everybody is told once");
        }
    }

    #[test]
    fn shells_are_told_from_other_programs() {
        for (program, command_line, want) in [
            ("bash", "bash", true),
            ("dash", "sh\0-c", true),
            ("zsh-5.9", "zsh", true),
            ("ksh93", "ksh", true),
            ("bash (deleted)", "bash", true),
            ("busybox", "sh\0-c\0x", true),
            ("busybox", "/bin/ash", true),
            ("busybox", "busybox\0sh", true),
            ("busybox", "-sh", true),
            ("busybox", "tee\0sh", false),
            ("busybox", "busybox\0tee", false),
            ("python3.12", "sh", false),
            ("bashful", "bashful", false),
        ] {
            let process = Process {
                program: program.to_owned(),
                command_line: command_line.as_bytes().to_vec(),
                ..plain(2, 1, "")
            };
            assert_eq!(process.is_shell(), want, "{program} {command_line}");
        }
    }

    /// Looks one after another, seconds after the first.
    fn looks(looks: &[(u64, Vec<Process>, &str)]) -> Ending {
        let mut ending = Ending::ordered(Signal::TERM);
        let begin = Instant::now();
        for (index, (seconds, processes, want)) in looks.iter().enumerate() {
            let got = ending.look(processes, RUNNER, begin + Duration::from_secs(*seconds));
            assert_eq!(words(&got), *want, "look {index} at {seconds} s");
        }
        ending
    }

    #[test]
    fn a_shell_ends_before_its_next_command_when_what_is_below_it_has_ended() {
        let (bash, tee) = (plain(2, 1, "bash -c x"), piped(plain(4, 2, "tee log")));
        let python = handler(3, 2, "python t.py");
        let ended = zombie(python.clone(), End::Exited(0));
        let ending = looks(&[
            (0, vec![bash.clone(), python.clone(), tee.clone()], "STOP 2, TERM 3"),
            (9, vec![bash.clone(), python.clone(), tee.clone()], ""),
            (10, vec![bash.clone(), ended.clone(), tee.clone()], ""),
            (11, vec![bash.clone(), ended, zombie(tee, End::Exited(0))], "TERM 2, CONT 2"),
            (12, vec![bash], ""),
        ]);
        let told = ending.handled_by_others(2).unwrap();
        assert_eq!(told, "SIGTERM was handled by python (process 3): exit status 0");
        assert_eq!(ending.handled_by_others(3), None, "the record has the command's own end");
    }

    #[test]
    fn what_does_not_end_with_its_input_is_told_and_then_killed() {
        let (bash, python) = (plain(2, 1, "bash -c x"), handler(3, 2, "python t.py"));
        let sleep = plain(4, 2, "sleep 99");
        looks(&[
            (0, vec![bash.clone(), python, sleep.clone()], "STOP 2, TERM 3"),
            (5, vec![bash.clone(), sleep.clone()], ""),
            (6, vec![bash.clone(), sleep.clone()], ""),
            (7, vec![bash.clone(), sleep.clone()], "TERM 4"),
            (8, vec![bash.clone(), sleep], "KILL 4"),
            (9, vec![bash], "TERM 2, CONT 2"),
        ]);
    }

    #[test]
    fn a_launcher_has_time_to_pass_on_what_it_read() {
        let (conda, bash) = (plain(2, 1, "python conda run"), plain(3, 2, "bash script"));
        let python = handler(4, 3, "python t.py");
        looks(&[
            (0, vec![conda.clone(), bash.clone(), python], "STOP 3, TERM 4"),
            (5, vec![conda.clone(), bash], "TERM 3, CONT 3"),
            (6, vec![conda.clone()], ""),
            (7, vec![conda.clone()], ""),
            (8, vec![conda], "TERM 2"),
        ]);
    }

    #[test]
    fn a_reader_of_a_pipe_is_told_after_those_that_write_to_it() {
        let (bash, python) = (plain(2, 1, "bash -c x"), handler(3, 2, "python t.py"));
        let filter = piped(handler(4, 2, "go filter"));
        looks(&[
            (0, vec![bash.clone(), python, filter.clone()], "STOP 2, TERM 3"),
            (5, vec![bash.clone(), filter.clone()], ""),
            (7, vec![bash.clone(), filter.clone()], "TERM 4"),
            (20, vec![bash.clone(), filter], ""),
            (21, vec![bash], "TERM 2, CONT 2"),
        ]);
    }

    #[test]
    fn a_forked_copy_does_not_do_what_its_original_has_done() {
        let (python, worker) = (handler(2, 1, "python t.py"), handler(3, 2, "python t.py"));
        let (loader, other) = (handler(4, 3, "python t.py"), handler(5, 2, "wandb"));
        let orphan = |process: &Process| Process { parent: 1, ..process.clone() };
        let ending = looks(&[
            (0, vec![python, worker.clone(), loader.clone(), other.clone()], "TERM 2"),
            (5, vec![orphan(&worker), loader.clone(), orphan(&other)], "TERM 5"),
            (6, vec![orphan(&worker), loader.clone()], ""),
            (8, vec![orphan(&worker), loader], "KILL 4"),
            (9, vec![orphan(&worker)], ""),
            (11, vec![orphan(&worker)], "KILL 3"),
        ]);
        assert_eq!(ending.handled_by_others(2).unwrap(), "SIGTERM was handled by wandb (process 5): ended");
    }

    #[test]
    fn a_copy_of_what_is_seen_while_it_exits_is_still_a_copy() {
        let (python, worker) = (handler(2, 1, "python t.py"), handler(3, 2, "python t.py"));
        let exiting = Process { command_line: vec![], ..python.clone() };
        let orphan = Process { parent: 1, ..worker.clone() };
        looks(&[
            (0, vec![python, worker.clone()], "TERM 2"),
            (5, vec![exiting, worker], ""),
            (6, vec![orphan.clone()], ""),
            (8, vec![orphan], "KILL 3"),
        ]);
    }

    #[test]
    fn what_is_exiting_handles_nothing() {
        let exiting = Process { command_line: vec![], ..handler(2, 1, "python launch.py") };
        let ending = looks(&[(0, vec![exiting, handler(3, 2, "python t.py")], "TERM 3")]);
        assert_eq!(ending.handled_by_others(9).unwrap(), "SIGTERM was handled by python (process 3): ended");
    }

    #[test]
    fn what_a_shell_leaves_when_its_exit_trap_ends_it_is_told_by_the_same_rules() {
        let bash = handler(2, 1, "bash -c x");
        let python = asynchronous(handler(3, 2, "python t.py"));
        looks(&[(0, vec![bash, python.clone()], "TERM 2"), (1, vec![Process { parent: 1, ..python }], "TERM 3")]);
    }

    #[test]
    fn what_a_trap_starts_is_left_alone() {
        let bash = handler(2, 1, "bash -c x");
        looks(&[
            (0, vec![bash.clone(), plain(3, 2, "sleep 0.1")], "TERM 2, TERM 3"),
            (1, vec![bash.clone(), plain(4, 2, "cp a b")], ""),
            (9, vec![bash, handler(5, 2, "python save.py")], ""),
        ]);
    }

    #[test]
    fn who_begins_to_handle_it_later_is_told_then() {
        let (launcher, python) = (plain(2, 1, "python launch.py"), handler(3, 2, "python a"));
        let late = |process: Process| vec![launcher.clone(), python.clone(), process];
        looks(&[
            (0, late(plain(4, 2, "python b")), "TERM 3"),
            (1, late(handler(4, 2, "python b")), "TERM 4"),
            (2, late(Process { id: Id { pid: 4, started: 8 }, ..handler(4, 2, "python c") }), "TERM 4"),
        ]);
    }

    #[test]
    fn at_the_end_of_the_grace_a_stopped_shell_ends_as_a_shell_does() {
        let (bash, python) = (plain(2, 1, "bash -c x"), handler(3, 2, "python t.py"));
        let processes = [bash, python];
        let mut ending = Ending::ordered(Signal::TERM);
        ending.look(&processes, RUNNER, Instant::now());
        assert_eq!(words(&ending.last_look(&processes, RUNNER)), "TERM 2, KILL 3, CONT 2");
        ending.note_end(3, End::of_wait_status(9));
        assert_eq!(ending.handled_by_others(2).unwrap(), "SIGTERM was handled by python (process 3): signal 9");
    }

    #[test]
    fn of_many_handlers_the_first_are_named() {
        let processes: Vec<_> = (2..7).map(|pid| handler(pid, 1, "python t.py")).collect();
        let mut ending = Ending::ordered(Signal::INT);
        assert_eq!(words(&ending.look(&processes, RUNNER, Instant::now())), "INT 2, INT 3, INT 4, INT 5, INT 6");
        ending.note_end(2, End::of_wait_status(3 << 8));
        let told = ending.handled_by_others(1).unwrap();
        assert_eq!(
            told,
            "SIGINT was handled by python (process 2): exit status 3, python (process 3): ended, and 3 more"
        );
    }
}

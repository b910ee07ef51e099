//! The real runner, in directories of its own: what a command does, and what the record says of it.

#![allow(clippy::unwrap_used)] // in functions that tests share

mod sandbox;

use bundlerun::contract::{Cause, Command, Record};

use rustix::process::Signal;
use sandbox::{Run, SHELLS, Sandbox, await_that, is_alive, not_allowed_here, sh};
use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn the_exit_code_is_the_commands_own() {
    for (command, want) in
        [("true", 0), ("exit 1", 1), ("exit 3", 3), ("exit 126", 126), ("exit 137", 137), ("(exit 255)", 255)]
    {
        for shell in SHELLS {
            let run = Sandbox::with_shell(shell).run(&sh(command));
            assert_eq!(
                (run.code, run.record.exit_code, run.record.cause),
                (want, Some(want), None),
                "{shell}: {command}"
            );
            assert_eq!(run.record.signal, None);
            assert!(run.record.started_at_ms.unwrap() <= run.record.finished_at_ms);
        }
    }
}

#[test]
fn a_signal_is_told_as_a_signal() {
    for (command, signal) in [("kill -SEGV $$", 11), ("kill -KILL $$", 9), ("kill -TERM $$", 15)] {
        let run = Sandbox::new().run(&sh(command));
        assert_eq!(
            (run.code, run.record.exit_code, run.record.signal),
            (128 + signal, None, Some(signal)),
            "{command}"
        );
        assert!(!run.record.asked_to_stop);
    }
}

#[test]
fn the_shell_sees_the_command_as_it_was_written() {
    for (command, want) in [
        ("echo hi # note", "hi\n"),
        ("# only a note", ""),
        ("", ""),
        ("cat <<EOF\na  $((1+1))\nEOF\n", "a  2\n"),
        ("cat <<'EOF'\n$HOME \\ `x`\nEOF", "$HOME \\ `x`\n"),
        ("printf '%s|' \"a b\" 'c\"d' e\\ f", "a b|c\"d|e f|"),
        ("echo one\necho two\n\n\n", "one\ntwo\n"),
        ("test $$ -gt 1 && echo pid", "pid\n"),
        ("BUNDLE_NAME=x; echo '$(BUNDLE_NAME)' $(echo $BUNDLE_NAME)", "$(BUNDLE_NAME) x\n"),
        ("echo 'it'\\''s' \u{e4}\u{1f600}", "it's \u{e4}\u{1f600}\n"),
        ("x='a\n\n'; printf %s \"$x\"; true", "a\n\n"),
        ("echo $#-$1-$@", "0--\n"),
        ("false\necho $?", "1\n"),
        ("printf '%s' \"$IFS\"", " \t\n"),
        ("for i in 1 2; do echo $i; done | cat", "1\n2\n"),
        ("exec cat /dev/null", ""),
        ("cat", ""),
        ("trap 'echo bye' EXIT; exit 0", "bye\n"),
        ("-n 2>/dev/null || echo no option", "no option\n"),
        ("echo ${X:-y} ${HOME:+set}", "y set\n"),
        ("sleep 0.3 & wait; echo waited", "waited\n"),
        ("printf %s 'a\r\nb\u{1}\u{7f}' | cat", "a\r\nb\u{1}\u{7f}"),
    ] {
        for shell in SHELLS {
            let run = Sandbox::with_shell(shell).run(&sh(command));
            assert_eq!((run.stdout(), run.stderr(), run.code), (want.into(), String::new(), 0), "{shell}: {command}");
        }
    }
}

#[test]
fn a_command_of_100_000_bytes_runs() {
    for shell in SHELLS {
        let command = format!("x='{}'; echo ${{#x}}", "a".repeat(99_970));
        let run = Sandbox::with_shell(shell).run(&sh(&command));
        assert_eq!((run.stdout().as_str(), run.code), ("99970\n", 0), "{shell}");
    }
}

#[test]
fn a_command_of_100_000_bytes_of_multibyte_text_arrives_whole() {
    for shell in SHELLS {
        let (prefix, suffix) = ("cat <<'END'\n", "\nEND");
        let text = "\u{20ac}\u{e4}\u{1f600}\"\\".repeat((100_000 - prefix.len() - suffix.len()) / 11);
        let text = format!("{text}{}", "x".repeat(100_000 - prefix.len() - suffix.len() - text.len()));
        let run = Sandbox::with_shell(shell).run(&sh(&format!("{prefix}{text}{suffix}")));
        assert_eq!(run.code, 0, "{shell}");
        assert!(run.stdout() == format!("{text}\n"), "{shell}");
    }
}

#[test]
fn a_syntax_error_is_the_commands_own_failure() {
    for shell in SHELLS {
        let run = Sandbox::with_shell(shell).run(&sh("echo before\nif then )\n"));
        assert_ne!(run.code, 0, "{shell}");
        assert_eq!(run.record.cause, None, "{shell}");
        let line = if shell == "bash" { "line 2" } else { "yntax error" };
        assert!(run.stderr().contains(line), "{shell}: {}", run.stderr());
        assert!(!run.stderr().contains("bundlerun"), "{shell}: {}", run.stderr());
    }
}

#[test]
fn nothing_of_ours_is_in_the_commands_environment() {
    for shell in SHELLS {
        let run = Sandbox::with_shell(shell).env("LITERAL", "a$b").env("CODALAB", "true").run(&sh("env"));
        let stdout = run.stdout();
        let mut names: Vec<_> = stdout.lines().filter_map(|line| line.split('=').next()).collect();
        names.retain(|name| !["_", "SHLVL", "OLDPWD"].contains(name));
        names.sort_unstable();
        let ours = [
            "CODALAB",
            "CUDA_CACHE_PATH",
            "HF_HOME",
            "HOME",
            "LITERAL",
            "PATH",
            "PIP_CACHE_DIR",
            "PWD",
            "PYTHONUNBUFFERED",
            "XDG_CACHE_HOME",
        ];
        assert_eq!(names, ours, "{shell}");
        assert!(stdout.contains("LITERAL=a$b\n"));
    }
}

#[test]
fn a_user_without_a_name_has_one_for_programs() {
    if !rustix::process::getuid().is_root() {
        return not_allowed_here("another user");
    }
    // `getpass.getuser()` asks for LOGNAME, then for USER, and fails where there is neither and no name in the image.
    let names = sh("env | grep -e ^USER= -e ^LOGNAME= | while IFS== read -r name value; do echo $name is $value; done");
    let sorted = |run: &Run| {
        let mut lines: Vec<String> = run.stdout().lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let sandbox = || Sandbox::new().run_by(4242);
    assert_eq!(sorted(&sandbox().run(&names)), ["LOGNAME is user4242", "USER is user4242"]);
    assert_eq!(sorted(&sandbox().env("USER", "ada").run(&names)), ["LOGNAME is ada", "USER is ada"]);
    let nobody = Sandbox::new().run_by_nobody().run(&sh("echo ${USER-none} ${LOGNAME-none}"));
    assert_eq!(nobody.stdout(), "none none\n", "the image's own name will do");
    let ask = argv(&["python3", "-c", "import getpass; print(getpass.getuser())"]);
    assert_eq!(sandbox().python().run(&ask).stdout(), "user4242\n");
}

#[test]
fn what_python_printed_is_there_after_a_kill() {
    let print = "import os, signal; print('printed'); os.kill(os.getpid(), signal.SIGKILL)";
    let run = Sandbox::new().python().run(&argv(&["python3", "-c", print]));
    assert_eq!((run.record.signal, run.stdout().as_str()), (Some(9), "printed\n"));
    let asked = Sandbox::new().env("PYTHONUNBUFFERED", "").run(&sh("echo \"<$PYTHONUNBUFFERED>\""));
    assert_eq!(asked.stdout(), "<>\n", "what the image or the user sets stays");
}

#[test]
fn a_crash_leaves_no_core_dump() {
    let run = Sandbox::new().run(&sh("ulimit -Sc; ulimit -Hc; ulimit -Sc unlimited 2>/dev/null; kill -SEGV $$"));
    assert_eq!((run.record.signal, run.stdout().as_str()), (Some(11), "0\n0\n"), "{run:?}");
}

#[test]
fn the_command_has_three_descriptors_and_no_input() {
    for shell in SHELLS {
        let sandbox = Sandbox::with_shell(shell);
        sandbox.bashrc("true");
        let run = sandbox.run(&sh("cd /proc/$$/fd; for fd in *; do echo $fd; done; readlink 0"));
        let given = fs::read_dir("/proc/self/fd").unwrap().count();
        let stdout = run.stdout();
        for ours in ["6", "7", "8"] {
            assert!(!stdout.lines().any(|fd| fd == ours), "{shell}: {stdout} ({given} here)");
        }
        assert!(stdout.ends_with("/dev/null\n"), "{shell}: {stdout}");
    }
}

#[test]
fn the_command_runs_in_the_bundle_and_bashrc_in_the_workdir() {
    for shell in SHELLS {
        let sandbox = Sandbox::with_shell(shell);
        sandbox.bashrc("HERE=$PWD");
        let run = sandbox.run(&sh("echo $HERE; pwd; echo $PWD; /bin/pwd; echo x > made"));
        let (workdir, bundle) = (sandbox.workdir.display(), sandbox.paths.bundle.display());
        assert_eq!(run.stdout(), format!("{workdir}\n{bundle}\n{bundle}\n{bundle}\n"), "{shell}");
        assert!(sandbox.paths.bundle.join("made").exists());
    }
}

#[test]
fn what_bashrc_defines_is_there_for_the_command() {
    for shell in SHELLS {
        let sandbox = Sandbox::with_shell(shell);
        sandbox.bashrc("export EXPORTED=1\nplain=2\nconda() { echo conda $1; }\nalias ll='echo ll'\n");
        let run = sandbox.run(&sh("conda activate; echo $plain; env | grep ^EXPORTED"));
        assert_eq!((run.stdout().as_str(), run.code), ("conda activate\n2\nEXPORTED=1\n", 0), "{shell}");
        assert_eq!(run.record.detail, "", "{shell}");
    }
}

#[test]
fn the_stock_guard_against_scripts_lets_the_rest_of_bashrc_run() {
    for shell in SHELLS {
        let sandbox = Sandbox::with_shell(shell);
        sandbox.bashrc("[ -z \"$PS1\" ] && return\nAFTER_GUARD=1\n");
        let run = sandbox.run(&sh("echo $AFTER_GUARD ${PS1-no prompt}"));
        assert_eq!(run.stdout(), "1 no prompt\n", "{shell}");
    }
}

/// Each leaves behind something that would hurt the command or hide its output.
#[test]
fn what_bashrc_leaves_behind_does_not_hurt_the_command() {
    let command = "false; echo unset: $unset_; echo err >&2; echo *; set -- ; sh -c 'exit 0' | cat; echo end";
    for (bashrc, note) in [
        ("[ -z \"$PS1\" ] && return\nexport AFTER_GUARD=1\n", ""),
        ("set -e", ""),
        ("set -u", ""),
        ("set -f", ""),
        ("set -xv", ""),
        ("set -eu; return 0", ""),
        ("return", ""),
        ("return 3", ".bashrc returned status 3"),
        ("exec >/dev/null 2>&1", ""),
        ("exec 2>/dev/null", ""),
        ("exec </dev/zero", ""),
        ("exec 3>&1 4>&2 9>/dev/null", ""),
        ("echo () { :; }\nunset -f echo", ""),
        ("cd() { command cd \"$@\" && ls; }", ""),
        ("alias cd='echo no' echo='echo'", ""),
        ("set -- a b c", ""),
        ("cd /", ""),
        ("shopt -s expand_aliases 2>/dev/null || true", ""),
        ("sleep 100 >/dev/null 2>&1 &", ""),
        ("exec 6>/dev/null 7>&- 8>&1; echo noise >&8", ""),
        ("if then fi (\n", ".bashrc returned status"),
        ("echo 'unclosed\n", ".bashrc returned status"),
        ("no-such-command 2>/dev/null", ".bashrc returned status 127"),
    ] {
        for shell in SHELLS {
            let sandbox = Sandbox::with_shell(shell);
            fs::write(sandbox.paths.bundle.join("a"), "").unwrap();
            sandbox.bashrc(bashrc);
            let run = sandbox.run(&sh(command));
            let label = format!("{shell}: {bashrc}: {run:?}");
            assert_eq!((run.code, run.record.cause), (0, None), "{label}");
            assert!(run.stdout().ends_with("unset:\na\nend\n"), "{label}");
            assert!(run.stderr().ends_with("err\n"), "{label}");
            assert!(run.record.detail.starts_with(note), "{label}");
            assert!(!run.stderr().contains("_bundlerun"), "{label}");
            assert!(!note.is_empty() || run.record.detail.is_empty(), "{label}");
            assert!(run.aftermath() < Duration::from_millis(1900), "nothing holds the output open: {label}");
        }
    }
}

#[test]
fn a_bashrc_that_ends_the_shell_is_never_success() {
    for (bashrc, status) in [
        ("exit 0", "exit status 0"),
        ("exit 3", "exit status 3"),
        ("exec true", "exit status 0"),
        ("set -e; false", "exit status 1"),
        ("kill -KILL $$", "signal 9"),
        ("echo ready 0; exit 0", "exit status 0"),
    ] {
        for shell in SHELLS {
            let sandbox = Sandbox::with_shell(shell);
            sandbox.bashrc(bashrc);
            let run = sandbox.run(&sh("echo never"));
            let label = format!("{shell}: {bashrc}: {run:?}");
            assert_eq!((run.code, run.record.cause), (125, Some(Cause::BashrcEndedShell)), "{label}");
            assert_eq!((run.record.exit_code, run.record.started_at_ms), (None, None), "{label}");
            assert!(run.record.detail.contains(status), "{label}");
            assert!(!run.stdout().contains("never"), "{label}");
        }
    }
}

#[test]
fn a_bashrc_that_cannot_be_read_is_left_out() {
    for shell in SHELLS {
        let sandbox = Sandbox::with_shell(shell).run_by_nobody();
        sandbox.bashrc("echo no");
        sandbox.forbid(".bashrc");
        let run = sandbox.run(&sh("echo yes"));
        assert_eq!((run.stdout().as_str(), run.code), ("yes\n", 0), "{shell}: {run:?}");
        assert_eq!(run.record.detail, ".bashrc could not be read and was left out", "{shell}");
    }
}

#[test]
fn a_bashrc_that_is_a_directory_is_none() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.workdir.join(".bashrc")).unwrap();
    let run = sandbox.run(&sh("echo yes"));
    assert_eq!((run.stdout().as_str(), run.code, run.record.detail.as_str()), ("yes\n", 0, ""));
}

#[test]
fn bash_goes_before_sh_and_a_broken_one_is_passed_over() {
    let which = sh("echo ${BASH_VERSION:+bash}");
    assert_eq!(Sandbox::new().run(&which).stdout(), "bash\n");
    for (broken, mode) in [
        (&b"not a program"[..], 0o755),
        (b"#!/no/such/interpreter\n", 0o755),
        (b"\x7fELF of another machine", 0o755),
        (b"#!/bin/sh\necho 'error while loading shared libraries' >&2; exit 127\n", 0o755),
        (b"#!/bin/sh\nexit 0\n", 0o755),
        (b"", 0o644),
    ] {
        let sandbox = Sandbox::with_shell("dash");
        sandbox.tool("bash", broken, mode);
        let run = sandbox.run(&which);
        assert_eq!((run.stdout().as_str(), run.code), ("\n", 0), "{broken:?}: {run:?}");
        assert!(run.record.detail.starts_with("sh ran the command, because"), "{run:?}");
        assert!(run.record.detail.contains("/usr/bin/bash: "), "{run:?}");
    }
}

/// Each limit lets the runner come further: no thread, one thread, no process, and then it runs.
#[test]
fn a_command_that_cannot_start_for_want_of_processes_runs_at_most_once_and_is_not_to_blame() {
    if !rustix::process::getuid().is_root() {
        return not_allowed_here("limits of another user");
    }
    let mut started = 0;
    for processes in 1..=4 {
        for command in [sh("echo once >> count"), argv(&["sh", "-c", "echo once >> count"])] {
            // The kernel counts all processes of a user: each of these users has no others.
            let sandbox = Sandbox::new().run_by(41_000 + processes);
            sandbox.write_request(&command);
            let mut prlimit = std::process::Command::new("/usr/bin/prlimit");
            prlimit.arg(format!("--nproc={processes}")).arg(&sandbox.paths.runner_in_image);
            prlimit.args(["run", "--root"]).arg(sandbox.root());
            let run = sandbox.run_command(&mut prlimit);
            let count = fs::read_to_string(sandbox.paths.bundle.join("count")).unwrap_or_default();
            let label = format!("{processes}: {run:?}");
            if run.record.started_at_ms.is_some() {
                started += 1;
                assert_eq!((run.code, count.as_str(), run.record.detail.as_str()), (0, "once\n", ""), "{label}");
            } else {
                assert_eq!((run.record.cause, count.as_str()), (Some(Cause::RunnerFailed), ""), "{label}");
                assert!(run.record.detail.contains("Resource temporarily unavailable"), "{label}");
            }
        }
    }
    assert_eq!(started, 2, "the last limit is enough");
}

#[test]
fn a_command_that_cannot_start_for_want_of_descriptors_runs_at_most_once() {
    let mut started = 0;
    for descriptors in 4..40 {
        let sandbox = Sandbox::new();
        sandbox.write_request(&sh("echo once >> count"));
        let mut prlimit = std::process::Command::new("/usr/bin/prlimit");
        prlimit.arg(format!("--nofile={descriptors}")).arg(&sandbox.paths.runner_in_image);
        prlimit.args(["run", "--root"]).arg(sandbox.root());
        let run = sandbox.run_command(&mut prlimit);
        let count = fs::read_to_string(sandbox.paths.bundle.join("count")).unwrap_or_default();
        if run.record.started_at_ms.is_some() {
            started += 1;
            assert_eq!((run.code, count.as_str()), (0, "once\n"), "{descriptors}: {run:?}");
        } else {
            assert_eq!(count, "", "{descriptors}: {run:?}");
            assert_ne!(run.code, 0, "{descriptors}: {run:?}");
            assert_ne!(run.record.cause, Some(Cause::NoShell), "{descriptors}: {run:?}");
        }
    }
    assert!((1..36).contains(&started), "some limits are enough and some are not: {started}");
}

#[test]
fn without_a_shell_the_record_names_the_way_out() {
    let run = Sandbox::with_shell("none").run(&sh("echo hi"));
    assert_eq!((run.code, run.record.cause), (125, Some(Cause::NoShell)));
    assert!(run.record.detail.contains("argv"), "{}", run.record.detail);
    assert_eq!(run.stderr().lines().count(), 1);

    let sandbox = Sandbox::with_shell("none");
    sandbox.tool("sh", b"not a program", 0o755);
    let run = sandbox.run(&sh("echo hi"));
    assert_eq!((run.code, run.record.cause), (125, Some(Cause::NoShell)));
    assert!(run.record.detail.contains("/sh: "), "{}", run.record.detail);
}

#[test]
fn a_shell_is_found_without_a_path() {
    for path in [None, Some("")] {
        let sandbox = Sandbox::new();
        let sandbox = match path {
            None => sandbox.without_env("PATH"),
            Some(path) => sandbox.env("PATH", path),
        };
        let run = sandbox.run(&sh("echo hi"));
        assert_eq!((run.stdout().as_str(), run.code), ("hi\n", 0), "{path:?}: {run:?}");
    }
}

fn argv(words: &[&str]) -> Command {
    Command::Argv(words.iter().map(|&word| word.to_owned()).collect())
}

#[test]
fn argv_needs_no_shell() {
    let sandbox = Sandbox::with_shell("none");
    sandbox.bashrc("exit 1");
    let run = sandbox.run(&argv(&["printf", "%s|", "a b", "$HOME", "$(X)", "", "*"]));
    assert_eq!((run.stdout().as_str(), run.code), ("a b|$HOME|$(X)||*|", 0), "{run:?}");
    let run = Sandbox::with_shell("none").run(&argv(&["pwd"]));
    assert!(run.stdout().ends_with("/bundle\n"));
    let sandbox = Sandbox::new();
    sandbox.bundle_program("prog", b"#!/bin/sh\necho $0 $PWD\nexit 4\n", 0o755);
    let run = sandbox.run(&argv(&["./prog"]));
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stdout().ends_with("/bundle\n"), "{run:?}");
}

#[test]
fn argv_that_cannot_be_executed_says_why() {
    let sandbox = || {
        let sandbox = Sandbox::new();
        sandbox.bundle_program("plain", b"text", 0o644);
        sandbox.bundle_program("garbage", b"\x7fELF no", 0o755);
        sandbox.bundle_program("orphan", b"#!/no/such\n", 0o755);
        sandbox
    };
    let long = "x".repeat(200_000);
    for (words, code, cause) in [
        (&["no-such-program"][..], 127, Cause::CommandNotFound),
        (&["./no-such"], 127, Cause::CommandNotFound),
        (&[""], 127, Cause::CommandNotFound),
        (&["./plain"], 126, Cause::CommandNotExecutable),
        (&["./garbage"], 126, Cause::CommandNotExecutable),
        (&["./orphan"], 126, Cause::CommandNotExecutable),
        (&["/"], 126, Cause::CommandNotExecutable),
        (&["echo", long.as_str()], 126, Cause::CommandNotExecutable),
    ] {
        let run = sandbox().run(&argv(words));
        let label = format!("{:.60?} {:.200?}", words, run.record);
        assert_eq!((run.code, run.record.exit_code, run.record.cause), (code, Some(code), Some(cause)), "{label}");
        assert_eq!(run.record.started_at_ms, None, "{label}");
        assert!(!run.record.detail.is_empty(), "{label}");
        assert_eq!(run.stderr().lines().count(), 1, "{label}");
    }
}

#[test]
fn a_missing_interpreter_is_named() {
    for (script, want) in [
        (&b"#!/no/such\n"[..], "./script: the interpreter /no/such in its first line is not in the image"),
        (
            b"#!/bin/bash\r\necho hi\r\n",
            "./script: its first line names the interpreter /bin/bash\\r: the file has Windows line ends (CRLF), save it with LF",
        ),
    ] {
        let sandbox = Sandbox::new();
        sandbox.bundle_program("script", script, 0o755);
        let run = sandbox.run(&argv(&["./script"]));
        assert_eq!((run.code, run.record.detail.as_str()), (126, want), "{run:?}");
    }
}

#[test]
fn a_bashrc_that_looks_below_home_in_vain_is_told_where_home_is() {
    for (bashrc, hint) in
        [(". $HOME/.tool", true), (". \"${HOME}\"/.tool", true), (". ~/.tool", true), (". /no/such/tool", false)]
    {
        for shell in SHELLS {
            let sandbox = Sandbox::with_shell(shell);
            sandbox.bashrc(bashrc);
            let run = sandbox.run(&sh("true"));
            let (told, why) = (&run.record.detail, ": it uses $HOME or ~, and HOME is /bundle here");
            assert!(told.starts_with(".bashrc returned status "), "{shell}: {bashrc}: {run:?}");
            assert_eq!(told.ends_with(why), hint, "{shell}: {bashrc}: {run:?}");
        }
    }
    let sandbox = Sandbox::new().env("HOME", "/root");
    sandbox.bashrc(". $HOME/.no-such-tool");
    assert_eq!(sandbox.run(&sh("true")).record.detail, ".bashrc returned status 1", "the image's own HOME");
}

#[test]
fn the_command_goes_first_when_memory_runs_out_and_the_runner_does_not() {
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    // A little, not all: on a full node the runs of others and ours shall be judged by their size.
    let raised = (own + 50).min(1000);
    // The runner lowers its own score again when the shell may already be running.
    let wait = format!(
        "read score </proc/$PPID/oom_score_adj; while [ $score = {raised} ]; do sleep 0.01; read score </proc/$PPID/oom_score_adj; done"
    );
    let run = Sandbox::new().run(&sh(&format!("{wait}; cat /proc/self/oom_score_adj /proc/$PPID/oom_score_adj")));
    assert_eq!(run.stdout(), format!("{raised}\n{own}\n"));
}

/// With little memory the kernel looks at hardly anything but sizes.
#[test]
fn a_runner_that_waits_is_smaller_than_it_was() {
    // Its threads that copy the output begin beside its first wait: all of it waits from the second on, after 500 ms.
    let run =
        Sandbox::new().run(&sh("sleep 0.8; while read name size unit; do echo $name $size; done </proc/$PPID/status"));
    let text = run.stdout();
    let kib = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    // Of a runner with its own C library two thirds go; this one is linked to the system's, which stays.
    assert!(kib("VmRSS") * 10 < kib("VmHWM") * 9, "{text}");
}

#[test]
fn usage_is_of_everything_that_ran() {
    let burn = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done";
    let run = Sandbox::new().run(&sh(&format!("({burn}); sleep 0.1")));
    let usage = run.record.usage;
    assert!(usage.cpu_user_ms + usage.cpu_system_ms >= 10, "{usage:?}");
    assert!(usage.wall_ms >= 100 && usage.wall_ms < 20_000, "{usage:?}");
    assert!(usage.memory_peak_bytes > 100_000, "{usage:?}");
    assert_eq!(usage.oom_kills, 0);

    let sandbox = Sandbox::new();
    fs::create_dir_all(&sandbox.paths.cgroup).unwrap();
    fs::write(sandbox.paths.cgroup.join("memory.peak"), "12345678\n").unwrap();
    fs::write(sandbox.paths.cgroup.join("memory.events"), "oom 2\noom_kill 1\n").unwrap();
    let usage = sandbox.run(&sh("true")).record.usage;
    assert_eq!((usage.memory_peak_bytes, usage.oom_kills), (12_345_678, 1));
}

#[test]
fn a_second_start_runs_nothing_and_keeps_the_first_record() {
    let sandbox = Sandbox::new();
    let first = sandbox.run(&sh("echo once >> count; exit 7"));
    let second = sandbox.start(&sh("echo once >> count; exit 7")).finish();
    assert_eq!((first.code, second.code), (7, 125));
    assert_eq!(second.record, first.record);
    assert_eq!(fs::read_to_string(sandbox.paths.bundle.join("count")).unwrap(), "once\n");

    let sandbox = Sandbox::new();
    fs::write(sandbox.paths.record.join("started"), "").unwrap();
    let run = sandbox.run(&sh("echo never"));
    assert_eq!((run.code, run.record.cause), (125, Some(Cause::StartedTwice)));
    assert!(!sandbox.paths.output.join("stdout").exists());
}

#[test]
fn a_request_that_cannot_be_read_runs_nothing() {
    for text in [None, Some(""), Some("{}"), Some(r#"{"command":{"argv":[]},"stopGraceSeconds":1}"#)] {
        let sandbox = Sandbox::new();
        let run = sandbox.run_text(text);
        assert_eq!((run.code, run.record.cause), (125, Some(Cause::RequestUnreadable)), "{text:?}");
        assert!(run.record.detail.contains("request.json"), "{}", run.record.detail);
    }
}

#[test]
fn a_record_directory_that_is_missing_is_told() {
    let sandbox = Sandbox::new();
    fs::remove_dir(&sandbox.paths.record).unwrap();
    let run = sandbox.start(&sh("echo never")).finish();
    assert_eq!((run.code, &run.record), (125, &Record::default()));
    assert!(run.stderr().contains("record"), "{}", run.stderr());
}

#[test]
fn a_name_taken_by_something_else_becomes_the_output_file() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.root().join("precious"), "keep").unwrap();
    std::os::unix::fs::symlink("../precious", sandbox.paths.output.join("stdout")).unwrap();
    fs::write(sandbox.paths.output.join("stderr"), "old and longer").unwrap();
    let run = sandbox.run(&sh("echo out; echo err >&2"));
    assert_eq!((run.stdout().as_str(), run.stderr().as_str()), ("out\n", "err\n"));
    assert_eq!(fs::read_to_string(sandbox.root().join("precious")).unwrap(), "keep");

    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.paths.output.join("stdout")).unwrap();
    let run = sandbox.start(&sh("true")).finish();
    assert_eq!((run.code, run.record.cause), (125, Some(Cause::RunnerFailed)));
}

#[test]
fn the_time_limit_ends_a_command_that_ignores_term() {
    let sandbox = Sandbox::new().time_limit(1).grace(1);
    let run = sandbox.run(&sh("trap 'echo ignored' TERM; while :; do sleep 0.1; done"));
    assert_eq!((run.code, run.record.cause), (124, Some(Cause::TimeLimitExceeded)), "{run:?}");
    assert_eq!((run.record.exit_code, run.record.signal), (None, Some(9)));
    assert_eq!(run.stdout(), "ignored\n");
    let wall = run.record.usage.wall_ms;
    assert!((2000..6000).contains(&wall), "{wall}");
    assert!(!run.record.asked_to_stop);
}

#[test]
fn the_time_limit_lets_a_command_end_by_itself_and_keeps_its_exit_code() {
    let run = Sandbox::new().time_limit(1).run(&sh("trap 'echo saved; exit 5' TERM; while :; do sleep 0.1; done"));
    assert_eq!((run.code, run.record.cause), (124, Some(Cause::TimeLimitExceeded)), "{run:?}");
    assert_eq!((run.record.exit_code, run.record.signal), (Some(5), None));
    assert_eq!(run.stdout(), "saved\n");
}

#[test]
fn the_time_limit_reaches_what_left_the_process_group() {
    let sandbox = Sandbox::new().time_limit(1).grace(1);
    let run = sandbox.run(&sh("setsid sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 0.1; done' & wait"));
    assert_eq!(run.record.cause, Some(Cause::TimeLimitExceeded));
    assert!(!is_alive(&fs::read_to_string(sandbox.paths.bundle.join("pid")).unwrap()));
}

#[test]
fn bashrc_counts_for_the_time_limit_until_the_command_begins() {
    let sandbox = Sandbox::new().time_limit(1).grace(1);
    sandbox.bashrc("sleep 100");
    let run = sandbox.run(&sh("echo never"));
    assert_eq!((run.code, run.record.cause), (124, Some(Cause::TimeLimitExceeded)), "{run:?}");
    assert_eq!(run.record.started_at_ms, None);
    assert!(run.record.detail.contains(".bashrc"), "{}", run.record.detail);

    let sandbox = Sandbox::new().time_limit(2).grace(1);
    sandbox.bashrc("sleep 1.2");
    assert_eq!(sandbox.run(&sh("sleep 1.2")).code, 0);
}

#[test]
fn asked_to_stop_is_noted_even_when_the_command_then_succeeds() {
    let sandbox = Sandbox::new();
    let runner = sandbox.start(&sh("trap 'exit 0' TERM; touch ready; while :; do sleep 0.05; done"));
    sandbox.await_file("ready");
    runner.signal(Signal::TERM);
    let run = runner.finish();
    sandbox.compare(&run);
    assert_eq!((run.code, run.record.exit_code, run.record.cause), (0, Some(0), None));
    assert!(run.record.asked_to_stop);
}

#[test]
fn asked_to_stop_ends_in_killing() {
    let sandbox = Sandbox::new().grace(1);
    let runner = sandbox.start(&sh("trap '' TERM; touch ready; while :; do sleep 0.05; done"));
    sandbox.await_file("ready");
    let begin = Instant::now();
    runner.signal(Signal::TERM);
    let run = runner.finish();
    assert_eq!((run.code, run.record.signal, run.record.cause), (137, Some(9), None));
    assert!(run.record.asked_to_stop);
    assert!(begin.elapsed() >= Duration::from_secs(1), "it had its grace");
}

#[test]
fn the_stop_signal_of_any_image_stops_the_command() {
    let sigrtmin_3 = 37;
    for (signal, seen) in [(2, 2), (3, 3), (28, 15), (sigrtmin_3, 15)] {
        let sandbox = Sandbox::new();
        let program =
            "for s in 2 3 15; do trap \"echo $s; exit 9\" $s; done; touch ready; while :; do sleep 0.05; done";
        let runner = sandbox.start(&sh(program));
        sandbox.await_file("ready");
        let killed =
            std::process::Command::new("kill").args([format!("-{signal}"), runner.child.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let run = runner.finish();
        assert_eq!((run.code, run.stdout(), run.record.asked_to_stop), (9, format!("{seen}\n"), true), "{signal}");
    }
}

#[test]
fn other_signals_are_passed_on() {
    for (name, signal) in [("USR1", Signal::USR1), ("USR2", Signal::USR2), ("HUP", Signal::HUP)] {
        let sandbox = Sandbox::new();
        let program = format!("trap 'echo got; exit 6' {name}; touch ready; while :; do sleep 0.05; done");
        let runner = sandbox.start(&sh(&program));
        sandbox.await_file("ready");
        runner.signal(signal);
        let run = runner.finish();
        assert_eq!((run.code, run.stdout().as_str(), run.record.asked_to_stop), (6, "got\n", false), "{name}");
    }
}

#[test]
fn asked_to_stop_before_the_inputs_are_there_runs_nothing() {
    let sandbox = Sandbox::new();
    fs::remove_file(sandbox.paths.bin.join("staged")).unwrap();
    let runner = sandbox.start(&sh("echo never"));
    await_that("the claim", || sandbox.paths.record.join("started").exists());
    // It catches signals a moment after the claim; until then TERM would end it as any process.
    await_that("the handlers", || catches_term(runner.child.id()));
    runner.signal(Signal::TERM);
    let run = runner.finish();
    assert!(run.record.asked_to_stop, "{run:?}");
    assert_eq!((run.record.started_at_ms, run.record.cause, run.stdout().as_str()), (None, None, ""));
    assert_ne!(run.code, 0);
}

fn catches_term(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
}

#[test]
fn the_command_waits_for_its_inputs() {
    let sandbox = Sandbox::new();
    fs::remove_file(sandbox.paths.bin.join("staged")).unwrap();
    let runner = sandbox.start(&sh("cat input"));
    await_that("the claim", || sandbox.paths.record.join("started").exists());
    let waits = || {
        let status = fs::read_to_string(format!("/proc/{}/status", runner.child.id())).unwrap();
        let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        waits.unwrap().trim().parse::<u64>().unwrap()
    };
    let begin = waits();
    await_that("the runner's looks", || waits() > begin + 2);
    fs::write(sandbox.paths.bundle.join("input"), "data").unwrap();
    fs::write(sandbox.paths.bin.join("staged"), "").unwrap();
    let run = runner.finish();
    assert_eq!((run.stdout().as_str(), run.code), ("data", 0));
    assert!(run.record.staging_ms > 0, "{run:?}");
}

#[test]
fn the_probe_tells_when_the_command_has_begun() {
    let probe = |sandbox: &Sandbox| {
        let mut probe = std::process::Command::new(&sandbox.paths.runner_in_image);
        probe.args(["started", "--root"]).arg(sandbox.root()).status().unwrap().code()
    };
    for command in [sh("touch ready; sleep 100"), argv(&["sh", "-c", "touch ready; sleep 100"])] {
        let sandbox = Sandbox::new();
        fs::remove_file(sandbox.paths.bin.join("staged")).unwrap();
        assert_eq!(probe(&sandbox), Some(1));
        let runner = sandbox.start(&command);
        await_that("the claim", || sandbox.paths.record.join("started").exists());
        assert_eq!(probe(&sandbox), Some(1), "the claim is not the start");
        fs::write(sandbox.paths.bin.join("staged"), "").unwrap();
        sandbox.await_file("ready");
        await_that("the probe", || probe(&sandbox) == Some(0));
        drop(runner);
    }
    // A command that ends at once, and one that never begins.
    let sandbox = Sandbox::new();
    sandbox.run(&sh("true"));
    assert_eq!(probe(&sandbox), Some(0));
    let sandbox = Sandbox::new();
    sandbox.bashrc("exit 0");
    sandbox.run(&sh("true"));
    assert_eq!(probe(&sandbox), Some(1));
}

#[test]
fn the_helpers_order_ends_the_command_with_its_cause() {
    let sandbox = Sandbox::new();
    let runner = sandbox.start(&sh("touch ready; sleep 100"));
    sandbox.await_file("ready");
    fs::write(sandbox.paths.bin.join("end"), r#"{"cause":"DiskLimitExceeded","detail":"too much"}"#).unwrap();
    let run = runner.finish();
    assert_eq!(run.record.detail, "too much");
    assert_eq!((run.code, run.record.cause, run.record.signal), (125, Some(Cause::DiskLimitExceeded), Some(15)));

    let sandbox = Sandbox::new();
    fs::remove_file(sandbox.paths.bin.join("staged")).unwrap();
    fs::write(sandbox.paths.bin.join("end"), r#"{"cause":"StagingFailed","detail":"no answer"}"#).unwrap();
    let run = sandbox.run(&sh("echo never"));
    assert_eq!(run.record.detail, "no answer");
    assert!(String::from_utf8_lossy(&run.err).contains("no answer"), "the container's log says why");
    assert_eq!((run.code, run.record.cause, run.stdout().as_str()), (125, Some(Cause::StagingFailed), ""));
}

/// The command has the runner's user here, and so the right to take its rights.
#[test]
fn a_command_that_lets_the_runner_open_nothing_more_is_ended_all_the_same() {
    for descriptors in [0, 2, 3] {
        let sandbox = Sandbox::new();
        let (to_be, end) = (sandbox.paths.bin.join("end-to-be"), sandbox.paths.bin.join("end"));
        fs::write(&to_be, "").unwrap();
        let lowered = format!("/usr/bin/prlimit --pid $PPID --nofile={descriptors} && touch ready; sleep 100");
        let runner = sandbox.start(&sh(&lowered));
        sandbox.await_file("ready");
        // As the helper does.
        fs::write(&to_be, r#"{"cause":"DiskLimitExceeded","detail":"too much"}"#).unwrap();
        fs::rename(&to_be, &end).unwrap();
        let run = runner.finish();
        assert_eq!((run.record.cause, run.code), (Some(Cause::DiskLimitExceeded), 125), "{descriptors}: {run:?}");
    }
}

#[test]
fn the_run_ends_when_the_shell_ends() {
    for shell in SHELLS {
        let sandbox = Sandbox::with_shell(shell);
        // Holds no pipe: nothing to wait for.
        let run = sandbox.run(&sh("sleep 100 >/dev/null 2>&1 & echo $! > pid; echo hi"));
        assert_eq!((run.code, run.stdout().as_str()), (0, "hi\n"), "{shell}");
        assert!(run.aftermath() < Duration::from_millis(1500), "{shell}");
        assert!(!is_alive(&fs::read_to_string(sandbox.paths.bundle.join("pid")).unwrap()), "{shell}");
    }
}

#[test]
fn background_processes_may_write_for_two_seconds_more() {
    let run = Sandbox::new().run(&sh("(sleep 0.3; echo late) & echo early"));
    assert_eq!((run.code, run.stdout().as_str()), (0, "early\nlate\n"));
    assert!(run.aftermath() < Duration::from_millis(1800));

    let sandbox = Sandbox::new();
    let run = sandbox.run(&sh("sleep 100 & echo $! > pid; echo early"));
    assert_eq!((run.code, run.stdout().as_str()), (0, "early\n"));
    assert!(run.aftermath() >= Duration::from_millis(1990), "it could have written");
    assert!(!is_alive(&fs::read_to_string(sandbox.paths.bundle.join("pid")).unwrap()));
}

/// A training loop that needs a while to save when it gets SIGTERM: its checkpoint is there, and the last line of its
/// output is, only if nobody it needs ended before it. `workers`: forked, they have no handler of their own.
const TRAINER: &str = r#"
import os, signal, sys, time
def save(number, frame):
    if os.getpid() != trainer:
        open("wrong", "w").write("a worker was told")
        os._exit(9)
    for step in range(55):
        time.sleep(0.1)
        print("saving", step, flush=True)
        for worker in workers:
            os.kill(worker, 0)
            assert os.waitpid(worker, os.WNOHANG) == (0, 0), "a worker has ended"
    open("checkpoint", "w").write("whole")
    print("saved", flush=True)
    sys.exit(0)
trainer = os.getpid()
workers = []
signal.signal(signal.SIGTERM, save)
for _ in range(int(sys.argv[1])):
    worker = os.fork()
    if worker == 0:
        while True:
            time.sleep(0.1)
    workers.append(worker)
open("ready", "w").close()
while True:
    time.sleep(0.05)
"#;

/// With Python, and the trainer as `t.py`.
fn with_trainer(shell: &str) -> Sandbox {
    let sandbox = Sandbox::with_shell(shell).python();
    fs::write(sandbox.paths.bundle.join("t.py"), TRAINER).unwrap();
    sandbox
}

/// Tells the runner to stop when the trainer is ready, and returns how it ended.
fn stopped(sandbox: &Sandbox, command: &Command) -> Run {
    let runner = sandbox.start(command);
    sandbox.await_file("ready");
    runner.signal(Signal::TERM);
    let run = runner.finish();
    sandbox.compare(&run);
    run
}

fn in_bundle(sandbox: &Sandbox, name: &str) -> String {
    fs::read_to_string(sandbox.paths.bundle.join(name)).unwrap_or_default()
}

#[test]
fn a_trainer_has_time_to_save_wherever_it_is() {
    let mut threads = vec![];
    for shell in SHELLS {
        for (command, log) in [
            ("python3 t.py 0; echo next", "stdout"),
            ("python3 t.py 3; echo next", "stdout"),
            ("python3 t.py 0 | tee log; echo next", "log"),
            ("python3 t.py 0 | while read line; do echo \"$(echo $line)\"; done > log; echo next", "log"),
            ("python3 t.py 0 > log 2>&1; echo next", "log"),
            ("(setsid python3 t.py 0; true) > log; echo next", "log"),
            ("python3 t.py 0 & sleep 100 & wait; echo next", "stdout"),
            ("setsid python3 t.py 2 > log & wait; echo next", "log"),
            ("python3 launch.py; echo next", "stdout"),
            ("trap 'echo trapped' EXIT; python3 t.py 0; echo next", "stdout"),
            ("trap 'echo trapped; exit 3' TERM; python3 t.py 0; echo next", "stdout"),
            ("trap 'kill $pid; wait; echo trapped; exit 3' TERM; python3 t.py 0 & pid=$!; wait; echo next", "stdout"),
        ] {
            threads.push(std::thread::spawn(move || {
                let sandbox = with_trainer(shell);
                // Like `conda run`: it shows what it has read when its child has ended.
                let launcher = "import subprocess, sys\n\
                    child = subprocess.run([sys.executable, 't.py', '0'], stdout=subprocess.PIPE, text=True)\n\
                    print(child.stdout, flush=True)\n";
                fs::write(sandbox.paths.bundle.join("launch.py"), launcher).unwrap();
                let run = stopped(&sandbox, &sh(command));
                let label = format!("{shell}: {command}: {run:?} {}", run.stderr());
                assert_eq!(in_bundle(&sandbox, "checkpoint"), "whole", "{label}");
                assert_eq!(in_bundle(&sandbox, "wrong"), "", "{label}");
                let written = if log == "stdout" { run.stdout() } else { in_bundle(&sandbox, log) };
                assert!(written.contains("saving 54\nsaved\n"), "{label}");
                assert!(!run.stdout().contains("next"), "{label}");
                assert!(run.record.asked_to_stop, "{label}");
                if command.contains("exit 3' TERM") {
                    assert_eq!((run.code, run.record.exit_code), (3, Some(3)), "{label}");
                } else {
                    assert_eq!((run.code, run.record.signal), (128 + 15, Some(15)), "{label}");
                }
                // dash and busybox end at a signal without their EXIT trap, as always.
                let trapped = command.contains("TERM") || (command.contains("EXIT") && shell == "bash");
                assert_eq!(run.stdout().contains("trapped"), trapped, "{label}");
                if !command.contains("kill $pid") {
                    assert!(run.record.detail.contains("exit status 0") || command.contains("launch.py"), "{label}");
                    assert!(run.record.detail.contains("SIGTERM was handled by python3"), "{label}");
                }
            }));
            // They wait more than they work, but each starts a Python.
            if threads.len() >= 12 {
                threads.drain(..).for_each(|thread| thread.join().unwrap());
            }
        }
    }
    threads.drain(..).for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_trainer_that_is_the_command_itself_has_time_to_save_and_its_own_exit_code() {
    for command in [argv(&["python3", "t.py", "2"]), sh("exec python3 t.py 2")] {
        let sandbox = with_trainer("bash");
        let run = stopped(&sandbox, &command);
        assert_eq!((in_bundle(&sandbox, "checkpoint").as_str(), run.code), ("whole", 0), "{run:?}");
        assert_eq!((run.record.exit_code, run.record.detail.as_str()), (Some(0), ""), "{run:?}");
    }
}

#[test]
fn the_time_limit_and_the_helpers_order_leave_time_to_save_too() {
    let sandbox = with_trainer("bash").time_limit(4);
    let run = sandbox.run(&sh("python3 t.py 0 > log"));
    assert_eq!((in_bundle(&sandbox, "checkpoint").as_str(), run.code), ("whole", 124), "{run:?}");

    let sandbox = with_trainer("bash");
    let runner = sandbox.start(&sh("python3 t.py 0 > log"));
    sandbox.await_file("ready");
    fs::write(sandbox.paths.bin.join("end"), r#"{"cause":"RunnerFailed","detail":"too bad"}"#).unwrap();
    let run = runner.finish();
    assert_eq!((in_bundle(&sandbox, "checkpoint").as_str(), run.code), ("whole", 125), "{run:?}");
    assert!(run.record.detail.starts_with("too bad; SIGTERM was handled by python3"), "{run:?}");
}

#[test]
fn where_nobody_handles_the_signal_the_end_is_quick() {
    for shell in SHELLS {
        for command in ["touch ready; sleep 100; echo next", "touch ready; sleep 100 | cat > log; echo next"] {
            // Longer than a test may take.
            let sandbox = Sandbox::with_shell(shell).grace(1000);
            let run = stopped(&sandbox, &sh(command));
            assert_eq!(
                (run.code, run.stdout().as_str(), run.record.detail.as_str()),
                (143, "", ""),
                "{shell}: {run:?}"
            );
        }
    }
}

#[test]
fn at_the_end_of_the_grace_everybody_is_killed_and_the_record_has_the_commands_own_end() {
    let stubborn = "import signal, time\n\
        signal.signal(signal.SIGTERM, lambda *_: print('told', flush=True))\n\
        open('ready', 'w').close()\n\
        while True: time.sleep(0.1)\n";
    for shell in SHELLS {
        let sandbox = Sandbox::with_shell(shell).python().grace(1);
        fs::write(sandbox.paths.bundle.join("stubborn.py"), stubborn).unwrap();
        let run = stopped(&sandbox, &sh("python3 stubborn.py; echo next"));
        assert_eq!((run.code, run.record.signal, run.stdout().as_str()), (143, Some(15), "told\n"), "{shell}: {run:?}");
        assert!(run.record.detail.ends_with(": signal 9"), "{shell}: {run:?}");

        // Who ignores the signal has the grace, too.
        let sandbox = Sandbox::with_shell(shell).grace(2);
        let run = stopped(&sandbox, &sh("trap '' TERM; touch ready; while :; do sleep 0.05; done"));
        assert_eq!((run.code, run.record.signal), (137, Some(9)), "{shell}: {run:?}");
        assert!(run.record.usage.wall_ms >= 2000, "{shell}: {run:?}");
    }
}

#[test]
fn what_a_command_leaves_behind_is_asked_to_end_before_it_is_killed() {
    let uploader = "trap 'echo uploaded > uploaded; exit' TERM; touch ready; while :; do sleep 0.05; done";
    for shell in SHELLS {
        let sandbox = Sandbox::with_shell(shell);
        let command = format!("({uploader}) > /dev/null 2>&1 & until [ -e ready ]; do sleep 0.05; done; exit 4");
        let run = sandbox.run(&sh(&command));
        assert_eq!((run.code, in_bundle(&sandbox, "uploaded").as_str()), (4, "uploaded\n"), "{shell}: {run:?}");
    }
}

/// Another user's process stands for one that hangs in the kernel: it survives KILL, too.
#[test]
fn what_cannot_be_killed_does_not_keep_the_run_from_its_end() {
    if !rustix::process::getuid().is_root() {
        return not_allowed_here("a program that becomes another user");
    }
    let survivor = "setpriv --reuid 0 --clear-groups sleep 1000";
    let until_it_is_another_user = r#"until read name < /proc/$!/comm && [ "$name" = sleep ]; do :; done"#;
    let ends = [
        (format!("{survivor} & echo $! > pid; touch ready; wait"), Some(143), None),
        (format!("{survivor} > /dev/null 2>&1 & echo $! > pid; {until_it_is_another_user}; exit 3"), Some(3), None),
        (format!("echo $$ > pid; touch ready; exec {survivor}"), None, Some(Cause::TimeLimitExceeded)),
    ];
    let threads = ends.map(|(command, code, cause)| {
        std::thread::spawn(move || {
            let mut sandbox = Sandbox::new().grace(1).run_by(42_000);
            if cause.is_some() {
                // Enough for a loaded machine to have become another user before.
                sandbox = sandbox.time_limit(10);
            }
            sandbox.tool("setpriv", &fs::read("/usr/bin/setpriv").unwrap(), 0o4755);
            let runner = sandbox.start(&sh(&command));
            if code == Some(143) {
                sandbox.await_file("ready");
                await_that("the other user", || {
                    let pid = in_bundle(&sandbox, "pid");
                    fs::read_to_string(format!("/proc/{}/comm", pid.trim())).is_ok_and(|name| name == "sleep\n")
                });
                runner.signal(Signal::TERM);
            }
            let run = runner.finish();
            let pid = in_bundle(&sandbox, "pid");
            let survived = is_alive(&pid);
            std::process::Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap();
            let label = format!("{command}: {run:?}");
            assert!(survived, "{label}");
            assert_eq!((run.record.cause, run.record.unkillable), (cause, true), "{label}");
            assert_eq!(run.code, code.unwrap_or(124), "{label}");
            let told = format!("process {} (sleep, state S) could not be killed", pid.trim());
            assert!(run.record.detail.starts_with(&told), "{label}");
            if cause.is_some() {
                assert_eq!((run.record.exit_code, run.record.signal), (None, None), "{label}");
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn orphans_are_reaped_while_the_command_runs() {
    let orphan = "(sh -c 'echo $$ > orphan; exec sleep 0.1' &)";
    let wait =
        "while [ ! -s orphan ]; do sleep 0.01; done; read pid <orphan; while [ -d /proc/$pid ]; do sleep 0.01; done";
    let run = Sandbox::new().time_limit(20).run(&sh(&format!("{orphan}; {wait}; echo reaped")));
    assert_eq!((run.code, run.stdout().as_str()), (0, "reaped\n"), "{run:?}");
}

/// The runner as PID 1 of a PID namespace; None: this machine does not allow one, and the test may be left out.
fn as_pid_1(sandbox: &Sandbox, command: &Command) -> Option<Run> {
    sandbox.write_request(command);
    let mut unshare = std::process::Command::new("/usr/bin/unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(&sandbox.paths.runner_in_image);
    unshare.args(["run", "--root"]).arg(sandbox.root());
    sandbox.dress(&mut unshare);
    let run = sandbox.spawn(&mut unshare).finish();
    if run.stderr().contains("unshare") {
        not_allowed_here("PID namespaces");
        return None;
    }
    Some(run)
}

#[test]
fn as_pid_1_everything_else_is_ended() {
    let sandbox = Sandbox::new().time_limit(1).grace(1);
    let command = sh("echo $PPID; setsid sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & wait; wait");
    let Some(run) = as_pid_1(&sandbox, &command) else { return };
    assert_eq!((run.code, run.stdout().as_str()), (124, "1\n"), "{run:?}");
    assert_eq!(run.record.cause, Some(Cause::TimeLimitExceeded));
}

#[test]
fn as_pid_1_a_trainer_has_time_to_save() {
    let sandbox = with_trainer("bash").time_limit(4);
    let Some(run) = as_pid_1(&sandbox, &sh("setsid --wait python3 t.py 2 | tee log; echo next")) else { return };
    assert_eq!((in_bundle(&sandbox, "checkpoint").as_str(), run.code), ("whole", 124), "{run:?}");
    assert!(in_bundle(&sandbox, "log").ends_with("saved\n"), "{run:?}");
    assert!(run.record.detail.contains("SIGTERM was handled by python3"), "{run:?}");
}

#[test]
fn what_the_command_sends_to_pid_1_comes_back_and_is_no_order_to_stop() {
    let Some(run) = as_pid_1(&Sandbox::new(), &sh("trap 'echo caught; exit 3' TERM; kill 1; sleep 5")) else { return };
    assert_eq!((run.code, run.stdout().as_str(), run.record.asked_to_stop), (3, "caught\n", false), "{run:?}");
}

#[test]
fn binary_output_is_kept_byte_for_byte() {
    let sandbox = Sandbox::new();
    let bytes: Vec<u8> = (0..=255u8).cycle().take(300_001).collect();
    fs::write(sandbox.paths.bundle.join("in"), &bytes).unwrap();
    let run = sandbox.run(&sh("cat in; cat in >&2"));
    assert!(run.out == bytes && run.err == bytes);
}

#[test]
fn fifty_megabytes_of_output_do_not_make_the_runner_larger() {
    let size =
        "while read name size unit; do case $name in VmHWM:) echo $size >> peaks; esac; done < /proc/$PPID/status";
    let output = "head -c 50000000 /dev/zero; head -c 1000000 /dev/zero >&2";
    let sandbox = Sandbox::new();
    let run = sandbox.run(&sh(&format!("size() {{ {size}; }}; size; {output}; size; true")));
    assert_eq!((run.code, run.out.len(), run.err.len()), (0, 50_000_000, 1_000_000));
    let peaks: Vec<u64> = in_bundle(&sandbox, "peaks").lines().map(|kib| kib.parse().unwrap()).collect();
    let [before, after] = peaks[..] else { unreachable!("{peaks:?}") };
    assert!(after < before + 2048, "{peaks:?}");
}

#[test]
fn a_log_that_nobody_reads_any_more_loses_nothing_else() {
    let sandbox = Sandbox::new();
    sandbox.write_request(&sh("head -c 1000000 /dev/zero; echo end >&2; exit 3"));
    let mut command = sandbox.command();
    command.stdout(Stdio::piped());
    let mut runner = sandbox.spawn(&mut command);
    drop(runner.child.stdout.take());
    let run = runner.finish();
    assert_eq!((run.code, run.stderr().as_str()), (3, "end\n"));
    assert_eq!(fs::metadata(sandbox.paths.output.join("stdout")).unwrap().len(), 1_000_000);
}

#[test]
fn a_log_that_blocks_neither_hides_the_end_nor_the_time_limit() {
    let sandbox = Sandbox::new().time_limit(1).grace(1);
    sandbox.write_request(&sh("yes"));
    let mut command = sandbox.command();
    command.stdout(Stdio::piped());
    let mut runner = sandbox.spawn(&mut command);
    let unread = runner.child.stdout.take();
    let run = runner.finish();
    assert_eq!((run.code, run.record.cause), (124, Some(Cause::TimeLimitExceeded)));
    drop(unread);

    let sandbox = Sandbox::new();
    sandbox.write_request(&sh("head -c 70000 /dev/zero; sleep 0.2; head -c 50000 /dev/zero; exit 3"));
    let mut command = sandbox.command();
    command.stdout(Stdio::piped());
    let mut runner = sandbox.spawn(&mut command);
    let unread = runner.child.stdout.take();
    let run = runner.finish();
    assert_eq!(run.code, 3);
    assert_eq!(fs::metadata(sandbox.paths.output.join("stdout")).unwrap().len(), 120_000);
    let mut log = vec![];
    unread.unwrap().read_to_end(&mut log).unwrap();
    assert!(log.len() >= 65_536, "what the pipe held is there");
}

#[test]
fn output_files_that_vanish_change_nothing() {
    let sandbox = Sandbox::new();
    let output = sandbox.paths.output.display();
    let command = format!("cd {output}; echo one; rm stdout stderr; mkdir stdout; echo two; exit 3");
    let run = sandbox.start(&sh(&command)).finish();
    assert_eq!((run.code, run.stdout().as_str()), (3, "one\ntwo\n"));
}

#[test]
fn what_the_command_writes_to_its_output_files_itself_stays() {
    for (command, want) in [
        // The shell writes twice to its output, around a program that writes to the file of the same name.
        ("echo before; await before; printf 'aaaaaaaaaaaa\\n' > stdout; echo done", "aaaaaaaaaaaa\ndone\n"),
        ("echo before; await before; : > stdout; echo done", "done\n"),
        ("echo before; await before; echo own >> stdout; echo done", "before\nown\ndone\n"),
    ] {
        let sandbox = Sandbox::new();
        let waiting = "await() { until grep -q \"$1\" stdout; do sleep 0.01; done; }";
        let run = sandbox.start(&sh(&format!("cd {}; {waiting}; {command}", sandbox.paths.output.display()))).finish();
        let text = fs::read_to_string(sandbox.paths.output.join("stdout")).unwrap();
        assert_eq!((text.as_str(), run.code, run.stdout().as_str()), (want, 0, "before\ndone\n"), "{command}");
    }
}

#[test]
fn the_working_directory_is_the_commands_alone() {
    for shell in SHELLS {
        let sandbox = Sandbox::with_shell(shell);
        let run = sandbox
            .run(&sh("ls -A; echo made >f; echo more >stdout; rm -rf ./* .[!.]*; ls -A; echo told; echo why >&2"));
        assert_eq!((run.stdout().as_str(), run.stderr().as_str(), run.code), ("told\n", "why\n", 0), "{shell}");
        assert_eq!(fs::read_dir(&sandbox.paths.bundle).unwrap().count(), 0, "{shell}");
    }
    let sandbox = Sandbox::with_shell("none");
    let run = sandbox.run(&argv(&["ls", "-A"]));
    assert_eq!((run.stdout().as_str(), run.code), ("", 0));
}

#[test]
fn a_full_disk_loses_output_and_says_so_but_not_the_record() {
    let sandbox = Sandbox::new();
    let fill = format!("cat /dev/zero 2>/dev/null > {}/fill", sandbox.paths.record.display());
    sandbox.write_request(&sh(&format!("yes | head -c 3000000; {fill}; exit 3")));
    let script = "mount -t tmpfs -o size=64k tmpfs \"$1/.bundlerun/record\" && \
        mount -t tmpfs -o size=1m tmpfs \"$1/.bundlerun/output\" || exit 99; \
        chmod 777 \"$1/.bundlerun/output\"; \"$1/bundle-runner\" run --root \"$1\"; code=$?; cat \"$1/.bundlerun/record/record.json\" >&2; exit $code";
    let mut command = std::process::Command::new("/usr/bin/unshare");
    command.args(["--mount", "bash", "-c", script, "-"]).arg(sandbox.root());
    sandbox.dress(&mut command);
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("BASH_ENV", "");
    let run = sandbox.spawn(&mut command).finish();
    if run.code == 99 || run.stderr().contains("unshare") {
        return not_allowed_here("mounts");
    }
    let record: Record = serde_json::from_slice(&run.err).unwrap();
    assert_eq!((run.code, record.exit_code, run.out.len()), (3, Some(3), 3_000_000));
    assert!(record.detail.contains("stdout in the bundle is incomplete"), "{}", record.detail);
}

#[test]
fn a_program_beside_the_command_has_its_directory_and_environment() {
    let sandbox = Sandbox::new();
    sandbox.write_request(&sh("touch ready; sleep 100"));
    let exec = |words: &[&str]| {
        let mut runner = std::process::Command::new(&sandbox.paths.runner_in_image);
        runner.args(["exec", "--root"]).arg(sandbox.root()).arg("--").args(words);
        let output = runner.env("GIVEN", "by the container").env_remove("HOME").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let bundle = sandbox.paths.bundle.display();
    let printed = exec(&["sh", "-c", "pwd; echo $HOME $GIVEN; exit 7"]);
    assert_eq!(printed, (Some(7), format!("{bundle}\n{bundle} by the container\n"), String::new()));
    let (code, _, said) = exec(&["nothing-of-that-name"]);
    assert_eq!(code, Some(127), "{said}");
    assert!(said.contains("nothing-of-that-name: not found"), "{said}");
    assert_eq!(exec(&[]).0, Some(125));
}

//! How commands end, and that the record tells the truth of it.

use bundlerun::api::{BundleRunStatus, Phase};
use serde_json::{Value, json};

use crate::common::{Space, cause, condition, seconds, stdout, together};

struct Ending {
    name: &'static str,
    spec: Value,
    cause: &'static str,
    exit_code: Option<i32>,
    signal: Option<i32>,
}

fn ending(
    name: &'static str,
    command: &str,
    cause: &'static str,
    exit_code: Option<i32>,
    signal: Option<i32>,
) -> Ending {
    Ending { name, spec: json!({"command": command}), cause, exit_code, signal }
}

#[tokio::test]
async fn every_ending_is_recorded_truthfully() {
    let space = Space::new().await;
    let trap = "trap '' TERM; echo ready; while true; do sleep 1; done";
    let endings = [
        ending("zero", "true", "Completed", Some(0), None),
        ending("one", "false", "CommandFailed", Some(1), None),
        ending("three", "exit 3", "CommandFailed", Some(3), None),
        ending("not-executable", "/etc/passwd", "CommandFailed", Some(126), None),
        ending("not-found", "no-such-program", "CommandFailed", Some(127), None),
        ending("exit-137", "exit 137", "CommandFailed", Some(137), None),
        ending("segfault", "kill -SEGV $$", "CommandKilled", None, Some(11)),
        ending("child-segfault", "sh -c 'kill -SEGV $$'", "CommandFailed", Some(139), None),
        Ending {
            // Long enough for the shell to get as far as its trap on a starved node.
            spec: json!({"command": trap, "timeLimit": "6s"}),
            ..ending("ignores-term", "", "TimeLimitExceeded", None, Some(9))
        },
        Ending {
            spec: json!({"argv": ["no-such-program"]}),
            ..ending("argv-not-found", "", "CommandNotFound", Some(127), None)
        },
        Ending {
            spec: json!({"argv": ["/etc/passwd"]}),
            ..ending("argv-not-executable", "", "CommandNotExecutable", Some(126), None)
        },
    ];
    let ended = together(endings.iter().map(|e| space.run(e.name, e.spec.clone()))).await;
    for (expected, got) in endings.iter().zip(&ended) {
        let seen = (cause(got), got.exit_code, got.signal);
        assert_eq!(seen, (expected.cause, expected.exit_code, expected.signal), "{}: {got:#?}", expected.name);
        check_ended(expected.name, got);
    }
    space.end().await;
}

/// What every ended run has.
fn check_ended(name: &str, status: &BundleRunStatus) {
    let succeeded = status.phase == Some(Phase::Succeeded);
    assert_eq!(condition(status, "Complete") == Some("True"), succeeded, "{name}");
    assert_eq!(condition(status, "Failed") == Some("True"), !succeeded, "{name}");
    assert_eq!(condition(status, "Stalled") == Some("True"), !succeeded, "{name}");
    assert_eq!(condition(status, "Ready"), Some(if succeeded { "True" } else { "False" }), "{name}");
    assert_eq!(condition(status, "Reconciling"), None, "{name}");
    let ran = status.usage.is_some();
    assert_eq!(condition(status, "OutputSaved"), ran.then_some("True"), "{name}");
    assert!(status.start_time <= status.finish_time && status.start_time.is_some(), "{name}: {status:#?}");
    assert!(status.image.as_ref().unwrap().digest.is_some(), "{name}");
    assert!(status.node.is_some(), "{name}: {status:#?}");
    assert!(!ran || status.usage.unwrap().memory_peak_bytes > Some(0), "{name}: {status:#?}");
    assert_eq!(status.observed_generation, Some(1), "{name}");
}

#[tokio::test]
async fn a_time_limit_is_kept_and_the_time_is_recorded() {
    let space = Space::new().await;
    let ended = space.run("limit", json!({"command": "echo started; sleep 1h", "timeLimit": "3s"})).await;
    assert_eq!((cause(&ended), ended.signal), ("TimeLimitExceeded", Some(15)));
    let wall = seconds(ended.usage.unwrap().wall_milliseconds);
    assert!((3.0..6.0).contains(&wall), "{wall}");
    assert_eq!(stdout(&ended), "started\n");
    space.end().await;
}

#[tokio::test]
async fn the_log_holds_the_users_output_only_and_stdout_and_stderr_stay_apart() {
    let space = Space::new().await;
    let command = "echo out; echo err >&2; printf 'no newline'";
    let ended = space.run("output", json!({"command": command})).await;
    let output = ended.output.unwrap();
    assert_eq!(output.stdout_tail.as_deref(), Some("out\nno newline"));
    assert_eq!(output.stderr_tail.as_deref(), Some("err\n"));
    // Kubernetes promises no order between the two streams.
    let log = space.logs("output-1").await;
    let without_err = log.replacen("err\n", "", 1);
    assert!(without_err.len() < log.len(), "{log:?}");
    assert_eq!(without_err.trim_end(), "out\nno newline", "{log:?}");
    space.end().await;
}

#[tokio::test]
async fn much_output_and_binary_output_do_no_harm() {
    let space = Space::new().await;
    let much = "yes 0123456789abcde | head -c 52428800; echo; echo the end";
    let binary = "head -c 1000000 /dev/urandom; printf '\\xff\\xfe\\0\\033[31m'; echo the end";
    let (much, binary) =
        tokio::join!(space.run("much", json!({"command": much})), space.run("binary", json!({"command": binary})),);
    for ended in [&much, &binary] {
        assert_eq!(cause(ended), "Completed", "{ended:#?}");
        assert!(stdout(ended).ends_with("the end\n"), "{ended:#?}");
        assert!(stdout(ended).chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
        assert!(serde_json::to_string(ended).unwrap().len() < 8192);
    }
    assert_eq!(much.output.unwrap().bytes, Some(52_428_800 + 1 + 8));
    space.end().await;
}

#[tokio::test]
async fn commands_are_data() {
    let space = Space::new().await;
    let command = "echo hi # note\nsleep 0.1 &\necho \"$BUNDLE_NAME\" '$(BUNDLE_NAME)' \"$$\" >/dev/null\ncat <<'END'\n$$ $(HOME) \"quotes\" 'and' `ticks`\nEND\nprintf '%s\\n' \"${LITERAL}\" \"${UNSET:-default}\"";
    let env = json!([{"name": "LITERAL", "value": "$(HOME) $$ $HOME"}]);
    let ended = space.run("data", json!({"command": command, "env": env})).await;
    assert_eq!(stdout(&ended), "hi\n$$ $(HOME) \"quotes\" 'and' `ticks`\n$(HOME) $$ $HOME\ndefault\n");
    space.end().await;
}

//! Shells x kinds of `.bashrc`, in real images: which command runs, with what it gets, and what the object says of it.

use std::fmt::Write as _;
use std::io::Write as _;

use bundlerun::api::{BundleRunStatus, Phase};
use serde_json::json;

use crate::common::{Space, cause, is_tried, stdout, together};
use crate::recipe::Recipe;

/// Where the images' `.bashrc` is.
const WORKDIR: &str = "/opt/env";
/// Tells what it got of `.bashrc`, that no option of `.bashrc` is left, and that its output arrives.
const COMMAND: &str = "false; echo \"$unset\" >/dev/null; (greet) 2>/dev/null || echo no function; sh -c 'echo \"${FROM_BASHRC-no variable}\"'; echo err >&2";

struct Kind {
    name: &'static str,
    /// None: the image has no `.bashrc`.
    bashrc: Option<&'static str>,
    mode: u32,
    expect: Expect,
}

/// What becomes of a run.
enum Expect {
    /// The command runs, gets these, and the object warns with this, if it is not empty.
    Runs { function: bool, variable: bool, warning: &'static str },
    /// `.bashrc` ended the shell with this status.
    Ends(&'static str),
}

const DEFINES: &str = "export FROM_BASHRC=variable; greet() { echo function; }\n";

fn kinds() -> [Kind; 11] {
    let runs = |function, variable, warning| Expect::Runs { function, variable, warning };
    let kind = |name, bashrc, expect| Kind { name, bashrc: Some(bashrc), mode: 0o644, expect };
    [
        kind("exports-functions", DEFINES, runs(true, true, "")),
        kind(
            "stock-guard",
            "[ -z \"$PS1\" ] && return\nexport FROM_BASHRC=variable; greet() { echo function; }\n",
            runs(true, true, ""),
        ),
        kind("exit-0", "export FROM_BASHRC=variable\nexit 0\n", Expect::Ends("exit status 0")),
        kind("exit-3", "export FROM_BASHRC=variable\nexit 3\n", Expect::Ends("exit status 3")),
        kind("return", "export FROM_BASHRC=variable\nreturn\ngreet() { echo function; }\n", runs(false, true, "")),
        kind("set-e", "export FROM_BASHRC=variable\nset -e\n", runs(false, true, "")),
        kind("set-u", "export FROM_BASHRC=variable\nset -u\n", runs(false, true, "")),
        kind("exec-null", "export FROM_BASHRC=variable\nexec >/dev/null 2>&1\n", runs(false, true, "")),
        kind(
            "syntax-error",
            "export FROM_BASHRC=variable\nif then fi (\n",
            runs(false, true, ".bashrc returned status"),
        ),
        Kind {
            mode: 0o000,
            ..kind("unreadable", DEFINES, runs(false, false, ".bashrc could not be read and was left out"))
        },
        Kind { bashrc: None, ..kind("none", "", runs(false, false, "")) },
    ]
}

/// Each is the only shell of its image that `command` can get.
fn shells() -> [(&'static str, Recipe); 3] {
    let recipe = |base| Recipe { base, workdir: Some(WORKDIR), user: Some("4242"), ..Recipe::default() };
    let without_bash = vec![("/usr/bin/.wh.bash", vec![], 0o644)];
    [
        ("bash", recipe("debian:bookworm")),
        ("dash", Recipe { files: without_bash, ..recipe("debian:bookworm") }),
        ("busybox-ash", recipe("busybox:local")),
    ]
}

/// In the short form every kind in one of the shells; `tests/runner.rs` has them in all without a cluster.
#[tokio::test]
async fn every_kind_of_bashrc_in_every_shell_ends_or_goes_on_as_designed() {
    let space = Space::new().await;
    let (shells, kinds) = (shells(), kinds());
    let rows = kinds.iter().enumerate().map(async |(row, kind)| {
        let cells = shells.iter().enumerate().filter(|(column, _)| is_tried(row, *column, shells.len()));
        let runs = cells.map(async |(column, (shell, recipe))| {
            let mut recipe = recipe.clone();
            let bashrc = kind.bashrc.map(|text| ("/opt/env/.bashrc", text.as_bytes().to_vec(), kind.mode));
            recipe.files.extend(bashrc);
            recipe.directories.push((WORKDIR, 0o755));
            let image = recipe.push(&format!("matrix/{shell}:{}", kind.name));
            let name = format!("{shell}-{}", kind.name);
            (column, space.run(&name, json!({"image": image, "command": COMMAND})).await, name)
        });
        together(runs).await
    });

    let mut table = format!("\n{:<20}", ".bashrc");
    for (shell, _) in &shells {
        write!(table, "{shell:<54}").unwrap();
    }
    let mut wrong = vec![];
    for (kind, ended) in kinds.iter().zip(together(rows).await) {
        let mut cells = vec!["not in the short form".to_owned(); shells.len()];
        for (column, status, name) in ended {
            let (cell, as_expected) = judge(&kind.expect, &status);
            cells[column] = format!("{} {cell}", if as_expected { "ok" } else { "WRONG" });
            if !as_expected {
                wrong.push(format!("{name}: {status:#?}"));
            }
        }
        write!(table, "\n{:<20}", kind.name).unwrap();
        for cell in cells {
            write!(table, "{cell:<54}").unwrap();
        }
    }
    // Past the test harness, so that every log of the tests has it.
    writeln!(std::io::stdout(), "{table}\n").unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    space.end().await;
}

/// What the object says, in short, and whether that is what it should.
fn judge(expect: &Expect, status: &BundleRunStatus) -> (String, bool) {
    let message = status.message.as_deref().unwrap_or_default();
    let err = status.output.as_ref().and_then(|o| o.stderr_tail.as_deref()).unwrap_or_default();
    match expect {
        Expect::Runs { function, variable, warning } => {
            let out = format!(
                "{}\n{}\n",
                if *function { "function" } else { "no function" },
                if *variable { "variable" } else { "no variable" }
            );
            let warned = message.strip_prefix("the command exited with 0").map(|rest| rest.trim_start_matches("; "));
            let as_expected = (status.phase, cause(status), status.exit_code)
                == (Some(Phase::Succeeded), "Completed", Some(0))
                && stdout(status) == out
                && err.ends_with("err\n")
                && (warning.contains("status") || err == "err\n")
                && warned.is_some_and(|told| told.starts_with(warning) && (told.is_empty() == warning.is_empty()));
            let got: Vec<_> = stdout(status).lines().filter(|line| !line.starts_with("no ")).collect();
            let told = warned.filter(|told| !told.is_empty()).map(|told| format!("; {}", short(told)));
            (
                format!(
                    "{}: {}{}",
                    cause(status),
                    if got.is_empty() { "nothing".into() } else { got.join(" + ") },
                    told.unwrap_or_default()
                ),
                as_expected,
            )
        }
        Expect::Ends(how) => {
            let hinted = status.result.as_ref().and_then(|r| r.hint.as_deref()).unwrap_or_default();
            let as_expected = (status.phase, cause(status), status.exit_code)
                == (Some(Phase::Failed), "BashrcEndedShell", None)
                && message.contains(how)
                && hinted.contains("exit")
                && stdout(status).is_empty();
            (format!("{} ({how})", cause(status)), as_expected)
        }
    }
}

fn short(warning: &str) -> &str {
    warning.strip_suffix(" and was left out").unwrap_or(warning)
}

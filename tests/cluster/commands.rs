//! Commands and values are data: what was written arrives, byte for byte, through the API server, the pod and the shell.

use std::fmt::Write as _;

use bundlerun::api::BundleRunStatus;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::common::{Space, cause, run, stdout, together};

/// Most bytes of a command.
const LIMIT: usize = 100_000;

#[tokio::test]
async fn the_shell_gets_the_command_as_it_was_written() {
    let space = Space::new().await;
    let cases = [
        ("note", "echo hi # note", "hi\n"),
        ("only-a-note", "# nothing", ""),
        ("background", "sleep 1 &", ""),
        ("background-waited", "(sleep 0.2; echo late) & wait", "late\n"),
        ("lines", "echo one\n\n  echo two\\\n  three\necho four\n\n", "one\ntwo three\nfour\n"),
        ("crlf-is-kept", "printf %s 'a\r\nb' | wc -c", "4\n"),
        ("here", "cat <<EOF\n$BUNDLE_NAME \\$HOME $((1+1))\nEOF\necho end", "here $HOME 2\nend\n"),
        ("here-literal", "cat <<'EOF'\n$HOME `x` $$ $(y) \\\\ \"'\nEOF\n", "$HOME `x` $$ $(y) \\\\ \"'\n"),
        ("here-without-end", "cat <<'EOF'\ntext", "text\n"),
        (
            "quotes",
            "printf '%s|' \"a b\" 'c\"d' e\\ f 'it'\\''s' \"\\\"\" $'\\t' \"`echo g`\"",
            "a b|c\"d|e f|it's|\"|\t|g|",
        ),
        ("pid", "test $$ -gt 1 && echo '$$' \"$$\" | sed \"s/ $$\\$/ pid/\"", "$$ pid\n"),
        (
            "kubernetes",
            "echo '$(BUNDLE_NAME) $$(BUNDLE_NAME) $$$$' \"$(echo \"$BUNDLE_NAME\")\"",
            "$(BUNDLE_NAME) $$(BUNDLE_NAME) $$$$ kubernetes\n",
        ),
        ("default", "echo ${X:-y} ${HOME:+set} \"${#BUNDLE_NAME}\"", "y set 7\n"),
        ("template", "echo '{{.Values}} %s %d ${{ x }} <&>'", "{{.Values}} %s %d ${{ x }} <&>\n"),
        ("unicode", "echo 'ä€😀 \u{202e}\u{200b}e\u{301}'", "ä€😀 \u{202e}\u{200b}e\u{301}\n"),
        ("control", "printf %s '\u{1}\u{7f}\u{85}' | od -An -tx1 | tr -d ' \\n'", "017fc285"),
        ("leading-dash", "-n 2>/dev/null || echo not an option", "not an option\n"),
        ("yaml", "echo 'yes: no # x' '- a' '|' '>-' ': '", "yes: no # x - a | >- : \n"),
    ];
    let ended = together(cases.iter().map(|(name, command, _)| space.run(name, json!({"command": command})))).await;
    for ((name, command, want), status) in cases.iter().zip(&ended) {
        assert_eq!((stdout(status), cause(status)), (*want, "Completed"), "{name}: {command}: {status:#?}");
    }
    space.end().await;
}

/// `prefix`, then `text` again and again, then `suffix`: this many bytes in all.
fn filled(bytes: usize, prefix: &str, text: &str, suffix: &str) -> String {
    let room = bytes - prefix.len() - suffix.len();
    let many = text.repeat(room / text.len());
    format!("{prefix}{many}{}{suffix}", "x".repeat(room - many.len()))
}

#[tokio::test]
async fn a_command_of_exactly_100_000_bytes_runs_and_one_byte_more_is_refused() {
    let space = Space::new().await;
    let (prefix, suffix) = ("cat <<'END' | sha256sum\n", "\nEND");
    let texts = [
        ("ascii", "a"),
        // Fewer characters than bytes: the schema counts the former.
        ("multibyte", "€ä😀"),
        // Twice as long in the JSON in which it travels.
        ("escapes", "\"\\\n"),
    ];
    let command = |text, bytes| filled(bytes, prefix, text, suffix);
    let ended =
        together(texts.iter().map(|(name, text)| space.run(name, json!({"command": command(text, LIMIT)})))).await;
    for ((name, text), status) in texts.iter().zip(&ended) {
        let full = command(text, LIMIT);
        assert_eq!(full.len(), LIMIT);
        let document = full.strip_prefix(prefix).unwrap().strip_suffix("END").unwrap();
        assert_eq!(stdout(status), format!("{}  -\n", sha256(document)), "{name}: {status:#?}");
    }
    for (name, text) in texts {
        let error = refused(&space, json!({"command": command(text, LIMIT + 1)})).await;
        assert!(error.contains("command") && error.contains("100000"), "{name}: {error}");
    }
    // What JSON makes six times as long does not fit a pod; the API server cannot count that.
    let ended = space.run("control", json!({"command": command("\u{1}", LIMIT)})).await;
    assert_eq!((cause(&ended), ended.attempts.len()), ("InvalidSpec", 0), "{ended:#?}");
    assert!(ended.message.as_deref().unwrap().contains("command"), "{ended:#?}");
    space.end().await;
}

#[tokio::test]
async fn argv_of_exactly_100_000_bytes_runs_and_one_byte_more_is_refused() {
    let space = Space::new().await;
    let argv = |bytes: usize| {
        let mut words = vec!["printf".to_owned(), "%s".to_owned()];
        words.extend((0..5).map(|_| "€".repeat(6_000)));
        let room = bytes - words.iter().map(String::len).sum::<usize>();
        words.push("y".repeat(room));
        words
    };
    let ended = space.run("argv", json!({"argv": argv(LIMIT)})).await;
    assert_eq!(cause(&ended), "Completed", "{ended:#?}");
    assert_eq!(ended.output.unwrap().bytes, Some(u64::try_from(LIMIT - "printf%s".len()).unwrap()));
    let error = refused(&space, json!({"argv": argv(LIMIT + 1)})).await;
    assert!(error.contains("argv") && error.contains("100000"), "{error}");
    space.end().await;
}

#[tokio::test]
async fn a_nul_is_refused_with_the_field_named() {
    let space = Space::new().await;
    for (field, spec) in [
        ("command", json!({"command": "echo a\0b"})),
        ("argv", json!({"argv": ["echo", "a\0b"]})),
        ("env", json!({"command": "true", "env": [{"name": "A", "value": "a\0b"}]})),
    ] {
        let error = refused(&space, spec).await;
        assert!(error.contains(&format!("spec.{field}")) && error.contains("NUL"), "{field}: {error}");
    }
    space.end().await;
}

#[tokio::test]
async fn argv_reaches_the_program_unchanged() {
    let space = Space::new().await;
    let words = ["a b", "", "$HOME", "$(HOME)", "$$", "$$(HOME)", "`x`", "*", "'\"", "é\n", "--", "\\"];
    let argv: Vec<_> = ["printf", "[%s]"].iter().chain(&words).collect();
    let ended = space.run("argv", json!({"argv": argv})).await;
    let want = format!("[{}]", words.join("]["));
    assert_eq!(stdout(&ended), want, "{ended:#?}");
    space.end().await;
}

/// Texts that Kubernetes rewrites in env values, and others that are easily hurt.
const VALUES: [(&str, &str); 12] = [
    ("REFERENCE", "$(HOME)"),
    ("ESCAPED", "$$(HOME)"),
    ("DOLLARS", "$$ $$$ $"),
    ("UNKNOWN", "$(NOT_SET) $(BUNDLE_NAME"),
    ("SHELL_TEXT", "${HOME} `id` \\n \"'"),
    ("LINES", "one\ntwo\n"),
    ("SPACES", "  a  b  "),
    ("TAB", "a\tb"),
    ("UNICODE", "ä€😀"),
    ("EQUALS", "a=b=c"),
    ("EMPTY", ""),
    ("JSON", "{\"a\": [1, null]}"),
];

/// Prints the values as the process has them, not as a shell would.
fn print_values(prefix: &str) -> Value {
    let names: Vec<_> = VALUES.iter().map(|(name, _)| format!("{prefix}{name}")).collect();
    let program = "import os, sys\nfor name in sys.argv[1:]: print(repr(os.environ[name].encode().hex()))";
    json!(["python3", "-c", program].iter().map(|&word| word.to_owned()).chain(names).collect::<Vec<_>>())
}

fn printed() -> String {
    let mut lines = String::new();
    for (_, value) in VALUES {
        lines.push('\'');
        value.bytes().for_each(|byte| write!(lines, "{byte:02x}").unwrap());
        lines.push_str("'\n");
    }
    lines
}

#[tokio::test]
async fn values_of_variables_arrive_unchanged_literal_or_from_a_secret() {
    let space = Space::new().await;
    let secrets: Api<Secret> = space.api();
    let data: serde_json::Map<_, _> = VALUES.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let secret = json!({"metadata": {"name": "values"}, "stringData": data});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let literal: Vec<_> =
        VALUES.iter().map(|(name, value)| json!({"name": format!("LITERAL_{name}"), "value": value})).collect();
    let secret: Vec<_> = VALUES
        .iter()
        .map(|(name, _)| {
            let from = json!({"secretKeyRef": {"name": "values", "key": name}});
            json!({"name": format!("SECRET_{name}"), "valueFrom": from})
        })
        .collect();
    // Variables that Kubernetes could expand references to, before and after.
    let env: Vec<_> = [json!({"name": "NOT_HERE", "value": "x"})].into_iter().chain(literal).chain(secret).collect();
    let (literal, secret): (BundleRunStatus, BundleRunStatus) = tokio::join!(
        space.run("literal", json!({"argv": print_values("LITERAL_"), "env": env})),
        space.run("secret", json!({"argv": print_values("SECRET_"), "env": env})),
    );
    assert_eq!(stdout(&literal), printed(), "{literal:#?}");
    assert_eq!(stdout(&secret), printed(), "{secret:#?}");
    space.end().await;
}

/// What the API server says to a spec it does not take.
async fn refused(space: &Space, spec: Value) -> String {
    space.runs().create(&PostParams::default(), &run("refused", spec)).await.unwrap_err().to_string()
}

fn sha256(text: &str) -> String {
    use std::io::Write as _;
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    String::from_utf8(out.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

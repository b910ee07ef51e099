//! The documentation agrees with the sources, and of every command in it is known whether it works.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod blocks;
#[path = "crd/check.rs"]
mod check;

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use blocks::{Block, FOLLOWED, Mark, blocks};
use bundlerun::api::BundleRun;
use bundlerun::docs::Page;
use check::Checker;
use regex::Regex;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The pages that people read.
fn pages() -> Vec<String> {
    let docs =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let front = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned);
    let mut pages: Vec<_> = docs.map(|name| format!("docs/{name}")).chain(front).collect();
    pages.sort();
    pages
}

#[test]
fn generated_pages_are_current() {
    for page in Page::ALL {
        let file = root().join("docs").join(page.name()).with_extension("md");
        assert!(
            fs::read_to_string(&file).unwrap() == page.text().unwrap(),
            "{} is not current: make docs",
            file.display()
        );
    }
}

#[test]
fn every_link_goes_somewhere() {
    let link = Regex::new(r"\]\(([^)#]*)(#[^)]*)?\)").unwrap();
    let heading = Regex::new(r"(?m)^#+ (.+)$").unwrap();
    let code = Regex::new("`[^`\n]*`").unwrap();
    for page in pages() {
        let folder = Path::new(&page).parent().unwrap();
        let text = read(&page);
        let text = code.replace_all(&text, "");
        for found in link.captures_iter(&text).filter(|found| !found[1].contains("://")) {
            let target = if found[1].is_empty() { Path::new(&page).to_owned() } else { folder.join(&found[1]) };
            assert!(root().join(&target).exists(), "{page}: {}", &found[1]);
            let Some(anchor) = found.get(2) else { continue };
            let headings = read(target.to_str().unwrap());
            let mut anchors = heading.captures_iter(&headings).map(|heading| anchor_of(&heading[1]));
            assert!(anchors.any(|known| known == anchor.as_str()), "{page}: {}{}", &found[1], anchor.as_str());
        }
    }
}

/// As GitHub makes them.
fn anchor_of(heading: &str) -> String {
    let letters =
        heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    format!("#{}", letters.replace(' ', "-"))
}

#[test]
fn the_readme_names_every_page() {
    let readme = read("README.md");
    for page in pages().iter().filter(|page| page.starts_with("docs/")) {
        assert!(readme.contains(&format!("]({page})")), "README.md does not name {page}");
    }
}

#[test]
fn the_index_of_the_documentation_names_every_page() {
    let index = read("docs/README.md");
    for page in pages().iter().filter_map(|page| page.strip_prefix("docs/")).filter(|page| *page != "README.md") {
        assert!(index.contains(&format!("]({page})")), "docs/README.md does not name {page}");
    }
}

/// `make demo` has runs there that are called as those of the pages are, and differ.
#[test]
fn no_followed_page_works_in_the_namespace_of_the_demo() {
    let is_chosen = Regex::new("(--namespace|-n)[ =]bundlerun-demo").unwrap();
    for page in FOLLOWED {
        assert!(!is_chosen.is_match(&read(page)), "{page}");
    }
}

/// In its first paragraph, below the title. The README begins with what this is.
#[test]
fn every_page_begins_with_the_questions_it_answers() {
    for page in pages().iter().filter(|page| *page != "README.md") {
        let text = read(page);
        let begin = text.split_once("# ").unwrap().1.split("\n\n").nth(1).unwrap();
        assert!(begin.contains('?'), "{page} begins with: {begin}");
    }
}

#[test]
fn the_map_of_the_repository_is_right() {
    let page = read("CONTRIBUTING.md");
    let code = Regex::new("`([^`]+)`").unwrap();
    let names = |cell: &str| code.captures_iter(cell).map(|found| found[1].to_owned()).collect::<Vec<_>>();
    let rows = |section: &str| table(&page, section);
    let mapped: BTreeSet<_> =
        rows("The repository").iter().chain(&rows("The code")).flat_map(|(path, _)| names(path)).collect();
    let of_behaviours: Vec<_> = rows("Where a behaviour is")
        .iter()
        .flat_map(|(_, place)| names(place))
        .filter(|name| name.contains('/'))
        .collect();
    assert!(mapped.len() > 20 && of_behaviours.len() > 10, "{mapped:?} {of_behaviours:?}");
    for path in mapped.iter().chain(&of_behaviours) {
        assert!(root().join(path).exists(), "CONTRIBUTING.md: there is no {path}");
    }

    let folders = |of: &str| {
        let paths = fs::read_dir(root().join(of)).unwrap().map(|entry| entry.unwrap().path());
        let names = paths.filter(|path| path.is_dir()).map(|path| path.strip_prefix(root()).unwrap().to_owned());
        names.map(|path| path.into_os_string().into_string().unwrap()).collect::<Vec<_>>()
    };
    let of_others = |path: &String| path.starts_with('.') || ["target", "shared"].contains(&path.as_str());
    for folder in folders("").into_iter().filter(|path| !of_others(path)).chain(folders("src")) {
        assert!(mapped.contains(&folder), "CONTRIBUTING.md does not say what {folder} is");
    }
}

#[test]
fn every_target_of_make_says_what_it_does() {
    let (makefile, page) = (read("Makefile"), read("CONTRIBUTING.md"));
    let phony = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).unwrap();
    for target in phony.split(' ').filter(|target| *target != "clean") {
        let documented = Regex::new(&format!(r"(?m)^{target}:.*## .{{10}}")).unwrap();
        assert!(documented.is_match(&makefile), "Makefile: {target} has no comment for `make help`");
        assert!(page.contains(&format!("`make {target}`")), "CONTRIBUTING.md does not name make {target}");
    }
}

/// What is wrong with the claim that the commands of a block work.
fn doubt(page: &str, block: &Block) -> Option<String> {
    match (block.language.as_str(), &block.mark) {
        ("", _) => Some("it has no language: console, sh, yaml, text, ...".into()),
        ("console" | "sh" | "bash", Some(Mark::NotRun(why))) => {
            (why.len() < 10).then(|| "say why it is not run".into())
        }
        ("console" | "sh" | "bash", Some(Mark::RunBy(page))) if FOLLOWED.contains(&page.as_str()) => {
            let is_there =
                blocks(&read(page)).iter().any(|known| known.is_followed() && known.text.contains(&block.text));
            (!is_there).then(|| format!("{page} does not show this"))
        }
        ("console" | "sh" | "bash", Some(Mark::RunBy(file))) => {
            let Ok(script) = fs::read_to_string(root().join(file)) else { return Some(format!("{file} is not there")) };
            let lines = block.text.lines().map(|line| line.trim_start().trim_start_matches("$ "));
            let mut begins = lines.map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "));
            (!begins.any(|begin| begin.contains(' ') && script.contains(&begin)))
                .then(|| format!("{file} runs no command that begins like one of these"))
        }
        ("console", None) if FOLLOWED.contains(&page) => None,
        ("console" | "sh" | "bash", None) => {
            Some("nobody runs it, and it does not say why: see tests/blocks/mod.rs".into())
        }
        (_, Some(_)) => Some("only commands are run".into()),
        (_, None) => None,
    }
}

#[test]
fn every_command_is_run_or_says_why_not() {
    let mut doubts = vec![];
    for page in pages() {
        for block in blocks(&read(&page)) {
            doubts.extend(doubt(&page, &block).map(|doubt| format!("{page}:{}: {doubt}", block.line)));
        }
    }
    assert!(doubts.is_empty(), "\n{}", doubts.join("\n"));
    for page in FOLLOWED {
        assert!(blocks(&read(page)).iter().any(Block::is_followed), "{page} has no command to run");
    }
}

#[test]
fn a_block_that_nobody_runs_is_found() {
    let of = |text: &str| doubt("docs/administration.md", &blocks(text)[0]);
    for doubtful in [
        "```\nmake x\n```",
        "```sh\nmake x\n```",
        "```console\n$ make x\n```",
        "<!-- not run: -->\n```sh\nmake x\n```",
        "<!-- not run: no -->\n```sh\nmake x\n```",
        "<!-- not run: needs a registry -->\nWords.\n```sh\nmake x\n```",
        "<!-- run by .ci/no-such-file -->\n```sh\nmake test\n```",
        "<!-- run by .ci/run -->\n```sh\nmake nothing\n```",
        "<!-- not run: needs a registry -->\n```yaml\na: b\n```",
        "<!-- run by docs/first-run.md -->\n```console\n$ kubectl apply -f hello.yaml\nhello\n```",
    ] {
        assert!(of(doubtful).is_some(), "{doubtful}");
    }
    for fine in [
        "<!-- not run: needs a registry -->\n```sh\nmake x\n```",
        "<!-- run by .ci/run -->\n\n```sh\nmake test    # everything\n```",
        "```yaml\na: b\n```",
        "```text\nmake x\n```",
    ] {
        assert_eq!(of(fine), None, "{fine}");
    }
    assert_eq!(doubt("docs/images.md", &blocks("```console\n$ make x\n```")[0]), None);
    assert!(doubt("docs/images.md", &blocks("```sh\nmake x\n```")[0]).is_some());
}

/// The `BundleRuns` among the documents of a YAML block.
fn manifests(yaml: &str) -> Vec<Value> {
    let documents =
        yaml.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}:\n{text}")));
    documents.filter(|document: &Value| document["kind"] == "BundleRun").collect()
}

/// Problems by the schema, the rules in CEL and the types.
fn problems(checker: &Checker, manifest: &Value) -> Vec<String> {
    let mut problems: Vec<_> =
        checker.check(manifest, None).into_iter().map(|failure| format!("{failure:?}")).collect();
    match serde_json::from_value::<BundleRun>(check::without_nulls(manifest)) {
        Ok(run) if serde_json::to_value(&run.spec).unwrap() == manifest["spec"] => {}
        Ok(run) => problems.push(format!("not all of it is read: {:?}", run.spec)),
        Err(error) => problems.push(error.to_string()),
    }
    problems
}

#[test]
fn every_manifest_is_one_that_the_api_server_takes() {
    let checker = Checker::new();
    let mut count = 0;
    for page in pages() {
        for block in blocks(&read(&page)).iter().filter(|block| block.language == "yaml") {
            for manifest in manifests(&block.text) {
                let problems = problems(&checker, &manifest);
                assert!(problems.is_empty(), "{page}:{}: {problems:#?}", block.line);
                let is_a_file = block.name.is_some() || !FOLLOWED.contains(&page.as_str());
                assert!(is_a_file, "{page}:{}: no command can apply it", block.line);
                count += 1;
            }
        }
    }
    assert!(count > 15, "{count}");
}

#[test]
fn a_manifest_that_is_wrong_is_found() {
    let checker = Checker::new();
    let found = |spec: &str| {
        let yaml = format!("apiVersion: bundlerun.dev/v1alpha1\nkind: BundleRun\nmetadata: {{name: a}}\nspec: {spec}");
        !problems(&checker, &manifests(&yaml)[0]).is_empty()
    };
    assert!(!found("{command: ls}"));
    for wrong in
        ["{command: ls, argv: [ls]}", "{comand: ls}", "{command: ls, memory: 1Gi}", "{command: ls, suspend: 1}"]
    {
        assert!(found(wrong), "{wrong}");
    }
}

/// Whether a run may succeed although a line of its command fails, or a part of a pipe, and no comment there says why.
fn forgives(manifest: &Value) -> bool {
    let command = manifest["spec"]["command"].as_str().unwrap_or_default().trim_end();
    let begins = ["set -eo pipefail", "# without set -e: "].iter().any(|first| command.starts_with(first));
    (command.contains('\n') || command.contains(" | ")) && !begins
}

#[test]
fn no_command_that_is_shown_forgives_a_line_that_fails() {
    let of_page = |page: String| {
        let blocks = blocks(&read(&page)).into_iter().filter(|block| block.language == "yaml");
        blocks.map(|block| (format!("{page}:{}", block.line), block.text)).collect::<Vec<_>>()
    };
    let examples = fs::read_dir(root().join("deploy/examples")).unwrap().map(|entry| entry.unwrap().path());
    let examples = examples.map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()));
    let (mut count, mut found) = (0, vec![]);
    for (place, yaml) in pages().into_iter().flat_map(of_page).chain(examples) {
        let manifests = manifests(&yaml);
        count += manifests.len();
        found.extend(manifests.iter().any(forgives).then_some(place));
    }
    assert!(found.is_empty() && count > 25, "of {count}: {found:#?}");

    let of = |command: &str| forgives(&serde_json::json!({"spec": {"command": command}}));
    assert!(of("a\nb\n") && of("a | b") && of("\nset -eo pipefail\na"));
    assert!(!of("a\n") && !of("set -eo pipefail\na\n") && !of("# without set -e: it shows what a shell does\na\nb"));
}

/// A word like `ImagePullFailed` is one that the sources, or Kubernetes, know.
#[test]
fn no_page_has_a_word_that_nobody_says() {
    let sources = sources(&root().join("src"));
    let camel_case = Regex::new("`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`").unwrap();
    for page in pages() {
        for found in camel_case.captures_iter(&read(&page)) {
            assert!(sources.contains(&found[1]), "{page}: {}", &found[1]);
        }
    }
}

/// They are reasons of the condition `OutputSaved`.
#[test]
fn every_failure_to_save_is_in_the_page() {
    let source = read("src/contract/report.rs");
    let failures = source.split_once("pub enum SaveFailure {").unwrap().1.split_once("\n}").unwrap().0;
    let page = read("docs/endings.md");
    let variant = Regex::new(r"(?m)^    (\w+),$").unwrap();
    assert!(variant.captures_iter(failures).count() > 5, "{failures}");
    for found in variant.captures_iter(failures) {
        assert!(page.contains(&format!("`{}`", &found[1])), "{}", &found[1]);
    }
}

/// What is in the first column of the tables of a section, and what is in the second.
fn table(page: &str, section: &str) -> Vec<(String, String)> {
    let section = page.split("\n## ").find(|text| text.starts_with(section)).unwrap_or_else(|| panic!("{section}"));
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")).skip(1);
    let cells = |row: &str| {
        let mut cells = row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned());
        (cells.next().unwrap(), cells.next().unwrap())
    };
    rows.map(cells).collect()
}

/// What is wrong with how an ending is said to have been produced.
fn doubt_of_test(words: &[String], how: &str) -> Option<String> {
    let code = Regex::new("`([^`]+)`").unwrap();
    let tests: Vec<_> = code.captures_iter(how).map(|found| found[1].to_owned()).collect();
    let (folder, is_long) = match how.split_once(": ") {
        Some(("real", _)) => ("tests/cluster", false),
        Some(("real, long", _)) => ("tests/cluster", true),
        Some(("simulated", _)) => ("src/plan/tests", false),
        Some(("not produced", why)) if why.len() > 20 => return None,
        _ => return Some(format!("{how}: none of real; real, long; simulated; not produced")),
    };
    if tests.is_empty() {
        return Some(format!("{how}: no test"));
    }
    let shared = Regex::new("crate::(hostile)\\b").unwrap();
    tests.iter().find_map(|test| {
        let parts: Vec<_> = test.trim_start_matches("plan::tests::").split("::").collect();
        let [file, name] = parts.as_slice() else { return Some(format!("{test} is not file::test")) };
        let source_of = |file: &str, kind: &str| {
            fs::read_to_string(root().join(folder).join(file).with_extension(kind)).unwrap_or_default()
        };
        let source = source_of(file, "rs");
        let is_test = Regex::new(&format!(r"#\[(tokio::)?test\]\s+((#\[[^\n]*\]\s+)*)(async )?fn {name}\(")).unwrap();
        let Some(found) = is_test.captures(&source) else { return Some(format!("{folder} has no test {test}")) };
        if found[2].contains("#[ignore") != is_long {
            return Some(format!(
                "{test} is ignored, which is long, and it does not say so; or it does, and is not: {how}"
            ));
        }
        // The tables that it goes through may be elsewhere.
        let tables = shared.captures_iter(&source).map(|found| source_of(&found[1], "rs"));
        let all = [source_of(file, "yaml")].into_iter().chain(tables).fold(source.clone(), |all, more| all + &more);
        let is_named = |word: &&String| Regex::new(&format!(r"\b{word}\b")).unwrap().is_match(&all);
        words.iter().find(|word| !is_named(word)).map(|word| format!("{word} is not in {test}"))
    })
}

#[test]
fn every_ending_and_every_wait_says_which_test_meets_it() {
    let name = Regex::new("`([^`]+)`").unwrap();
    let names = |cell: &str| name.captures_iter(cell).map(|found| found[1].to_owned()).collect::<Vec<_>>();
    let (endings, tried) = (read("docs/endings.md"), read("docs/endings-tried.md"));
    for section in ["Causes", "What a run waits for"] {
        let known: BTreeSet<_> = table(&endings, section).iter().flat_map(|(first, _)| names(first)).collect();
        let listed: Vec<_> = table(&tried, section).iter().flat_map(|(first, _)| names(first)).collect();
        assert!(known.len() > 30, "{section}: {known:?}");
        assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), known, "{section}");
        assert_eq!(listed.len(), known.len(), "{section}: twice");
    }
    let mut doubts = vec![];
    for section in ["Causes", "What a run waits for"] {
        doubts.extend(table(&tried, section).iter().filter_map(|(first, how)| doubt_of_test(&names(first), how)));
    }
    doubts.extend(table(&tried, "Faults").iter().filter_map(|(_, how)| doubt_of_test(&[], how)));
    assert!(doubts.is_empty(), "\n{}", doubts.join("\n"));
    let long =
        "node_loss::a_silent_node_is_given_up_when_the_administrator_set_a_time_and_what_it_says_later_does_not_count";
    let short = "node_loss::a_node_whose_kubelet_is_dead_is_told_in_time_and_its_run_goes_on_when_it_is_back";
    for (word, wrong) in [
        ("NodeLost", "real: `waits::no_such_test`"),
        ("NodeLost", "real: none"),
        ("NodeLost", "guessed: `waits::x`"),
        ("NodeLost", "not produced: no"),
        ("NodeLost", "simulated: `waits`"),
        ("NodeLost", &format!("real: `{long}`")),
        ("NodeNotResponding", &format!("real, long: `{short}`")),
        ("NoSuchCause", &format!("real, long: `{long}`")),
    ] {
        assert!(doubt_of_test(&[word.to_owned()], wrong).is_some(), "{word} {wrong}");
    }
    assert_eq!(doubt_of_test(&["NodeLost".to_owned()], &format!("real, long: `{long}`")), None);
}

/// Paths of fields are in the definition.
#[test]
fn no_page_has_a_field_that_is_none() {
    let crd = serde_json::to_value(bundlerun::api::crd::crd().unwrap()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let is_there = |path: &str| {
        let mut parts = path.split('.');
        parts.try_fold(schema, |node, name| node.get("items").unwrap_or(node).get("properties")?.get(name)).is_some()
    };
    assert!(is_there("status.attempts.cause") && !is_there("status.cause"));
    let code = Regex::new("`((?:spec|status|resources|outputs|retry)(?:[.][a-zA-Z]+)+)`").unwrap();
    let mut count = 0;
    for page in pages() {
        for found in code.captures_iter(&read(&page)) {
            let path = &found[1];
            assert!(is_there(path) || is_there(&format!("spec.{path}")), "{page}: {path}");
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

fn sources(folder: &Path) -> String {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| if path.is_dir() { sources(&path) } else { fs::read_to_string(path).unwrap() }).collect()
}

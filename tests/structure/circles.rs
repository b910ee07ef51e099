//! Files and folders of `src` that use each other in a circle: whoever reads one of them has to read all.
//!
//! Siblings are compared, level by level: a folder is one with what is in it. A file that uses what its own folder's
//! `mod.rs` defines goes up, which is no circle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;

static IMPORT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?m)^ *(?:pub(?:\([^)]*\))? )?use ([^;]+);").unwrap());
static EXPORT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?m)^ *pub(?:\([^)]*\))? use ([^;]+);").unwrap());
static PATH: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(?:crate|super)(?:::\w+)+").unwrap());

/// `plan/pod/mod.rs` is `["plan", "pod"]`.
type Module = Vec<String>;

/// The circles among these files, given as path below `src` and code without tests; each as `folder: a, b, c`.
pub(crate) fn circles(files: &[(String, String)]) -> Vec<String> {
    let files: BTreeMap<Module, &str> = files.iter().map(|(path, code)| (module(path), code.as_str())).collect();
    let exported = exported(&files);
    let mut uses: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (from, code) in &files {
        for path in paths(code) {
            let Some(to) = resolve(from, &path, &files, &exported) else { continue };
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
                let folder = from[..common].to_vec();
                uses.entry(folder).or_default().entry(a.clone()).or_default().insert(b.clone());
            }
        }
    }
    uses.iter()
        .flat_map(|(folder, graph)| {
            let name = if folder.is_empty() { "src".to_owned() } else { folder.join("/") };
            components(graph).into_iter().map(move |circle| format!("{name}: {}", circle.join(", ")))
        })
        .collect()
}

fn module(path: &str) -> Module {
    let mut parts: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

/// All paths that are named in imports or begin with `crate` or `super`.
fn paths(code: &str) -> Vec<String> {
    let mut paths: Vec<String> = IMPORT.captures_iter(code).flat_map(|import| expanded(&import[1])).collect();
    let rest = IMPORT.replace_all(code, "");
    paths.extend(PATH.find_iter(&rest).map(|path| path.as_str().to_owned()));
    paths
}

/// `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expanded(tree: &str) -> Vec<String> {
    let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((before, inside)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().trim().to_owned()];
    };
    let inside = inside.rsplit_once('}').unwrap().0;
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in inside.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(std::mem::take(&mut item));
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    items.push(item);
    let items = items.iter().map(|item| item.trim()).filter(|item| !item.is_empty());
    items.flat_map(|item| expanded(&format!("{}{item}", before.trim()))).collect()
}

/// What a module passes on from one of its children: its name there -> the child.
fn exported(files: &BTreeMap<Module, &str>) -> BTreeMap<Module, Module> {
    let mut exported = BTreeMap::new();
    for (module, code) in files {
        for path in EXPORT.captures_iter(code).flat_map(|export| expanded(&export[1])) {
            let path: Vec<&str> = path.split("::").skip_while(|part| *part == "self").collect();
            let [child, .., name] = path.as_slice() else { continue };
            let child = below(module, child);
            if files.contains_key(&child) {
                exported.insert(below(module, name), child);
            }
        }
    }
    exported
}

fn below(module: &[String], name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// The module that a path leads to; `None`: none of ours.
fn resolve(
    from: &Module,
    path: &str,
    files: &BTreeMap<Module, &str>,
    exported: &BTreeMap<Module, Module>,
) -> Option<Module> {
    let mut parts = path.split("::").peekable();
    let mut at = match *parts.peek()? {
        "crate" => {
            parts.next();
            Vec::new()
        }
        "self" => {
            parts.next();
            from.clone()
        }
        "super" => {
            let mut at = from.clone();
            while parts.next_if_eq(&"super").is_some() {
                at.pop();
            }
            at
        }
        name if files.contains_key(&below(from, name)) => from.clone(),
        _ => return None,
    };
    for part in parts {
        let next = below(&at, part);
        if files.contains_key(&next) {
            at = next;
        } else {
            return Some(exported.get(&next).cloned().unwrap_or(at));
        }
    }
    Some(at)
}

/// Groups of more than one in which each is reached from each.
fn components(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<&str>> {
    let reached = |start: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![start.to_owned()]);
        while let Some(at) = next.pop() {
            for to in graph.get(&at).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> = graph.keys().map(|name| (name.as_str(), reached(name))).collect();
    let mut groups = BTreeSet::new();
    for (name, from_it) in &reached {
        let group: Vec<&str> = reached
            .iter()
            .filter(|(other, from_other)| from_it.contains(**other) && from_other.contains(*name))
            .map(|(other, _)| *other)
            .collect();
        if group.len() > 1 {
            groups.insert(group);
        }
    }
    groups.into_iter().collect()
}

#[test]
fn a_circle_is_found_at_every_level_and_through_what_is_passed_on() {
    let of = |files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(path, code)| ((*path).to_owned(), (*code).to_owned())).collect();
        circles(&files)
    };
    let two = |b: &str| {
        of(&[("m/mod.rs", "mod a;\nmod b;\npub use b::{B, C};"), ("m/a.rs", "use super::b::B;"), ("m/b.rs", b)])
    };
    assert_eq!(two(""), [""; 0]);
    for circle in ["use super::a::A;", "use crate::m::{self, a::{A}};", "fn f() { super::a::f() }"] {
        assert_eq!(two(circle), ["m: a, b"], "{circle}");
    }
    assert_eq!(two("use super::Of;"), [""; 0], "what is its folder's");
    let passed_on = [
        ("m/mod.rs", "mod a;\nmod b;\npub(super) use b::{B, C};"),
        ("m/a.rs", "use super::C;"),
        ("m/b.rs", "use super::a;"),
    ];
    assert_eq!(of(&passed_on), ["m: a, b"]);
    let folders =
        [("a/mod.rs", ""), ("a/x.rs", "use crate::b::y;"), ("b/mod.rs", ""), ("b/y.rs", "use super::super::a::x::X;")];
    assert_eq!(of(&folders), ["src: a, b"]);
    let three =
        [("a.rs", "use crate::b;"), ("b.rs", "use crate::c;"), ("c.rs", "use crate::a;"), ("d.rs", "use crate::a;")];
    assert_eq!(of(&three), ["src: a, b, c"]);
}

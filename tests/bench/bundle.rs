//! Saves or fetches once and says what it took. For `tests/bench/bundle`.
//!
//! usage: bundle save DIR HOST/REPOSITORY TAG | fetch HOST/REPOSITORY:TAG DIR

use bundlerun::bundle::{Access, Limits, Progress, Tree, fetch, save};
use bundlerun::contract::Registries;
use std::path::PathBuf;
use std::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let started = Instant::now();
    let progress = Progress::default();
    match *args {
        ["save", dir, repository, tag] => {
            let root = PathBuf::from(dir);
            let tree = Tree { root, ..Tree::default() };
            let made_by = serde_json::json!({});
            let saved = save(&tree, repository, Some(tag), &made_by, &access(repository), &progress).await?;
            println!("{} files, {} bytes, {} pushed", saved.files, saved.bytes, saved.pushed_bytes);
        }
        ["fetch", reference, dir] => {
            let limits = Limits { entries: u64::MAX, bytes: u64::MAX };
            fetch(reference, None, dir.as_ref(), limits, &access(reference), &progress).await?;
        }
        _ => return Err("usage: bundle save DIR HOST/REPOSITORY TAG | fetch HOST/REPOSITORY:TAG DIR".into()),
    }
    let usage = std::fs::read_to_string("/proc/self/status")?;
    let peak = usage.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("{:.2} s, {}", started.elapsed().as_secs_f64(), peak.split_whitespace().collect::<Vec<_>>().join(" "));
    Ok(())
}

fn access(reference: &str) -> Access {
    let host = reference.split('/').next().unwrap_or_default().to_owned();
    Access { registries: Registries { insecure: vec![host], ca: None }, ..Access::default() }
}

//! Bundles that are compared with their digests.

use crate::common::*;
use bundlerun::bundle::{Access, Progress, Tree, Verified};
use serde_json::Value;

const MIB: u64 = 1 << 20;

const TREE: &str = "
import os
os.makedirs('d')
for number in range(50): open(f'd/{number}', 'wb').write(os.urandom(20_000))
open('large', 'wb').write(os.urandom(5 << 20)); open('empty', 'wb')
os.link('large', 'other-name'); os.symlink('large', 'link')
with open('sparse', 'wb') as file:
    file.truncate(200 << 20)
    for number in range(3): file.seek(number * (50 << 20)); file.write(os.urandom(700_000))
";

async fn verify(reference: &str, access: &Access) -> Verified {
    bundlerun::bundle::verify(reference, access, &Progress::default()).await.unwrap()
}

fn layers(reference: &str) -> Vec<String> {
    let manifest: Value = serde_json::from_slice(&crane(&["manifest", "--insecure", reference])).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_is_what_it_was() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    script("python3", dir.path(), TREE);
    for (tag, max_blob) in [("one", None), ("parts", Some(MIB))] {
        let tree = Tree { max_blob, ..tree(dir.path()) };
        let saved = save(&tree, &registry.repository("a"), tag, &access).await;
        let reference = format!("{}@{}", registry.repository("a"), saved.digest);
        let verified = verify(&reference, &access).await;
        assert_eq!(verified.problems, [""; 0], "{tag}");
        // Both names of the file with two.
        assert_eq!((verified.files, verified.blobs), (54, layers(&reference).len() as u64 + 1), "{tag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_altered_or_lost_is_named() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    script(
        "python3",
        dir.path(),
        "import os; open('data', 'wb').write(os.urandom(3_000_000)); open('x', 'w').write('x')",
    );
    save(&tree(dir.path()), &registry.repository("a"), "t", &registry.access()).await;
    let layer = layers(&registry.repository("a:t"))[0].clone();
    for (fault, expected) in [
        (Fault::Altered, vec![r#""data" has another sha256"#.to_owned(), format!("the blob {layer} has the sha256 ")]),
        (Fault::Status(404), vec![format!("cannot read {layer}")]),
    ] {
        let altered = layer.clone();
        let rule = move |_: &_, path: &str, _| if path.ends_with(&altered) { fault } else { Fault::None };
        let proxy = Proxy::before("127.0.0.1", &registry.host, rule);
        let problems = verify(&proxy.reference("a:t"), &access(&proxy.host)).await.problems;
        let is_expected = problems.iter().zip(&expected).all(|(problem, begin)| problem.starts_with(begin.as_str()));
        assert!(problems.len() == expected.len() && is_expected, "{fault:?}: {problems:?}");
    }
}

//! Archives that attack who unpacks them, as inputs of runs: the real helper stages them. `tests/bundle` has all of them
//! without a cluster; here is the short form.

use bundlerun::bundle::ErrorKind;
use serde_json::json;

use crate::archives::{self, Then};
use crate::common::{Space, cause, is_tried, stdout, together};
use crate::push::push_image;

/// Runs side by side.
const AT_ONCE: usize = 12;

#[tokio::test]
async fn a_hostile_archive_ends_its_run_with_a_cause_or_is_contained() {
    let space = Space::new().await;
    let registry = std::env::var("REGISTRY_HOST").unwrap();
    let mut cases = archives::all();
    assert!(cases.len() > 40);
    let mut index = 0..;
    cases.retain(|_| is_tried(index.next().unwrap(), 0, 3));
    let mut ended = Vec::new();
    for (batch, cases) in cases.chunks(AT_ONCE).enumerate() {
        let (space, registry) = (&space, registry.as_str());
        let runs = cases.iter().enumerate().map(async |(index, (name, layers, then))| {
            let reference = push_image(registry, &format!("hostile/{}", space.name), layers).await;
            // Nothing beside the input has changed: it is alone in its directory, and its neighbour is untouched.
            let command = "ls -A data; test ! -e victim && test \"$(ls -A)\" = \"$(printf 'beside\\ndata')\" && test \"$(cat beside)\" = text";
            let spec = json!({"command": command, "inputs": [
                {"path": "data", "image": {"reference": reference}}, {"path": "beside", "text": "text"}]});
            let status = space.run(&format!("hostile-{batch}-{index}"), spec).await;
            let expected = match then {
                Then::Refused(ErrorKind::TooLarge) => "InputTooLarge",
                Then::Refused(_) => "InputInvalid",
                Then::Holds(_) => "Completed",
            };
            assert_eq!(cause(&status), expected, "{name}: {status:#?}");
            if let Then::Holds(names) = then {
                let top = names.iter().filter(|n| !n.contains('/')).all(|n| stdout(&status).lines().any(|line| line == *n));
                assert!(top, "{name}: {}", stdout(&status));
            }
            (*name, expected)
        });
        ended.extend(together(runs).await);
    }
    for (name, cause) in &ended {
        println!("{name}: {cause}");
    }
    space.end().await;
}

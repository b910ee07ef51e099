//! The tables of causes and of waiting reasons.

use std::collections::BTreeMap;

use crate::api::status::Blame;
use crate::plan::Cause;
use crate::plan::outcome::Outcome;
use crate::plan::words::cause::Verdict;
use crate::plan::words::wait_reason::Reason;

#[test]
fn who_is_to_blame_is_told_what_to_do() {
    for cause in Cause::ALL {
        let outcome = Outcome::new(*cause, "");
        assert_eq!(outcome.blame().is_none(), matches!(outcome.verdict(), Verdict::Succeeded | Verdict::Stopped));
        assert!(outcome.blame() != Some(Blame::User) || outcome.hint().is_some(), "{cause:?}");
        assert!(outcome.verdict() != Verdict::Interrupted || outcome.blame() == Some(Blame::Platform), "{cause:?}");
        assert!(cause.what_to_do().concat().len() > 5, "{cause:?}");
    }
}

#[test]
fn nothing_on_the_object_is_markdown() {
    let code = Outcome::new(Cause::NoShell, "").hint().unwrap();
    assert_eq!(code, "use argv instead of command");
    assert!(Cause::ALL.iter().filter_map(|cause| cause.hint()).all(|hint| !hint.contains(['`', '*'])));
}

/// Alerts and dashboards go by the name alone.
#[test]
fn causes_of_one_name_have_one_verdict() {
    let mut verdicts = BTreeMap::new();
    for cause in Cause::ALL {
        for name in cause.names() {
            assert_eq!(*verdicts.entry(name).or_insert(cause.verdict()), cause.verdict(), "{name}");
        }
    }
    assert!(verdicts.len() > 60, "{verdicts:?}");
}

#[test]
fn a_wait_with_a_deadline_ends_as_a_cause_of_the_table() {
    for reason in Reason::ALL {
        let causes = reason.given_up_as();
        assert_eq!(causes.is_empty(), reason.deadline() == crate::plan::Deadline::None, "{reason:?}");
        assert!(causes.iter().all(|cause| Cause::named(cause).is_some()), "{reason:?}: {causes:?}");
    }
}

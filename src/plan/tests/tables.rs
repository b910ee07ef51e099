//! The tables of causes and of waiting reasons.

use std::collections::BTreeMap;

use crate::api::status::Blame;
use crate::plan::outcome::Outcome;
use crate::plan::words::cause::Verdict;
use crate::plan::words::wait_reason::Reason;
use crate::plan::{Cause, Subject};

#[test]
fn who_is_to_blame_is_told_what_to_do() {
    for cause in Cause::ALL {
        let outcome = Outcome::new(*cause, "");
        let is_wanted = matches!(cause.subject(), Subject::Wanted);
        assert_eq!(outcome.blame().is_none(), is_wanted, "{cause:?}");
        assert_eq!(outcome.blame().is_some(), outcome.hint().is_some() && *cause != Cause::SavedInPart, "{cause:?}");
        assert!(
            is_wanted || outcome.verdict() != Verdict::Interrupted || outcome.blame() == Some(Blame::Platform),
            "{cause:?}"
        );
        assert!(cause.what_to_do().concat().len() > 5, "{cause:?}");
    }
}

/// Who reads `Quota` looks for a quota, and who reads `Policy` for a rule.
#[test]
fn quotas_alone_have_the_blame_quota_and_rules_of_admission_the_blame_policy() {
    let is_of_quota = |cause: &Cause| cause.means().contains("quota");
    for cause in Cause::ALL {
        assert_eq!(cause.blame() == Some(Blame::Quota), is_of_quota(cause), "{cause:?}");
    }
    let of_policy: Vec<_> = Cause::ALL.iter().filter(|cause| cause.blame() == Some(Blame::Policy)).collect();
    let rules = [
        Cause::ImageNotSigned,
        Cause::PodSecurity,
        Cause::PodSecurityOfRoot,
        Cause::PodSecurityOfDriver,
        Cause::ForbiddenByPolicy,
        Cause::ForbiddenByLimitRange,
        Cause::LimitRangeOfRun,
        Cause::LimitRangeOfHelper,
    ];
    assert_eq!(of_policy, rules.iter().collect::<Vec<_>>());
}

#[test]
fn nothing_on_the_object_is_markdown() {
    let code = Outcome::new(Cause::NoShell, "").hint().unwrap();
    assert_eq!(code, "use argv instead of command");
    assert!(Cause::ALL.iter().filter_map(|cause| cause.hint()).all(|hint| !hint.contains(['`', '*'])));
    assert!(Reason::ALL.iter().all(|reason| !reason.wait("").hint().contains(['`', '*'])));
}

/// It is on the object, where no other table is at hand.
#[test]
fn every_wait_has_one_sentence_of_what_to_do() {
    for reason in Reason::ALL {
        let hint = reason.what_to_do();
        assert!(hint.len() > 10 && !hint.contains(". ") && !hint.starts_with("see the cause"), "{reason:?}: {hint}");
    }
}

#[test]
fn a_wait_says_how_long_it_may_last_and_what_follows() {
    for (reason, is_bound, until) in [
        (Reason::QuotaExceeded, false, "no deadline"),
        (Reason::ClaimMissing, true, "the deadline, then the run ends: CreateContainerConfigError"),
        (Reason::ContainerCreating, true, "the deadline, then the attempt ends: StartDeadlineExceeded"),
        (Reason::StagingInputs, false, "deadlines.staging, then the attempt ends: StagingFailed"),
        (Reason::InputDenied, false, "2 minutes, then the run ends: InputDenied"),
        (Reason::InputNotCreated, false, "deadlines.configuration, then the run ends: InputNotFound"),
        (Reason::InputNoAnswer, false, "10 minutes without an answer, then the attempt ends: StagingFailed"),
        (Reason::InputHasNoSnapshot, false, "deadlines.staging, then the run ends: InputNotFound"),
        (Reason::StoreRefused, false, "2 minutes, then the attempt ends: StoreRefused"),
    ] {
        assert_eq!(reason.wait("").until(is_bound), until);
    }
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

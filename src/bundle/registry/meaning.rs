//! What an answer that is not success means, as a table of rules.
//!
//! There are more registries than codes: the same status means several things, which the step, a code in the body, or the
//! words of a sentence tell apart. So rules stand from what is said most exactly to what a status alone means, in groups
//! by status; the first that fits counts. `tests/registry-shapes` has the answers that they were made for.

use super::said::Said;
use crate::bundle::ErrorKind;
use std::ops::RangeInclusive;

/// At which request an answer came: a few mean something else there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To a token endpoint, which is often no part of the registry.
    Token,
    /// The end of an upload, with its body.
    UploadEnd,
    /// Any other to the registry, or to where it redirected us.
    Other,
}

/// What came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) step: Step,
    pub(super) status: u16,
    /// It has no body.
    pub(super) is_empty: bool,
    pub(super) said: &'a Said,
}

impl Answer<'_> {
    fn has_code(&self, any: &[&str]) -> bool {
        any.iter().any(|code| self.said.has_code(code))
    }

    fn says(&self, words: &str) -> bool {
        self.said.says(&[words])
    }
}

/// What it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) kind: ErrorKind,
    /// A few tries within minutes can get over it.
    pub(super) transient: bool,
}

/// It can pass within minutes.
const PASSES: Meaning = Meaning { kind: ErrorKind::Unreachable, transient: true };

const fn stays(kind: ErrorKind) -> Meaning {
    Meaning { kind, transient: false }
}

const fn passes_as(kind: ErrorKind) -> Meaning {
    Meaning { kind, transient: true }
}

struct Rule {
    /// What it is about: for readers, and for tests that name a rule.
    #[cfg_attr(not(test), allow(dead_code))]
    why: &'static str,
    statuses: &'static [RangeInclusive<u16>],
    fits: fn(&Answer) -> bool,
    means: Meaning,
}

impl Rule {
    fn is_of(&self, answer: &Answer) -> bool {
        self.statuses.iter().any(|statuses| statuses.contains(&answer.status)) && (self.fits)(answer)
    }
}

const fn rule(
    why: &'static str,
    statuses: &'static [RangeInclusive<u16>],
    fits: fn(&Answer) -> bool,
    means: Meaning,
) -> Rule {
    Rule { why, statuses, fits, means }
}

const ANY: &[RangeInclusive<u16>] = &[0..=u16::MAX];
const OF_THE_SERVER: &[RangeInclusive<u16>] = &[500..=599];

/// In the order in which they count.
static RULES: [Rule; 27] = [
    // Before all that words can say: words of quotas mean a rate here.
    rule("not now", &[408..=408, 425..=425, 429..=429], |_| true, PASSES),
    // 5xx: nearly all are the server's trouble of the moment.
    rule("no room, by status", &[507..=507], |_| true, stays(ErrorKind::Quota)),
    rule("the disk of the registry is full", OF_THE_SERVER, |a| a.said.is_of_a_full_disk(), stays(ErrorKind::Quota)),
    rule(
        "S3, when an upload of the registry's has more parts than it takes",
        OF_THE_SERVER,
        |a| a.says("part number must be"),
        stays(ErrorKind::TooLarge),
    ),
    rule("trouble of the server's", OF_THE_SERVER, |_| true, PASSES),
    // 404: of an upload, of a token endpoint, and of what was asked for.
    rule(
        "an upload that the registry has forgotten, or whose other half another replica knows",
        &[404..=404],
        |a| a.has_code(&["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"]),
        PASSES,
    ),
    rule(
        "the same without a code",
        &[404..=404],
        |a| a.step == Step::UploadEnd && !a.has_code(&["NAME_UNKNOWN"]),
        PASSES,
    ),
    rule(
        "no registry of the name that was asked for, or a wrong address: nothing that the store lacks",
        &[404..=404, 410..=410],
        |a| a.step == Step::Token && a.said.codes.is_empty(),
        stays(ErrorKind::Denied),
    ),
    rule("it is not there", &[404..=404, 410..=410], |_| true, stays(ErrorKind::NotFound)),
    // What is said of size and quota counts whatever status it comes with.
    rule(
        "a manifest beyond a limit",
        ANY,
        |a| a.has_code(&["MANIFEST_REFERENCE_LIMIT", "MANIFEST_SIZE_LIMIT"]),
        stays(ErrorKind::TooLarge),
    ),
    rule("a quota, in words", ANY, |a| a.said.is_of_quota(), stays(ErrorKind::Quota)),
    rule("too large, by status", &[413..=413], |_| true, stays(ErrorKind::TooLarge)),
    // Refusals that pass, before refusals.
    rule(
        "a store to which the registry has redirected us: a new link is good again",
        &[400..=400, 403..=403],
        |a| a.has_code(&["ExpiredToken", "RequestTimeTooSkewed"]),
        PASSES,
    ),
    rule(
        "the same of S3, in words",
        &[403..=403],
        |a| a.has_code(&["AccessDenied"]) && a.says("request has expired"),
        PASSES,
    ),
    rule("maintenance", &[403..=403, 405..=405], |a| a.said.is_of_maintenance(), PASSES),
    rule("too many layers", &[405..=405], |a| a.said.is_of_too_many_layers(), stays(ErrorKind::TooLarge)),
    rule(
        "a cache of another registry takes no pushes, ever; all else takes them when its maintenance is over",
        &[405..=405],
        |a| a.step != Step::Token && !a.has_code(&["UNSUPPORTED"]),
        PASSES,
    ),
    rule(
        "Harbor tells of a project that does not exist as if we had no login",
        &[401..=401],
        |a| a.says("not found") && a.step != Step::Token,
        stays(ErrorKind::NotFound),
    ),
    // Refusals.
    rule("refused", &[401..=401, 403..=403, 405..=405, 412..=412, 451..=451], |_| true, stays(ErrorKind::Denied)),
    rule(
        "a tag that can be written once",
        &[400..=400, 409..=409],
        |a| a.said.is_of_an_immutable_tag(),
        stays(ErrorKind::Denied),
    ),
    // Uploads that went wrong on the way.
    rule("two writers, or one and a clean-up", &[409..=409], |_| true, PASSES),
    rule("an upload of another length than the registry knows", &[416..=416], |a| a.step == Step::UploadEnd, PASSES),
    rule(
        "a connection that broke before a proxy had all of the body",
        &[400..=400],
        |a| a.is_empty || a.has_code(&["CONNECTIONRESET", "REQUESTCANCELED"]),
        PASSES,
    ),
    rule(
        "an upload that cannot go on; one without any parts never could",
        &[400..=400],
        |a| a.has_code(&["BLOB_UPLOAD_INVALID"]) && !a.says("does not have any parts"),
        PASSES,
    ),
    rule(
        "what came is not what was sent",
        &[400..=400],
        |a| a.has_code(&["DIGEST_INVALID", "SIZE_INVALID"]) && a.step == Step::UploadEnd,
        passes_as(ErrorKind::Invalid),
    ),
    // Refusals with a status that does not say so.
    rule(
        "a token that has run out, with no question for another",
        &[400..=400],
        |a| a.says("token has expired"),
        passes_as(ErrorKind::Denied),
    ),
    rule("refused, by code", ANY, |a| a.has_code(&["DENIED", "UNAUTHORIZED"]), stays(ErrorKind::Denied)),
];

/// What an answer means. Nothing else is known of one that no rule fits than that it does not take what we sent.
pub(super) fn meaning(answer: &Answer) -> Meaning {
    by(RULES.iter(), answer)
}

fn by<'r>(mut rules: impl Iterator<Item = &'r Rule>, answer: &Answer) -> Meaning {
    rules.find(|rule| rule.is_of(answer)).map_or(stays(ErrorKind::Invalid), |rule| rule.means)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case = (Step, u16, String);

    const UNKNOWN_UPLOAD: &str = r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#;
    /// What the fixtures have not.
    const MORE: [(Step, u16, &str, Meaning); 4] = [
        (Step::Other, 404, UNKNOWN_UPLOAD, PASSES),
        (Step::UploadEnd, 404, "", PASSES),
        (Step::UploadEnd, 404, r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#, stays(ErrorKind::NotFound)),
        (Step::Other, 418, "I'm a teapot", stays(ErrorKind::Invalid)),
    ];

    fn cases() -> Vec<Case> {
        let more = MORE.map(|(step, status, body, _)| (step, status, body.to_owned()));
        super::super::shapes::errors().into_iter().chain(more).collect()
    }

    fn meanings(left_out: Option<usize>, cases: &[Case]) -> Vec<Meaning> {
        let rules = || RULES.iter().enumerate().filter(|(number, _)| Some(*number) != left_out).map(|(_, rule)| rule);
        let of = |(step, status, body): &Case| {
            let said = Said::read(body.as_bytes());
            by(rules(), &Answer { step: *step, status: *status, is_empty: body.is_empty(), said: &said })
        };
        cases.iter().map(of).collect()
    }

    #[test]
    fn what_no_fixture_has_is_understood_too() {
        for (step, status, body, means) in MORE {
            assert_eq!(meanings(None, &[(step, status, body.to_owned())]), [means], "{step:?} {status} {body}");
        }
    }

    /// A rule that could be left out is one that nobody would miss when it is broken.
    #[test]
    fn every_rule_is_the_only_one_that_knows_something() {
        let cases = cases();
        let all = meanings(None, &cases);
        let idle: Vec<&str> =
            (0..RULES.len()).filter(|&number| meanings(Some(number), &cases) == all).map(|n| RULES[n].why).collect();
        assert!(idle.is_empty(), "{idle:#?}");
    }
}

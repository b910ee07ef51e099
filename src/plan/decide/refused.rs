//! The API server does not take the pod: how long that is waited for, whose matter it is and what to do, as far as its
//! words tell.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Decision;
use super::invalid::not_of_the_run;
use crate::contract::first_of;
use crate::names;
use crate::plan::facts::node::units;
use crate::plan::outcome::Outcome;
use crate::plan::steps::{InvalidField, Plan, Refusal};
use crate::plan::words::cause::Cause;
use crate::plan::words::message::{Meaning, Source, meaning};
use crate::plan::words::wait_reason::{ABOUT_THE_HELPER, ABOUT_THE_RUN, Reason};

/// A refused pod is tried again after this at first.
const REFUSED_RETRY: Duration = Duration::from_secs(15);
/// The same where the API server failed.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(2);

impl Decision<'_> {
    /// The API server refuses the pod: wait with a deadline, or end.
    pub(super) fn refused(&self, refusal: &Refusal) -> Plan {
        let (reason, message) = match refusal {
            Refusal::NamespaceTerminating(message) => (Reason::NamespaceTerminating, message),
            Refusal::Invalid { message, fields } => return self.invalid(message, fields),
            Refusal::PodSecurity(message) => return self.end(None, &Outcome::new(pod_security(message), message)),
            Refusal::QuotaExceeded(message) => (Reason::QuotaExceeded, message),
            Refusal::Unavailable(message) => (Reason::AdmissionUnavailable, message),
            Refusal::Forbidden(message) => (Reason::Forbidden, message),
            Refusal::NameTaken(pod) => return self.name_taken(pod.as_deref()),
        };
        let hint = about_quota(message);
        let whose = self.limited(message).map(|about| about.words().to_owned());
        let whose = whose.or_else(|| self.counted_by_quota(message));
        let message = &whose.map_or_else(|| message.clone(), |whose| format!("{message}; {whose}"));
        // What fails may pass in a moment; what is refused changes slowly.
        let retry = if reason == Reason::AdmissionUnavailable { UNAVAILABLE_RETRY } else { REFUSED_RETRY };
        let hint = hint.unwrap_or_else(|| reason.wait(message).hint());
        self.not_admitted_with(reason, message, hint, retry, None)
    }

    /// The pod is not taken as it is: for what the run says, which cannot change; or for what somebody else put into the pod,
    /// who may mend it.
    fn invalid(&self, message: &str, fields: &[InvalidField]) -> Plan {
        let pod = self.pins().ok().and_then(|pins| self.made_with(&pins));
        match pod.and_then(|pod| not_of_the_run(fields, &pod, self.run)) {
            Some(words) => self.not_admitted(Reason::PodInvalid, &format!("{message}; {words}"), REFUSED_RETRY),
            None => self.end(None, &Outcome::new(Cause::PodInvalid, message)),
        }
    }

    /// Whose the amounts are that a quota counts, where they are more than the user wrote: `requests.cpu (1 CPU of the run,
    /// 0.01 CPUs of the operator's helper)`.
    fn counted_by_quota(&self, message: &str) -> Option<String> {
        let quota = Quota::in_words(message)?;
        let pins = self.pins().ok()?;
        let needs = self.needs(&pins)?;
        let whose = |(name, amount): &(String, u64)| {
            // The limits of the run's container are its requests.
            let resource = ["requests.", "limits."].iter().find_map(|kind| name.strip_prefix(kind)).unwrap_or(name);
            let shares = needs.shares(resource, *amount);
            (!shares.is_empty()).then(|| format!("{name}{shares}"))
        };
        let whose: Vec<_> = quota.requested.iter().filter_map(whose).collect();
        (!whose.is_empty()).then(|| whose.join(", "))
    }

    /// The container that the words of a `LimitRange` are about, which do not name it; none: it is not known, or both are.
    fn limited(&self, message: &str) -> Option<Container> {
        (meaning(Source::Admission, message) == Some(Meaning::LimitRange)).then_some(())?;
        let pins = self.pins().ok()?;
        Container::limited(&self.made_with(&pins)?, message)
    }
}

/// Whose container it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Run,
    Helper,
}

impl Container {
    fn words(self) -> &'static str {
        match self {
            Self::Run => ABOUT_THE_RUN,
            Self::Helper => ABOUT_THE_HELPER,
        }
    }

    /// By the place in `spec.initContainers[0].resources.requests: Invalid value: "10m": must be less than or equal to
    /// cpu limit of 5m`, or by the amounts in `minimum cpu usage per Container is 50m, but request is 10m`.
    fn limited(pod: &Pod, message: &str) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        if message.contains(".resources.requests: ") {
            let is_about = |list: &str| message.contains(&format!("spec.{list}[0].resources.requests: "));
            return match (is_about("containers"), is_about("initContainers")) {
                (true, false) => Some(Self::Run),
                (false, true) => Some(Self::Helper),
                _ => None,
            };
        }
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let mut clauses = message.split(" usage per Container is ");
        let mut resource = last_word(clauses.next()?);
        let mut about = Vec::new();
        for clause in clauses {
            let (_, found) = clause.split_once(", but ")?;
            let fits =
                containers.clone().filter(|container| is_as_found(container.resources.as_ref(), resource, found));
            about.extend(fits.map(|container| container.name == names::RUN_CONTAINER));
            resource = last_word(clause);
        }
        match about.as_slice() {
            [] => None,
            all if all.iter().all(|is_run| *is_run) => Some(Self::Run),
            all if !all.contains(&true) => Some(Self::Helper),
            _ => None,
        }
    }
}

fn last_word(text: &str) -> &str {
    text.rsplit([' ', '[']).next().unwrap_or_default()
}

/// `request is 10m, maximum ...`, `limit is 64Gi]` or `no limit is specified`.
fn is_as_found(resources: Option<&ResourceRequirements>, resource: &str, found: &str) -> bool {
    let amount_of = |kind: &str| {
        let amounts = resources.and_then(|r| if kind == "limit" { r.limits.as_ref() } else { r.requests.as_ref() });
        amounts.and_then(|amounts| amounts.get(resource)).and_then(|Quantity(text)| units(resource, text))
    };
    let mut words = found.split([' ', ',', ']', '.']);
    match (words.next(), words.next(), words.next()) {
        (Some("no"), Some(kind), _) => amount_of(kind).is_none(),
        (Some(kind), Some("is"), Some(amount)) => units(resource, amount).is_some_and(|n| amount_of(kind) == Some(n)),
        _ => false,
    }
}

/// A quota that is used up: `exceeded quota: team, requested: cpu=1, used: cpu=8, limited: cpu=8`.
struct Quota<'a> {
    name: &'a str,
    requested: Vec<(String, u64)>,
    limited: Vec<(String, u64)>,
}

impl<'a> Quota<'a> {
    fn in_words(message: &'a str) -> Option<Self> {
        (meaning(Source::Admission, message) == Some(Meaning::QuotaUsedUp)).then_some(())?;
        let (name, rest) = message.split_once("exceeded quota: ")?.1.split_once(", requested: ")?;
        let (requested, rest) = rest.split_once(", used: ")?;
        let (_, limited) = rest.split_once(", limited: ")?;
        let amounts = |list: &str| -> Vec<(String, u64)> {
            let pairs = list.split(',').filter_map(|pair| pair.trim().split_once('='));
            pairs.filter_map(|(name, text)| Some((name.to_owned(), units(last_part(name), text)?))).collect()
        };
        Some(Self { name, requested: amounts(requested), limited: amounts(limited) })
    }
}

/// What to do about it, with the names of what there is too little of.
fn about_quota(message: &str) -> Option<String> {
    let Quota { name, requested, limited } = Quota::in_words(message)?;
    let names = |all: &[(String, u64)]| first_of(&all.iter().map(|(name, _)| name).collect::<Vec<_>>());
    let is_more = |(name, amount): &(String, u64)| limited.iter().any(|(other, most)| other == name && amount > most);
    let never: Vec<_> = requested.iter().filter(|asked| is_more(asked)).cloned().collect();
    Some(if never.is_empty() {
        format!(
            "nothing: the run goes on when others end that count for the quota {name}; or ask for less in a new run ({})",
            names(&requested)
        )
    } else {
        format!("ask for less in a new run: the quota {name} has never as much ({})", names(&never))
    })
}

/// `cpu` of `limits.cpu`.
fn last_part(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

/// By the field that helps.
fn pod_security(message: &str) -> Cause {
    match meaning(Source::Admission, message) {
        Some(Meaning::PodSecurityOfDriver) => Cause::PodSecurityOfDriver,
        Some(Meaning::PodSecurityOfRoot) => Cause::PodSecurityOfRoot,
        _ => Cause::PodSecurity,
    }
}

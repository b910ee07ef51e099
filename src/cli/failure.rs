//! What a user is told when something cannot be done: what, why, and what to do about it.

use std::error::Error as StdError;
use std::fmt::Write as _;

use kube::core::Status;

use crate::bundle::ErrorKind;
use crate::names;

use super::clean;

/// A command that could not do what it was asked to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) kind: Kind,
}

/// What follows for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It failed.
    Failed,
    /// It was asked for in a way that is not understood.
    Usage,
    /// Nobody reads what it writes any more, as after `| head`.
    NotRead,
    /// It did not come to an end in the time that it was given.
    TimedOut,
    /// The user ended it by Ctrl-C.
    Interrupted,
    /// Two things are not the same, which is the answer.
    Differs,
}

impl Kind {
    /// As `timeout` and shells have them.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::NotRead => 0,
            Self::Failed | Self::Differs => 1,
            Self::Usage => 2,
            Self::TimedOut => 124,
            Self::Interrupted => 130,
        }
    }
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, kind: Kind::Failed }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::new(message) }
    }

    pub(super) fn timed_out(message: impl Into<String>) -> Self {
        Self { kind: Kind::TimedOut, ..Self::new(message) }
    }

    pub(super) fn interrupted(message: impl Into<String>) -> Self {
        Self { kind: Kind::Interrupted, ..Self::new(message) }
    }

    /// The answer says it already.
    pub(super) fn differs() -> Self {
        Self { kind: Kind::Differs, ..Self::new("they differ") }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// For the standard error: nothing in it moves a cursor.
    pub(super) fn shown(&self) -> String {
        let mut text = format!("error: {}\n", clean::text(&self.message).trim_end());
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint:  {}", clean::text(hint).trim_end());
        }
        text
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let kind = if error.kind() == std::io::ErrorKind::BrokenPipe { Kind::NotRead } else { Kind::Failed };
        Self { kind, ..Self::new(format!("cannot write: {error}")) }
    }
}

impl From<crate::bundle::Error> for Failure {
    fn from(error: crate::bundle::Error) -> Self {
        let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return Self { kind: Kind::NotRead, ..Self::new(error.message) };
        }
        let hint = match error.kind {
            ErrorKind::Denied => Some("log in with `docker login`: its logins are used"),
            ErrorKind::Tls => Some(
                "a registry that speaks plain HTTP is named by --insecure-registry, \
                 a certificate authority by --registry-ca",
            ),
            ErrorKind::Unreachable | ErrorKind::UnknownHost => Some(
                "the store must be reachable from this machine; one inside of the cluster is not, \
                 but for a run that has it as an input",
            ),
            ErrorKind::NotFound => Some("it was deleted from the store, or was never in it"),
            ErrorKind::PathNotFound => Some("`kubectl bundle files` lists what is there"),
            _ => None,
        };
        Self { hint: hint.map(str::to_owned), ..Self::new(error.message) }
    }
}

/// What the API server was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) verb: &'a str,
    /// As in a rule of a role.
    pub(super) resource: &'a str,
    pub(super) name: Option<&'a str>,
    /// None: in all.
    pub(super) namespace: Option<&'a str>,
}

impl Asked<'_> {
    /// Nothing of a namespace.
    fn is_of_cluster(&self) -> bool {
        matches!(self.resource, "nodes" | "version" | "customresourcedefinitions")
    }

    /// Such as `get bundleruns train in namespace a`.
    fn words(&self) -> String {
        let mut words = format!("{} {}", self.verb, self.resource);
        if let Some(name) = self.name {
            let _ = write!(words, " {name}");
        }
        match self.namespace {
            Some(namespace) => _ = write!(words, " in namespace {namespace}"),
            None if self.is_of_cluster() => {}
            None => words.push_str(" in all namespaces"),
        }
        words
    }

    /// The role that comes with the operator, or with Kubernetes, and how it is given.
    fn right(&self) -> String {
        if self.is_of_cluster() {
            return format!(
                "no role for users has this right: ask an administrator for a ClusterRole with {} of {}, and a \
                 ClusterRoleBinding",
                self.verb, self.resource
            );
        }
        let role = match (self.resource, self.verb) {
            (names::PLURAL, "get" | "list" | "watch") => "bundlerun-view, and with it Kubernetes' own view,",
            (names::PLURAL, _) => "bundlerun-edit, and with it Kubernetes' own edit,",
            ("pods/exec", _) => "edit of Kubernetes",
            _ => "view of Kubernetes",
        };
        let binding = if self.namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" };
        format!("the ClusterRole {role} has this right: ask an administrator for a {binding}")
    }

    /// What the answer means.
    pub(super) fn failed(&self, error: &kube::Error) -> Failure {
        match error {
            kube::Error::Api(status) => self.refused(status),
            kube::Error::SerdeError(error) => Failure::new(format!("cannot {}: {error}", self.words())).hint(
                "the definition in the cluster may be of another version than this program: `kubectl bundle version`",
            ),
            kube::Error::Auth(error) => {
                Failure::new(format!("cannot log in to the cluster: {}", chain(error))).hint(LOG_IN)
            }
            other => Failure::new(format!("no answer from the cluster: {}", chain(other)))
                .hint("is it up, and the right one? `kubectl cluster-info`, and --context or --kubeconfig for another"),
        }
    }

    /// A right is missing; the API server has said so.
    pub(super) fn forbidden(&self, said: &str) -> Failure {
        Failure::new(format!("you may not {}: {said}", self.words())).hint(self.right())
    }

    fn refused(&self, status: &Status) -> Failure {
        let words = self.words();
        let said = &status.message;
        let kind = status.details.as_ref().map(|details| details.kind.as_str()).unwrap_or_default();
        match status.code {
            401 => Failure::new(format!("cannot {words}: the cluster does not know you")).hint(LOG_IN),
            // Quotas and admission policies refuse with the same code, and say why.
            403 if said.contains(&format!("cannot {} resource \"", self.verb)) => self.forbidden(said),
            // Of an object it says which.
            404 if self.resource == names::PLURAL && kind.is_empty() => {
                Failure::new(format!("this cluster has no BundleRuns: it lacks the definition {}", names::DEFINITION))
                    .hint("has an administrator installed bundle-operator? Or use another --context")
            }
            404 if kind == "namespaces" => Failure::new(format!("cannot {words}: there is no such namespace"))
                .hint("`kubectl create namespace`, or another -n"),
            404 => Failure::new(format!("cannot {words}: there is none")),
            409 if status.reason == "AlreadyExists" => Failure::new(format!(
                "cannot {words}: there is one of this name"
            ))
            .hint("choose another --name, or leave it out for a generated one; `kubectl bundle rm` deletes a run"),
            410 => Failure::new(format!("cannot {words}: there were too many changes meanwhile")).hint("try it again"),
            _ => Failure::new(format!("cannot {words}:{}", reasons(status))),
        }
    }
}

const LOG_IN: &str = "log in again as your cluster wants it; `kubectl auth whoami` says as whom you are known";

/// What is wrong, one field a line, where the API server says it.
fn reasons(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes: Vec<_> = causes.filter(|cause| !cause.field.is_empty()).collect();
    if causes.is_empty() {
        return format!(" {}", status.message);
    }
    let mut text = String::new();
    for cause in causes {
        let _ = write!(text, "\n  {}: {}", cause.field, cause.message);
    }
    text
}

/// An error and what it comes from, each said once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(verb: &str, name: Option<&str>, status: serde_json::Value) -> String {
        let asked = Asked { verb, resource: names::PLURAL, name, namespace: Some("a") };
        let status: Status = serde_json::from_value(status).unwrap();
        asked.failed(&kube::Error::Api(Box::new(status))).shown()
    }

    #[test]
    fn a_right_that_lacks_is_named_with_the_role_that_has_it() {
        let said = "bundleruns.bundlerun.dev is forbidden: User \"u\" cannot list resource \"bundleruns\"";
        let no_right = shown("list", None, json!({"code": 403, "message": said, "reason": "Forbidden"}));
        assert!(no_right.starts_with("error: you may not list bundleruns in namespace a: "), "{no_right}");
        assert!(no_right.contains("bundlerun-view"), "{no_right}");
        let said = "bundleruns.bundlerun.dev is forbidden: User \"u\" cannot create resource \"bundleruns\"";
        let create = shown("create", None, json!({"code": 403, "message": said, "reason": "Forbidden"}));
        assert!(create.contains("bundlerun-edit"), "{create}");
        let of = |resource: &str, namespace: Option<&str>| {
            let said = format!("{resource} is forbidden: User \"u\" cannot list resource \"{resource}\"");
            let status: Status = serde_json::from_value(json!({"code": 403, "message": said})).unwrap();
            Asked { verb: "list", resource, name: None, namespace }.failed(&kube::Error::Api(Box::new(status))).shown()
        };
        let nodes = of("nodes", None);
        assert!(nodes.starts_with("error: you may not list nodes: "), "{nodes}");
        assert!(nodes.contains("a ClusterRole with list of nodes"), "{nodes}");
        let pods = of("pods", None);
        assert!(pods.starts_with("error: you may not list pods in all namespaces: "), "{pods}");
        assert!(pods.contains("a ClusterRoleBinding") && of("pods", Some("a")).contains("a RoleBinding"), "{pods}");
        let said = "admission webhook \"policy\" denied the request: images cannot be from docker.io";
        let policy = shown("create", None, json!({"code": 403, "message": said, "reason": ""}));
        assert_eq!(policy, format!("error: cannot create bundleruns in namespace a: {said}\n"));
        let quota = shown("create", None, json!({"code": 403, "message": "exceeded quota: gpus", "reason": ""}));
        assert_eq!(quota, "error: cannot create bundleruns in namespace a: exceeded quota: gpus\n");
    }

    #[test]
    fn a_cluster_without_the_definition_is_told_from_a_run_that_is_not_there() {
        let none = shown("list", None, json!({"code": 404, "message": "404 page not found", "reason": "NotFound"}));
        assert!(none.starts_with("error: this cluster has no BundleRuns: it lacks the definition"), "{none}");
        let details = json!({"name": "x", "kind": "bundleruns"});
        let run = json!({"code": 404, "message": "not found", "reason": "NotFound", "details": details});
        assert_eq!(shown("get", Some("x"), run), "error: cannot get bundleruns x in namespace a: there is none\n");
    }

    #[test]
    fn every_field_that_is_wrong_has_a_line() {
        let cause = |field: &str| json!({"reason": "FieldValueInvalid", "message": "is wrong", "field": field});
        let details = json!({"causes": [cause("spec.a"), cause("spec.b")]});
        let status = json!({"code": 422, "message": "long", "reason": "Invalid", "details": details});
        let expected = "error: cannot create bundleruns in namespace a:\n  spec.a: is wrong\n  spec.b: is wrong\n";
        assert_eq!(shown("create", None, status), expected);
    }

    #[test]
    fn nothing_of_a_message_acts_on_the_terminal() {
        assert_eq!(Failure::new("a\u{1b}[2Jb").hint("c\u{7}").shown(), "error: ab\nhint:  c\u{fffd}\n");
    }
}

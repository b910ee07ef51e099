//! What the words of Kubernetes, of container runtimes, of registries and of drivers mean: most of it they put into no
//! field. One table for all, each row with the version whose words it has; `plan/tests/messages.yaml` has messages as they
//! were seen, each with what must become of it.

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The API server and its plugins, policies and webhooks, when a pod is created.
    Admission,
    /// The scheduler.
    Scheduler,
    /// The kubelet, about pulling an image: the words are the runtime's and the registry's.
    Image,
    /// The container runtime, when it creates or starts a container.
    Runtime,
    /// The kubelet, when it evicts a pod.
    Eviction,
}

impl Source {
    pub(crate) const ALL: [Self; 5] = [Self::Admission, Self::Scheduler, Self::Image, Self::Runtime, Self::Eviction];

    /// As metrics have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Scheduler => "scheduler",
            Self::Image => "image",
            Self::Runtime => "runtime",
            Self::Eviction => "eviction",
        }
    }
}

/// What it means for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum Meaning {
    QuotaUsedUp,
    /// A quota counts what the pod does not set.
    QuotaNeedsLimits,
    /// The namespace needs a quota for pods such as this one, and has none.
    QuotaIsMissing,
    LimitRange,
    PodSecurity,
    PodSecurityOfDriver,
    PodSecurityOfRoot,
    NamespaceIsGoing,
    /// The API server, or what it asks, cannot decide for now.
    AdmissionFails,
    /// A policy or a webhook says no.
    PolicyDenies,
    /// A service account or a priority class.
    NameIsMissing,
    RuntimeClassIsMissing,
    OperatorMayNot,
    PodIsInvalid,

    ClaimIsMissing,
    /// No node has room, or none fits.
    NoNodeFits,

    ImageIsMissing,
    ImageIsDenied,
    ImageIsForOtherPlatform,
    /// Its manifest has a format that runtimes no longer take.
    ImageIsTooOld,
    ImageIsNotSigned,
    ImageNameIsInvalid,
    /// The registry's name resolves to nothing.
    HostIsUnknown,
    /// Whether there is such a name is not known: nobody answers who would know, or with something else.
    NameServiceFails,
    RegistryIsUnavailable,
    /// The node, or its way to the registry: a full disk, a certificate, a layer that came damaged.
    NodeFailsToPull,

    /// A Secret, a `ConfigMap` or a key.
    ConfigIsMissing,
    /// The pod must not run as root, and would, or might.
    RootIsForbidden,
    GpuIsUnavailable,
    CudaIsTooNew,
    UserIsUnknown,
    /// WORKDIR or the place of a mount is not what it must be.
    ImageDoesNotFit,
    /// For the container runtime to start anything.
    MemoryIsTooSmall,
    /// An image that is there cannot be mounted as a volume.
    ImageVolumeFails,
    /// The node cannot make or start the container.
    NodeFails,

    EmptyDirIsFull,
    EphemeralStorageIsUsedUp,
    /// The pod had to go for the node's sake.
    NodeIsShort,
}

struct Row {
    source: Source,
    means: Meaning,
    /// All of them are in the message, in lower case.
    words: &'static [&'static str],
}

const fn row(source: Source, means: Meaning, words: &'static [&'static str]) -> Row {
    Row { source, means, words }
}

use Meaning::{
    AdmissionFails, ClaimIsMissing, ConfigIsMissing, CudaIsTooNew, EmptyDirIsFull, EphemeralStorageIsUsedUp,
    GpuIsUnavailable, HostIsUnknown, ImageDoesNotFit, ImageIsDenied, ImageIsForOtherPlatform, ImageIsMissing,
    ImageIsNotSigned, ImageIsTooOld, ImageNameIsInvalid, ImageVolumeFails, LimitRange, MemoryIsTooSmall, NameIsMissing,
    NameServiceFails, NamespaceIsGoing, NoNodeFits, NodeFails, NodeFailsToPull, NodeIsShort, OperatorMayNot,
    PodIsInvalid, PodSecurity, PodSecurityOfDriver, PodSecurityOfRoot, PolicyDenies, QuotaIsMissing, QuotaNeedsLimits,
    QuotaUsedUp, RegistryIsUnavailable, RootIsForbidden, RuntimeClassIsMissing, UserIsUnknown,
};
use Source::{Admission, Eviction, Image, Runtime, Scheduler};

/// The first row that fits counts.
const TABLE: &[Row] = &[
    // Kubernetes 1.36: admission plugins, ValidatingAdmissionPolicy, webhooks.
    row(Admission, QuotaUsedUp, &["exceeded quota"]),
    row(Admission, QuotaNeedsLimits, &["failed quota", "must specify"]),
    row(Admission, PodSecurityOfDriver, &["violates podsecurity", "hostpath"]),
    row(Admission, PodSecurityOfRoot, &["violates podsecurity", "must not set securitycontext.runasnonroot=false"]),
    row(Admission, PodSecurity, &["violates podsecurity"]),
    row(Admission, NamespaceIsGoing, &["because it is being terminated"]),
    row(Admission, NamespaceIsGoing, &["namespaces \"", "not found"]),
    row(Admission, AdmissionFails, &["failed calling webhook"]),
    row(Admission, AdmissionFails, &["failed calling admission webhook"]),
    // A webhook that cannot ask whom it has to ask says no.
    row(Admission, AdmissionFails, &["denied the request", "context deadline exceeded"]),
    row(Admission, AdmissionFails, &["denied the request", "context canceled"]),
    row(Admission, AdmissionFails, &["denied the request", "i/o timeout"]),
    row(Admission, AdmissionFails, &["denied the request", "handshake timeout"]),
    row(Admission, AdmissionFails, &["denied the request", "connection refused"]),
    row(Admission, AdmissionFails, &["denied the request", "connection reset"]),
    row(Admission, AdmissionFails, &["denied the request", "no such host"]),
    row(Admission, AdmissionFails, &["denied the request", "too many requests"]),
    row(Admission, AdmissionFails, &["denied the request", "toomanyrequests"]),
    row(Admission, AdmissionFails, &["denied the request", "unable to handle the request"]),
    row(Admission, AdmissionFails, &["denied the request", "please apply your changes to the latest version"]),
    row(Admission, PolicyDenies, &["denied the request"]),
    row(Admission, PolicyDenies, &["denied request"]),
    row(Admission, PolicyDenies, &["unable to validate against any"]),
    row(Admission, QuotaIsMissing, &["insufficient quota to"]),
    row(Admission, PolicyDenies, &["conflict: runtimeclass."]),
    row(Admission, PolicyDenies, &["conflicts with its namespace node label selector"]),
    row(Admission, PolicyDenies, &["conflict with its namespace"]),
    // The controllers of a new namespace have not come by.
    row(Admission, AdmissionFails, &["error looking up service account", "/default: serviceaccount", "not found"]),
    row(Admission, NameIsMissing, &["error looking up service account", "not found"]),
    row(Admission, AdmissionFails, &["error looking up service account"]),
    row(Admission, AdmissionFails, &["retry after the service account is created"]),
    row(Admission, AdmissionFails, &["no api token found for service account"]),
    row(Admission, AdmissionFails, &["status unknown for quota"]),
    row(Admission, AdmissionFails, &["not yet ready to handle request"]),
    row(Admission, AdmissionFails, &["please apply your changes to the latest version"]),
    row(Admission, AdmissionFails, &["could not find the requested resource"]),
    row(Admission, NameIsMissing, &["no priorityclass with name"]),
    row(Admission, RuntimeClassIsMissing, &["pod rejected: runtimeclass"]),
    row(Admission, OperatorMayNot, &["cannot create resource"]),
    row(Admission, OperatorMayNot, &["cannot set blockownerdeletion"]),
    row(Admission, LimitRange, &["usage per container is"]),
    row(Admission, LimitRange, &["usage per pod is"]),
    row(Admission, LimitRange, &["limit to request ratio per"]),
    // The default limit of one, where the container has a request alone.
    row(Admission, LimitRange, &["resources.requests: invalid value", "must be less than or equal to", "limit of"]),
    row(Admission, PodIsInvalid, &["request is too large"]),
    row(Admission, PodIsInvalid, &["request entity too large"]),
    row(Admission, PodIsInvalid, &["send message larger than max"]),
    row(Admission, PodIsInvalid, &["pod \"", "is invalid:"]),
    row(Admission, AdmissionFails, &["etcdserver:"]),
    row(Admission, AdmissionFails, &["did not complete within"]),
    row(Admission, AdmissionFails, &["unable to handle the request"]),
    row(Admission, AdmissionFails, &["too many requests"]),
    row(Admission, AdmissionFails, &["internal error occurred"]),
    row(Admission, AdmissionFails, &["unauthorized"]),
    // kube-scheduler 1.36.
    row(Scheduler, ClaimIsMissing, &["persistentvolumeclaim \"", "not found"]),
    row(Scheduler, NoNodeFits, &["nodes are available"]),
    row(Scheduler, NoNodeFits, &["no nodes available to schedule pods"]),
    row(Scheduler, NoNodeFits, &["scheduling is blocked due to non-empty scheduling gates"]),
    row(Scheduler, NoNodeFits, &["running prebind plugin"]),
    // The kubelet, and whether the node has room, before anything that the registry says.
    row(Image, ImageNameIsInvalid, &["invalid reference format"]),
    row(Image, ImageNameIsInvalid, &["failed to apply default image tag"]),
    row(Image, NodeFailsToPull, &["no space left on device"]),
    row(Image, NodeFailsToPull, &["input/output error"]),
    row(Image, NodeFailsToPull, &["read-only file system"]),
    row(Image, NodeFailsToPull, &["failed to inspect image"]),
    row(Image, ImageIsNotSigned, &["signature validation failed"]),
    row(Image, ImageIsNotSigned, &["source image rejected"]),
    row(Image, RegistryIsUnavailable, &["pull qps exceeded"]),
    row(Image, RegistryIsUnavailable, &["the registry is unavailable"]),
    // containerd 2.x, CRI-O 1.3x, Docker; registries in the order of OCI's error codes.
    row(Image, ImageIsForOtherPlatform, &["no match for platform"]),
    row(Image, ImageIsForOtherPlatform, &["no matching manifest for"]),
    row(Image, ImageIsForOtherPlatform, &["no image found in image index for architecture"]),
    row(Image, ImageIsForOtherPlatform, &["no image found in manifest list for architecture"]),
    row(Image, ImageIsTooOld, &["no longer supported since containerd"]),
    row(Image, ImageIsTooOld, &["schema 1 image manifests are no longer supported"]),
    row(Image, ImageIsTooOld, &["schema 1 support"]),
    row(Image, ImageIsTooOld, &["manifest.v1+prettyjws", "not supported"]),
    row(Image, RegistryIsUnavailable, &["too many requests"]),
    row(Image, RegistryIsUnavailable, &["toomanyrequests"]),
    row(Image, RegistryIsUnavailable, &["500 internal server error"]),
    row(Image, RegistryIsUnavailable, &["502 bad gateway"]),
    row(Image, RegistryIsUnavailable, &["503 service unavailable"]),
    row(Image, RegistryIsUnavailable, &["504 gateway time"]),
    row(Image, RegistryIsUnavailable, &["(internal server error)"]),
    row(Image, RegistryIsUnavailable, &["(bad gateway)"]),
    row(Image, RegistryIsUnavailable, &["(service unavailable)"]),
    row(Image, RegistryIsUnavailable, &["(gateway time"]),
    // Go's resolver, before what the connection to a registry may say as well: SERVFAIL, and a name server that is
    // silent, not there, or to which there is no way.
    row(Image, HostIsUnknown, &["no such host"]),
    row(Image, NameServiceFails, &["server misbehaving"]),
    row(Image, NameServiceFails, &["temporary failure in name resolution"]),
    row(Image, NameServiceFails, &["dial tcp: lookup "]),
    row(Image, RegistryIsUnavailable, &["i/o timeout"]),
    row(Image, RegistryIsUnavailable, &["handshake timeout"]),
    row(Image, RegistryIsUnavailable, &["client.timeout"]),
    row(Image, RegistryIsUnavailable, &["deadline exceeded"]),
    row(Image, RegistryIsUnavailable, &["connection timed out"]),
    row(Image, RegistryIsUnavailable, &["connection refused"]),
    row(Image, RegistryIsUnavailable, &["connection reset"]),
    row(Image, RegistryIsUnavailable, &["broken pipe"]),
    row(Image, RegistryIsUnavailable, &["network is unreachable"]),
    row(Image, RegistryIsUnavailable, &["no route to host"]),
    row(Image, RegistryIsUnavailable, &["context canceled"]),
    row(Image, RegistryIsUnavailable, &["stream error"]),
    row(Image, RegistryIsUnavailable, &["http2: "]),
    row(Image, RegistryIsUnavailable, &["unexpected eof"]),
    row(Image, RegistryIsUnavailable, &[": eof"]),
    row(Image, NodeFailsToPull, &["x509: "]),
    row(Image, NodeFailsToPull, &["tls: "]),
    row(Image, NodeFailsToPull, &["server gave http response to https client"]),
    row(Image, NodeFailsToPull, &["unexpected commit"]),
    row(Image, NodeFailsToPull, &["failed size validation"]),
    row(Image, NodeFailsToPull, &["content descriptor", "from remote: not found"]),
    row(Image, NodeFailsToPull, &["failed to extract layer"]),
    row(Image, NodeFailsToPull, &["failed to register layer"]),
    row(Image, NodeFailsToPull, &["wrong diff id"]),
    row(Image, NodeFailsToPull, &["filesystem layer verification failed"]),
    row(Image, NodeFailsToPull, &["error creating overlay mount"]),
    // Logins that the platform renews.
    row(Image, NodeFailsToPull, &["authorization token has expired"]),
    row(Image, ImageIsDenied, &["pull access denied"]),
    row(Image, ImageIsDenied, &["authorization failed"]),
    row(Image, ImageIsDenied, &["unauthorized"]),
    row(Image, ImageIsDenied, &["no basic auth credentials"]),
    row(Image, ImageIsDenied, &["invalid username/password"]),
    row(Image, ImageIsDenied, &["403 forbidden"]),
    row(Image, ImageIsDenied, &["403 (forbidden)"]),
    row(Image, ImageIsDenied, &["\": forbidden"]),
    row(Image, ImageIsDenied, &["do not have permission"]),
    row(Image, ImageIsDenied, &["access to the resource is denied"]),
    row(Image, ImageIsDenied, &["denied: permission"]),
    row(Image, ImageIsDenied, &["\": denied"]),
    row(Image, ImageIsMissing, &["manifest unknown"]),
    row(Image, ImageIsMissing, &["name unknown"]),
    row(Image, ImageIsMissing, &["did not resolve to an alias"]),
    row(Image, ImageIsMissing, &["not found"]),
    // containerd 2.1 and later, and the word that the kubelet's interface has for it (CRI-O): before what it says of files and places.
    row(Runtime, ImageVolumeFails, &["failed to mount image volume"]),
    row(Runtime, ImageVolumeFails, &["imagevolumemountfailed"]),
    // The kubelet, before it asks the container runtime.
    row(Runtime, RootIsForbidden, &["container has runasnonroot and image"]),
    row(Runtime, RootIsForbidden, &["runasuser breaks non-root policy"]),
    row(Runtime, NodeFails, &["failed to sync", "cache"]),
    row(Runtime, NodeFails, &["services have not yet been read"]),
    row(Runtime, NodeFails, &["host ip unknown"]),
    row(Runtime, NodeFails, &["subpath"]),
    row(Runtime, ConfigIsMissing, &["couldn't find key"]),
    row(Runtime, ConfigIsMissing, &["secret \"", "not found"]),
    row(Runtime, ConfigIsMissing, &["secrets \"", "not found"]),
    row(Runtime, ConfigIsMissing, &["configmap \"", "not found"]),
    row(Runtime, ConfigIsMissing, &["configmaps \"", "not found"]),
    // The NVIDIA container toolkit's hook and CDI, by way of runc. A condition is one that the image sets.
    row(Runtime, CudaIsTooNew, &["nvidia", "unsatisfied condition"]),
    row(Runtime, CudaIsTooNew, &["requirements not met", "unsatisfied condition"]),
    row(Runtime, GpuIsUnavailable, &["nvidia-container"]),
    row(Runtime, GpuIsUnavailable, &["nvidia-ctk"]),
    row(Runtime, GpuIsUnavailable, &["cdi device"]),
    row(Runtime, GpuIsUnavailable, &["cdi host device"]),
    row(Runtime, GpuIsUnavailable, &["could not apply required modification to oci specification"]),
    row(Runtime, GpuIsUnavailable, &["nvml"]),
    row(Runtime, GpuIsUnavailable, &["/dev/nvidia"]),
    // containerd 2.x, CRI-O, Docker: a USER that is a name, and no such entry or no passwd file to look it up in.
    row(Runtime, UserIsUnknown, &["no users found"]),
    row(Runtime, UserIsUnknown, &["no matching entries in"]),
    row(Runtime, UserIsUnknown, &["etc/passwd: no such file"]),
    row(Runtime, UserIsUnknown, &["statat etc: no such file"]),
    // runc: the container's memory limit is less than it needs itself.
    row(Runtime, MemoryIsTooSmall, &["memory limit too low"]),
    row(Runtime, MemoryIsTooSmall, &["unable to set memory limit to"]),
    row(Runtime, MemoryIsTooSmall, &["memory.limit_in_bytes: device or resource busy"]),
    // The node: before what it says of files, which may be on its own disk.
    row(Runtime, NodeFails, &["deadline exceeded"]),
    row(Runtime, NodeFails, &["is reserved for"]),
    row(Runtime, NodeFails, &["no space left on device"]),
    row(Runtime, NodeFails, &["input/output error"]),
    row(Runtime, NodeFails, &["read-only file system"]),
    row(Runtime, NodeFails, &["stale nfs file handle"]),
    row(Runtime, NodeFails, &["transport endpoint is not connected"]),
    row(Runtime, NodeFails, &["seccomp"]),
    row(Runtime, NodeFails, &["apparmor"]),
    row(Runtime, NodeFails, &["cgroup"]),
    row(Runtime, NodeFails, &["resource temporarily unavailable"]),
    row(Runtime, NodeFails, &["cannot allocate memory"]),
    row(Runtime, NodeFails, &["init-p: "]),
    row(Runtime, NodeFails, &["child's pid"]),
    row(Runtime, NodeFails, &["ttrpc: "]),
    row(Runtime, NodeFails, &["connection refused"]),
    row(Runtime, NodeFails, &["not a device node"]),
    row(Runtime, NodeFails, &["failed to stat"]),
    row(Runtime, NodeFails, &["namespace path"]),
    // What is executed is ours.
    row(Runtime, NodeFails, &["exec: "]),
    row(Runtime, ImageDoesNotFit, &["chdir to cwd"]),
    row(Runtime, ImageDoesNotFit, &["not a directory"]),
    row(Runtime, ImageDoesNotFit, &["is a directory"]),
    row(Runtime, ImageDoesNotFit, &["file name too long"]),
    row(Runtime, ImageDoesNotFit, &["directory onto a file"]),
    // The kubelet's eviction manager, 1.36: for limits; all other evictions are for the node's sake.
    row(Eviction, EmptyDirIsFull, &["usage of emptydir volume"]),
    row(Eviction, NodeIsShort, &["container bundle exceeded its local ephemeral storage limit"]),
    row(Eviction, EphemeralStorageIsUsedUp, &["exceeded its local ephemeral storage limit"]),
    row(Eviction, EphemeralStorageIsUsedUp, &["usage exceeds the total limit of containers"]),
    row(Eviction, NodeIsShort, &["the node was low on resource"]),
    row(Eviction, NodeIsShort, &["the node had condition"]),
];

/// What a message means; `None`: nothing that the table knows. Names that users gave count only where nothing else does:
/// an image may be called `unauthorized`.
pub(in crate::plan) fn meaning(source: Source, message: &str) -> Option<Meaning> {
    let means = row_that_fits(source, message)?.means;
    Some(if means == HostIsUnknown && !is_of_the_user(message) { NameServiceFails } else { means })
}

/// Whether these are words of a policy, a webhook or an admission plugin about a change, rather than of the API server itself.
pub(crate) fn is_told_by_admission(message: &str) -> bool {
    let denies = meaning(Source::Admission, message).is_some_and(|means| means != AdmissionFails);
    denies || message.to_lowercase().contains("failed calling")
}

/// Registries that exist, with all hosts below these domains.
const REGISTRIES: [&str; 8] =
    ["docker.io", "docker.com", "ghcr.io", "quay.io", "gcr.io", "nvcr.io", "registry.k8s.io", "mcr.microsoft.com"];

/// The name that has no host is one that the user wrote, and may be wrong: not that of a proxy, nor of a registry that
/// exists, which the cluster's name service does not know.
fn is_of_the_user(message: &str) -> bool {
    let message = message.to_lowercase();
    let mut looked_up = message.split("lookup ").skip(1).filter_map(|rest| rest.split([' ', ':']).next());
    let exists = |host: &str| {
        let host = host.trim_end_matches('.');
        REGISTRIES
            .iter()
            .any(|known| host.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    };
    !message.contains("proxyconnect") && !looked_up.any(exists)
}

fn row_that_fits(source: Source, message: &str) -> Option<&'static Row> {
    let message = message.to_lowercase();
    let row_for = |message: &str| {
        let fits = |row: &&Row| row.source == source && row.words.iter().all(|words| message.contains(words));
        TABLE.iter().find(fits)
    };
    row_for(&without_names(&message)).or_else(|| row_for(&message))
}

/// The words of the rows that none of these messages meets.
#[cfg(test)]
pub(in crate::plan) fn unmet(messages: &[(Source, String)]) -> Vec<&'static [&'static str]> {
    let met: Vec<_> = messages.iter().filter_map(|(source, message)| row_that_fits(*source, message)).collect();
    let is_unmet = |row: &&Row| !met.iter().any(|met| (met.source, met.words) == (row.source, row.words));
    TABLE.iter().filter(is_unmet).map(|row| row.words).collect()
}

/// Without what is in double quotes, and without the paths of URLs. What is quoted within quotes goes with them.
fn without_names(message: &str) -> String {
    let mut left = String::new();
    let mut rest = message;
    while let Some((before, quoted)) = split_at_quote(rest) {
        left.push_str(&without_paths(before));
        left.push('"');
        rest = match split_at_quote(quoted) {
            Some((_, after)) => {
                left.push('"');
                after
            }
            // It was cut, or the quote stands alone.
            None => quoted,
        };
    }
    left + &without_paths(rest)
}

/// At the first quote that has no backslash before it.
fn split_at_quote(text: &str) -> Option<(&str, &str)> {
    text.match_indices('"').find_map(|(at, _)| {
        let (before, from) = text.split_at_checked(at)?;
        (!before.ends_with('\\')).then_some((before, from.strip_prefix('"')?))
    })
}

/// `https://host/path: words` becomes `https: words`.
fn without_paths(text: &str) -> String {
    let mut pieces = text.split("://");
    let mut left = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(char::is_whitespace).unwrap_or(piece.len());
        let (url, more) = piece.split_at(end);
        if url.ends_with(':') {
            left.push(':');
        }
        left.push_str(more);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_reached() {
        for row in TABLE {
            let message = row.words.join(" ... ").to_uppercase();
            assert_eq!(meaning(row.source, &message), Some(row.means), "{message}");
        }
    }

    #[test]
    fn names_that_users_give_mean_nothing() {
        for (source, message, means) in [
            (
                Image,
                "failed to resolve reference \"r/no-such-host/unauthorized:i/o timeout\": 1: not found",
                ImageIsMissing,
            ),
            (
                Image,
                "unexpected status from HEAD request to https://r/v2/manifest unknown: 502 Bad Gateway",
                RegistryIsUnavailable,
            ),
            (Runtime, "secret \"nvml-cgroup\" not found", ConfigIsMissing),
            (Admission, "pods \"exceeded quota\" is forbidden: no PriorityClass with name x was found", NameIsMissing),
            (Eviction, "Usage of EmptyDir volume \"the node had condition", EmptyDirIsFull),
        ] {
            assert_eq!(meaning(source, message), Some(means), "{message}");
        }
    }

    #[test]
    fn a_name_that_nobody_knows_is_the_user_s_unless_it_is_known_to_exist() {
        for (host, means) in [
            ("lookup rgistry.example.com on 10.96.0.10:53: no such host", HostIsUnknown),
            // Misspelt: what it ends or begins with is no registry.
            ("lookup docker.ioo: no such host", HostIsUnknown),
            ("lookup mydocker.io: no such host", HostIsUnknown),
            ("lookup ghcr.io.example: no such host", HostIsUnknown),
            ("lookup registry-1.docker.io: no such host", NameServiceFails),
            ("lookup ghcr.io. on 10.96.0.10:53: no such host", NameServiceFails),
            ("lookup eu.gcr.io on 10.96.0.10:53: no such host", NameServiceFails),
            ("proxyconnect tcp: dial tcp: lookup proxy.corp: no such host", NameServiceFails),
            ("lookup r.example on [::1]:53: read udp [::1]:4545->[::1]:53: read: connection refused", NameServiceFails),
            ("lookup r.example on 10.96.0.10:53: server misbehaving", NameServiceFails),
            (
                "lookup r.example on 10.96.0.10:53: dial udp 10.96.0.10:53: connect: network is unreachable",
                NameServiceFails,
            ),
            (
                "lookup r.example on 10.96.0.10:53: write udp 10.0.0.2:4545->10.96.0.10:53: no route to host",
                NameServiceFails,
            ),
            (
                "lookup r.example on 10.96.0.10:53: dial tcp 10.96.0.10:53: connect: connection timed out",
                NameServiceFails,
            ),
            ("10.0.0.9:443: connect: network is unreachable", RegistryIsUnavailable),
        ] {
            let message =
                format!("failed to do request: Head \"https://r.example/v2/i/manifests/1\": dial tcp: {host}");
            assert_eq!(meaning(Image, &message), Some(means), "{host}");
        }
    }

    #[test]
    fn what_is_in_quotes_alone_still_counts() {
        let old = "OCI runtime create failed: \"rootfs_linux.go:58: mounting caused \\\"not a directory\\\"\": unknown";
        assert_eq!(meaning(Runtime, old), Some(ImageDoesNotFit));
    }
}

//! What the words of Kubernetes, of container runtimes, of registries and of drivers mean: most of it they put into no
//! field. One table for all, each row with the version whose words it has; `plan/tests/messages.yaml` has messages as they
//! were seen, each with what must become of it.

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum Source {
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

/// What it means for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum Meaning {
    QuotaUsedUp,
    /// A quota counts what the pod does not set.
    QuotaNeedsLimits,
    LimitRange,
    PodSecurity,
    PodSecurityOfDriver,
    PodSecurityOfRoot,
    NamespaceIsGoing,
    WebhookDoesNotAnswer,
    /// A policy or a webhook says no.
    PolicyDenies,
    /// A service account or a priority class.
    NameIsMissing,
    RuntimeClassIsMissing,
    OperatorMayNot,

    ClaimIsMissing,

    ImageIsMissing,
    ImageIsDenied,
    ImageIsForOtherPlatform,
    /// The registry's name resolves to nothing.
    HostIsUnknown,
    RegistryIsUnavailable,

    GpuIsUnavailable,
    CudaIsTooNew,
    UserIsUnknown,

    EmptyDirIsFull,
    EphemeralStorageIsUsedUp,
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
    ClaimIsMissing, CudaIsTooNew, EmptyDirIsFull, EphemeralStorageIsUsedUp, GpuIsUnavailable, HostIsUnknown,
    ImageIsDenied, ImageIsForOtherPlatform, ImageIsMissing, LimitRange, NameIsMissing, NamespaceIsGoing,
    OperatorMayNot, PodSecurity, PodSecurityOfDriver, PodSecurityOfRoot, PolicyDenies, QuotaNeedsLimits, QuotaUsedUp,
    RegistryIsUnavailable, RuntimeClassIsMissing, UserIsUnknown, WebhookDoesNotAnswer,
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
    row(Admission, WebhookDoesNotAnswer, &["failed calling webhook"]),
    row(Admission, PolicyDenies, &["denied the request"]),
    row(Admission, PolicyDenies, &["denied request"]),
    row(Admission, NameIsMissing, &["error looking up service account"]),
    row(Admission, NameIsMissing, &["no priorityclass with name"]),
    row(Admission, RuntimeClassIsMissing, &["runtimeclass"]),
    row(Admission, OperatorMayNot, &["cannot create resource"]),
    row(Admission, LimitRange, &["usage per container is"]),
    row(Admission, LimitRange, &["usage per pod is"]),
    row(Admission, LimitRange, &["limit to request ratio per"]),
    row(Scheduler, ClaimIsMissing, &["persistentvolumeclaim \"", "not found"]),
    // containerd 2.x, CRI-O 1.3x; registries in the order of OCI's error codes.
    row(Image, ImageIsForOtherPlatform, &["no match for platform"]),
    row(Image, ImageIsForOtherPlatform, &["no image found in image index for architecture"]),
    row(Image, ImageIsForOtherPlatform, &["no image found in manifest list for architecture"]),
    row(Image, RegistryIsUnavailable, &["too many requests"]),
    row(Image, RegistryIsUnavailable, &["toomanyrequests"]),
    row(Image, RegistryIsUnavailable, &["500 internal server error"]),
    row(Image, RegistryIsUnavailable, &["502 bad gateway"]),
    row(Image, RegistryIsUnavailable, &["503 service unavailable"]),
    row(Image, RegistryIsUnavailable, &["504 gateway time"]),
    row(Image, RegistryIsUnavailable, &["i/o timeout"]),
    row(Image, RegistryIsUnavailable, &["handshake timeout"]),
    row(Image, RegistryIsUnavailable, &["deadline exceeded"]),
    row(Image, RegistryIsUnavailable, &["connection refused"]),
    row(Image, RegistryIsUnavailable, &["connection reset"]),
    row(Image, RegistryIsUnavailable, &["network is unreachable"]),
    row(Image, RegistryIsUnavailable, &["no route to host"]),
    row(Image, RegistryIsUnavailable, &["server misbehaving"]),
    row(Image, RegistryIsUnavailable, &["unexpected eof"]),
    row(Image, HostIsUnknown, &["no such host"]),
    row(Image, ImageIsDenied, &["pull access denied"]),
    row(Image, ImageIsDenied, &["authorization failed"]),
    row(Image, ImageIsDenied, &["unauthorized"]),
    row(Image, ImageIsDenied, &["authentication required"]),
    row(Image, ImageIsDenied, &["no basic auth credentials"]),
    row(Image, ImageIsDenied, &["403 forbidden"]),
    row(Image, ImageIsDenied, &["access to the resource is denied"]),
    row(Image, ImageIsMissing, &["manifest unknown"]),
    row(Image, ImageIsMissing, &["name unknown"]),
    row(Image, ImageIsMissing, &["not found"]),
    // The NVIDIA container toolkit's hook and CDI, by way of runc. A condition is one that the image sets.
    row(Runtime, CudaIsTooNew, &["nvidia", "unsatisfied condition"]),
    row(Runtime, GpuIsUnavailable, &["nvidia-container"]),
    row(Runtime, GpuIsUnavailable, &["cdi device"]),
    row(Runtime, GpuIsUnavailable, &["nvml"]),
    // containerd 2.x: a USER that is a name, and no such entry or no passwd file to look it up in.
    row(Runtime, UserIsUnknown, &["no users found"]),
    row(Runtime, UserIsUnknown, &["etc/passwd: no such file"]),
    row(Runtime, UserIsUnknown, &["statat etc: no such file"]),
    // The kubelet's eviction manager, 1.36: for limits; all other evictions are for the node's sake.
    row(Eviction, EmptyDirIsFull, &["usage of emptydir volume"]),
    row(Eviction, EphemeralStorageIsUsedUp, &["exceeded its local ephemeral storage limit"]),
    row(Eviction, EphemeralStorageIsUsedUp, &["usage exceeds the total limit of containers"]),
];

/// What a message means; `None`: nothing that the table knows.
pub(in crate::plan) fn meaning(source: Source, message: &str) -> Option<Meaning> {
    let message = message.to_lowercase();
    let fits = |row: &&Row| row.source == source && row.words.iter().all(|words| message.contains(words));
    TABLE.iter().find(fits).map(|row| row.means)
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
}

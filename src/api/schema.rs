//! Patterns, and the schemas of the few Kubernetes types we embed, with our own docs and bounds.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Image reference: `[domain[:port]/]path[:tag][@digest]`, as in
/// <https://pkg.go.dev/github.com/distribution/reference>.
pub(super) const IMAGE: &str = concat!(
    "^((([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*)",
    r"|\[[a-fA-F0-9:]+\])(:[0-9]+)?/)?",
    "[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*",
    "(:[a-zA-Z0-9_][-a-zA-Z0-9_.]{0,127})?(@(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}))?$",
);
/// Where an input is mounted: no empty part, no slash at the end.
pub(super) const PATH: &str = "^/?[^/]+(/[^/]+)*$";
/// A path within a volume, a bundle or an image: relative. Whatever can be a name in a file system can be one here.
pub(super) const RELATIVE_PATH: &str = r"^[^/\x00]+(/[^/\x00]+)*$";
/// Name of an environment variable that every supported Kubernetes version takes.
pub(super) const ENV_NAME: &str = "^[-._a-zA-Z][-._a-zA-Z0-9]*$";
/// Name of an object: DNS-1123 subdomain.
pub(super) const NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Name of a GPU profile: DNS-1123 label.
pub(super) const PROFILE_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Key in the data of a Secret.
pub(super) const DATA_KEY: &str = "^[-._a-zA-Z0-9]+$";
/// Key of a label, an annotation or a taint, but for the length of what is before the slash: see [`LABEL_KEY_LENGTHS`].
pub(super) const LABEL_KEY: &str = concat!(
    "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?",
    "[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$",
);
/// A domain of at most 253 characters, or none.
pub(super) const LABEL_KEY_LENGTHS: &str = "^([^/]{1,253}/)?[^/]*$";
/// Value of a label or taint.
pub(super) const LABEL_VALUE: &str = "^([a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?)?$";

/// Type of a `metav1.Condition`, by its own marker.
const CONDITION_TYPE: &str =
    "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";
/// Reason of a `metav1.Condition`, by its own marker.
pub(crate) const CONDITION_REASON: &str = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";

/// Labels, of a pod or of the nodes it can be on.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
    })
}

/// Annotations.
pub(super) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 8000},
    })
}

/// RFC 3339, as Kubernetes writes times.
pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// `metav1.Condition` list, merged by type.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "pattern": CONDITION_TYPE,
                    "description": "Name of the condition. Example: `Complete`.",
                },
                "status": {
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                    "description": "Whether it holds.",
                },
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": CONDITION_REASON,
                    "description": "One word for why, for programs.",
                },
                "message": {
                    "type": "string",
                    "maxLength": 32768,
                    "description": "One sentence for why, for people.",
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When `status` last changed.",
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "The `metadata.generation` it was derived from.",
                },
            },
        },
    })
}

/// `corev1.Toleration` list.
pub(super) fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "properties": {
                "key": {
                    "type": "string",
                    "maxLength": 317,
                    "description": "Key of the taint; empty with operator Exists: every taint. Example: `dedicated`.",
                },
                "operator": {
                    "type": "string",
                    "enum": ["Exists", "Equal"],
                    "description": "How `value` is compared. Default: Equal.",
                },
                "value": {
                    "type": "string",
                    "maxLength": 63,
                    "pattern": LABEL_VALUE,
                    "description": "Value of the taint. Example: `ml`.",
                },
                "effect": {
                    "type": "string",
                    "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"],
                    "description": "Effect of the taint. Default: all effects.",
                },
                "tolerationSeconds": {
                    "type": "integer",
                    "format": "int64",
                    "description": "With effect NoExecute: seconds the pod stays. Default: for ever.",
                },
            },
        },
    })
}

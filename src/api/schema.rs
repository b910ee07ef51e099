//! Schemas of the few Kubernetes types we embed, with our own docs and bounds.

use schemars::{Schema, SchemaGenerator, json_schema};

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
                "type": {"type": "string", "description": "Name of the condition. Example: `Complete`."},
                "status": {
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                    "description": "Whether it holds.",
                },
                "reason": {"type": "string", "description": "One word for why, for programs."},
                "message": {"type": "string", "description": "One sentence for why, for people."},
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When `status` last changed.",
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
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

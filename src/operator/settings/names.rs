//! Names as Kubernetes takes them: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.

/// Kubernetes' bound of names such as that of a runtime class.
const SUBDOMAIN_MAX_BYTES: usize = 253;
/// Of labels, and of what is behind the domain in their keys.
const LABEL_MAX_BYTES: usize = 63;

/// DNS-1123 label.
pub(super) fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty()
        && name.len() <= LABEL_MAX_BYTES
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// DNS-1123 subdomain.
pub(super) fn is_subdomain(name: &str) -> bool {
    name.len() <= SUBDOMAIN_MAX_BYTES && name.split('.').all(is_label)
}

/// Value of a label.
pub(super) fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

/// Key of a label or annotation: a name, with a domain before it or without.
pub(super) fn is_key(key: &str) -> bool {
    key.split_once('/').map_or(is_name(key), |(domain, name)| is_subdomain(domain) && is_name(name))
}

/// `domain/name`, where the domain is not Kubernetes' own:
/// <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#extended-resources>.
pub(super) fn is_extended_resource(name: &str) -> bool {
    let Some((domain, name)) = name.split_once('/') else { return false };
    is_subdomain(domain) && domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io") && is_name(name)
}

fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= LABEL_MAX_BYTES
        && name.chars().all(inner)
        && ends(name.chars().next())
        && ends(name.chars().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kubernetes_takes() {
        for key in ["a", "A", "a.b/C_d.e", "1"] {
            assert!(is_key(key), "{key}");
        }
        for key in ["", "/", "a/", "/a", "A/b", "a/b/c", "-a", "a_", "a b", &"a".repeat(64)] {
            assert!(!is_key(key), "{key}");
        }
        assert!(is_label_value("") && is_label_value("a_B.c") && !is_label_value("a b") && !is_label_value("-"));
    }
}

//! Kubernetes as the home of what the operator remembers.

use std::path::PathBuf;

use super::fields::Fields;
use super::{ConfigError, invalid};

/// The setting that chooses Kubernetes.
const NAMESPACE: &str = "store.kubernetes.namespace";

/// Kubernetes as the home of what the operator remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesHome {
    /// Namespace of the operator's own objects; one operator in each.
    pub namespace: String,
    /// The one namespace whose clusters are run; those of all when absent.
    pub watch_namespace: Option<String>,
    /// Labels of the clusters that are run; all when absent.
    pub selector: Option<String>,
    /// How the apiserver is reached; as a pod, or else as `kubectl` would, when absent.
    pub kubeconfig: Option<PathBuf>,
}

/// None when what the operator remembers is in a file.
pub(super) fn home(fields: &Fields) -> Result<Option<KubernetesHome>, ConfigError> {
    let Some(namespace) = fields.optional(NAMESPACE) else {
        let others = [
            "store.kubernetes.kubeconfig",
            "store.kubernetes.selector",
            "store.kubernetes.watchNamespace",
        ];
        return match others.into_iter().find(|field| fields.get(field).is_some()) {
            Some(field) => Err(invalid(
                field,
                format!(
                    "{NAMESPACE} is missing: name the namespace for the operator's own objects"
                ),
            )),
            None => Ok(None),
        };
    };
    if fields.get("store.sqlite").is_some() {
        return Err(invalid(
            "store.sqlite",
            format!("{NAMESPACE} is set as well; keep the one where the clusters are remembered"),
        ));
    }
    let home = KubernetesHome {
        namespace,
        watch_namespace: fields.optional("store.kubernetes.watchNamespace"),
        selector: fields.optional("store.kubernetes.selector"),
        kubeconfig: fields.optional("store.kubernetes.kubeconfig").map(PathBuf::from),
    };
    for (field, name) in [
        (NAMESPACE, Some(&home.namespace)),
        ("store.kubernetes.watchNamespace", home.watch_namespace.as_ref()),
    ] {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let good = |name: &String| {
            (1..=63).contains(&name.len())
                && name.chars().all(inner)
                && !name.starts_with('-')
                && !name.ends_with('-')
        };
        if let Some(name) = name.filter(|name| !good(name)) {
            return Err(invalid(
                field,
                format!("`{name}` is not a namespace; its name has 1 to 63 of a-z, 0-9 and -"),
            ));
        }
    }
    Ok(Some(home))
}

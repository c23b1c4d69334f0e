//! By which labels a disruption budget may tell pods apart.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Labels by which a controller names each of its pods.
const OF_ONE_POD: [&str; 3] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "statefulset.kubernetes.io/pod-name",
];

/// A hash of a pod's labels but those that name the pod itself. Pods of one controller mostly have the same, and not always:
/// an operator puts the role of a database onto each of its pods, and has a budget for the master (postgres-operator#611).
pub fn labels_hash(labels: &BTreeMap<String, String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let names_one = |name: &String| OF_ONE_POD.contains(&name.as_str());
    labels.iter().filter(|(name, _)| !names_one(name)).for_each(|label| label.hash(&mut hasher));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_the_pod_itself_does_not_count() {
        let hash = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            labels_hash(&labels.collect())
        };
        let first = hash(&[("app", "pg"), ("statefulset.kubernetes.io/pod-name", "pg-0")]);
        assert_eq!(first, hash(&[("app", "pg"), ("statefulset.kubernetes.io/pod-name", "pg-1")]));
        assert_ne!(first, hash(&[("app", "pg"), ("role", "master")]));
    }
}

//! Whose a node is, by its labels. The engine's, because every adapter has to read the same.

use std::collections::BTreeMap;

use offramp_core::NodeOwner;

/// Reads the labels of a node. Auto Mode is Karpenter underneath, and its nodes carry Karpenter's label as
/// well: it goes first.
pub fn node_owner(labels: &BTreeMap<String, String>) -> NodeOwner {
    if labels.get("eks.amazonaws.com/compute-type").is_some_and(|kind| kind == "auto") {
        NodeOwner::AutoMode
    } else if labels.contains_key("karpenter.sh/nodepool") {
        NodeOwner::Karpenter
    } else if labels.contains_key("eks.amazonaws.com/nodegroup") {
        NodeOwner::ManagedNodeGroup
    } else {
        NodeOwner::SelfManaged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_read_from_the_labels() {
        let check = |labels: &[(&str, &str)], expect: NodeOwner| {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(node_owner(&labels), expect, "{labels:?}");
        };
        check(&[], NodeOwner::SelfManaged);
        check(&[("eks.amazonaws.com/nodegroup", "web")], NodeOwner::ManagedNodeGroup);
        check(&[("karpenter.sh/nodepool", "default")], NodeOwner::Karpenter);
        let auto = ("eks.amazonaws.com/compute-type", "auto");
        check(&[("karpenter.sh/nodepool", "general-purpose"), auto], NodeOwner::AutoMode);
        check(&[("eks.amazonaws.com/compute-type", "fargate")], NodeOwner::SelfManaged);
    }
}

//! Cordon and record, and the exclude label where it has to come with them, are on the node.

use crate::*;

/// They are on it, or there is no node.
pub(crate) fn isolate(case: &Case<'_>, _: &[Stage]) -> Condition {
    match &case.facts.seen.node {
        Seen::Gone => Condition::Holds,
        Seen::Unknown => wait(case.facts.recheck(), Reason::NodeUnknown),
        Seen::Known(node) if case.is_isolated(node) => Condition::Holds,
        Seen::Known(node) => {
            let exclude = case.demands.isolate == Isolation::CordonAndLabel;
            let mut record = case.record(node);
            record.cordoned |= !node.cordoned;
            record.excluded |= exclude && !node.excluded;
            let guard = node.resource_version.clone();
            todo(vec![Action::Isolate { exclude, record, guard }], Reason::Isolating)
        }
    }
}

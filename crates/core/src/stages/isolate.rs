//! Cordon and record, and the exclude label where it has to come with them, are on the node.

use crate::*;

/// They are on it, or there is no node, or it cannot be written.
pub(crate) fn isolate(case: &Case<'_>, _: &[Stage]) -> Condition {
    match &case.facts.seen.node {
        Seen::Gone => Condition::Holds,
        Seen::Unknown => wait(case.facts.recheck(), case.facts.node_unknown()),
        Seen::Known(node) if case.unwritable || case.is_isolated(node) => Condition::Holds,
        Seen::Known(node) => try_to(case, node),
    }
}

/// A node that cannot be written is tried again while everything else goes on.
pub(crate) fn go_on_trying(case: &Case<'_>, _: &[Stage]) -> Condition {
    match &case.facts.seen.node {
        Seen::Known(node) if case.unwritable && !case.is_isolated(node) => try_to(case, node),
        Seen::Known(_) | Seen::Gone | Seen::Unknown => Condition::Holds,
    }
}

fn try_to(case: &Case<'_>, node: &Node) -> Condition {
    let exclude = case.demands.isolate == Isolation::CordonAndLabel;
    let mut record = case.record(node);
    record.cordoned |= !node.cordoned;
    record.excluded |= exclude && !node.excluded;
    let guard = node.resource_version.clone();
    todo(vec![Action::Isolate { exclude, record, guard }], Reason::Isolating)
}

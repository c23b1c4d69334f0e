//! How a claim ended is written into the record of a node that outlives it, so that nobody takes it up again for
//! nothing, and somebody does when the instance is back.

use crate::*;

/// A write that is refused, or that a webhook takes back, is no reason for a job to go on: the sweep looks again.
const TRIES: u32 = 3;

/// It is written, or it cannot be.
pub(crate) fn write_ends(case: &Case<'_>, _: &[Stage]) -> Condition {
    let Facts { job, seen, .. } = case.facts;
    let Seen::Known(Node { record: Some(record), resource_version, .. }) = &seen.node else {
        return Condition::Holds;
    };
    let ended = case.with_ends(record);
    if ended == *record || record.foreign.is_some() || job.memory.record_writes >= TRIES {
        return Condition::Holds;
    }
    todo(vec![Action::WriteRecord { record: ended, guard: resource_version.clone() }], Reason::WritingEnds)
}

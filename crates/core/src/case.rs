//! What the decision is about: the arguments of `step`, together.

use crate::{Job, Observation, Policy, Timestamp};

/// One instance at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'a> {
    pub(crate) job: &'a Job,
    pub(crate) seen: &'a Observation,
    pub(crate) policy: &'a Policy,
    pub(crate) now: Timestamp,
}

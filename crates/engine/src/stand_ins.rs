//! The targets of a target group with what is known of the machines behind them: the gate asks who could stand in. Looked up
//! once for all jobs, and again when something about it changes. In a storm of 500 hooks behind five target groups, each job
//! looked 2,500 targets up at every change of its pods, which took four fifths of the worker's time.

use std::sync::Arc;

use offramp_core::{ClusterName, Group, Target};
use tokio::sync::watch;

use crate::ports::TargetState;

/// What a lookup follows from. Where all of it is the same, so is what is found.
#[derive(Clone)]
pub(crate) struct Basis {
    pub(crate) health: Arc<Vec<TargetState>>,
    /// Who says which of its members leave.
    pub(crate) group: Option<Arc<Group>>,
    /// Of the job.
    pub(crate) cluster: Option<ClusterName>,
    /// How often what the clusters know of nodes has changed, and what jobs say of theirs.
    pub(crate) versions: Vec<u64>,
}

/// Shared by all jobs.
#[derive(Default)]
pub(crate) struct StandIns(watch::Sender<Vec<Found>>);

type Found = (Basis, Arc<[Target]>);

/// One for each target group of a storm. The oldest is dropped first.
const MOST: usize = 64;

impl StandIns {
    /// What was found on this basis, or is now.
    pub(crate) fn find(&self, basis: &Basis, look: impl FnOnce() -> Arc<[Target]>) -> Arc<[Target]> {
        let known =
            self.0.borrow().iter().find(|(known, _)| known.is(basis)).map(|(_, found)| Arc::clone(found));
        known.unwrap_or_else(|| {
            let found = look();
            self.0.send_modify(|all| {
                // What has changed never matches again.
                all.retain(|(known, _)| known.versions == basis.versions);
                all.drain(..(all.len() + 1).saturating_sub(MOST));
                all.push((basis.clone(), Arc::clone(&found)));
            });
            found
        })
    }
}

impl Basis {
    /// What is found on the one holds on the other.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let same_group = match (&self.group, &other.group) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one.leaving == other.leaving,
            (one, other) => one.is_none() && other.is_none(),
        };
        Arc::ptr_eq(&self.health, &other.health)
            && self.versions == other.versions
            && self.cluster == other.cluster
            && same_group
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::learning::tests::world::{group, other};

    #[test]
    fn what_nothing_has_changed_about_is_looked_up_once() {
        let (stand_ins, health) = (StandIns::default(), Arc::new(Vec::new()));
        let blue = Basis { health, group: None, cluster: Some("blue".into()), versions: vec![1, 1] };
        let looks = |basis: &Basis| {
            let mut looked = false;
            stand_ins.find(basis, || {
                looked = true;
                Arc::default()
            });
            looked
        };
        assert_eq!([looks(&blue), looks(&blue)], [true, false]);
        let leaving = BTreeSet::from([other()]);
        let of = |leaving: BTreeSet<_>| Some(Arc::new(Group { leaving, ..group(&[]) }));
        let others = [
            Basis { versions: vec![2, 1], ..blue.clone() },
            Basis { cluster: None, ..blue.clone() },
            Basis { health: Arc::new(Vec::new()), ..blue.clone() },
            Basis { group: of(BTreeSet::new()), ..blue.clone() },
            Basis { group: of(leaving), ..blue },
        ];
        assert_eq!(others.each_ref().map(&looks), [true; 5]);
        assert!(
            !looks(&Basis { group: of(BTreeSet::from([other()])), ..others[4].clone() }),
            "it says the same"
        );
    }
}

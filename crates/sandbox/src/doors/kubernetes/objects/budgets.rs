//! `spec` and `status` of a PodDisruptionBudget.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::doors::kubernetes::kinds::Health;
use crate::world::cluster::Budget;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BudgetSpec<'a> {
    min_available: usize,
    selector: MatchLabels<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MatchLabels<'a> {
    match_labels: &'a BTreeMap<String, String>,
}

impl<'a> BudgetSpec<'a> {
    pub(super) const fn of(budget: &'a Budget) -> Self {
        Self { min_available: budget.min_available, selector: MatchLabels { match_labels: &budget.selector } }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BudgetStatus {
    expected_pods: usize,
    current_healthy: usize,
    desired_healthy: usize,
    disruptions_allowed: usize,
}

impl BudgetStatus {
    pub(super) const fn of(budget: &Budget, health: Health) -> Self {
        Self {
            expected_pods: health.expected,
            current_healthy: health.healthy,
            desired_healthy: budget.min_available,
            disruptions_allowed: health.allowed(budget),
        }
    }
}

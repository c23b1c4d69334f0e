//! A look at the configured target groups at the start: one that does not exist, or lies in another Region,
//! would otherwise just never be deregistered.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{AccountRegion, TargetGroupArn};
use offramp_engine::{ConfiguredTargetGroup, Fault, Metrics, Sessions, region_of};

/// Between two tries where ELB does not answer: the look is not urgent.
const AGAIN: Duration = Duration::from_secs(30);
/// For one call. The engine's own limit for its calls.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at each once, with pauses until AWS answers, and counts what cannot be used.
pub(crate) async fn check(
    sessions: &dyn Sessions,
    account_region: &AccountRegion,
    target_groups: &[TargetGroupArn],
    metrics: &Metrics,
) {
    let mut waiting: Vec<&TargetGroupArn> = target_groups.iter().collect();
    let mut counts: BTreeMap<ConfiguredTargetGroup, usize> = BTreeMap::new();
    while !waiting.is_empty() {
        let mut unread = Vec::new();
        for arn in waiting {
            match look(sessions, account_region, arn).await {
                Ok(state) => {
                    *counts.entry(state).or_default() += 1;
                    warn(arn, account_region, state);
                }
                Err(Fault::Retry(_)) => unread.push(arn),
                Err(fault) => {
                    *counts.entry(ConfiguredTargetGroup::Unread).or_default() += 1;
                    tracing::warn!("configured target group {arn}: {fault}");
                }
            }
        }
        for state in ConfiguredTargetGroup::ALL {
            let waiting = if state == ConfiguredTargetGroup::Unread { unread.len() } else { 0 };
            metrics
                .configured_target_groups(state, counts.get(&state).copied().unwrap_or_default() + waiting);
        }
        waiting = unread;
        if !waiting.is_empty() {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn look(
    sessions: &dyn Sessions,
    account_region: &AccountRegion,
    arn: &TargetGroupArn,
) -> Result<ConfiguredTargetGroup, Fault> {
    let region = account_region.region.as_ref().map(|region| region.as_str());
    if region_of(arn).is_some_and(|theirs| Some(theirs) != region) {
        return Ok(ConfiguredTargetGroup::OtherRegion);
    }
    let targets = sessions.targets(account_region)?;
    let read = tokio::time::timeout(PATIENCE, targets.settings(arn)).await;
    let found = read.unwrap_or_else(|_| Err(Fault::Retry("no answer".to_owned())))?;
    Ok(found.map_or(ConfiguredTargetGroup::Missing, |_| ConfiguredTargetGroup::Found))
}

fn warn(arn: &TargetGroupArn, account_region: &AccountRegion, state: ConfiguredTargetGroup) {
    let region = account_region.region.as_ref().map_or("", |region| region.as_str());
    match state {
        ConfiguredTargetGroup::Missing => tracing::warn!(
            "configured target group {arn} does not exist: nothing is deregistered from it; compare target_groups \
             with `aws elbv2 describe-target-groups`"
        ),
        ConfiguredTargetGroup::OtherRegion => tracing::warn!(
            "configured target group {arn} is not in {region}, the Region of the queue: it is looked into only for \
             instances whose notices come from its own Region"
        ),
        ConfiguredTargetGroup::Found | ConfiguredTargetGroup::Unread => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use offramp_core::{AccountRegion, TargetGroupArn};
    use offramp_engine::{Clock, Metrics};
    use offramp_sandbox::fleet::{App, Entrance, Pool};
    use offramp_sandbox::{Delays, Fleet, Sandbox};
    use prometheus::{Registry, TextEncoder};

    use super::check;

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_used_is_counted() {
        let clock = Clock::system();
        let entrance = Some(Entrance::new(30_080, 1.0));
        let fleet = Fleet::new(clock.now(), Delays::demo(), 1)
            .cluster("blue")
            .pool(Pool::new("workers", 1))
            .app(App { entrance, ..App::new("web", 1) });
        let sandbox = Sandbox::new(fleet.build(), clock);
        let found =
            sandbox.peek(|world| world.balancers.all().map(|group| group.arn.clone()).next()).unwrap();
        let missing = TargetGroupArn::new(found.as_str().replace("targetgroup/", "targetgroup/not-"));
        let elsewhere = TargetGroupArn::new(found.as_str().replace(":eu-west-1:", ":eu-central-1:"));
        let account_region =
            AccountRegion { account: Some("111122223333".into()), region: Some("eu-west-1".into()) };
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, []).unwrap();
        // The first call gets no answer that can be used, and is made again.
        sandbox.with(|world| {
            world.faults.inject("elbv2.DescribeTargetGroups", 1, offramp_sandbox::faults::Injected::Throttle);
        });
        let configured = [found, missing, elsewhere];
        let looked = check(&sandbox, &account_region, &configured, &metrics);
        tokio::time::timeout(Duration::from_secs(60), looked).await.unwrap();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in ["found\"} 1", "missing\"} 1", "other_region\"} 1", "unread\"} 0"] {
            let line = format!("offramp_configured_target_groups{{state=\"{line}");
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
    }
}

//! Where calls about an instance go: the account and Region that its events name.

use offramp_core::{AccountRegion, HookKey, Job, Notice, TargetGroupArn};

/// Where the notice says that its instance is.
fn of_notice(notice: &Notice, default: &AccountRegion) -> AccountRegion {
    filled(notice.account_region.clone(), default)
}

/// What an event leaves open, as a hook that came straight to SQS leaves the Region, is filled from `default`, which
/// is the queue's.
pub(crate) fn filled(place: AccountRegion, default: &AccountRegion) -> AccountRegion {
    let AccountRegion { account, region } = place;
    AccountRegion {
        account: account.or_else(|| default.account.clone()),
        region: region.or_else(|| default.region.clone()),
    }
}

/// Where the instance of a job is: as the first notice says that names a Region, because an instance is in one.
pub(crate) fn of_job(job: &Job, default: &AccountRegion) -> AccountRegion {
    let named = job.notices.iter().find(|notice| notice.account_region.region.is_some());
    named.or(job.notices.first()).map_or_else(|| default.clone(), |notice| of_notice(notice, default))
}

/// The Region in which a target group is: `arn:PARTITION:elasticloadbalancing:REGION:ACCOUNT:…`.
pub fn region_of(target_group: &TargetGroupArn) -> Option<&str> {
    target_group.as_str().split(':').nth(3)
}

/// Where the group of a hook is: as its own notice says, where it names a Region.
pub(crate) fn of_hook(hook: &HookKey, job: &Job, default: &AccountRegion) -> AccountRegion {
    let own = job.hooks().find(|(notice, own)| own.key == *hook && notice.account_region.region.is_some());
    own.map_or_else(|| of_job(job, default), |(notice, _)| of_notice(notice, default))
}

#[cfg(test)]
mod tests {
    use offramp_core::{Delivery, Hook, NoticeKind, Passage, SpotAction, Timestamp};

    use super::*;

    fn place(region: Option<&str>) -> AccountRegion {
        AccountRegion { account: Some("111122223333".into()), region: region.map(Into::into) }
    }

    #[test]
    fn each_notice_says_where_its_calls_go() {
        let at = Timestamp::from_millis(0);
        let key = |name: &str| HookKey { group: "g".into(), name: name.into(), token: None };
        let hook = |name: &str| {
            NoticeKind::Hook(Hook { key: key(name), cluster_hint: None, passage: Passage::Ending })
        };
        let notice = |id: &str, kind, region| Notice {
            id: id.into(),
            instance: offramp_core::InstanceId::parse("i-0b1c2d3e4f5061728").unwrap(),
            at,
            account_region: place(region),
            kind,
        };
        let delivery = Delivery { at, redelivered: false };
        let queue = place(Some("eu-west-1"));
        // It came straight to SQS.
        let mut job = Job::new(notice("a", hook("direct"), None), delivery);
        assert_eq!(of_job(&job, &queue), queue);
        job.join(notice("b", NoticeKind::Spot(SpotAction::Terminate), Some("eu-central-1")), delivery);
        job.join(notice("c", hook("forwarded"), Some("eu-south-2")), delivery);
        assert_eq!(of_job(&job, &queue), place(Some("eu-central-1")));
        assert_eq!(of_hook(&key("direct"), &job, &queue), place(Some("eu-central-1")));
        assert_eq!(of_hook(&key("forwarded"), &job, &queue), place(Some("eu-south-2")));
    }
}

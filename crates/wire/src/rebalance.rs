//! "EC2 Instance Rebalance Recommendation": an elevated risk of interruption.
//!
//! Page: docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html.

use offramp_core::{Notice, NoticeKind};
use serde::Deserialize;

use crate::envelope::Event;
use crate::error::ParseError;
use crate::field::Place;
use crate::json::Text;

/// The detail-type of EventBridge.
pub(crate) const DETAIL_TYPE: &str = "EC2 Instance Rebalance Recommendation";

const PLACE: Place = Place::of("a rebalance recommendation");

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Recommendation<'a> {
    #[serde(borrow)]
    instance_id: Text<'a>,
}

/// Reads a rebalance recommendation.
pub(crate) fn of_event(event: &Event<'_>) -> Result<Notice, ParseError> {
    let detail: Recommendation<'_> = event.detail(PLACE)?;
    let instance = PLACE.detail().instance("instance-id", &detail.instance_id)?;
    event.notice(PLACE, instance, NoticeKind::Rebalance)
}

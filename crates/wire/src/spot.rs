//! "EC2 Spot Instance Interruption Warning": two minutes before EC2 takes an instance back.
//!
//! Page: docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html.

use offramp_core::{Notice, NoticeKind, SpotAction};
use serde::Deserialize;

use crate::envelope::Event;
use crate::error::ParseError;
use crate::field::Place;
use crate::json::Text;

/// The detail-type of EventBridge.
pub(crate) const DETAIL_TYPE: &str = "EC2 Spot Instance Interruption Warning";

const PLACE: Place = Place::of("a spot interruption notice");

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Interruption<'a> {
    #[serde(borrow)]
    instance_id: Text<'a>,
    #[serde(borrow)]
    instance_action: Text<'a>,
}

/// Reads a spot interruption notice.
pub(crate) fn of_event(event: &Event<'_>) -> Result<Notice, ParseError> {
    interruption(event, PLACE)
}

/// Reads a warning that EC2 takes an instance back in two minutes.
pub(crate) fn interruption(event: &Event<'_>, place: Place) -> Result<Notice, ParseError> {
    let detail: Interruption<'_> = event.detail(place)?;
    let instance = place.detail().instance("instance-id", &detail.instance_id)?;
    event.notice(place, instance, NoticeKind::Spot(action(&detail.instance_action)))
}

/// Whatever the word, EC2 takes the instance in two minutes, and refusing to read the notice would cost
/// the requests in flight. An unknown or missing one is read as `stop`: everything is drained in time as
/// for `terminate`, and nothing assumes that the instance never comes back.
fn action(text: &Text<'_>) -> SpotAction {
    match text.get() {
        Some("terminate") => SpotAction::Terminate,
        Some("hibernate") => SpotAction::Hibernate,
        Some(_) | None => SpotAction::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_action_drains_and_may_come_back() {
        let check = |text: Text<'_>, expect: SpotAction| assert_eq!(action(&text), expect, "{text:?}");
        check(Text::Is("terminate".into()), SpotAction::Terminate);
        check(Text::Is("stop".into()), SpotAction::Stop);
        check(Text::Is("hibernate".into()), SpotAction::Hibernate);
        check(Text::Is("evaporate".into()), SpotAction::Stop);
        check(Text::Is("".into()), SpotAction::Stop);
        check(Text::Absent, SpotAction::Stop);
        check(Text::Not("a number"), SpotAction::Stop);
    }
}

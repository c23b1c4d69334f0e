//! "EC2 Capacity Reservation Instance Interruption Warning": two minutes before EC2 takes an instance back
//! that runs in an interruptible Capacity Reservation or in a Capacity Block. It has the fields of a spot
//! interruption notice, and one action alone: the instance is terminated.
//!
//! Pages on docs.aws.amazon.com/AWSEC2/latest/UserGuide: monitor-interruptible-cr.html,
//! capacity-blocks-monitor.html. The first of them has had another detail-type; both are read.

use offramp_core::{Notice, NoticeKind};

use crate::envelope::Event;
use crate::error::ParseError;
use crate::field::Place;
use crate::spot;

/// The detail-type of EventBridge.
pub(crate) const DETAIL_TYPE: &str = "EC2 Capacity Reservation Instance Interruption Warning";
/// As an earlier edition of the page had it.
pub(crate) const EARLIER_DETAIL_TYPE: &str =
    "EC2 Interruptible Capacity Reservation Instance Interruption Warning";

const PLACE: Place = Place::of("a capacity reservation interruption warning");

/// Reads the warning about one instance.
pub(crate) fn of_event(event: &Event<'_>) -> Result<Notice, ParseError> {
    let notice = spot::interruption(event, PLACE)?;
    Ok(Notice { kind: NoticeKind::CapacityReservation, ..notice })
}

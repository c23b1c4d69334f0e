//! EC2 takes an instance back that runs in an interruptible Capacity Reservation or a Capacity Block, two minutes
//! from the event's time on: it terminates it, and the rest is as for spot.

use crate::triggers::spot;
use crate::*;

pub(super) const ROW: Row = Row { trigger: Trigger::CapacityReservation, ..spot::TERMINATE };

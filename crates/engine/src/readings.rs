//! What AWS says about the instance of one job. Each fact is read by itself, has an age, and arrives by itself: no slow
//! source holds up the others, and none holds up what the watches show.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use offramp_core::{AccountRegion, Group, GroupName, Job, Membership, Seen, TargetGroupArn, Timestamp};

use crate::batch::Dated;
use crate::calls::Calls;
use crate::clock::Clock;
use crate::ports::{Fault, TargetGroupSettings, TargetState};

/// A reading may be empty, and lives for a minute: core wants one from the end of that.
const SECOND_READING: Duration = Duration::from_secs(55);

/// One target group, as far as it can be read: its settings, and all its targets.
pub(crate) type TargetGroupReading = (TargetGroupSettings, Arc<Vec<TargetState>>);

/// What AWS has said so far about one instance, and what is being read.
pub(crate) struct Readings {
    calls: Calls,
    clock: Clock,
    place: AccountRegion,
    membership: Fact<Membership>,
    group_name: Option<GroupName>,
    group: Fact<Arc<Group>>,
    target_groups: BTreeMap<TargetGroupArn, Fact<TargetGroupReading>>,
    /// When we last registered a target, or may have changed one: what was read before shows it otherwise.
    targets_changed_at: Timestamp,
    in_flight: FuturesUnordered<BoxFuture<'static, Arrived>>,
}

/// One fact: what is known of it, and whether it is being read.
struct Fact<T> {
    newest: Option<Reading<T>>,
    /// A reading is on its way, which will know of what happened by then.
    awaited: Option<Timestamp>,
}

struct Reading<T> {
    /// It was asked for with what had happened by then in mind.
    since: Timestamp,
    /// When it was asked for: it may be older than the request.
    read_at: Timestamp,
    found: Result<Option<T>, Fault>,
}

/// A reading that has come back.
enum Arrived {
    Membership(Reading<Membership>),
    Group(GroupName, Reading<Arc<Group>>),
    TargetGroup(TargetGroupArn, Reading<TargetGroupReading>),
}

impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self { newest: None, awaited: None }
    }
}

impl<T> Fact<T> {
    /// The newest reading, if it knows of what has happened by `since`.
    fn known_since(&self, since: Timestamp) -> Option<&Reading<T>> {
        self.newest.as_ref().filter(|reading| reading.since >= since)
    }

    fn seen_since(&self, since: Timestamp) -> Seen<&T> {
        match self.known_since(since).map(|reading| &reading.found) {
            Some(Ok(Some(value))) => Seen::Known(value),
            Some(Ok(None)) => Seen::Gone,
            Some(Err(_)) | None => Seen::Unknown,
        }
    }

    /// Whether it has to be read, and is from now on: nothing is known that is new enough, and nothing that would be was on
    /// its way.
    fn begins(&mut self, since: Timestamp, oldest: Timestamp) -> bool {
        let is_fresh = self.known_since(since).is_some_and(|reading| reading.read_at >= oldest);
        let is_awaited = self.awaited.is_some_and(|awaited| awaited >= since);
        let begins = !is_fresh && !is_awaited;
        if begins {
            self.awaited = Some(since);
        }
        begins
    }

    fn take(&mut self, reading: Reading<T>) {
        self.awaited.take_if(|awaited| *awaited == reading.since);
        // One that was asked for later may have been faster: it knows of all that the slow one knows.
        let since = self.newest.as_ref().map_or(reading.since, |newest| newest.since.max(reading.since));
        let newest = match self.newest.take() {
            Some(newest) if newest.read_at > reading.read_at => newest,
            Some(_) | None => reading,
        };
        self.newest = Some(Reading { since, ..newest });
    }

    fn read_at(&self) -> Option<Timestamp> {
        Some(self.newest.as_ref()?.read_at)
    }

    fn fault(&self) -> Option<&Fault> {
        self.newest.as_ref()?.found.as_ref().err()
    }
}

impl<T> Reading<T> {
    /// What cannot be read is not known at this moment, however long the call took: nobody waits for the next one, which may
    /// hang as well (seed 21169).
    fn new(since: Timestamp, clock: &Clock, answer: Result<Dated<Option<T>>, Fault>) -> Self {
        match answer {
            Ok(Dated { read_at, value }) => Self { since, read_at, found: Ok(value) },
            Err(fault) => Self { since, read_at: clock.now(), found: Err(fault) },
        }
    }
}

/// What nothing waits for is read again after this: twelve times in an hour, each for the instance and for every target group.
const BACKGROUND: Duration = Duration::from_secs(300);
/// A group and its hooks change by deployments, and take two calls. Who else leaves it counts at the gate.
const GROUP: Duration = Duration::from_secs(60);

/// What is asked about.
pub(crate) struct Questions {
    pub(crate) place: AccountRegion,
    /// Some notice asks for the target groups, or we have deregistered something. A rebalance recommendation alone never
    /// touches one.
    pub(crate) end_traffic: bool,
    /// Target groups beside those that are attached to the group.
    pub(crate) others: BTreeSet<TargetGroupArn>,
}

impl Readings {
    pub(crate) fn new(calls: Calls, clock: Clock, place: AccountRegion) -> Self {
        Self {
            calls,
            clock,
            place,
            membership: Fact::default(),
            group_name: None,
            group: Fact::default(),
            target_groups: BTreeMap::new(),
            targets_changed_at: Timestamp::default(),
            in_flight: FuturesUnordered::new(),
        }
    }

    /// Asks for what is not known, or older than `read_by`, where that is over, and is not being read already.
    pub(crate) fn refresh(
        &mut self,
        job: &Job,
        questions: &Questions,
        read_by: Option<Timestamp>,
        now: Timestamp,
    ) {
        if self.place != questions.place {
            *self = Self::new(self.calls.clone(), self.clock.clone(), questions.place.clone());
        }
        let read_by = read_by.filter(|at| *at <= now);
        let oldest = read_by.unwrap_or_default().max(now - BACKGROUND);
        let since = changed_at(job);
        if self.membership.begins(since, oldest) {
            let (memberships, place, clock) =
                (self.calls.memberships.clone(), self.place.clone(), self.clock.clone());
            let instance = job.instance.clone();
            self.in_flight.push(Box::pin(async move {
                let answer = memberships.ask_since(&place, instance, since.max(oldest)).await;
                Arrived::Membership(Reading::new(since, &clock, answer))
            }));
        }
        self.refresh_group(job, if read_by.is_some() { GROUP } else { BACKGROUND }, now);
        let mut wanted = BTreeSet::new();
        if questions.end_traffic {
            let attached = self.group(job, now).known().map(|group| group.target_groups.clone());
            wanted.extend(attached.into_iter().flatten().chain(questions.others.iter().cloned()));
        }
        self.refresh_target_groups(wanted, oldest);
    }

    fn refresh_group(&mut self, job: &Job, age: Duration, now: Timestamp) {
        let name = match self.membership(job) {
            Seen::Known(member) => Some(member.group.clone()),
            Seen::Gone => hook_group(job),
            Seen::Unknown => self.group_name.clone().or_else(|| hook_group(job)),
        };
        if name != self.group_name {
            (self.group_name, self.group) = (name, Fact::default());
        }
        let (Some(name), since) = (self.group_name.clone(), group_changed_at(job, now)) else { return };
        if self.group.begins(since, now - age) {
            let (groups, place, clock) = (self.calls.groups.clone(), self.place.clone(), self.clock.clone());
            self.in_flight.push(Box::pin(async move {
                let answer = groups.ask_since(&place, name.clone(), since).await;
                Arrived::Group(name, Reading::new(since, &clock, answer))
            }));
        }
    }

    fn refresh_target_groups(&mut self, wanted: BTreeSet<TargetGroupArn>, oldest: Timestamp) {
        let since = self.targets_changed_at;
        self.target_groups.retain(|arn, _| wanted.contains(arn));
        for arn in wanted {
            if !self.target_groups.entry(arn.clone()).or_default().begins(since, oldest) {
                continue;
            }
            let (settings, health) = (self.calls.settings.clone(), self.calls.health.clone());
            let (place, clock) = (self.place.clone(), self.clock.clone());
            self.in_flight.push(Box::pin(async move {
                let settings = settings.ask(&place, arn.clone());
                let health = health.ask_since(&place, arn.clone(), since.max(oldest));
                let reading = match futures::join!(settings, health) {
                    (Ok(Some(settings)), Ok(health)) => Ok(Dated {
                        read_at: health.read_at,
                        value: health.value.map(|health| (settings, health)),
                    }),
                    (Ok(None), Ok(health)) => Ok(Dated { read_at: health.read_at, value: None }),
                    (Err(fault), _) | (_, Err(fault)) => Err(fault),
                };
                Arrived::TargetGroup(arn, Reading::new(since, &clock, reading))
            }));
        }
    }

    /// A target was registered, or a call about one was not answered.
    pub(crate) fn targets_changed(&mut self, now: Timestamp) {
        self.targets_changed_at = now;
    }

    /// Waits for the next fact, and takes it in. Cancel-safe. Never ends while nothing is being read.
    pub(crate) async fn next(&mut self) {
        match self.in_flight.next().await {
            Some(arrived) => self.take(arrived),
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, arrived: Arrived) {
        match arrived {
            Arrived::Membership(reading) => self.membership.take(reading),
            // The instance may be in another group by now.
            Arrived::Group(name, reading) if Some(&name) == self.group_name.as_ref() => {
                self.group.take(reading)
            }
            Arrived::Group(..) => {}
            Arrived::TargetGroup(arn, reading) => {
                if let Some(fact) = self.target_groups.get_mut(&arn) {
                    fact.take(reading);
                }
            }
        }
    }

    /// The instance's place in Auto Scaling, if it was read after the newest event and call that could have changed it.
    pub(crate) fn membership(&self, job: &Job) -> Seen<&Membership> {
        self.membership.seen_since(changed_at(job))
    }

    /// When the oldest of what is known of the instance's state and its targets was asked for.
    pub(crate) fn read_at(&self) -> Option<Timestamp> {
        self.membership.read_at().into_iter().chain(self.targets_read_at()).min()
    }

    /// When the oldest of what is known of its targets was asked for.
    pub(crate) fn targets_read_at(&self) -> Option<Timestamp> {
        self.target_groups.values().filter_map(Fact::read_at).min()
    }

    /// Its group, or the one that a hook names.
    pub(crate) fn group(&self, job: &Job, now: Timestamp) -> Seen<&Arc<Group>> {
        // In no group, and named by none.
        if self.group_name.is_none() && self.membership(job) == Seen::Gone {
            return Seen::Gone;
        }
        self.group.seen_since(group_changed_at(job, now))
    }

    /// The target groups that could hold the instance, what is known of each, and when that was asked for.
    pub(crate) fn target_groups(
        &self,
    ) -> impl Iterator<Item = (&TargetGroupArn, Seen<&TargetGroupReading>, Timestamp)> {
        self.target_groups.iter().map(|(arn, fact)| {
            (arn, fact.seen_since(self.targets_changed_at), fact.read_at().unwrap_or_default())
        })
    }

    /// Why the newest readings failed that did.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let of_groups = self.target_groups.values().filter_map(Fact::fault);
        self.membership.fault().into_iter().chain(self.group.fault()).chain(of_groups).cloned().collect()
    }
}

/// What a notice says has to be confirmed by what was read after it, and so has what came of our calls. A heartbeat that AWS
/// took says itself that the hook is open.
fn changed_at(job: &Job) -> Timestamp {
    let notices = job.notices.iter().map(|notice| notice.at);
    let calls = job.memory.hooks.values().filter_map(|calls| match calls.heard {
        Some(heard) if heard == calls.newest => calls.continued.max(calls.refused),
        Some(_) | None => Some(calls.newest),
    });
    notices.chain(calls).max().unwrap_or(job.since())
}

/// Whether a hook whose call was refused is still there, and who else leaves: no older reading tells. And a hook that is
/// missing has to be missing in a second reading.
fn group_changed_at(job: &Job, now: Timestamp) -> Timestamp {
    let refused = job.memory.hooks.values().filter_map(|calls| calls.refused);
    let missing = job.memory.sightings.missing_hooks.values().map(|since| *since + SECOND_READING);
    let notices = job.hooks().map(|(notice, _)| notice.at);
    refused.chain(missing.filter(|again| *again <= now)).chain(notices).max().unwrap_or_default()
}

/// What is known, as something else.
pub(crate) fn map<T, U>(seen: Seen<T>, with: impl FnOnce(T) -> U) -> Seen<U> {
    match seen {
        Seen::Known(value) => Seen::Known(with(value)),
        Seen::Gone => Seen::Gone,
        Seen::Unknown => Seen::Unknown,
    }
}

fn hook_group(job: &Job) -> Option<GroupName> {
    job.hooks().map(|(_, hook)| hook.key.group.clone()).next()
}

//! What goes wrong on purpose at door one: errors, throttling, slowness, lost answers, and the death of
//! the worker between any two calls.
//!
//! Every port of the sandbox does its calls through `Sandbox::call` (or, where one call has several
//! entries, through `Sandbox::pass`). Both doors count their calls in `World::calls`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use offramp_core::Timestamp;
use offramp_engine::Fault;
use tokio::sync::watch;

use crate::{Sandbox, World};

/// What happens to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Injected {
    /// A server error; nothing happened.
    Error,
    /// The service refuses for now; nothing happened.
    Throttle,
    /// It happened, and the answer was lost.
    LostAnswer,
    /// The call takes so long before anything happens.
    Delay(Duration),
    /// It happened at once, and the answer takes so long.
    LateAnswer(Duration),
    /// Every second entry of a batch is refused, the rest happens. A call without entries just works.
    Partial,
    /// Permissions are missing; nothing happened.
    Denied,
}

/// Where in a writing call the worker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The call never left.
    BeforeEffect,
    /// The call took effect, and nobody was left to hear of it.
    AfterEffect,
}

/// The plan.
#[derive(Debug)]
pub struct Faults {
    planned: BTreeMap<(String, u64), Injected>,
    standing: BTreeMap<String, Injected>,
    paused: BTreeMap<u32, Timestamp>,
    crash: Option<(u64, Moment)>,
    random: Option<(fastrand::Rng, u32)>,
    writes: u64,
    crashed: watch::Sender<bool>,
    /// Whose call it was.
    victim: u32,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            planned: BTreeMap::new(),
            standing: BTreeMap::new(),
            paused: BTreeMap::new(),
            crash: None,
            random: None,
            writes: 0,
            crashed: watch::Sender::new(false),
            victim: 0,
        }
    }
}

impl Faults {
    /// The `nth` call (from 1, counted since the world began) of a kind such as
    /// `autoscaling.CompleteLifecycleAction` goes wrong.
    pub fn inject(&mut self, call: &str, nth: u64, injected: Injected) {
        self.planned.insert((call.to_owned(), nth), injected);
    }

    /// From now on every call of a kind goes wrong like this, or of a whole service (`autoscaling`), until it is told
    /// `None`.
    pub fn always(&mut self, calls: &str, injected: Option<Injected>) {
        match injected {
            Some(injected) => drop(self.standing.insert(calls.to_owned(), injected)),
            None => drop(self.standing.remove(calls)),
        }
    }

    /// Until then no call of this worker takes effect, and no answer reaches it: its machine stands still, or its
    /// network does.
    pub fn pause(&mut self, worker: u32, until: Timestamp) {
        self.paused.insert(worker, until);
    }

    /// From now on so many of a thousand calls go wrong, chosen by their own random source, so that the
    /// world's own choices stay the same.
    pub fn at_random(&mut self, per_mille: u32, seed: u64) {
        self.random = (per_mille > 0).then(|| (fastrand::Rng::with_seed(seed), per_mille));
    }

    /// The worker dies at the `nth` writing port call from now on (from 1), over all ports.
    pub fn crash_at(&mut self, nth: u64, moment: Moment) {
        self.crash = Some((self.writes + nth, moment));
        self.crashed.send_replace(false);
    }

    /// Turns true when the crash has come: the test drops the engine then, because the port call that it
    /// hit never returns.
    pub fn crashed(&self) -> watch::Receiver<bool> {
        self.crashed.subscribe()
    }

    /// The worker whose call the newest crash has hit: see [`Sandbox::for_worker`].
    pub const fn victim(&self) -> u32 {
        self.victim
    }

    /// How many writing port calls there were.
    pub const fn writes(&self) -> u64 {
        self.writes
    }

    fn judge(&mut self, call: &str, nth: u64, writes: bool) -> (Option<Moment>, Option<(Injected, Cause)>) {
        let mut moment = None;
        if writes {
            self.writes += 1;
            if let Some((at, planned)) = self.crash
                && at == self.writes
            {
                self.crash = None;
                moment = Some(planned);
            }
        }
        if let Some(injected) = self.planned.remove(&(call.to_owned(), nth)) {
            return (moment, Some((injected, Cause::Injected)));
        }
        if let Some(injected) = self.standing_for(call) {
            return (moment, Some((injected, Cause::Outage)));
        }
        (moment, self.by_chance().map(|injected| (injected, Cause::Injected)))
    }

    fn standing_for(&self, call: &str) -> Option<Injected> {
        let of_service = || call.split_once('.').and_then(|(service, _)| self.standing.get(service));
        self.standing.get(call).or_else(of_service).cloned()
    }

    fn by_chance(&mut self) -> Option<Injected> {
        let (random, per_mille) = self.random.as_mut()?;
        if random.u32(0..1000) >= *per_mille {
            return None;
        }
        Some(match random.u8(0..5) {
            0 => Injected::Error,
            1 => Injected::Throttle,
            2 => Injected::LostAnswer,
            3 => Injected::Delay(Duration::from_millis(random.u64(10..5_000))),
            _ => Injected::Partial,
        })
    }
}

/// Why a call went wrong, for the words of its fault.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Injected,
    Outage,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Injected => "injected",
            Self::Outage => "outage",
        })
    }
}

/// A call that was let through; what is left of its fate.
#[derive(Debug)]
#[must_use = "the answer may have to be lost: call `answered`"]
pub(crate) struct Pass<'a> {
    sandbox: &'a Sandbox,
    call: &'a str,
    dies: bool,
    late: Duration,
    lost: Option<Cause>,
    partial: bool,
}

impl Pass<'_> {
    /// Whether the entry of a batch at this place is refused.
    pub(crate) fn entry(&self, index: usize) -> Result<(), Fault> {
        if self.partial && index % 2 == 1 {
            return Err(Fault::Retry(format!("{}: entry {index} was refused (injected)", self.call)));
        }
        Ok(())
    }

    /// Has to be asked after the effect and before the answer.
    pub(crate) async fn answered(self) -> Result<(), Fault> {
        if self.dies {
            self.sandbox.die().await;
        }
        if !self.late.is_zero() {
            self.sandbox.clock().sleep_until(self.sandbox.now() + self.late).await;
        }
        self.sandbox.stand_still().await;
        if let Some(cause) = self.lost {
            return Err(Fault::Retry(format!("{}: the answer was lost ({cause})", self.call)));
        }
        Ok(())
    }
}

impl Sandbox {
    /// One port call from beginning to end: counted, subject to the plan of faults, done at one moment.
    /// `writes` says whether it changes anything.
    pub(crate) async fn call<T: Send>(
        &self,
        call: &str,
        writes: bool,
        effect: impl FnOnce(&mut World) -> T + Send,
    ) -> Result<T, Fault> {
        let pass = self.pass(call, writes).await?;
        let answer = if writes { self.with(effect) } else { self.read(effect) };
        pass.answered().await?;
        Ok(answer)
    }

    /// The gate of a port call: counts it, waits or fails as planned, or never returns when the worker
    /// dies here. The effect belongs between this and [`Pass::answered`].
    pub(crate) async fn pass<'a>(&'a self, call: &'a str, writes: bool) -> Result<Pass<'a>, Fault> {
        self.stand_still().await;
        let (moment, injected) = self.read(|world| {
            let nth = world.count_call(call);
            world.faults.judge(call, nth, writes)
        });
        if moment == Some(Moment::BeforeEffect) {
            self.die().await;
        }
        let mut pass = Pass {
            sandbox: self,
            call,
            dies: moment == Some(Moment::AfterEffect),
            late: Duration::ZERO,
            lost: None,
            partial: false,
        };
        match injected {
            None => {}
            Some((Injected::Error, cause)) => {
                return Err(Fault::Retry(format!("{call}: internal failure ({cause})")));
            }
            Some((Injected::Throttle, cause)) => {
                return Err(Fault::Retry(format!("{call}: throttled ({cause})")));
            }
            Some((Injected::Denied, cause)) => {
                return Err(Fault::Denied(format!("{call}: access denied ({cause})")));
            }
            Some((Injected::LostAnswer, cause)) => pass.lost = Some(cause),
            Some((Injected::Partial, _)) => pass.partial = true,
            Some((Injected::LateAnswer(span), _)) => pass.late = span,
            Some((Injected::Delay(span), _)) => self.clock().sleep_until(self.now() + span).await,
        }
        Ok(pass)
    }

    async fn stand_still(&self) {
        let until = self.peek(|world| world.faults.paused.get(&self.worker).copied());
        if let Some(until) = until.filter(|until| *until > self.now()) {
            self.clock().sleep_until(until).await;
        }
    }

    /// The process that made this call is dead: nothing comes back, ever.
    async fn die(&self) {
        self.read(|world| {
            world.faults.victim = self.worker;
            world.faults.crashed.send_replace(true);
        });
        std::future::pending::<()>().await;
    }
}

impl World {
    /// Counts one call of a kind and says which one it is, from 1.
    pub(crate) fn count_call(&mut self, call: &str) -> u64 {
        let count = self.calls.entry(call.to_owned()).or_default();
        *count += 1;
        *count
    }
}

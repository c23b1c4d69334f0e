//! AWS and Kubernetes in memory: one [`World`] behind two doors.
//!
//! The world is plain data with a clock and an ordered agenda; every transition is a method, and nothing
//! in it waits, spawns or reads a clock. Door one is the engine's ports, in process, under virtual time,
//! with faults and crashes injected. Door two is HTTP on loopback, for clients that nobody here wrote.
//!
//! It is our reading of the documentation: each modelled rule names the page it follows, and passing here
//! proves that worker and reading agree, not that AWS does so.

pub mod delays;
pub mod doors;
pub mod faults;
pub mod fleet;
pub mod witness;
pub mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use offramp_core::Timestamp;
use offramp_engine::Clock;
use tokio::sync::watch;

pub use delays::Delays;
pub use faults::Faults;
pub use fleet::Fleet;
pub use world::World;

/// A running world: shared by the doors, moved on by the clock.
#[derive(Clone, Debug)]
pub struct Sandbox {
    world: Arc<Mutex<World>>,
    /// Everybody who waits for a change, in the order in which they began to. Each has a channel of their
    /// own: the receivers of one channel wake in random order, and a simulated run has to repeat.
    waiting: Arc<Mutex<Vec<watch::Sender<u64>>>>,
    clock: Clock,
    /// Whose calls come through this handle.
    worker: u32,
}

impl Sandbox {
    /// Puts a world on a clock.
    pub fn new(world: World, clock: Clock) -> Self {
        Self { world: Arc::new(Mutex::new(world)), waiting: Arc::default(), clock, worker: 0 }
    }

    /// The same world, for the calls of one worker of several: see [`Faults::pause`].
    #[must_use]
    pub fn for_worker(&self, worker: u32) -> Self {
        Self { worker, ..self.clone() }
    }

    /// Brings the world up to now, lets `visit` look at it and change it, and wakes everybody who waits
    /// for a change. For reads that should wake nobody there is [`Sandbox::peek`].
    pub fn with<T>(&self, visit: impl FnOnce(&mut World) -> T) -> T {
        let answer = {
            let mut world = self.lock();
            world.advance(self.clock.now());
            visit(&mut world)
        };
        self.wake();
        answer
    }

    /// Brings the world up to now and lets `visit` do what nobody waits for, such as counting a call.
    pub(crate) fn read<T>(&self, visit: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.lock();
        let moved = world.advance(self.clock.now());
        let answer = visit(&mut world);
        drop(world);
        if moved {
            self.wake();
        }
        answer
    }

    /// Brings the world up to now and looks at it.
    pub fn peek<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        self.read(|world| look(world))
    }

    /// Changes its value whenever the world may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        let (sender, receiver) = watch::channel(0);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// The world's clock.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Moves the world on as its agenda falls due. Runs until dropped.
    pub async fn run(&self) {
        let mut changes = self.changes();
        loop {
            let next = self.peek(World::next_due);
            changes.mark_unchanged();
            match next {
                Some(then) => {
                    tokio::select! {
                        biased;
                        () = self.clock.sleep_until(then) => self.with(|_| ()),
                        _ = changes.changed() => {}
                    }
                }
                None => {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// The time of the world.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn wake(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|sender| !sender.is_closed());
        waiting.iter().for_each(|sender| sender.send_modify(|version| *version += 1));
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        // A panic elsewhere is a failed test; the world itself is plain data and still readable.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

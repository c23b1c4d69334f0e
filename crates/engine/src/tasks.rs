//! The tasks of one worker. None of them may end by a panic unnoticed: a worker without its leases or
//! lanes would look alive and do nothing.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

/// A task of the worker hit a bug. What it worked for is lost, so the worker has to end: its messages come
/// back, to it after a restart or to another replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {task} task of the worker hit a bug: {panic}; its messages come back by themselves")]
pub struct Broken {
    task: &'static str,
    panic: String,
}

/// Tasks by name. Dropping them stops them all.
#[derive(Default)]
pub(crate) struct Tasks {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    pub(crate) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.running.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until a task ends. `None`: there is none left. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Result<(), Broken>> {
        let ended = self.running.join_next_with_id().await?;
        Some(ended.map(|_| ()).map_err(|error| {
            let task = self.names.get(&error.id()).copied().unwrap_or("unnamed");
            Broken { task, panic: error.to_string() }
        }))
    }
}

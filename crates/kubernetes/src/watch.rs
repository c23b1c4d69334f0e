//! One list-and-watch that goes on for ever, and tells at every moment whether it is in sync.
//!
//! kube's own `watcher` is not enough here: after a failure it resumes without a word, so that a quiet
//! watch that works again cannot be told from one that is still cut off.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use offramp_engine::{Call, Metrics};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::connection::Connection;
use crate::failures::{Failures, Life, SHORTEST_WATCH};
use crate::fault::{self, Trouble};
use crate::proof::Progress;
use crate::view::News;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The API server ends a watch after this time, with a bookmark shortly before, and it is opened
    /// again where it ended. A connection that died without a word is noticed after this time and
    /// `silence`: until then a node that is new would be `Gone`. So it is short; three requests in 30 s
    /// are nothing to an API server.
    pub(crate) watch_seconds: u32,
    /// How much longer than `watch_seconds` nothing may come.
    pub(crate) silence: Duration,
    /// For one page of a list.
    pub(crate) page: Duration,
    /// Until a watch is open. While one that ended as asked is opened again it counts as in sync.
    pub(crate) opening: Duration,
    /// A watch that was cut off is trusted again when it has been open for this long, or at the first
    /// bookmark: what was missed is sent at once. Watches lag by up to two seconds in a storm anyway.
    pub(crate) settle: Duration,
    /// A view that goes on showing what a call was answered to be gone is wrong after this time: watches lag by
    /// seconds at most.
    pub(crate) lag: Duration,
    /// Credentials that live shorter than this, or are refused, are fetched no more often.
    pub(crate) credentials: Duration,
    /// The first try after a failure; the next ones follow kube's back-off, at most `longest_pause`.
    pub(crate) first_pause: Duration,
    pub(crate) longest_pause: Duration,
}

impl Pace {
    pub(crate) const DEFAULT: Self = Self {
        watch_seconds: 30,
        silence: Duration::from_secs(5),
        page: Duration::from_secs(30),
        opening: Duration::from_secs(10),
        settle: Duration::from_secs(2),
        lag: Duration::from_secs(10),
        credentials: Duration::from_secs(10),
        first_pause: Duration::from_millis(100),
        longest_pause: Duration::from_secs(30),
    };
}

/// client-go's page size. A page of Pods is a few MB before it is trimmed.
const PAGE: u32 = 500;
/// After so many failures in a row the list is read anew: an API server that was restored from a backup
/// refuses a resourceVersion which lies in its future for ever (client-go relists there, too).
const RELIST_AFTER: u32 = 5;

/// One kind of object in one cluster.
pub(crate) struct Watch<R, T> {
    /// Whose, for the log.
    pub(crate) cluster: String,
    /// The resource, for the log and for what RBAC has to allow.
    pub(crate) resource: &'static str,
    /// Its requests, as they are counted.
    pub(crate) calls: (Call, Call),
    pub(crate) metrics: Metrics,
    pub(crate) connection: Arc<Connection>,
    pub(crate) pace: Pace,
    /// Trims an object; nothing where it is none of ours.
    pub(crate) read: R,
    pub(crate) tell: T,
    /// What the watches of this cluster complain of.
    pub(crate) complaints: Arc<Complaints>,
    /// How far it has come.
    pub(crate) progress: Arc<Progress>,
}

/// What each watch of one cluster complains of at this moment, by its resource.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<BTreeMap<&'static str, String>>);

impl Complaints {
    /// One of them, where there is one.
    pub(crate) fn first(&self) -> Option<String> {
        self.texts().values().next().cloned()
    }

    /// Takes a complaint up. False where one of the watches has said the same already.
    pub(crate) fn add(&self, resource: &'static str, text: &str) -> bool {
        let mut texts = self.texts();
        let known = texts.values().any(|said| said == text);
        texts.insert(resource, text.to_owned());
        !known
    }

    /// There is no reason to complain any more. Says whether there was one.
    pub(crate) fn settle(&self, resource: &'static str) -> bool {
        self.texts().remove(resource).is_some()
    }

    fn texts(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kubernetes objects of k8s-openapi.
pub(crate) trait Object:
    Metadata<Ty = ObjectMeta> + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned
{
}
impl<K: Metadata<Ty = ObjectMeta> + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned> Object
    for K
{
}

impl<R, T> Watch<R, T> {
    /// Lists, watches, and starts again, for ever, as soon as the cluster is open.
    pub(crate) async fn follow<K: Object, V>(self)
    where
        R: Fn(K) -> Option<V>,
        T: Fn(News<V>),
    {
        // Where to go on; without one, everything has to be listed.
        let mut version: Option<String> = None;
        let mut failures = Failures::new(self.pace);
        loop {
            let result = match &mut version {
                None => self.list().await.map(|listed| version = Some(listed)),
                Some(version) => self.watch(version, &mut failures).await,
            };
            let Err(trouble) = result else { continue };
            (self.tell)(News::OutOfSync);
            let pause = failures.add();
            let broken = matches!(trouble, Trouble::Broken(_));
            if broken || trouble == Trouble::Expired || failures.count.is_multiple_of(RELIST_AFTER) {
                version = None;
            }
            failures.lasting |= broken || failures.count >= RELIST_AFTER;
            if matches!(trouble, Trouble::Refused(_)) {
                self.connection.refuse();
            }
            if let Trouble::Failed(text) | Trouble::Broken(text) | Trouble::Refused(text) = trouble
                && self.complaints.add(self.resource, &text)
            {
                tracing::warn!(cluster = self.cluster, "out of sync: {text}");
            }
            sleep(pause).await;
        }
    }

    /// Reads everything and gives the version to watch from.
    async fn list<K: Object, V>(&self) -> Result<String, Trouble>
    where
        R: Fn(K) -> Option<V>,
        T: Fn(News<V>),
    {
        let api: Api<K> = Api::all(self.connection.opened().await.general);
        let failed = |what: &str| Trouble::Failed(format!("listing {}: {what}", self.resource));
        // Who distrusted the watch until now gets this list, and not one more after it.
        let _ = self.progress.distrusted.notified().now_or_never();
        let mut all = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let request = self.metrics.measure(self.calls.0, api.list(&params), fault::result);
            let page = timeout(self.pace.page, request).await;
            let page = page.map_err(|_| failed("the request took too long"))?;
            let page = page.map_err(|error| fault::trouble(self.resource, "list", &error))?;
            all.extend(page.items.into_iter().filter_map(&self.read));
            if let Some(next) = page.metadata.continue_.filter(|next| !next.is_empty()) {
                params = params.continue_token(&next);
                continue;
            }
            let version = page.metadata.resource_version.filter(|version| !version.is_empty());
            let version = version.ok_or_else(|| failed("the list has no version"))?;
            (self.tell)(News::Listed(all));
            self.progress.reached(&version);
            return Ok(version);
        }
    }

    /// Watches from `version`, which moves on, until the stream ends.
    async fn watch<K: Object, V>(&self, version: &mut String, failures: &mut Failures) -> Result<(), Trouble>
    where
        R: Fn(K) -> Option<V>,
        T: Fn(News<V>),
    {
        let api: Api<K> = Api::all(self.connection.opened().await.general);
        let failed = |what: &str| Trouble::Failed(format!("watching {}: {what}", self.resource));
        let params = WatchParams::default().timeout(self.pace.watch_seconds);
        let request = self.metrics.measure(self.calls.1, api.watch(&params, version), fault::result);
        let opening = timeout(self.pace.opening, request).await;
        let stream = opening.map_err(|_| failed("the request took too long"))?;
        let mut stream = pin!(stream.map_err(|error| fault::trouble(self.resource, "watch", &error))?);
        let mut life = Life::new(version, self.pace.settle);
        let patience = Duration::from_secs(self.pace.watch_seconds.into()) + self.pace.silence;
        let mut silent_at = life.opened + patience;
        loop {
            let next = timeout_at(life.settles_at.unwrap_or(silent_at), stream.next());
            // Both are cancel-safe.
            let next = tokio::select! {
                biased;
                next = next => next,
                () = self.progress.distrusted.notified() => return Err(Trouble::Expired),
            };
            match next {
                Err(_) if life.settles_at.is_some() => self.caught_up(&mut life, failures),
                Err(_) => return Err(self.broken("nothing came any more, the connection seems dead")),
                Ok(None) => return self.ended(&life, failures),
                Ok(Some(event)) => {
                    silent_at = Instant::now() + patience;
                    let event = event.map_err(|error| fault::trouble(self.resource, "watch", &error))?;
                    let caught_up = matches!(event, WatchEvent::Bookmark(_));
                    self.take(event, version)?;
                    self.progress.reached(version);
                    life.brought(version);
                    if caught_up && life.settles_at.is_some() {
                        self.caught_up(&mut life, failures);
                    }
                }
            }
            if life.proven() {
                self.recovered(failures);
            }
        }
    }

    /// Tells what an event says.
    fn take<K: Object, V>(&self, event: WatchEvent<K>, version: &mut String) -> Result<(), Trouble>
    where
        R: Fn(K) -> Option<V>,
        T: Fn(News<V>),
    {
        match event {
            WatchEvent::Added(object) => {
                advance(version, &object);
                // What is new and none of ours is in no view: a pod is new for a while before it is bound to a node.
                if let Some(value) = (self.read)(object) {
                    (self.tell)(News::Changed(value));
                }
            }
            WatchEvent::Modified(object) => {
                advance(version, &object);
                let named = self.named(&object)?;
                (self.tell)((self.read)(object).map_or(named, News::Changed));
            }
            WatchEvent::Deleted(object) => {
                advance(version, &object);
                let named = self.named(&object)?;
                (self.tell)((self.read)(object).map_or(named, News::Deleted));
            }
            WatchEvent::Bookmark(bookmark) => *version = bookmark.metadata.resource_version,
            WatchEvent::Error(status) => {
                return Err(fault::trouble(self.resource, "watch", &kube::Error::Api(status)));
            }
        }
        Ok(())
    }

    /// What is told of an object that reads as none of ours. Without it the view would keep what it was before.
    fn named<V>(&self, object: &impl Object) -> Result<News<V>, Trouble> {
        let ObjectMeta { name, namespace, .. } = object.metadata();
        let name = name.clone().ok_or_else(|| self.broken("an event is about an object without a name"))?;
        Ok(News::Unread { namespace: namespace.clone().unwrap_or_default(), name })
    }

    /// The stream is trusted. What failed again and again is complained of until a stream proves that it lives:
    /// one that is silent past its end was open for long enough each time.
    fn caught_up<V>(&self, life: &mut Life, failures: &Failures)
    where
        T: Fn(News<V>),
    {
        life.settles_at = None;
        (self.tell)(News::InSync);
        if !failures.lasting {
            self.content();
        }
    }

    /// What failed has nothing to do with what fails next.
    fn recovered(&self, failures: &mut Failures) {
        failures.barren = 0;
        if failures.count > 0 {
            failures.reset();
            self.content();
        }
    }

    fn content(&self) {
        if self.complaints.settle(self.resource) {
            tracing::info!(cluster = self.cluster, "watching {}: in sync", self.resource);
        }
    }

    /// The stream ended by itself, or was cut off by a proxy, which looks the same.
    fn ended(&self, life: &Life, failures: &mut Failures) -> Result<(), Trouble> {
        let lasted = life.opened.elapsed();
        if lasted < SHORTEST_WATCH {
            return Err(Trouble::Failed(format!("watching {}: it ended at once", self.resource)));
        }
        let barren = if life.moved { 0 } else { failures.barren + 1 };
        // As long as this is as long as asked: only an API server without bookmarks brings nothing then.
        if lasted >= Duration::from_secs(self.pace.watch_seconds.into()) / 2 {
            self.recovered(failures);
        }
        failures.barren = barren % RELIST_AFTER;
        if barren >= RELIST_AFTER {
            return Err(self.broken("it ends again and again, and brings nothing"));
        }
        Ok(())
    }

    fn broken(&self, what: &str) -> Trouble {
        Trouble::Broken(format!("watching {}: {what}", self.resource))
    }
}

fn advance(version: &mut String, object: &impl Object) {
    if let Some(newer) = &object.metadata().resource_version {
        version.clone_from(newer);
    }
}

//! The labels of the cluster's namespaces, followed as long as some rule asks for them: metadata alone, and no right nor
//! watch otherwise.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::watch::followed;
use crate::config::NamespaceLabels;

/// How long a watch may fail until what it told counts no more: a label that was taken away must not count for ever.
const STALE: Duration = Duration::from_secs(30);
/// How long a watch may say nothing until the API server is asked whether it is there: a connection whose packets are
/// dropped says nothing either. After this long the API server ends a watch, and it is begun anew.
const SILENCE: Duration = Duration::from_secs(30);
/// What is asked then. Every cluster has it.
const ALWAYS_THERE: &str = "kube-system";
/// How long the API server may take to tell of one namespace: the webhook's own caller waits five seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what it told counts, if the watch does not know better.
const FRESH: Duration = Duration::from_secs(5);
/// Namespaces that were asked for one by one and are kept in mind.
const MOST_LOOKED_UP: usize = 256;
/// Questions to the API server at a time: names come from outside.
const LOOKS: usize = 8;
/// Between two tries to reach the API server at all.
const RECONNECT: Duration = Duration::from_secs(30);
/// Longest name of a namespace.
const MAX_NAME: usize = 63;

type Labels = Arc<BTreeMap<String, String>>;

/// Knows the labels of namespaces. Clones share what they know.
#[derive(Clone)]
pub struct Namespaces(Arc<NamespaceBook>);

struct NamespaceBook {
    known: RwLock<KnownNamespaces>,
    looks: Semaphore,
}

#[derive(Default)]
struct KnownNamespaces {
    client: Option<Client>,
    watched: HashMap<String, Labels>,
    /// Those that came with the list that is being read, if one is.
    listed: HashMap<String, Labels>,
    /// Whether a whole list was read.
    is_complete: bool,
    /// Of watch or list.
    failing_since: Option<Instant>,
    /// Without an answer to whether the API server is there.
    silent_since: Option<Instant>,
    looked_up: HashMap<String, (Instant, NamespaceLabels)>,
}

// === impl Namespaces ===

impl Namespaces {
    /// The labels, if they are known at this moment.
    #[must_use]
    pub fn now(&self, name: &str) -> Option<NamespaceLabels> {
        let known = self.known();
        if let Some(labels) = known.watched.get(name).filter(|_| known.is_current()) {
            return Some(NamespaceLabels::Known(Arc::clone(labels)));
        }
        let (at, labels) = known.looked_up.get(name)?;
        (at.elapsed() < FRESH).then(|| labels.clone())
    }

    /// The labels; the API server is asked for those that are not known. Bounded in time.
    pub async fn look(&self, name: &str) -> NamespaceLabels {
        if let Some(labels) = self.now(name) {
            return labels;
        }
        let labels = self.ask(name).await;
        let mut known = self.known_mut();
        known.looked_up.retain(|_, (at, _)| at.elapsed() < FRESH);
        if known.looked_up.len() >= MOST_LOOKED_UP {
            // The caller has its answer, or asks again.
            let any = known.looked_up.keys().next().cloned();
            known.looked_up.remove(&any.unwrap_or_default());
        }
        known.looked_up.insert(name.to_owned(), (Instant::now(), labels.clone()));
        labels
    }

    async fn ask(&self, name: &str) -> NamespaceLabels {
        let unknown = |why: &str| NamespaceLabels::Unknown(why.into());
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_name) {
            return unknown("no namespace can have this name");
        }
        let Some(client) = self.known().client.clone() else {
            return unknown("hushpod has no way to the API server");
        };
        let asked = async {
            // Never closed, so there always is one in time.
            let _permit = self.0.looks.acquire().await;
            Api::<Namespace>::all(client).get_metadata(name).await
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(namespace)) => NamespaceLabels::Known(labels_of(&namespace)),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => unknown("there is no such namespace"),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                unknown("hushpod's account may not get, list and watch namespaces")
            }
            Ok(Err(_)) | Err(_) => unknown("the API server does not say"),
        }
    }

    /// Follows the API server while `asks` says of the present configuration that some rule wants labels.
    pub async fn follow<T, C, E>(
        self,
        connect: impl Fn() -> C,
        mut config: watch::Receiver<Arc<T>>,
        asks: fn(&T) -> bool,
    ) where
        C: Future<Output = Result<Client, E>>,
        E: fmt::Display,
    {
        loop {
            if config.wait_for(|config| asks(config)).await.is_err() {
                std::future::pending::<()>().await;
            }
            match connect().await {
                Ok(client) => {
                    self.known_mut().client = Some(client.clone());
                    let mut later = config.clone();
                    tokio::select! {
                        () = self.watch(client) => {}
                        changed = later.wait_for(|config| !asks(config)) => drop(changed),
                    }
                    *self.known_mut() = KnownNamespaces::default();
                }
                Err(error) => {
                    let problem = error.to_string();
                    warn!(problem, "a rule asks for labels of namespaces, which cannot be had: it lets nobody pass");
                    sleep(RECONNECT).await;
                }
            }
        }
    }

    async fn watch(&self, client: Client) {
        let api = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
        let seconds = u32::try_from(SILENCE.as_secs()).unwrap_or(u32::MAX);
        let mut events = pin!(followed(api.clone(), watcher::Config::default().timeout(seconds)));
        loop {
            let Ok(event) = timeout(SILENCE, events.next()).await else {
                self.ask_whether_it_is_there(&client).await;
                continue;
            };
            let Some(event) = event else { break };
            let mut known = self.known_mut();
            match event {
                Ok(event) => {
                    known.silent_since = None;
                    if known.failing_since.take().is_some() {
                        info!("the namespaces are watched again");
                    }
                    known.take_in(event);
                }
                Err(error) => {
                    known.listed.clear();
                    if known.failing_since.is_none() {
                        known.failing_since = Some(Instant::now());
                        warn!(%error, "the namespaces cannot be watched: each is asked for");
                    }
                }
            }
        }
    }

    async fn ask_whether_it_is_there(&self, client: &Client) {
        let asked = timeout(PATIENCE, Api::<Namespace>::all(client.clone()).get_metadata(ALWAYS_THERE)).await;
        let mut known = self.known_mut();
        match asked {
            Ok(Ok(_)) => known.silent_since = None,
            Ok(Err(_)) | Err(_) => drop(known.silent_since.get_or_insert_with(Instant::now)),
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, KnownNamespaces> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, KnownNamespaces> {
        self.0.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Namespaces {
    fn default() -> Self {
        Self(Arc::new(NamespaceBook { known: RwLock::default(), looks: Semaphore::new(LOOKS) }))
    }
}

impl fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespaces").field("watched", &self.known().watched.len()).finish_non_exhaustive()
    }
}

// === impl KnownNamespaces ===

impl KnownNamespaces {
    /// Whether what was watched counts.
    fn is_current(&self) -> bool {
        let since = [self.failing_since, self.silent_since];
        self.is_complete && since.into_iter().flatten().all(|since| since.elapsed() < STALE)
    }

    fn take_in(&mut self, event: Event<PartialObjectMeta<Namespace>>) {
        match event {
            Event::Init => {}
            Event::InitApply(namespace) => drop(self.listed.insert(namespace.name_any(), labels_of(&namespace))),
            Event::InitDone => {
                self.watched = std::mem::take(&mut self.listed);
                self.is_complete = true;
            }
            Event::Apply(namespace) => drop(self.watched.insert(namespace.name_any(), labels_of(&namespace))),
            Event::Delete(namespace) => {
                let name = namespace.name_any();
                self.watched.remove(&name);
                self.looked_up.remove(&name);
            }
        }
    }
}

fn labels_of(namespace: &PartialObjectMeta<Namespace>) -> Labels {
    Arc::new(namespace.labels().clone())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use axum::http::{Request, Response};
    use futures_util::stream;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server: what it has, and what it was asked. Lists are answered, watches never end.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<ServerState>>);

    #[derive(Default)]
    struct ServerState {
        has: BTreeMap<String, Value>,
        asked: Vec<String>,
        /// What everything is answered with.
        fails: Option<u16>,
        /// What lists and watches are answered with.
        lists_fail: Option<u16>,
        /// Whether nothing is answered any more.
        is_silent: bool,
    }

    impl Server {
        fn set(&self, name: &str, labels: &Value) {
            let object = json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": name, "labels": labels, "resourceVersion": "1"},
            });
            self.0.lock().unwrap().has.insert(name.to_owned(), object);
        }

        fn gets(&self) -> usize {
            self.0.lock().unwrap().asked.iter().filter(|path| path.starts_with("/api/v1/namespaces/")).count()
        }

        fn answer(&self, request: &Request<Body>) -> Option<(u16, Value)> {
            let mut state = self.0.lock().unwrap();
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            assert!(request.headers()["accept"].to_str().unwrap().contains("PartialObjectMetadata"), "{path}");
            state.asked.push(path.to_owned());
            let is_one = path.starts_with("/api/v1/namespaces/");
            if let Some(code) = state.fails.or(state.lists_fail.filter(|_| !is_one)) {
                return Some((code, json!({"kind": "Status", "status": "Failure", "code": code})));
            }
            if query.contains("watch=true") {
                return None;
            }
            if let Some(name) = path.strip_prefix("/api/v1/namespaces/") {
                let missing = || (404, json!({"kind": "Status", "status": "Failure", "code": 404}));
                return Some(state.has.get(name).map_or_else(missing, |object| (200, object.clone())));
            }
            let items: Vec<_> = state.has.values().collect();
            let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": "1"}, "items": items});
            Some((200, list))
        }

        fn client(&self) -> Client {
            let server = self.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let answer = server.answer(&request);
                let is_silent = server.0.lock().unwrap().is_silent;
                async move {
                    if is_silent {
                        std::future::pending::<()>().await;
                    }
                    // A watch: its end does not come.
                    let nothing = stream::pending::<Result<Vec<u8>, Infallible>>();
                    let (code, body) = answer.map_or_else(
                        || (200, axum::body::Body::from_stream(nothing)),
                        |(code, body)| (code, axum::body::Body::from(body.to_string())),
                    );
                    Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
                }
            });
            Client::new(service, "default")
        }
    }

    fn known(labels: &[(&str, &str)]) -> NamespaceLabels {
        NamespaceLabels::known(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    async fn moment() {
        sleep(Duration::from_millis(10)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_are_watched_while_a_rule_asks_and_unknown_ones_are_asked_for() {
        let server = Server::default();
        server.set("team-a", &json!({"tier": "prod"}));
        let wants = watch::Sender::new(Arc::new(false));
        let namespaces = Namespaces::default();
        let connecting = server.clone();
        let connect = move || std::future::ready(Ok::<_, String>(connecting.client()));
        tokio::spawn(namespaces.clone().follow(connect, wants.subscribe(), |wants| *wants));
        moment().await;
        assert!(server.0.lock().unwrap().asked.is_empty(), "no rule asks, so nobody does");
        assert_eq!(namespaces.look("team-a").await.unknown(), Some("hushpod has no way to the API server"));
        sleep(FRESH).await;

        wants.send_replace(Arc::new(true));
        moment().await;
        assert_eq!(namespaces.now("team-a"), Some(known(&[("tier", "prod")])));
        assert_eq!(namespaces.now("team-b"), None);
        // It is new, and the watch has not told yet.
        server.set("team-b", &json!({"tier": "dev"}));
        assert_eq!(namespaces.look("team-b").await, known(&[("tier", "dev")]));
        assert_eq!(namespaces.now("team-b"), Some(known(&[("tier", "dev")])), "kept in mind for a moment");
        assert_eq!((namespaces.look("team-b").await, server.gets()), (known(&[("tier", "dev")]), 1));
        assert_eq!(namespaces.look("team-c").await.unknown(), Some("there is no such namespace"));
        sleep(FRESH).await;
        assert_eq!(namespaces.now("team-b"), None);
        for name in ["../pods", "", "A", &"a".repeat(64)] {
            assert_eq!(namespaces.look(name).await.unknown(), Some("no namespace can have this name"), "{name}");
        }
        let gets = server.gets();
        for name in (0..MOST_LOOKED_UP * 2).map(|n| format!("n-{n}")) {
            namespaces.look(&name).await;
        }
        assert_eq!(server.gets() - gets, MOST_LOOKED_UP * 2);
        assert!(namespaces.known().looked_up.len() <= MOST_LOOKED_UP);

        wants.send_replace(Arc::new(false));
        moment().await;
        assert_eq!(namespaces.now("team-a"), None, "nobody follows it any more");
    }

    /// Follows a server to which this happens after it has told; what is known of the labels then, and how often it was
    /// asked meanwhile.
    async fn counts_after(seconds: u64, happens: fn(&mut ServerState)) -> (bool, usize) {
        let server = Server::default();
        server.set("team-a", &json!({"tier": "prod"}));
        server.set(ALWAYS_THERE, &json!({}));
        let namespaces = Namespaces::default();
        let connecting = server.clone();
        let connect = move || std::future::ready(Ok::<_, String>(connecting.client()));
        let wants = watch::Sender::new(Arc::new(true));
        let following = tokio::spawn(namespaces.clone().follow(connect, wants.subscribe(), |wants| *wants));
        moment().await;
        assert_eq!(namespaces.now("team-a"), Some(known(&[("tier", "prod")])));
        let asked = {
            let mut state = server.0.lock().unwrap();
            happens(&mut state);
            state.asked.len()
        };
        sleep(Duration::from_secs(seconds)).await;
        following.abort();
        let asked = server.0.lock().unwrap().asked.len() - asked;
        (namespaces.now("team-a").is_some(), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn labels_end_when_the_api_server_is_not_there_and_pauses_grow_meanwhile() {
        // With 410 all is listed anew. What is dead is noticed after half a minute, and counts for as long again.
        for (what, happens) in [
            ("lists: 410", (|state| state.lists_fail = Some(410)) as fn(&mut ServerState)),
            ("lists: 403", |state| state.lists_fail = Some(403)),
            ("lists: 503", |state| state.lists_fail = Some(503)),
            ("all: 503", |state| state.fails = Some(503)),
            ("packets are dropped", |state| state.is_silent = true),
        ] {
            assert!(counts_after(55, happens).await.0, "{what}");
            let (counts, asked) = counts_after(120, happens).await;
            assert!(!counts, "{what}");
            assert!((2..40).contains(&asked), "{what}: {asked} questions in two minutes");
        }
        assert!(counts_after(600, |_| {}).await.0, "a quiet cluster is no failure");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_failing_watch_told_counts_for_a_while() {
        let server = Server::default();
        server.set("team-a", &json!({"tier": "prod"}));
        let namespaces = Namespaces::default();
        *namespaces.known_mut() = KnownNamespaces {
            client: Some(server.client()),
            watched: [("team-a".to_owned(), Arc::default())].into(),
            is_complete: true,
            failing_since: Some(Instant::now()),
            ..KnownNamespaces::default()
        };
        assert_eq!(namespaces.look("team-a").await, known(&[]));
        sleep(STALE).await;
        assert_eq!(namespaces.now("team-a"), None);
        assert_eq!(namespaces.look("team-a").await, known(&[("tier", "prod")]), "asked for");
        sleep(FRESH).await;
        for (code, part) in [(403, "may not get, list and watch"), (500, "does not say")] {
            server.0.lock().unwrap().fails = Some(code);
            let why = namespaces.look("team-a").await;
            assert!(why.unknown().is_some_and(|why| why.contains(part)), "{why:?}");
            sleep(FRESH).await;
        }
    }
}

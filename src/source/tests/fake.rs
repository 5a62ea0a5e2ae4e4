//! A store in memory that keeps virtual time, and what tests need to say of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::backoff::Jitter;
use super::super::clock::Clock;
use super::super::{Event, PinError, Source, SourceFailure};
use crate::bundle::{FileMode, Format, Target};
use crate::generation::{Generation, GenerationId};
use crate::plan::{Identity, PLAN_VERSION, Plan, PlannedFrom, PlannedItem, PlannedProvider, PlannedReference};
use crate::provider::arrive;
use crate::provider::file::FileSettings;
use crate::provider::{
    Answer, ErrorKind, Extended, Known, Lease, Pending, Provider, ProviderError, ProviderSettings, ReadResult, Reading,
    Session, Version,
};
use crate::reference::Request;
use crate::secret::{SecretTree, SecretValue};

/// What a test may look at and turn.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) failing: Option<ErrorKind>,
    pub(crate) failing_path: BTreeMap<String, ErrorKind>,
    pub(crate) failing_renewals: Option<ErrorKind>,
    pub(crate) failing_revocations: Option<ErrorKind>,
    pub(crate) slow: Duration,
    /// Answers in full even if nothing changed.
    pub(crate) unconditional: bool,
    /// TTL and whether logins can be renewed; `None` for a store without logins.
    pub(crate) logins: Option<(u64, bool)>,
    pub(crate) calls: Vec<String>,
    pub(crate) leases: BTreeMap<String, Granted>,
    /// Old versions, for pins.
    pub(crate) past: BTreeMap<(String, String), SecretTree>,
    pub(crate) login_count: u32,
    /// Requests that were answered with values.
    pub(crate) answered: u64,
    /// Requests that were answered with an error.
    pub(crate) refused: u64,
    mutations: u32,
    /// Leases live on without the login that made them.
    pub(crate) outliving: bool,
    /// What [`Provider::pace`] says.
    pub(crate) pace: Option<Duration>,
}

#[derive(Clone, Default)]
pub(crate) struct Secret {
    pub(crate) json: String,
    pub(crate) version: Option<String>,
    pub(crate) expires_in: Option<u64>,
    /// TTL, maximum TTL, renewable.
    pub(crate) lease: Option<(u64, u64, bool)>,
}

pub(crate) struct Granted {
    pub(crate) path: String,
    pub(crate) ends: Instant,
    pub(crate) latest: Instant,
}

#[derive(Clone, Default)]
pub(crate) struct Store {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) push: Arc<Notify>,
}

/// One connection to the store: its provider.
struct Connection {
    store: Store,
    session: Option<(String, Instant)>,
    /// Logins of which nobody was told yet.
    tried: Vec<Result<(), ProviderError>>,
}

/// Virtual time, with suspensions.
#[derive(Clone)]
pub(crate) struct FakeClock {
    origin: Instant,
    slept: Arc<Mutex<Duration>>,
}

// === impl State ===

impl State {
    fn denied(&self, path: &str) -> Option<ProviderError> {
        let kind = self.failing_path.get(path).copied().or(self.failing)?;
        Some(ProviderError::new(kind, format!("{} failed", kind.as_str())))
    }

    pub(crate) fn live(&self, path: &str) -> usize {
        self.leases.values().filter(|lease| lease.path == path && lease.ends > Instant::now()).count()
    }

    pub(crate) fn is_live(&self, id: &str) -> bool {
        self.leases.get(id).is_some_and(|lease| lease.ends > Instant::now())
    }

    /// How often something was called since the last time this was asked.
    pub(crate) fn take_calls(&mut self) -> Vec<String> {
        std::mem::take(&mut self.calls)
    }

    fn answer(&mut self, path: &str, known: Option<&Version>) -> ReadResult {
        let Some(secret) = self.secrets.get(path).cloned() else {
            return Err(ProviderError::new(ErrorKind::NotFound, "no such secret"));
        };
        let version = secret.version.map(Version);
        if !self.unconditional && version.is_some() && version.as_ref() == known {
            return Ok(Reading::NotModified);
        }
        let mut json = secret.json;
        let lease = secret.lease.map(|(ttl, max, renewable)| {
            self.mutations += 1;
            let id = format!("lease-{}", self.mutations);
            json = json.replace("$ID", &id);
            let now = Instant::now();
            let (ttl, max) = (Duration::from_secs(ttl), Duration::from_secs(max));
            self.leases.insert(id.clone(), Granted { path: path.to_owned(), ends: now + ttl, latest: now + max });
            Lease { id: id.as_str().into(), ttl, renewable }
        });
        let tree = SecretTree::from_json(json.as_bytes()).unwrap();
        arrive(tree.memory()).map_err(|problem| ProviderError::new(ErrorKind::Unavailable, problem))?;
        if let Some(Version(version)) = &version {
            self.past.insert((path.to_owned(), version.clone()), tree.clone());
        }
        Ok(Reading::Fresh(Answer { tree, version, expires_in: secret.expires_in.map(Duration::from_secs), lease }))
    }
}

// === impl Store ===

impl Store {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts a secret with a version.
    pub(crate) fn put(&self, path: &str, version: &str, json: &str) {
        let version = Some(version.to_owned());
        self.set(path, Secret { json: json.to_owned(), version, ..Secret::default() });
    }

    /// Puts a secret without one.
    pub(crate) fn put_plain(&self, path: &str, json: &str) {
        self.set(path, Secret { json: json.to_owned(), ..Secret::default() });
    }

    /// Puts an engine that makes credentials.
    pub(crate) fn put_leased(&self, path: &str, ttl: u64, max: u64, renewable: bool) {
        let json = r#"{"user":"$ID"}"#.to_owned();
        self.set(path, Secret { json, lease: Some((ttl, max, renewable)), ..Secret::default() });
    }

    pub(crate) fn set(&self, path: &str, secret: Secret) {
        self.state().secrets.insert(path.to_owned(), secret);
    }

    pub(crate) fn connect(&self) -> Box<dyn Provider> {
        Box::new(Connection { store: self.clone(), session: None, tried: Vec::new() })
    }
}

// === impl Connection ===

impl Connection {
    async fn enter(&mut self, call: String) -> Option<ProviderError> {
        let slow = {
            let mut state = self.store.state();
            state.calls.push(call);
            state.slow
        };
        tokio::time::sleep(slow).await;
        let denied = self.store.state().denied("");
        if denied.is_none() && self.session.as_ref().is_none_or(|(_, ends)| *ends <= Instant::now()) {
            self.log_in();
        }
        denied
    }

    fn log_in(&mut self) {
        let mut state = self.store.state();
        if let Some((ttl, _)) = state.logins {
            state.login_count += 1;
            let token = format!("token-{}", state.login_count);
            state.calls.push(format!("login {token}"));
            self.tried.push(Ok(()));
            self.session = Some((token, Instant::now() + Duration::from_secs(ttl)));
        }
    }
}

impl Provider for Connection {
    fn read<'a>(&'a mut self, requests: &'a [Request], known: &'a Known) -> Pending<'a, Vec<ReadResult>> {
        Box::pin(async move {
            let names: Vec<_> = requests.iter().map(|request| request.path.as_str()).collect();
            if let Some(error) = self.enter(format!("read {}", names.join(" "))).await {
                self.store.state().refused += requests.len() as u64;
                return requests.iter().map(|_| Err(error.clone())).collect();
            }
            let mut state = self.store.state();
            let mut read = |request: &Request| match (state.denied(&request.path), request.version()) {
                (Some(error), _) => Err(error),
                (None, None) => state.answer(&request.path, known.get(request)),
                (None, Some(version)) => {
                    let tree = state.past.get(&(request.path.clone(), version.to_owned())).cloned();
                    let tree = tree.ok_or_else(|| ProviderError::new(ErrorKind::NotFound, "no such version"))?;
                    let version = Some(Version(version.to_owned()));
                    Ok(Reading::Fresh(Answer { tree, version, expires_in: None, lease: None }))
                }
            };
            let results: Vec<ReadResult> = requests.iter().map(&mut read).collect();
            state.answered += results.iter().filter(|result| matches!(result, Ok(Reading::Fresh(_)))).count() as u64;
            state.refused += results.iter().filter(|result| result.is_err()).count() as u64;
            results
        })
    }

    fn renew<'a>(&'a mut self, lease: &'a Lease) -> Pending<'a, Result<Lease, ProviderError>> {
        Box::pin(async move {
            let id = lease.id.expose_str().unwrap().to_owned();
            if let Some(error) = self.enter(format!("renew {id}")).await {
                return Err(error);
            }
            let mut state = self.store.state();
            if let Some(kind) = state.failing_renewals {
                return Err(ProviderError::new(kind, "renewals fail"));
            }
            if !state.is_live(&id) {
                return Err(ProviderError::new(ErrorKind::Invalid, "lease not found"));
            }
            let now = Instant::now();
            let ttl = state.secrets.get(&state.leases[&id].path).unwrap().lease.unwrap().0;
            let granted = state.leases.get_mut(&id).unwrap();
            granted.ends = (now + Duration::from_secs(ttl)).min(granted.latest);
            Ok(Lease { id: lease.id.clone(), ttl: granted.ends - now, renewable: true })
        })
    }

    fn revoke<'a>(&'a mut self, lease: &'a Lease) -> Pending<'a, Result<(), ProviderError>> {
        Box::pin(async move {
            let id = lease.id.expose_str().unwrap().to_owned();
            if let Some(error) = self.enter(format!("revoke {id}")).await {
                return Err(error);
            }
            let mut state = self.store.state();
            if let Some(kind) = state.failing_revocations {
                return Err(ProviderError::new(kind, "revocations fail"));
            }
            if let Some(granted) = state.leases.get_mut(&id) {
                granted.ends = Instant::now();
            }
            Ok(())
        })
    }

    fn changed(&mut self) -> Pending<'_, ()> {
        Box::pin(async { self.store.push.notified().await })
    }

    fn take_logins(&mut self) -> Vec<Result<(), ProviderError>> {
        std::mem::take(&mut self.tried)
    }

    fn leases_outlive_logins(&self) -> bool {
        self.store.state().outliving
    }

    fn pace(&self) -> Option<Duration> {
        self.store.state().pace
    }

    fn set_decryption_key(&mut self, identity: SecretValue) {
        self.store.state().calls.push(format!("unlock {}", identity.expose_str().unwrap()));
    }

    fn session(&self) -> Option<Session> {
        let (token, ends) = self.session.as_ref()?;
        let renewable = self.store.state().logins?.1;
        Some(Session { token: token.as_str().into(), ttl: Some(*ends - Instant::now()), renewable })
    }

    fn resume(&mut self, session: Session) {
        let token = session.token.expose_str().unwrap().to_owned();
        self.session = Some((token, Instant::now() + session.ttl.unwrap()));
    }

    fn extend_session(&mut self) -> Pending<'_, Result<Extended, ProviderError>> {
        Box::pin(async {
            if let Some(error) = self.enter("extend".to_owned()).await {
                return Err(error);
            }
            let (ttl, renewable) = self.store.state().logins.unwrap();
            if !renewable {
                self.log_in();
                return Ok(Extended::Replaced);
            }
            self.session.as_mut().unwrap().1 = Instant::now() + Duration::from_secs(ttl);
            Ok(Extended::Renewed)
        })
    }

    fn end_session(&mut self) -> Pending<'_, Result<(), ProviderError>> {
        Box::pin(async {
            if let Some((token, _)) = self.session.take() {
                self.store.state().calls.push(format!("end {token}"));
            }
            Ok(())
        })
    }
}

// === impl FakeClock ===

impl FakeClock {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), slept: Arc::default() }
    }

    /// What a suspended machine does: time goes on, timers do not.
    pub(crate) fn suspend(&self, seconds: u64) {
        *self.slept.lock().unwrap() += Duration::from_secs(seconds);
    }
}

impl Clock for FakeClock {
    fn system(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + self.since_boot()
    }

    fn since_boot(&self) -> Duration {
        self.origin.elapsed() + *self.slept.lock().unwrap()
    }
}

// Words of the tests.

pub(crate) fn request(text: &str) -> Request {
    let (provider, path) = text.split_once(':').unwrap();
    Request { provider: provider.to_owned(), path: path.to_owned(), params: BTreeMap::new() }
}

/// A plan that wants these requests, each in a file of its own; a `?` at the end makes one optional. Polled every 60 s.
pub(crate) fn plan(requests: &[&str]) -> Plan {
    let item = |(index, text): (usize, &&str)| PlannedItem {
        target: Target::File(format!("f{index}").parse().unwrap()),
        from: PlannedFrom::One(PlannedReference { request: request(text.trim_end_matches('?')), key: None }),
        format: Format::Json,
        mode: FileMode::OWNER,
        decode: None,
        template: None,
        optional: text.ends_with('?'),
    };
    let provider = |text: &&str| {
        let planned = PlannedProvider {
            settings: ProviderSettings::File(FileSettings::at("/nowhere")),
            role: None,
            audience: None,
            refresh_seconds: 60,
            revoke_on_exit: true,
            proxy: None,
            ca_bundle: false,
            unlock: None,
        };
        (request(text).provider, planned)
    };
    Plan {
        version: PLAN_VERSION,
        identity: Identity { namespace: "team".to_owned(), service_account: "web".to_owned() },
        providers: requests.iter().map(provider).collect(),
        items: requests.iter().enumerate().map(item).collect(),
        notify: Vec::new(),
        size_limit: 1 << 20,
        metrics_port: None,
        restart_all: None,
        containers: Vec::new(),
        audit: true,
    }
}

pub(crate) fn source(requests: &[&str], stores: &[(&str, &Store)]) -> Source {
    with_clock(requests, stores, &FakeClock::new())
}

pub(crate) fn with_clock(requests: &[&str], stores: &[(&str, &Store)], clock: &FakeClock) -> Source {
    with_plan(&plan(requests), stores, clock)
}

pub(crate) fn with_plan(plan: &Plan, stores: &[(&str, &Store)], clock: &FakeClock) -> Source {
    let providers = stores.iter().map(|(name, store)| ((*name).to_owned(), store.connect())).collect();
    Source::with(plan, providers, Box::new(clock.clone()), Jitter::seeded(42))
}

/// What happens within `seconds`.
pub(crate) async fn events(source: &mut Source, seconds: u64) -> VecDeque<Event> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut events = VecDeque::new();
    while let Ok(event) = tokio::time::timeout_at(until, source.next()).await {
        events.push_back(event);
    }
    events
}

pub(crate) fn generations(events: VecDeque<Event>) -> Vec<Generation> {
    let generation = |event| if let Event::Changed(generation) = event { Some(generation) } else { None };
    events.into_iter().filter_map(generation).collect()
}

pub(crate) fn failures(events: VecDeque<Event>) -> Vec<SourceFailure> {
    let failures = |event| if let Event::Failed(failures) = event { Some(failures) } else { None };
    events.into_iter().filter_map(failures).flatten().collect()
}

/// The next generation, which must come within `seconds`.
pub(crate) async fn generation(source: &mut Source, seconds: u64) -> Generation {
    let wait = async {
        loop {
            if let Event::Changed(generation) = source.next().await {
                return generation;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(seconds), wait).await.expect("no generation in time")
}

pub(crate) fn text(generation: &Generation, of: &str, key: &str) -> String {
    let value = generation.answers[&request(of)].key(key).unwrap();
    value.as_value().and_then(SecretValue::expose_str).unwrap().to_owned()
}

/// An earlier generation, with whatever it takes; after a look at what is due.
pub(crate) async fn read_again(source: &mut Source, id: &GenerationId) -> Result<Generation, PinError> {
    let _ = source.next().now_or_never();
    loop {
        if let Some(generation) = source.read_again(id)? {
            return Ok(generation);
        }
        source.next().await;
    }
}

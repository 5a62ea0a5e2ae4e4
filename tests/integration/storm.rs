//! A crowd at the gate: 500 agents that start at the same moment, behind one network address.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hushpod::plan::Plan;
use hushpod::provider::http::Reach;
use hushpod::provider::infisical::Infisical;
use hushpod::provider::{
    Answer, ErrorKind, Extended, Known, Lease, Login, Pending, Provider, ProviderError, ProviderSettings, ReadResult,
    Reading, Session, Version,
};
use hushpod::reference::Request;
use hushpod::secret::SecretTree;
use hushpod::source::{Event, Source};
use serde_json::json;
use tokio::time::Instant;

use crate::fakes::infisical::{FakeInfisical, Identity, Limited, PROJECT, Year};
use crate::fakes::server::{Fault, Received};
use crate::fakes::token;

const AGENTS: usize = 500;
const IDENTITY: &str = "0f0e0d0c-0000-4000-8000-000000000001";

/// A provider whose requests hold the paused clock, which would else jump while bytes are on their way: it goes on when
/// nobody has anything to do.
struct Attended(Infisical);

async fn attend<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::task::yield_now() => {}
        }
    }
}

impl Provider for Attended {
    fn read<'a>(&'a mut self, requests: &'a [Request], known: &'a Known) -> Pending<'a, Vec<ReadResult>> {
        Box::pin(attend(self.0.read(requests, known)))
    }

    fn renew<'a>(&'a mut self, lease: &'a Lease) -> Pending<'a, Result<Lease, ProviderError>> {
        self.0.renew(lease)
    }

    fn revoke<'a>(&'a mut self, lease: &'a Lease) -> Pending<'a, Result<(), ProviderError>> {
        self.0.revoke(lease)
    }

    fn session(&self) -> Option<Session> {
        self.0.session()
    }

    fn extend_session(&mut self) -> Pending<'_, Result<Extended, ProviderError>> {
        Box::pin(attend(self.0.extend_session()))
    }

    fn leases_outlive_logins(&self) -> bool {
        self.0.leases_outlive_logins()
    }

    fn pace(&self) -> Option<Duration> {
        self.0.pace()
    }
}

fn settings(fake: &FakeInfisical) -> ProviderSettings {
    serde_json::from_value(json!({"type": "infisical", "address": format!("http://{}", fake.address),
        "project": PROJECT, "environment": "prod"}))
    .unwrap()
}

fn plan(settings: &ProviderSettings) -> Plan {
    let request = settings.as_settings().resolve("infisical", &"infisical:/backend".parse().unwrap()).unwrap();
    let plan = json!({
        "version": 1, "identity": {"namespace": "shop", "serviceAccount": "web"}, "sizeLimit": 65536,
        "providers": {"infisical": {"settings": settings, "role": IDENTITY, "audience": "infisical", "refreshSeconds": 30}},
        "items": [{"target": {"dir": "app"}, "from": {"one": request.to_string()}, "mode": "0400"}],
    });
    Plan::from_json(&plan.to_string()).unwrap()
}

/// Chance that is the same in each run, and another for each agent.
fn seed(number: usize) -> u64 {
    u64::try_from(number).unwrap().wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Pods of one account that ask Infisical for a folder, and how many of them were served.
struct Crowd {
    served: Arc<AtomicUsize>,
    _agents: tokio::task::JoinSet<()>,
    _token: tempfile::TempDir,
}

impl Crowd {
    fn start(size: usize, fake: &FakeInfisical) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("token");
        let claims = json!({"aud": ["infisical"], "sub": "system:serviceaccount:shop:web"});
        std::fs::write(&token_file, token::sign(&claims, 24 * 3600)).unwrap();
        let settings = settings(fake);
        let ProviderSettings::Infisical(infisical) = &settings else { panic!("not Infisical's") };
        let served = Arc::new(AtomicUsize::new(0));
        let mut agents = tokio::task::JoinSet::new();
        for number in 0..size {
            let login = Login {
                provider: "infisical".to_owned(),
                role: Some(IDENTITY.to_owned()),
                token: token_file.clone().into(),
            };
            let inner = Infisical::connect(infisical, login, Reach::default()).unwrap();
            let provider: Box<dyn Provider> = Box::new(Attended(inner));
            let providers = BTreeMap::from([("infisical".to_owned(), provider)]);
            let mut source = Source::simulated(&plan(&settings), providers, seed(number));
            let served = Arc::clone(&served);
            agents.spawn(async move {
                loop {
                    if let Event::Changed(_) = source.next().await {
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        Self { served, _agents: agents, _token: dir }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

fn with_folder(fake: &FakeInfisical) {
    fake.server().set_identity(IDENTITY, Identity::default());
    for number in 0..20 {
        fake.server().put("prod", "/backend", &format!("KEY_{number}"), "canary");
    }
}

/// What a pod that waits costs its store, and everybody behind the same address: real requests are counted, whatever
/// they are for.
#[tokio::test(start_paused = true)]
async fn p3_pods_that_wait_ask_seldom_and_start_soon_after_their_stores_return() {
    const PODS: usize = 3;
    let all: fn(&Received) -> bool = |_| true;
    let reads: fn(&Received) -> bool = |received| received.path.contains("/secrets");
    let error = |status| Fault::Status(status, Vec::new(), "{}".to_owned());
    // (what, how many log in at all, what fails, how)
    for (what, logged_in, meets, fault) in [
        ("nothing works", 0, all, error(500)),
        ("a front end without its store", 0, all, error(503)),
        ("logins work", PODS, reads, error(500)),
        ("logins work, and answers break off", PODS, reads, Fault::Truncated),
    ] {
        let fake = FakeInfisical::plain(Year::Y2026).await;
        with_folder(&fake);
        let is_down = Arc::new(AtomicBool::new(true));
        let down = Arc::clone(&is_down);
        fake.fail(move |received| down.load(Ordering::SeqCst) && meets(received), usize::MAX, fault);
        let crowd = Crowd::start(PODS, &fake);
        let start = Instant::now();
        let mut by_minute = Vec::new();
        let mut logins = 0;
        for minute in 1..=4 {
            while start.elapsed() < Duration::from_mins(minute) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                fake.server().set_time(start.elapsed());
            }
            let seen = fake.take_seen();
            logins += seen.iter().filter(|received| received.path.ends_with("/login")).count();
            by_minute.push(seen.len());
        }
        assert_eq!(crowd.served(), 0, "{what}");
        // 1 s, 2 s, 4 s, then 5 s, each of them at least half as long.
        assert!(by_minute[0] <= 27 * PODS + logged_in, "{what}: {by_minute:?}");
        assert!(
            by_minute[1..].iter().all(|requests| (12 * PODS..=24 * PODS).contains(requests)),
            "{what}: {by_minute:?}"
        );
        if logged_in > 0 {
            assert_eq!(logins, PODS, "{what}: one login is as good as another");
        }

        is_down.store(false, Ordering::SeqCst);
        let back = Instant::now();
        while crowd.served() < PODS {
            assert!(back.elapsed() < Duration::from_secs(15), "{what}: served {}", crowd.served());
            tokio::time::sleep(Duration::from_millis(100)).await;
            fake.server().set_time(start.elapsed());
        }
    }
}

/// 600 requests a minute for all: half of them for logins, half for secrets. All want to poll every 30 s, which would be
/// 1000.
#[tokio::test(start_paused = true)]
async fn p6_five_hundred_agents_start_together_and_settle_below_the_limit() {
    let fake = FakeInfisical::plain(Year::Y2026).await;
    with_folder(&fake);
    for kind in [Limited::Write, Limited::Secrets] {
        fake.server().set_limit(kind, 300);
    }
    let crowd = Crowd::start(AGENTS, &fake);

    // The server's clock goes with the paused one; while somebody is at work, both stand still, however long that takes.
    let start = Instant::now();
    let mut all_served = None;
    let mut by_minute = Vec::new();
    for minute in 0..16 {
        while start.elapsed() < Duration::from_mins(minute + 1) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            fake.server().set_time(start.elapsed());
            if all_served.is_none() && crowd.served() == AGENTS {
                all_served = Some(start.elapsed());
            }
        }
        let answered = fake.take_answered();
        let count = |status: u16| answered.iter().filter(|(_, _, answer)| *answer == status).count();
        by_minute.push((answered.len(), count(429), count(401) + count(403)));
    }
    let told = format!("requests, throttled, refused by minute: {by_minute:?}");
    assert!(all_served.is_some_and(|took| took < Duration::from_mins(4)), "served after {all_served:?}; {told}");
    assert_eq!(crowd.served(), AGENTS, "nothing changed, so nobody was served twice");
    assert_eq!(by_minute.iter().map(|(_, _, refused)| refused).sum::<usize>(), 0, "{told}");
    let (settled, throttled) =
        by_minute.iter().rev().take(4).fold((0, 0), |(all, busy), minute| (all + minute.0, busy + minute.1));
    // Five sixths of the limit are used, in no order: now and then a minute has a sixth more.
    assert!(throttled * 200 <= settled, "{told}");
    assert!((4 * 100..4 * 300).contains(&settled), "{told}");
}

/// A store of which only the doors are of interest: who comes when, and what it says.
#[derive(Default)]
struct Doors {
    /// Requests by second since the beginning.
    came: Vec<usize>,
    is_down: bool,
    /// Requests of a minute that are answered; the others are told when the next one begins.
    limit: Option<usize>,
}

struct Visitor {
    doors: Arc<Mutex<Doors>>,
    began: Instant,
}

impl Visitor {
    fn ask(&self, known: bool) -> ReadResult {
        let mut doors = self.doors.lock().unwrap();
        let now = usize::try_from(self.began.elapsed().as_secs()).unwrap();
        let length = doors.came.len().max(now + 1);
        doors.came.resize(length, 0);
        doors.came[now] += 1;
        if doors.is_down {
            return Err(ProviderError::new(ErrorKind::Unavailable, "refused"));
        }
        let minute = now - now % 60;
        if doors.limit.is_some_and(|limit| doors.came[minute..=now].iter().sum::<usize>() > limit) {
            let retry_after = Some(Duration::from_secs(60 - now as u64 % 60));
            return Err(ProviderError::new(ErrorKind::Throttled { retry_after }, "too many requests"));
        }
        if known {
            return Ok(Reading::NotModified);
        }
        let tree = SecretTree::from_json(b"{\"KEY\": \"canary\"}").unwrap();
        Ok(Reading::Fresh(Answer { tree, version: Some(Version("1".to_owned())), expires_in: None, lease: None }))
    }
}

impl Provider for Visitor {
    fn read<'a>(&'a mut self, requests: &'a [Request], known: &'a Known) -> Pending<'a, Vec<ReadResult>> {
        let answers = requests.iter().map(|request| self.ask(known.contains_key(request))).collect();
        Box::pin(std::future::ready(answers))
    }
}

/// What 5,000 agents that poll every 30 s are to a store that throttles them for a while, goes away for five minutes, and
/// comes back: no crowd. (While it is away each looks for it a few times more, at moments of its own.)
#[tokio::test(start_paused = true)]
async fn p3_five_thousand_agents_come_back_one_by_one() {
    const AGENTS: usize = 5000;
    const MINUTE: usize = 60;
    let fake = FakeInfisical::plain(Year::Y2026).await;
    let plan = plan(&settings(&fake));
    let doors = Arc::new(Mutex::new(Doors::default()));
    let began = Instant::now();
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..AGENTS {
        let provider: Box<dyn Provider> = Box::new(Visitor { doors: Arc::clone(&doors), began });
        let providers = BTreeMap::from([("infisical".to_owned(), provider)]);
        let mut source = Source::simulated(&plan, providers, seed(number));
        agents.spawn(async move {
            loop {
                source.next().await;
            }
        });
    }
    // (what, minutes, is the store down, its limit)
    let mut busiest = BTreeMap::new();
    let mut from = 0;
    for (what, minutes, is_down, limit) in [
        ("start", 8, false, None),
        ("steady", 4, false, None),
        ("throttled", 5, false, Some(3000)),
        ("free again", 3, false, None),
        ("away", 5, true, None),
        ("back", 3, false, None),
        ("away once more", 5, true, None),
        ("back, and throttling", 5, false, Some(8000)),
        ("free at last", 3, false, None),
    ] {
        {
            let mut doors = doors.lock().unwrap();
            (doors.is_down, doors.limit) = (is_down, limit);
        }
        tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
        let doors = doors.lock().unwrap();
        let to = doors.came.len();
        let phase = &doors.came[from..to];
        busiest
            .insert(what, (*phase.iter().max().unwrap(), phase.iter().sum::<usize>() / phase.len().div_ceil(MINUTE)));
        from = to;
    }
    let (steady, _) = busiest["steady"];
    for what in ["throttled", "free again", "back", "back, and throttling", "free at last"] {
        let (most, _) = busiest[what];
        assert!(most <= 2 * steady, "{what}: most requests in a second, and requests a minute: {busiest:?}");
    }
}

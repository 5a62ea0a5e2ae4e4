use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::Level;

use super::*;
use crate::audit::{AuditEvent, AuditLine, Program, Who};
use crate::deliver::delivery::{Delivery, Due};
use crate::deliver::volume::AtomicVolume;
use crate::process::testing::log::Log;
use crate::provider::ErrorKind;
use crate::secret::SecretTree;
use crate::source::Event;
use crate::source::tests::fake::{FakeClock, Store, plan, request, source, with_plan};

/// A generation of (request, version, access).
fn generation(id: &str, of: &[(&str, Option<&str>, Option<&str>)]) -> Generation {
    let tree = || Arc::new(SecretTree::Text("canary".into()));
    let versions = of.iter().filter_map(|(name, version, _)| Some((request(name), Version((*version)?.to_owned()))));
    let accesses = of.iter().filter_map(|(name, _, access)| Some((request(name), Access((*access)?.to_owned()))));
    Generation {
        id: GenerationId(id.to_owned()),
        answers: of.iter().map(|(name, ..)| (request(name), tree())).collect(),
        versions: versions.collect(),
        accesses: accesses.collect(),
    }
}

#[tokio::test]
async fn each_answer_is_told_when_it_comes_into_the_files_and_when_it_comes_back() {
    let (log, _listening) = Log::listen(Level::INFO);
    let mut shown = ShownAnswers::told_to(AuditLog::new(Program::Agent, Who::default()));
    let nobody = source(&["a:x"], &[]);
    let told = || {
        let lines = log.text();
        let lines = lines.lines().filter_map(AuditLine::read).inspect(|line| {
            assert_eq!(line.event, AuditEvent::Delivery);
        });
        let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let each = lines.map(|line| {
            let access = text(line.access.map(|Access(id)| id));
            let generation = text(line.generation.map(|GenerationId(id)| id));
            format!("{} {access} {generation} {:?}", text(line.reference), line.outcome)
        });
        each.collect::<Vec<_>>()
    };
    let first = generation("g1", &[("a:x", Some("1"), Some("1")), ("a:y", None, Some("2"))]);
    let second = generation("g2", &[("a:x", Some("2"), Some("3")), ("a:y", None, Some("2"))]);
    shown.not_delivered(&first);
    shown.delivered(&first);
    shown.delivered(&first);
    shown.not_delivered(&second);
    shown.delivered(&second);
    shown.rolled_back(&first.id, &nobody);
    // Read again, for a pin; and without versions, the access tells.
    shown.delivered(&generation("g3", &[("a:x", Some("1"), Some("9")), ("a:y", None, Some("4"))]));
    shown.delivered(&generation("g4", &[("a:x", Some("1"), Some("9"))]));
    let expected = [
        "a:x 1 - NotDelivered",
        "a:y 2 - NotDelivered",
        "a:x 1 g1 Ok",
        "a:y 2 g1 Ok",
        "a:x 3 g1 NotDelivered",
        "a:x 3 g2 Ok",
        "a:x 1 g1 Ok",
        "a:y 4 g3 Ok",
    ];
    assert_eq!(told(), expected);
    assert!(!log.text().contains("canary"));
}

/// A pod's source and its files, as an agent or a feed has them.
async fn live(mut source: Source, mut delivery: Delivery<AtomicVolume>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            due = delivery.wait() => if due == Due::Retry {
                delivery.retry(&mut source).await;
            },
            event = source.next() => if let Event::Changed(generation) = event {
                delivery.offer(generation);
            },
        }
        delivery.catch_up(&mut source).await.unwrap();
    }
}

const PODS: usize = 200;
const HOURS: u64 = 24;
/// A secret with versions, one without, leased credentials, and one that is not there and need not be.
const WANTED: [&str; 4] = ["a:kv", "a:plain", "a:leased", "a:absent?"];

/// Every third pod's store is down for an hour, every tenth has logins and leases; a secret is changed every three hours.
#[tokio::test(start_paused = true)]
async fn p5_a_day_of_two_hundred_pods_is_told_in_full_and_without_a_value() {
    let (log, _listening) = Log::listen(Level::INFO);
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let shutdown = CancellationToken::new();
    let (mut stores, mut tasks) = (Vec::new(), Vec::new());
    let put = |store: &Store, number: usize, hour: u64| {
        store.put("kv", &hour.to_string(), &format!("{{\"k\":\"canary-{number}-{hour}\"}}"));
    };
    for number in 0..PODS {
        let store = Store::default();
        put(&store, number, 0);
        store.put_plain("plain", &format!("{{\"k\":\"canary-{number}\"}}"));
        let wanted: Vec<_> = WANTED.into_iter().filter(|name| number % 10 == 0 || !name.contains("leased")).collect();
        if number % 10 == 0 {
            store.put_leased("leased", 6 * 3600, 12 * 3600, true);
            store.state().logins = Some((8 * 3600, false));
        }
        let mut plan = plan(&wanted);
        plan.providers.values_mut().for_each(|provider| provider.refresh_seconds = 900);
        let who = Who { pod: Some(format!("web-{number}")), uid: Some(number.to_string()), ..Who::default() };
        let audit = AuditLog::new(Program::Agent, who);
        let source = with_plan(&plan, &[("a", &store)], &FakeClock::new()).audited(audit.clone());
        let path = dir.path().join(number.to_string());
        std::fs::create_dir(&path).unwrap();
        let volume = AtomicVolume::open(&path, Duration::from_millis(1)).unwrap();
        let delivery = Delivery::new(plan.items, plan.size_limit, volume).audited(audit);
        tasks.push(tokio::spawn(live(source, delivery, shutdown.clone())));
        stores.push(store);
    }
    for hour in 1..=HOURS {
        tokio::time::sleep(Duration::from_hours(1)).await;
        for (number, store) in stores.iter().enumerate() {
            store.state().failing = (number % 3 == 0 && hour == 12).then_some(ErrorKind::Unavailable);
            if hour % 3 == 0 && hour < HOURS {
                put(store, number, hour);
            }
        }
    }
    shutdown.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    check_a_day(&log.text(), &stores);
}

/// Each access of each pod is told, and none twice.
fn check_a_day(text: &str, stores: &[Store]) {
    let lines: Vec<_> = text.lines().filter_map(AuditLine::read).collect();
    assert!(!text.contains("canary") && !text.contains("lease-") && !text.contains("token-"));
    for (number, store) in stores.iter().enumerate() {
        let name = format!("web-{number}");
        let of_pod: Vec<_> = lines.iter().filter(|line| line.who.pod.as_ref() == Some(&name)).collect();
        let count = |event: AuditEvent, is_ok: bool| {
            let of_kind =
                of_pod.iter().filter(|line| line.event == event && (line.outcome == AuditOutcome::Ok) == is_ok);
            of_kind.map(|line| line.count).sum::<u64>()
        };
        let state = store.state();
        let (read, refused) = (count(AuditEvent::Read, true), count(AuditEvent::Read, false));
        assert_eq!((read, refused), (state.answered, state.refused), "{name}");
        assert_eq!(count(AuditEvent::Login, true), u64::from(state.login_count), "{name}");
        // Each version, each credential, and what has no versions once.
        let expected = HOURS / 3 + 1 + state.leases.len() as u64;
        assert_eq!(count(AuditEvent::Delivery, true), expected, "{name}");
        assert_eq!(count(AuditEvent::Delivery, false), 0, "{name}");
        assert!((40..160).contains(&of_pod.len()), "{name}: {}", of_pod.len());
        for delivery in of_pod.iter().filter(|line| line.event == AuditEvent::Delivery) {
            let of_access =
                of_pod.iter().filter(|line| line.access == delivery.access && line.event == AuditEvent::Read);
            assert_eq!(of_access.count(), 1, "{delivery:?}");
        }
    }
}

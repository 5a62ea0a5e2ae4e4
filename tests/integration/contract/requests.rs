//! What an hour without a change costs, as the table of stores in src/config.md says it.

use std::collections::BTreeMap;

use hushpod::annotations;
use hushpod::config::Config;
use hushpod::plan::{Identity, Plan};
use hushpod::provider::Pending;
use hushpod::source::{Event, Source};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::readme::cell;

const FILES: usize = 20;
/// Few enough that no login ends meanwhile.
const POLLS: usize = 8;

/// A provider that never lets the runtime idle while it reads: the paused clock would else jump while bytes are on
/// their way. It tells of no login, so none is extended: logins come on top of what the table says.
struct Wakeful(Box<dyn Provider>);

impl Provider for Wakeful {
    fn read<'a>(&'a mut self, requests: &'a [Request], known: &'a Known) -> Pending<'a, Vec<ReadResult>> {
        Box::pin(async move {
            let mut read = self.0.read(requests, known);
            std::future::poll_fn(|context| {
                let done = read.as_mut().poll(context);
                if done.is_pending() {
                    context.waker().wake_by_ref();
                }
                done
            })
            .await
        })
    }

    fn pace(&self) -> Option<Duration> {
        self.0.pace()
    }
}

/// A plan of so many files, with nothing said of how often to look.
fn plan(kind: &str, settings: &impl Serialize, references: &[String]) -> Plan {
    let mut provider = serde_json::to_value(settings).unwrap();
    provider["type"] = json!(kind);
    provider["role"] = json!("web");
    let config = json!({"image": "hushpod:t", "defaultProvider": "store", "providers": {"store": provider}});
    let files = references.iter().cycle().take(FILES).enumerate();
    let annotations: BTreeMap<_, _> = files
        .map(|(number, reference)| (format!("{}file.f{number}", hushpod::contract::PREFIX), reference.clone()))
        .collect();
    let (bundle, options) = annotations::parse(&annotations).unwrap();
    let identity = Identity { namespace: "shop".to_owned(), service_account: "web".to_owned() };
    Plan::build(identity, &bundle, &options, &Config::from_yaml(&config.to_string()).unwrap()).unwrap()
}

/// How many seconds apart polls are, and how many requests one makes that finds so many secrets unchanged.
async fn poll_of<S: Subject<Settings: Serialize>>(kind: &str, secrets: usize) -> (u64, usize) {
    let store = S::fake().await;
    let mut references = Vec::new();
    for number in 0..secrets {
        references.push(store.put(&format!("steady-{number}"), "canary").await);
    }
    let settings = store.settings(store.ca().as_deref());
    let plan = plan(kind, &settings, &references);
    let provider: Box<dyn Provider> = Box::new(Wakeful(store.connect(&settings, Limits::default())));
    let mut source = Source::new(&plan, BTreeMap::from([("store".to_owned(), provider)]));
    let Event::Changed(first) = source.next().await else { panic!("no first generation") };
    assert_eq!(first.answers.len(), secrets);

    tokio::time::pause();
    // What kind of secret it is, a provider may have to learn once.
    assert!(matches!(source.next().await, Event::Unchanged));
    store.server().map(FakeServer::take_seen);
    let start = Instant::now();
    for _ in 0..POLLS {
        assert!(matches!(source.next().await, Event::Unchanged));
    }
    let apart = start.elapsed().as_secs_f64() / f64::from(u32::try_from(POLLS).unwrap());
    tokio::time::resume();
    let refresh = plan.providers["store"].refresh_seconds;
    let told = u32::try_from(refresh).map(f64::from).unwrap();
    assert!((0.9 * told..=1.1 * told).contains(&apart), "all at once, every {refresh} s ± 10 %: {apart}");
    let requests = store.server().unwrap().take_seen().len();
    assert_eq!(requests % POLLS, 0, "{requests} in {POLLS} polls");
    (refresh, requests / POLLS)
}

async fn assert_costs<S: Subject<Settings: Serialize>>(kind: &str) {
    for (row, secrets) in
        [("requests an hour for 20 files of 20 secrets", FILES), ("requests an hour for 20 files of one secret", 1)]
    {
        let said = cell(row, kind).replace(',', "");
        // Each of the suite's secrets is in a folder of its own, where there are folders.
        let said = match said.strip_suffix(" a folder") {
            Some(each) => each.parse::<u64>().unwrap() * u64::try_from(secrets).unwrap(),
            None => said.parse().unwrap(),
        };
        let (refresh, requests) = poll_of::<S>(kind, secrets).await;
        assert_eq!(u64::try_from(requests).unwrap() * 3600 / refresh, said, "{kind}: {row}");
        assert_eq!(cell("polled every, unless told", kind), format!("{} min", refresh / 60));
    }
}

#[tokio::test]
async fn an_hour_without_a_change_costs_what_the_readme_says() {
    assert_costs::<vault::Shared>("vault").await;
    assert_costs::<infisical::Shared>("infisical").await;
    assert_costs::<aws::Secrets>("aws").await;
    assert_costs::<aws::Parameters>("ssm").await;
    assert_costs::<azure::Shared>("azure").await;
    assert_costs::<gcp::Shared>("gcp").await;
}

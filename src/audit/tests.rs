use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::Level;

use super::*;
use crate::generation::GenerationId;
use crate::process::testing::log::Log;
use crate::reference::{Request, Version};

const PAGE: &str = include_str!("../audit.md");

fn who() -> Who {
    Who {
        namespace: "shop".to_owned(),
        account: "web".to_owned(),
        pod: Some("web-1".to_owned()),
        uid: Some("6f0c".to_owned()),
        node: Some("node-3".to_owned()),
    }
}

fn request(path: &str) -> Request {
    Request { provider: "vault".to_owned(), path: path.to_owned(), params: BTreeMap::default() }
}

fn version(name: &str) -> Version {
    Version(name.to_owned())
}

fn lines(log: &Log) -> Vec<AuditLine> {
    log.text().lines().filter_map(AuditLine::read).collect()
}

/// One line of each kind, with every field.
fn all_kinds() -> Vec<AuditLine> {
    let (log, _listening) = Log::listen(Level::INFO);
    let audit = AuditLog::new(Program::Agent, who());
    audit.login("vault", Some("web"), AuditOutcome::Ok);
    let access = audit.read(&request("secret/data/db"), Some(&version("7")), true);
    let generation = GenerationId("4f1c".to_owned());
    audit.delivery(
        access.as_ref(),
        &request("secret/data/db"),
        Some(&version("7")),
        Some(&generation),
        AuditOutcome::Ok,
    );
    audit.read_failed(&request("a"), AuditOutcome::Unavailable);
    audit.read_failed(&request("a"), AuditOutcome::Unavailable);
    audit.read_failed(&request("a"), AuditOutcome::Unavailable);
    drop(audit);
    let asked = |count: usize| {
        let rule = Some("providers.vault.allow[0]".to_owned());
        (0..count)
            .map(move |at| AskedRequest { reference: format!("vault:{at}/{}", "x".repeat(500)), rule: rule.clone() })
    };
    let requests = AskedRequests::new(asked(40).collect());
    let admission = Admission {
        namespace: "shop",
        account: "web",
        pod: "web-7d4b9-*",
        user: "system:serviceaccount:kube-system:replicaset-controller",
        requests: Some(&requests),
        problem: Some("namespace \"shop\" may not use provider \"vault\""),
    };
    write_admission(&admission, AuditOutcome::Denied);
    lines(&log)
}

/// First cells of the rows of a table of the page, and the second ones.
fn rows(mark: &str) -> Vec<(BTreeSet<String>, String)> {
    let (_, rest) = PAGE.split_once(&format!("<!-- {mark}: tested by src/audit/tests.rs -->\n")).unwrap();
    let (table, _) = rest.split_once("<!-- end -->").unwrap();
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let cells = table.trim().lines().skip(2).map(|row| row.trim_matches('|').split('|').collect::<Vec<_>>());
    cells.map(|cells| (words(cells[0]), cells[1].to_owned())).collect()
}

#[test]
fn the_page_tells_every_field_event_and_outcome() {
    let told = |mark: &str| rows(mark).into_iter().flat_map(|(names, _)| names).collect::<BTreeSet<_>>();
    let lines = all_kinds();
    let mut written = BTreeSet::new();
    for line in &lines {
        let serde_json::Value::Object(fields) = serde_json::to_value(line).unwrap() else { panic!("{line:?}") };
        let event = fields["event"].as_str().unwrap().to_owned();
        for name in fields.keys() {
            let (_, of) = rows("fields").into_iter().find(|(names, _)| names.contains(name)).unwrap();
            let is_told = of.contains("all") || of.contains("repeats") || of.contains(&format!("`{event}`"));
            assert!(is_told, "{name} in {event}: the page has it in {of}");
        }
        written.extend(fields.keys().cloned());
    }
    assert_eq!(written, told("fields"));
    let names = |values: Vec<serde_json::Value>| -> BTreeSet<_> {
        values.into_iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    let event = |event| serde_json::to_value::<AuditEvent>(event).unwrap();
    let all = [AuditEvent::Admission, AuditEvent::Login, AuditEvent::Read, AuditEvent::Delivery];
    assert_eq!(names(all.map(event).into()), told("events"));
    let outcome = |outcome| serde_json::to_value::<AuditOutcome>(outcome).unwrap();
    let all = [
        AuditOutcome::Ok,
        AuditOutcome::Allowed,
        AuditOutcome::Denied,
        AuditOutcome::NotFound,
        AuditOutcome::Invalid,
        AuditOutcome::Throttled,
        AuditOutcome::Unavailable,
        AuditOutcome::NotDelivered,
    ];
    assert_eq!(names(all.map(outcome).into()), told("outcomes"));
}

#[test]
fn the_pages_examples_are_lines() {
    let examples: Vec<_> = PAGE.lines().filter(|line| line.starts_with("{\"audit\"")).collect();
    assert_eq!(examples.len(), 2);
    let read = examples.iter().map(|line| AuditLine::read(line).unwrap()).collect::<Vec<_>>();
    assert_eq!(read[0].access, read[1].access);
    for (line, example) in read.iter().zip(examples) {
        assert_eq!(serde_json::to_string(line).unwrap(), example, "in this order");
    }
}

#[test]
fn a_line_is_bounded_and_is_read_behind_a_time_stamp() {
    let lines = all_kinds();
    let [.., admission] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(admission.requests.len() + admission.more, 40);
    assert!(admission.more > 10 && admission.requests.len() > 10, "{}", admission.more);
    let long = "é\u{202e}\"".repeat(5000);
    let (log, _listening) = Log::listen(Level::INFO);
    let requests = AskedRequests::new(vec![AskedRequest { reference: long.clone(), rule: None }; 100]);
    let text = long.as_str();
    let admission = Admission {
        namespace: text,
        account: text,
        pod: text,
        user: text,
        requests: Some(&requests),
        problem: Some(text),
    };
    write_admission(&admission, AuditOutcome::Denied);
    let node = Some(long.clone());
    let audit = AuditLog::new(Program::Agent, Who { namespace: long.clone(), account: long.clone(), node, ..who() });
    audit.login("vault", Some(&long), AuditOutcome::Ok);
    audit.volume_denied(&long, AuditOutcome::Invalid);
    for line in log.text().lines() {
        assert!(line.len() < 16 * 1024, "{}", line.len());
        let read = AuditLine::read(line).unwrap();
        let Who { namespace, account, pod: _, uid: _, node } = &read.who;
        let is_cut = |text: &String, most: usize| text.len() <= most && text.ends_with('…');
        let texts = [&read.user, &read.problem, &read.role].into_iter().flatten();
        texts.for_each(|text| assert!(is_cut(text, MOST_TEXT), "{text}"));
        let names = [namespace, account].into_iter().chain(node);
        names.for_each(|name| assert!(is_cut(name, MOST_NAME), "{name}"));
    }
    for other in ["", "injected", r#"{"audit":"hushpod.dev/v2"}"#, r#"{"audit":"#, r#"{"level":"INFO"}"#] {
        assert_eq!(AuditLine::read(other), None, "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_repeats_itself_is_counted_and_nothing_is_lost() {
    let (log, _listening) = Log::listen(Level::INFO);
    let audit = AuditLog::new(Program::Agent, who());
    let failing = request("secret/data/db");
    // A day of failures every 30 s, of which each is one access.
    for _ in 0..2 * 60 * 24 {
        audit.read_failed(&failing, AuditOutcome::Unavailable);
        tokio::time::advance(Duration::from_secs(30)).await;
    }
    let told = lines(&log);
    assert!((24..=26).contains(&told.len()), "{}", told.len());
    assert_eq!((told[0].count, &told[0].since), (1, &None));
    assert!(told[1].count > 100 && told[1].since.is_some(), "{:?}", told[1]);
    // What works again tells the rest first, and new values are told at once, each time.
    let mut accesses = BTreeSet::new();
    for at in 0..3 {
        accesses.extend(audit.read(&failing, Some(&version(&at.to_string())), true));
    }
    let told = lines(&log);
    assert_eq!(told.iter().map(|line| line.count).sum::<u64>(), 2 * 60 * 24 + 3);
    let last: Vec<_> = told[told.len() - 3..].iter().map(|line| line.access.clone().unwrap()).collect();
    assert_eq!(last.into_iter().collect::<BTreeSet<_>>(), accesses);
    // Two kinds that take turns have a line each.
    let before = told.len();
    for _ in 0..20 {
        audit.read_failed(&failing, AuditOutcome::Unavailable);
        audit.read_failed(&failing, AuditOutcome::Throttled);
    }
    assert_eq!(lines(&log).len(), before + 2);
    drop(audit);
    let told = lines(&log);
    assert_eq!(told.len(), before + 4, "the rest is told at the end");
    assert_eq!(told.iter().map(|line| line.count).sum::<u64>(), 2 * 60 * 24 + 3 + 40);
}

#[tokio::test(start_paused = true)]
async fn the_same_values_again_are_counted_by_pod_and_request() {
    let (log, _listening) = Log::listen(Level::INFO);
    let audit = AuditLog::new(Program::Csi, who());
    let other = audit.about(Who { pod: Some("web-2".to_owned()), ..who() });
    for _ in 0..10 {
        for (audit, path) in [(&audit, "a"), (&audit, "b"), (&other, "a")] {
            assert!(audit.read(&request(path), None, false).is_some());
        }
        tokio::time::advance(Duration::from_mins(30)).await;
    }
    drop((audit, other));
    let told = lines(&log);
    assert_eq!(told.iter().map(|line| line.count).sum::<u64>(), 30);
    assert!(told.len() <= 18, "{}", told.len());
    assert_eq!(AuditLog::off().read(&request("a"), None, true), None);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_denied_over_and_over_is_told_once_an_hour() {
    let (log, _listening) = Log::listen(Level::INFO);
    let audit = AuditLog::new(Program::Csi, who());
    for _ in 0..180 {
        audit.volume_denied("namespace \"shop\" may not use provider \"vault\"", AuditOutcome::Denied);
        tokio::time::advance(Duration::from_mins(1)).await;
    }
    let told = lines(&log);
    assert_eq!((told.len(), told[0].count, told[0].event), (3, 1, AuditEvent::Admission), "{told:?}");
    // The last ones are told in their time, whether or not anything else happens.
    for _ in 0..90 {
        tokio::time::advance(Duration::from_mins(1)).await;
        audit.look();
    }
    let told = lines(&log);
    assert_eq!(told.iter().map(|line| line.count).sum::<u64>(), 180);
    audit.only_if(false).volume_denied("another", AuditOutcome::Denied);
    assert_eq!(lines(&log).len(), told.len());
}

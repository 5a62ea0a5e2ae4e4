use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame as BodyFrame;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{advance, timeout};

use super::*;

const UPDATE: &str =
    "event: secret:update\ndata: {\"data\":{\"payload\":[{\"environment\":\"prod\",\"secretPath\":\"/a\"}]}}\n\n";

fn folder(environment: &str, path: &str, recursive: bool) -> Folder {
    Folder { environment: environment.to_owned(), path: path.to_owned(), recursive }
}

fn interest(folders: Vec<Folder>) -> Interest {
    Interest { project: "p".to_owned(), folders }
}

/// A stream that says what is sent, being listened to; and how that ended.
fn listening() -> (mpsc::UnboundedSender<String>, Arc<News>, JoinHandle<End>) {
    let (sender, receiver) = mpsc::unbounded_channel::<String>();
    let body = Box::pin(stream::unfold(receiver, |mut receiver| async {
        let text = receiver.recv().await?;
        Some((Ok::<_, Infallible>(BodyFrame::data(Bytes::from(text))), receiver))
    }));
    let news = Arc::<News>::default();
    let heard = Arc::clone(&news);
    let task = tokio::spawn(async move {
        listen(&mut Stream::new(StreamBody::new(body)), &interest(vec![folder("prod", "/a", false)]), &heard).await
    });
    (sender, news, task)
}

async fn is_told(news: &News) -> bool {
    timeout(Duration::from_millis(1), news.changed.notified()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_at_once_and_a_burst_once() {
    let (sender, news, _task) = listening();
    sender.send(UPDATE.to_owned()).unwrap();
    assert!(is_told(&news).await);
    for _ in 0..50 {
        sender.send(UPDATE.to_owned()).unwrap();
    }
    assert!(!is_told(&news).await);
    advance(GAP).await;
    assert!(is_told(&news).await);
    advance(GAP * 5).await;
    assert!(!is_told(&news).await);
    sender.send(UPDATE.replace("/a", "/other")).unwrap();
    assert!(!is_told(&news).await, "none of ours");
}

#[tokio::test(start_paused = true)]
async fn a_busy_store_is_not_asked_by_all_at_once() {
    let (sender, news, _task) = listening();
    news.spread.store(60_000, Ordering::Relaxed);
    let start = Instant::now();
    sender.send(UPDATE.to_owned()).unwrap();
    for _ in 0..5 {
        if timeout(Duration::from_secs(14), news.changed.notified()).await.is_ok() {
            assert!(start.elapsed() > Duration::from_millis(1) && start.elapsed() <= Duration::from_secs(61));
            return;
        }
        sender.send("event: ping\n\n".to_owned()).unwrap();
    }
    panic!("never told");
}

#[tokio::test(start_paused = true)]
async fn what_is_still_to_be_told_at_the_end_is_told_then() {
    let (sender, news, task) = listening();
    news.spread.store(60_000, Ordering::Relaxed);
    sender.send(UPDATE.to_owned()).unwrap();
    drop(sender);
    assert_eq!(task.await.unwrap(), End::Closed);
    assert!(is_told(&news).await);
}

#[tokio::test(start_paused = true)]
async fn liveness_is_measured_on_bytes() {
    let (sender, news, task) = listening();
    for ping in ["event: ping\n\n", "1", ":\n"] {
        advance(Duration::from_secs(40)).await;
        sender.send(ping.to_owned()).unwrap();
        tokio::task::yield_now().await;
    }
    assert!(!is_told(&news).await && !task.is_finished());
    let start = Instant::now();
    assert_eq!(task.await.unwrap(), End::Silent);
    assert!(start.elapsed() <= SILENCE);
}

#[tokio::test(start_paused = true)]
async fn a_cut_and_an_error_are_told_apart() {
    let (sender, _, task) = listening();
    drop(sender);
    assert_eq!(task.await.unwrap(), End::Closed);
    let (sender, _, task) = listening();
    sender.send("event: error\ndata: {}\n\n".to_owned()).unwrap();
    assert_eq!(task.await.unwrap(), End::Error);
}

#[test]
fn a_subscription_has_ten_entries_at_most() {
    for (folders, paths) in [
        (vec![folder("prod", "/a", false)], &[("prod", "/a")][..]),
        (vec![folder("prod", "/", true)], &[("prod", "/**")]),
        (vec![folder("prod", "/a", true), folder("dev", "/b", false)], &[("dev", "/b"), ("prod", "/a/**")]),
        (
            vec![folder("prod", "/a", true), folder("prod", "/b", false), folder("prod", "/c", false)],
            &[("prod", "/**")],
        ),
    ] {
        let entries = interest(folders).register();
        assert_eq!(entries.len(), paths.len() * EVENTS.len());
        for (entry, (environment, path)) in entries.iter().zip(paths.iter().flat_map(|path| [path; 4])) {
            assert_eq!(
                (entry.conditions.environment_slug.as_str(), entry.conditions.secret_path.as_str()),
                (*environment, *path)
            );
        }
    }
    let many = (0..9).map(|number| folder(&format!("env-{number}"), "/", false)).collect();
    assert_eq!(interest(many).register().len(), MOST_ENTRIES);
}

#[test]
fn only_changes_in_folders_that_are_read_matter() {
    let interest = interest(vec![folder("prod", "/a", false), folder("dev", "/b", true), folder("test", "/", true)]);
    for (environment, path, matters) in [
        ("prod", "/a", true),
        ("prod", "/a/sub", false),
        ("dev", "/a", false),
        ("dev", "/b", true),
        ("dev", "/b/sub/deep", true),
        ("dev", "/bb", false),
        ("test", "/", true),
        ("test", "/x", true),
    ] {
        assert_eq!(interest.has(environment, path), matters, "{environment} {path}");
    }
}

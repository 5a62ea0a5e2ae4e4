use std::collections::VecDeque;

use super::*;
use crate::provider::Answer;
use crate::secret::SecretTree;

/// A store whose calls and logins come to what a test says.
#[derive(Default)]
struct Script {
    held: Option<Bearer>,
    logins: VecDeque<Result<&'static str, Scope>>,
    reads: VecDeque<Result<(), Scope>>,
    log: Vec<String>,
}

fn failure(scope: Scope) -> Failure {
    let kind = if matches!(scope, Scope::Right | Scope::Login) { ErrorKind::Denied } else { ErrorKind::Unavailable };
    Failure::new(kind, "no").with(scope)
}

impl BearerStore for Script {
    fn held(&self) -> Option<&Bearer> {
        self.held.as_ref()
    }

    fn hold(&mut self, bearer: Option<Bearer>) {
        self.held = bearer;
    }

    async fn log_in(&mut self) -> Result<Bearer, Failure> {
        self.log.push("login".to_owned());
        let token = self.logins.pop_front().unwrap().map_err(failure)?;
        Ok(Bearer::new(token.into(), Some(Duration::from_mins(1))))
    }

    fn forget_denials(&mut self) {}

    async fn read_one(&mut self, request: &Request, _: Option<&Version>) -> Result<Reading, Failure> {
        let token = self.held.as_ref().unwrap().token.expose_str().unwrap().to_owned();
        self.log.push(format!("{} as {token}", request.path));
        self.reads.pop_front().unwrap_or(Ok(())).map_err(failure)?;
        let tree = SecretTree::Text("canary".into());
        Ok(Reading::Fresh(Answer { tree, version: None, expires_in: None, lease: None }))
    }
}

/// What a batch of three was sent as, and which of it was answered.
async fn batch(
    held: Option<&str>,
    logins: &[Result<&'static str, Scope>],
    reads: &[Result<(), Scope>],
) -> (String, String) {
    let held = held.map(|token| Bearer::new(token.into(), Some(Duration::from_mins(1))));
    let (logins, reads) = (logins.iter().copied().collect(), reads.iter().copied().collect());
    let mut store = Script { held, logins, reads, log: Vec::new() };
    let requests =
        ["a", "b", "c"].map(|path| Request { provider: "store".to_owned(), path: path.to_owned(), params: [].into() });
    let results = read_all(&mut store, &requests, &Known::new()).await;
    let told = results.iter().map(|result| match result {
        Ok(_) => "ok",
        Err(error) => error.kind.as_str(),
    });
    (store.log.join(", "), told.collect::<Vec<_>>().join(" "))
}

#[tokio::test(start_paused = true)]
async fn a_batch_logs_in_at_most_once_more_and_asks_a_store_that_is_down_once() {
    use Scope::{Call, Login, Right, Silence, Store};
    let all = "ok ok ok";
    for (what, held, logins, reads, sent, told) in [
        ("anew", None, &[Ok("1")][..], &[][..], "login, a as 1, b as 1, c as 1", all),
        ("no login", None, &[Err(Store)], &[], "login", "unavailable unavailable unavailable"),
        ("held", Some("1"), &[], &[], "a as 1, b as 1, c as 1", all),
        ("ended", Some("1"), &[Ok("2")], &[Err(Login)], "a as 1, login, a as 2, b as 2, c as 2", all),
        ("no right", Some("1"), &[Ok("2")], &[Ok(()), Err(Right)], "a as 1, b as 1, login, b as 2, c as 2", all),
        (
            "no right ever",
            Some("1"),
            &[Ok("2")],
            &[Err(Right), Err(Right), Err(Right)],
            "a as 1, login, a as 2, b as 2, c as 2",
            "denied denied ok",
        ),
        ("the same again", Some("1"), &[Ok("1")], &[Err(Right)], "a as 1, login, b as 1, c as 1", "denied ok ok"),
        ("no new login", Some("1"), &[Err(Call)], &[Err(Right)], "a as 1, login, b as 1, c as 1", "denied ok ok"),
        ("none left", Some("1"), &[Err(Call)], &[Err(Login)], "a as 1, login", "unavailable unavailable unavailable"),
        ("new and refused", None, &[Ok("1")], &[Err(Login)], "login, a as 1", "denied denied denied"),
        ("one fails", Some("1"), &[], &[Err(Call)], "a as 1, b as 1, c as 1", "unavailable ok ok"),
        ("one silence", Some("1"), &[], &[Err(Silence)], "a as 1, b as 1, c as 1", "unavailable ok ok"),
        (
            "silence",
            Some("1"),
            &[],
            &[Err(Silence), Err(Silence)],
            "a as 1, b as 1",
            "unavailable unavailable unavailable",
        ),
        ("down", Some("1"), &[], &[Ok(()), Err(Store)], "a as 1, b as 1", "ok unavailable unavailable"),
    ] {
        let found = batch(held, logins, reads).await;
        assert_eq!((found.0.as_str(), found.1.as_str()), (sent, told), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_used_beyond_its_end_and_is_handed_on_with_what_is_left() {
    let bearer = Bearer::new("canary".into(), Some(Duration::from_mins(1)));
    tokio::time::advance(Duration::from_secs(20)).await;
    let session = Session::from(&bearer);
    assert_eq!((session.ttl, session.renewable), (Some(Duration::from_secs(40)), false));
    let resumed = Bearer::from(session);
    tokio::time::advance(Duration::from_secs(40)).await;
    let mut store = Script { held: Some(resumed), logins: [Ok("2")].into(), ..Script::default() };
    let request = Request { provider: "store".to_owned(), path: "a".to_owned(), params: [].into() };
    read_all(&mut store, &[request], &Known::new()).await;
    assert_eq!(store.log, ["login", "a as 2"]);
}

#[test]
fn p5_a_token_is_not_shown() {
    let bearer = Bearer::new("canary".into(), None);
    assert!(!format!("{bearer:?} {:?}", bearer.header().unwrap()).contains("canary"));
}

#[test]
fn endpoints_are_urls_with_a_path() {
    for url in ["https://sts.googleapis.com/v1/token", "http://127.0.0.1:1/x"] {
        check_endpoint(url).unwrap();
    }
    for url in
        ["https://sts.googleapis.com", "https://host/", "https://host/a?b", "https://host/a%20b", "http://h/x", ""]
    {
        check_endpoint(url).unwrap_err();
    }
}

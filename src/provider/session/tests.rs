use std::collections::VecDeque;

use super::*;
use crate::provider::{Answer, ErrorKind, Reading};
use crate::reference::Version;
use crate::secret::{SecretTree, SecretValue};

/// A store whose calls and logins come to what a test says.
#[derive(Default)]
struct Script {
    token: String,
    logins: VecDeque<Result<&'static str, Scope>>,
    reads: VecDeque<Result<(), Scope>>,
    log: Vec<String>,
}

fn failure(scope: Scope) -> Failure {
    let kind = if matches!(scope, Scope::Right | Scope::Login) { ErrorKind::Denied } else { ErrorKind::Unavailable };
    Failure::new(kind, "no").with(scope)
}

fn token(text: &str) -> Token {
    Token::new(text.into(), Some(Duration::from_mins(1)), Renewal::Never)
}

impl Store for Script {
    async fn log_in(&mut self) -> Result<Token, Failure> {
        self.log.push("login".to_owned());
        self.logins.pop_front().unwrap().map(token).map_err(failure)
    }

    fn use_token(&mut self, token: &SecretValue) {
        self.token = token.expose_str().unwrap().to_owned();
    }

    async fn read_one(&mut self, request: &Request, _: Option<&Version>) -> Outcome {
        self.log.push(format!("{} as {}", request.path, self.token));
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
    let (scripted, reads) = (logins.iter().copied().collect(), reads.iter().copied().collect());
    let mut store = LoggedIn::new(Script { logins: scripted, reads, ..Script::default() });
    held.map(|text| store.adopt(token(text)));
    let requests =
        ["a", "b", "c"].map(|path| Request { provider: "store".to_owned(), path: path.to_owned(), params: [].into() });
    let results = store.read_all(&requests, &Known::new()).await;
    let tried: Vec<_> = store.take_logins().into_iter().map(|login| login.is_ok()).collect();
    let expected: Vec<_> = logins.iter().map(Result::is_ok).collect();
    assert_eq!(tried, expected, "each login is told of, and what came of it");
    assert!(store.take_logins().is_empty(), "once");
    let told = results.iter().map(|result| match result {
        Ok(_) => "ok",
        Err(error) => error.kind.as_str(),
    });
    (store.store.log.join(", "), told.collect::<Vec<_>>().join(" "))
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
    let held = token("canary");
    tokio::time::advance(Duration::from_secs(20)).await;
    let session = Session::from(&held);
    assert_eq!((session.ttl, session.renewable), (Some(Duration::from_secs(40)), false));
    let mut store = LoggedIn::new(Script { logins: [Ok("2")].into(), ..Script::default() });
    store.resume(session);
    tokio::time::advance(Duration::from_secs(40)).await;
    let request = Request { provider: "store".to_owned(), path: "a".to_owned(), params: [].into() };
    store.read_all(&[request], &Known::new()).await;
    assert_eq!(store.store.log, ["login", "a as 2"]);
}

#[test]
fn p5_a_token_is_not_shown() {
    let token = token("canary");
    let header = crate::provider::http::bearer(&token.value, "the token").unwrap();
    assert!(!format!("{token:?} {header:?}").contains("canary"));
}

#[tokio::test]
async fn p3_a_life_that_no_clock_can_tell_is_one_without_end() {
    let held = Token::new("t".into(), Some(Duration::from_secs(u64::MAX)), Renewal::Always);
    assert!(!held.has_ended());
    let session = Session::from(&held);
    assert_eq!(session.ttl, None);
    let told = Session { ttl: Some(Duration::MAX), ..session };
    assert!(!Token::from(told).has_ended());
}

//! Keys, and how a login carries them.

use std::time::Duration;

use serde::Deserialize;

use crate::provider::http::date;
use crate::provider::session::{Renewal, Token};
use crate::secret::SecretValue;

/// What requests are signed with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Keys {
    pub(super) id: SecretValue,
    pub(super) secret: SecretValue,
    /// Of temporary credentials.
    #[serde(default)]
    pub(super) token: Option<SecretValue>,
}

/// No credentials live longer.
const LONGEST: Duration = Duration::from_hours(48);

// === impl Keys ===

impl Keys {
    /// A login without an end, or with one that nobody knows.
    pub(super) fn for_ever(&self) -> Token {
        Token::new(self.pack(), None, Renewal::Never)
    }

    /// A login with an end as AWS writes it (ISO 8601, UTC).
    pub(super) fn until(&self, expiration: &str) -> Option<Token> {
        date::parse_rfc3339(expiration).map(|end| self.until_millis(end))
    }

    /// The same, with an end in milliseconds since 1970.
    pub(super) fn until_millis(&self, end: u64) -> Token {
        let life = date::until(end);
        // By a clock that is fast they have ended already: AWS will say what it thinks of signatures of that time.
        let life = life.unwrap_or(Duration::from_mins(1)).min(LONGEST);
        Token::new(self.pack(), Some(life), Renewal::Never)
    }

    /// What a login carries.
    pub(super) fn unpack(token: &SecretValue) -> Option<Self> {
        serde_json::from_slice(token.expose()).ok()
    }

    /// As JSON, for the next process. By hand, since secrets do not serialize.
    fn pack(&self) -> SecretValue {
        let fields = [("id", Some(&self.id)), ("secret", Some(&self.secret)), ("token", self.token.as_ref())];
        // Room for all of it, so growing leaves no copy behind.
        let length = fields.iter().filter_map(|(_, value)| value.as_ref()).map(|value| value.len()).sum::<usize>();
        let mut json = Vec::with_capacity(length * 2 + 64);
        for (name, value) in fields {
            let Some(text) = value.and_then(|value| value.expose_str()) else { continue };
            json.extend_from_slice(if json.is_empty() { b"{\"" } else { b",\"" });
            json.extend_from_slice(name.as_bytes());
            json.extend_from_slice(b"\":");
            // Text always becomes JSON, and into memory.
            let _ = serde_json::to_writer(&mut json, text);
        }
        json.push(b'}');
        SecretValue::new(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Session;

    fn keys(token: Option<&str>) -> Keys {
        Keys { id: "AKIAcanary".into(), secret: "canary\"\\/+=".into(), token: token.map(SecretValue::from) }
    }

    #[test]
    fn p4_credentials_survive_the_hand_over() {
        for token in [None, Some("canary-token==")] {
            let keys = keys(token);
            let session = Session::from(&keys.for_ever());
            assert_eq!(session.token, keys.pack(), "one login has one token");
            assert_eq!(Keys::unpack(&session.token).unwrap(), keys);
        }
        assert!(Keys::unpack(&"canary".into()).is_none());
    }

    #[test]
    fn p5_nothing_shows_keys() {
        let keys = keys(Some("canary-token"));
        let token = keys.for_ever();
        assert!(!format!("{keys:?} {token:?} {:?}", Session::from(&token)).contains("canary"));
    }

    #[test]
    fn ends_are_points_in_utc() {
        let now = time::OffsetDateTime::now_utc() + Duration::from_mins(10);
        let (date, time) = (now.date(), now.time());
        let in_ten_minutes =
            format!("{date}T{:02}:{:02}:{:02}.{:03}Z", time.hour(), time.minute(), time.second(), time.millisecond());
        let life = keys(None).until(&in_ten_minutes).unwrap().life();
        assert!(life.is_some_and(|left| (595..=600).contains(&left.as_secs())), "{life:?}");
        let past = keys(None).until("2011-07-11T19:55:29.611Z").unwrap().life();
        assert!(past.is_some_and(|left| !left.is_zero()), "it is tried once");
        for garbage in ["", "canary", "1970", "-0001-01-01T00:00:00Z"] {
            assert!(keys(None).until(garbage).is_none(), "{garbage}");
        }
    }
}

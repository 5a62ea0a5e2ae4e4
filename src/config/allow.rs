//! The operator's rules: which pods may ask a provider for what, and as whom. A rule is read once, and means what a
//! reference of the same form would.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::{ConfigError, Faults};
use super::identity::{Identity, asks_for};
use super::labels::NamespaceLabels;
use crate::parse_error::{ParseError, rule};
use crate::provider::Parameters;
use crate::reference::{decode, split_params};
use crate::sentence::suggestion;
use crate::steps;

/// Whether a rule still allows what rules of its form allowed until 0.1: a glob of paths let every parameter through,
/// and a `*` ran across `&`. While it does, each use is warned of; the release after 0.2 refuses them.
pub const OLD_RULES_COUNT: bool = true;

/// One rule: these pods may make these requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// Names of namespaces; `None` where labels alone say which.
    pub namespaces: Option<Vec<Glob>>,
    /// Labels that the namespace must have, all of them; `None` where names alone say which.
    pub namespace_labels: Option<BTreeMap<String, Glob>>,
    /// Names of service accounts; `None` is every one.
    pub service_accounts: Option<Vec<Glob>>,
    /// Roles that a pod may ask for by annotation; `None` is every one.
    pub roles: Option<Vec<Glob>>,
    /// Canonical requests; `None` is every one.
    pub requests: Option<Vec<RequestGlob>>,
}

/// A text in which `*` stands for any characters, `/` among them, as in the policies of Vault and AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<GlobPart>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum GlobPart {
    Text(String),
    Any,
    Namespace,
    ServiceAccount,
}

/// A glob with its placeholders filled in: what stands between its stars. Never empty.
#[derive(Debug)]
pub struct Filled<'a>(Vec<Cow<'a, str>>);

/// A glob of requests: of a path, and of each parameter that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestGlob {
    /// As the operator wrote it.
    pub text: String,
    /// What it means; the problem, if it is not valid any more.
    pub meaning: Result<RequestParts, ParseError>,
    /// What it meant until 0.1: a glob of the path, or of path and parameters in one.
    pub before: Glob,
}

/// The parts of a glob of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestParts {
    /// Of the path.
    pub path: Glob,
    /// Of each parameter that a request must have.
    pub params: BTreeMap<String, Glob>,
}

/// A rule as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawAllow {
    namespaces: Option<Vec<String>>,
    namespace_labels: Option<BTreeMap<String, String>>,
    service_accounts: Option<Vec<String>>,
    roles: Option<Vec<String>>,
    requests: Option<Vec<String>>,
}

// === impl Allow ===

impl Allow {
    /// Reads a rule about a store of these parameters, and tells of each field that is wrong.
    pub(super) fn parse(raw: RawAllow, parameters: &Parameters, faults: &mut Faults) -> Option<Self> {
        let RawAllow { namespaces, namespace_labels, service_accounts, roles, requests } = raw;
        // What was taken away since it was wrong is not missing.
        if namespaces.is_none() && namespace_labels.is_none() && faults.is_empty() {
            faults.push(ConfigError::new(".namespaces", "is missing: write names or globs, or namespaceLabels"));
        }
        let namespaces = namespaces.map(|texts| plain_globs(".namespaces", texts, faults));
        let namespace_labels = faults.take(namespace_labels.map(label_globs).transpose());
        let service_accounts = service_accounts.map(|texts| globs(".serviceAccounts", texts, faults));
        let roles = roles.map(|texts| globs(".roles", texts, faults));
        let read = |text: String| RequestGlob::parse(text, parameters, OLD_RULES_COUNT);
        let requests = requests.map(|texts| faults.take_each(".requests", texts, read));
        // Without what is wrong it says something else; then nothing is made of it, since there are faults.
        Some(Self {
            namespaces: namespaces.flatten(),
            namespace_labels: namespace_labels?,
            service_accounts: service_accounts.flatten(),
            roles: roles.flatten(),
            requests: requests.flatten(),
        })
    }

    /// Whether it is about a namespace of this name and these labels.
    #[must_use]
    pub fn is_about(&self, namespace: &str, labels: &NamespaceLabels) -> bool {
        let mut wanted = self.namespace_labels.iter().flatten();
        self.names(namespace) && wanted.all(|(name, glob)| labels.get(name).is_some_and(|value| glob.is(value)))
    }

    /// Whether it is about a namespace of this name, whatever its labels are.
    #[must_use]
    pub fn names(&self, namespace: &str) -> bool {
        self.namespaces.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.is(namespace)))
    }

    /// What of it nothing can ever match, each with the field before it.
    pub(super) fn matches_nothing(&self) -> Vec<String> {
        let mut found = namespaces_match_nothing(self.namespaces.as_deref());
        for (name, glob) in self.namespace_labels.iter().flatten() {
            let key = name.rsplit('/').next().unwrap_or_default();
            if !glob.can_be(is_label_character, MAX_LABEL) || key.is_empty() || !key.chars().all(is_label_character) {
                found.push(format!("namespaceLabels: {name:?} with this value is on no namespace"));
            }
        }
        found.extend(accounts_match_nothing(self.service_accounts.as_deref()));
        if self.requests.as_ref().is_some_and(Vec::is_empty) {
            found.push("requests: an empty list lets nobody ask for anything".to_owned());
        }
        found
    }
}

/// Longest name of a namespace, and longest value of a label.
const MAX_LABEL: usize = 63;
/// Longest name of a service account.
const MAX_ACCOUNT: usize = 253;

fn is_label_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// What can be no namespace's name.
pub(super) fn namespaces_match_nothing(globs: Option<&[Glob]>) -> Vec<String> {
    let is_character = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match_nothing("namespaces", "namespace", globs, &is_character, MAX_LABEL)
}

/// What can be no service account's name.
pub(super) fn accounts_match_nothing(globs: Option<&[Glob]>) -> Vec<String> {
    let is_character = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    match_nothing("serviceAccounts", "service account", globs, &is_character, MAX_ACCOUNT)
}

fn match_nothing(
    field: &str,
    what: &str,
    globs: Option<&[Glob]>,
    is_character: &dyn Fn(char) -> bool,
    most: usize,
) -> Vec<String> {
    let Some(globs) = globs else { return Vec::new() };
    if globs.is_empty() {
        return vec![format!("{field}: an empty list stands for no {what}")];
    }
    let bad = globs.iter().filter(|glob| !glob.can_be(is_character, most));
    bad.map(|glob| format!("{field}: {:?} is the name of no {what}", glob.written())).collect()
}

/// Reads globs of a field; `None` if one is wrong.
pub(super) fn globs(field: &str, texts: Vec<String>, faults: &mut Faults) -> Option<Vec<Glob>> {
    faults.take_each(field, texts, |text| Glob::parse(&text))
}

/// The same where a placeholder would make no sense.
pub(super) fn plain_globs(field: &str, texts: Vec<String>, faults: &mut Faults) -> Option<Vec<Glob>> {
    faults.take_each(field, texts, |text| {
        Glob::parse(&text).and_then(|glob| if glob.has_placeholder() { Err(rule(EVERYONE)) } else { Ok(glob) })
    })
}

const EVERYONE: &str = "a placeholder stands for each pod's own name here, and so for everyone: write names or globs";

fn label_globs(texts: BTreeMap<String, String>) -> Result<BTreeMap<String, Glob>, ConfigError> {
    const FIELD: &str = ".namespaceLabels";
    if texts.is_empty() {
        return Err(ConfigError::new(FIELD, "would be every namespace: expected {label: value}"));
    }
    let read = |(name, text): (String, String)| Ok((name, Glob::parse(&text).map_err(ConfigError::at(FIELD))?));
    let globs = texts.into_iter().map(read).collect::<Result<BTreeMap<_, _>, ConfigError>>()?;
    if globs.values().any(Glob::has_placeholder) {
        return Err(ConfigError::new(FIELD, EVERYONE));
    }
    Ok(globs)
}

// === impl Glob ===

impl Glob {
    /// Reads a glob with `{{namespace}}` and `{{service_account}}`.
    ///
    /// # Errors
    /// One sentence, if another name stands between the braces.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::read(text, &|part| Ok(part.to_owned()))
    }

    /// Reads a part of a reference: what is percent-encoded there is here.
    fn encoded(text: &str) -> Result<Self, ParseError> {
        Self::read(text, &|part| Ok(decode(part)?))
    }

    fn read(text: &str, literal: &dyn Fn(&str) -> Result<String, ParseError>) -> Result<Self, ParseError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            parts.extend(Self::read_plain(before, literal)?);
            let (name, tail) =
                after.split_once("}}").ok_or_else(|| rule(format!("{text:?} has a {{{{ without its }}}}")))?;
            parts.push(match name.trim() {
                "namespace" => GlobPart::Namespace,
                "service_account" => GlobPart::ServiceAccount,
                other => return Err(asks_for(text, other)),
            });
            rest = tail;
        }
        parts.extend(Self::read_plain(rest, literal)?);
        Ok(Self(parts))
    }

    fn read_plain(
        text: &str,
        literal: &dyn Fn(&str) -> Result<String, ParseError>,
    ) -> Result<Vec<GlobPart>, ParseError> {
        let mut parts = Vec::new();
        for (index, part) in text.split('*').enumerate() {
            if index > 0 {
                parts.push(GlobPart::Any);
            }
            if !part.is_empty() {
                parts.push(GlobPart::Text(literal(part)?));
            }
        }
        Ok(parts)
    }

    fn has_star(&self) -> bool {
        self.0.contains(&GlobPart::Any)
    }

    pub(super) fn has_placeholder(&self) -> bool {
        self.0.iter().any(|part| matches!(part, GlobPart::Namespace | GlobPart::ServiceAccount))
    }

    /// A glob that stands for this text alone.
    pub(super) fn literal(text: &str) -> Self {
        Self(vec![GlobPart::Text(text.to_owned())])
    }

    /// The one text that it stands for; `None` if there are several.
    pub(super) fn as_literal(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [GlobPart::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether it stands for a text, where it has no placeholders.
    pub(super) fn is(&self, text: &str) -> bool {
        let mut parts = vec![""];
        for part in &self.0 {
            match (part, parts.last_mut()) {
                (GlobPart::Text(text), Some(last)) => *last = text,
                _ => parts.push(""),
            }
        }
        stand_for(parts.into_iter(), text)
    }

    /// As it is written.
    pub(super) fn written(&self) -> String {
        let part = |part: &GlobPart| match part {
            GlobPart::Text(text) => text.clone(),
            GlobPart::Any => "*".to_owned(),
            GlobPart::Namespace => "{{namespace}}".to_owned(),
            GlobPart::ServiceAccount => "{{service_account}}".to_owned(),
        };
        self.0.iter().map(part).collect()
    }

    /// Whether it stands for some text of at most so many of these characters.
    fn can_be(&self, is_character: impl Fn(char) -> bool, most: usize) -> bool {
        let texts = || self.0.iter().filter_map(|part| if let GlobPart::Text(text) = part { Some(text) } else { None });
        texts().all(|text| text.chars().all(&is_character)) && texts().map(String::len).sum::<usize>() <= most
    }

    /// Fills the placeholders in. A name that comes in is a text, whatever characters it has.
    #[must_use]
    pub fn fill<'a>(&'a self, identity: &'a Identity) -> Filled<'a> {
        let mut texts = Vec::with_capacity(2);
        let mut last = Cow::Borrowed("");
        for part in &self.0 {
            let text = match part {
                GlobPart::Any => {
                    texts.push(std::mem::take(&mut last));
                    continue;
                }
                GlobPart::Text(text) => text,
                GlobPart::Namespace => &identity.namespace,
                GlobPart::ServiceAccount => &identity.service_account,
            };
            if last.is_empty() {
                last = Cow::Borrowed(text);
            } else {
                last.to_mut().push_str(text);
            }
        }
        texts.push(last);
        Filled(texts)
    }
}

// === impl Filled ===

impl Filled<'_> {
    /// Whether it stands for this text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        stand_for(self.0.iter().map(AsRef::as_ref), text)
    }
}

/// Whether a glob without placeholders stands for a text.
#[must_use]
pub fn matches(glob: &str, text: &str) -> bool {
    stand_for(glob.split('*'), text)
}

/// Each part is looked for behind the one before it, so nothing of the text is looked at twice.
fn stand_for<'a>(mut parts: impl DoubleEndedIterator<Item = &'a str>, text: &str) -> bool {
    steps::spend(1 + text.len() / 64);
    let Some(mut text) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return text.is_empty() };
    for part in parts {
        let Some((_, behind)) = text.split_once(part) else { return false };
        text = behind;
    }
    text.ends_with(last)
}

// === impl RequestGlob ===

impl RequestGlob {
    /// Reads what stands in `requests`, for a store of these parameters.
    ///
    /// # Errors
    /// One sentence, if it never meant anything, or no longer does.
    fn parse(text: String, parameters: &Parameters, old_rules_count: bool) -> Result<Self, ParseError> {
        let before = Glob::parse(&text)?;
        let meaning = RequestParts::parse(&text, parameters);
        if let (Err(problem), false) = (&meaning, old_rules_count) {
            return Err(problem.clone());
        }
        Ok(Self { text, meaning, before })
    }

    /// The part before `?`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.split('?').next().unwrap_or_default()
    }

    /// Whether it allowed more at a store that has parameters which widen a request.
    pub(super) fn allowed_more(&self) -> bool {
        !self.text.contains('?') || self.before.has_star()
    }
}

impl RequestParts {
    pub(super) fn parse(text: &str, parameters: &Parameters) -> Result<Self, ParseError> {
        if text.contains('#') {
            return Err(rule(format!("{text:?} names a key, and rules are about whole requests: leave #… out")));
        }
        let (path, rest) = text.split_once('?').map_or((text, None), |(path, rest)| (path, Some(rest)));
        let mut params = BTreeMap::new();
        for pair in rest.into_iter().flat_map(split_params) {
            let (name, glob) = pair.map_err(|error| rule(format!("{text:?}: {error}")))?;
            if let Some(known) = parameters.unknown(&name) {
                return Err(rule(format!("{text:?} names the parameter {name:?}, which this store has not{known}")));
            }
            if params.insert(name.clone(), Glob::encoded(glob)?).is_some() {
                return Err(rule(format!("{text:?} names the parameter {name:?} twice")));
            }
        }
        Ok(Self { path: Glob::encoded(path)?, params })
    }
}

// === impl Parameters ===

impl Parameters {
    /// What to say of a parameter that the store does not have; `None` if it has.
    fn unknown(&self, name: &str) -> Option<String> {
        let widening = self.widening?;
        let known: Vec<_> = self.narrowing.iter().chain(widening).copied().collect();
        (!known.contains(&name)).then(|| suggestion(name, &known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is warned of while old rules count is refused at load from then on, with the same words.
    #[test]
    fn p9_a_rule_that_means_nothing_is_refused_once_old_rules_do_not_count() {
        let infisical = Parameters { narrowing: &["version"], widening: Some(&["recursive"]) };
        for (text, part) in [
            ("pki/*?*", "name=value"),
            ("secret/data/a#key", "whole requests"),
            ("pki?recursive=1&recursive=2", "twice"),
            ("50%", "%25"),
            ("/a?recursiv=true", "did you mean \"recursive\"?"),
            ("{{pod}}/*", "expected namespace or"),
        ] {
            let problem = RequestGlob::parse(text.to_owned(), &infisical, false).unwrap_err();
            assert!(problem.to_string().contains(part), "{text}: {problem}");
            let before = RequestGlob::parse(text.to_owned(), &infisical, true);
            assert!(before.is_ok_and(|glob| glob.meaning == Err(problem)) || text.contains("{{"), "{text}");
        }
        for text in ["secret/data/*", "/a?recursive=true", "/a?recursive=*", "{{namespace}}/*"] {
            let [after, before] =
                [false, true].map(|old| RequestGlob::parse(text.to_owned(), &infisical, old).unwrap());
            assert!(after.meaning.is_ok() && after == before, "{text}");
        }
    }

    /// As slow as it is plain.
    fn naive(glob: &[u8], text: &[u8]) -> bool {
        match glob.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| naive(rest, &text[at..])),
            Some((byte, rest)) => text.first() == Some(byte) && naive(rest, &text[1..]),
        }
    }

    /// Every text of up to this many of these letters.
    fn texts(letters: &str, most: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut last = all.clone();
        for _ in 0..most {
            last = last.iter().flat_map(|text| letters.chars().map(move |letter| format!("{text}{letter}"))).collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    fn anyone() -> Identity {
        Identity { namespace: "n".to_owned(), service_account: "s".to_owned() }
    }

    #[test]
    fn globs_are_what_a_naive_reading_makes_of_them() {
        let identity = anyone();
        let texts_of_it = texts("ab", 6);
        for glob in texts("ab*", 5) {
            let parsed = Glob::parse(&glob).unwrap();
            let filled = parsed.fill(&identity);
            for text in &texts_of_it {
                assert_eq!(filled.matches(text), naive(glob.as_bytes(), text.as_bytes()), "{glob} on {text}");
            }
        }
        for (glob, text, expected) in [
            ("a/*/c", "a/b/b/c", true),
            ("a/*/c", "a/c", false),
            ("*é*", "caféine", true),
            ("{{namespace}}-{{ service_account }}*", "n-s-x", true),
            ("{{namespace}}{{service_account}}", "ns", true),
        ] {
            assert_eq!(Glob::parse(glob).unwrap().fill(&identity).matches(text), expected, "{glob} on {text}");
        }
    }

    #[test]
    fn a_glob_takes_steps_in_proportion_to_the_text() {
        let glob = Glob::parse(&"*a".repeat(2000)).unwrap();
        let identity = anyone();
        let filled = glob.fill(&identity);
        for length in [1 << 10, 1 << 15, 1 << 20] {
            let text = format!("{}b", "a".repeat(length));
            let (matches, steps) = steps::within(u64::MAX, || filled.matches(&text));
            assert!(!matches && steps <= 2 + (length / 64) as u64, "{length}: {steps}");
        }
    }

    #[test]
    fn what_is_filled_in_is_no_glob() {
        let identity = Identity { namespace: "*".to_owned(), service_account: "{{namespace}}".to_owned() };
        let glob = Glob::parse("{{namespace}}/{{service_account}}/*").unwrap();
        let filled = glob.fill(&identity);
        assert!(
            filled.matches("*/{{namespace}}/x") && !filled.matches("a/{{namespace}}/x") && !filled.matches("*/*/x")
        );
    }
}

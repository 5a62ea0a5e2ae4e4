//! Fields into the types that hold them, and what to say where they do not fit: the field, and nothing of what stands
//! there. A file that is given by mistake may be a token.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::{ConfigError, Faults};
use crate::parse_error::unknown;

/// Most bytes of what may be a field's name.
const MAX_NAME_BYTES: usize = 40;

/// Why fields do not fit.
struct Misfit {
    error: ConfigError,
    culprit: Culprit,
}

/// What is in the way.
enum Culprit {
    /// The field on this path.
    There(Vec<String>),
    /// One on this path that is not there.
    Missing(Vec<String>),
    Unknown,
}

/// Reads fields, and tells of each that does not fit, in our own words, with the place behind that of the fields. What is
/// returned is made of the others; `None` if nothing can be.
pub(super) fn read_all<T: DeserializeOwned>(fields: &Map<String, Value>, faults: &mut Faults) -> Option<T> {
    read_filled(fields, faults).and_then(|(read, filled)| filled.is_empty().then_some(read))
}

/// As [`read_all`], with an empty text for what must be there and is not; the places of those are returned as well.
pub(super) fn read_filled<T: DeserializeOwned>(
    fields: &Map<String, Value>,
    faults: &mut Faults,
) -> Option<(T, Vec<String>)> {
    let mut left = fields.clone();
    let mut filled = Vec::new();
    let mut is_told = false;
    // Of more nothing is told.
    while !faults.are_many() {
        let Misfit { error, culprit } = match try_read(&left) {
            Ok(read) => {
                let places = filled.iter().map(|path: &Vec<String>| place(path.iter().map(String::as_str)));
                return Some((read, places.collect()));
            }
            Err(misfit) => misfit,
        };
        match culprit {
            Culprit::There(path) if !filled.contains(&path) => {
                remove(&mut left, &path);
                faults.push(error);
            }
            // That one is missing which was taken away is no news.
            Culprit::Missing(path) if !filled.contains(&path) => {
                if !is_told {
                    faults.push(error);
                }
                insert(&mut left, &path);
                filled.push(path);
            }
            Culprit::There(_) | Culprit::Missing(_) => return None,
            Culprit::Unknown => {
                faults.push(error);
                return None;
            }
        }
        is_told = true;
    }
    None
}

fn remove(fields: &mut Map<String, Value>, path: &[String]) {
    match path {
        [] => {}
        [name] => drop(fields.remove(name)),
        [name, deeper @ ..] => {
            if let Some(Value::Object(inner)) = fields.get_mut(name) {
                remove(inner, deeper);
            }
        }
    }
}

fn insert(fields: &mut Map<String, Value>, path: &[String]) {
    match path {
        [] => {}
        [name] => drop(fields.insert(name.clone(), Value::from(""))),
        [name, deeper @ ..] => {
            if let Some(Value::Object(inner)) = fields.get_mut(name) {
                insert(inner, deeper);
            }
        }
    }
}

fn try_read<T: DeserializeOwned>(fields: &Map<String, Value>) -> Result<T, Misfit> {
    let told = match serde_json::from_value(Value::Object(fields.clone())) {
        Ok(read) => return Ok(read),
        Err(error) => error.to_string(),
    };
    let fails_so = |fields: &Map<String, Value>| {
        serde_json::from_value::<T>(Value::Object(fields.clone())).is_err_and(|error| error.to_string() == told)
    };
    if let Some(rest) = told.strip_prefix("missing field `") {
        let name = rest.split('`').next().unwrap_or_default();
        let path = [holder(fields, &fails_so), vec![name.to_owned()]].concat();
        let error = ConfigError::new(place(path.iter().map(String::as_str)), "is missing");
        return Err(Misfit { error, culprit: Culprit::Missing(path) });
    }
    let path = culprit(fields, &fails_so);
    let value = path
        .split_first()
        .and_then(|(name, deeper)| deeper.iter().try_fold(fields.get(name)?, |value, name| value.get(name)));
    let is_plain = value.is_some_and(|value| value.is_number() || value.is_boolean());
    let error = match told.strip_prefix("unknown field `") {
        Some(rest) => {
            let (name, known) = rest.split_once('`').unwrap_or_default();
            let known: Vec<_> = known.split('`').skip(1).step_by(2).collect();
            let problem = match field_name(name) {
                Some(name) => unknown("field", name, &known).to_string(),
                None => format!("has an unknown field: expected one of {}", known.join(", ")),
            };
            let holder = path.split_last().filter(|(last, _)| *last == name).map_or(&*path, |(_, holder)| holder);
            ConfigError::new(place(holder.iter().map(String::as_str)), problem).of(name)
        }
        None => ConfigError::new(place(path.iter().map(String::as_str)), said(&told, is_plain)),
    };
    let culprit = if path.is_empty() { Culprit::Unknown } else { Culprit::There(path) };
    Err(Misfit { error, culprit })
}

/// The first field, as deep as it goes, that what is read with it fails by: fields are read in their order, so what fails
/// by some of them fails by more.
fn culprit(fields: &Map<String, Value>, fails_so: &dyn Fn(&Map<String, Value>) -> bool) -> Vec<String> {
    const TYPE: &str = "type";
    let with_all_to = |last: usize| {
        let (kind, read) = (fields.get_key_value(TYPE).into_iter(), fields.iter().take(last + 1));
        kind.chain(read).map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>()
    };
    let all: Vec<_> = fields.iter().enumerate().collect();
    let first = all.partition_point(|(index, _)| !fails_so(&with_all_to(*index)));
    let Some((_, (name, value))) = all.get(first) else { return Vec::new() };
    let deeper = value.as_object().map(|inner| {
        culprit(inner, &|inner| {
            let mut read = with_all_to(first);
            read.insert((*name).clone(), Value::Object(inner.clone()));
            fails_so(&read)
        })
    });
    [vec![(*name).clone()], deeper.unwrap_or_default()].concat()
}

/// The field, as deep as it goes, in which another is missing; nothing if it is missing beside them.
fn holder(fields: &Map<String, Value>, fails_so: &dyn Fn(&Map<String, Value>) -> bool) -> Vec<String> {
    for (name, value) in fields {
        let Value::Object(inner) = value else { continue };
        let mut without = fields.clone();
        without.remove(name);
        if fails_so(&without) {
            continue;
        }
        let deeper = holder(inner, &|inner| {
            let mut with = fields.clone();
            with.insert(name.clone(), Value::Object(inner.clone()));
            fails_so(&with)
        });
        return [vec![name.clone()], deeper].concat();
    }
    Vec::new()
}

/// The place of a field, as far as its names look like a field's.
pub(super) fn place<'a>(path: impl IntoIterator<Item = &'a str>) -> String {
    let names = path.into_iter().map_while(|name| {
        let bare = name.split('[').next().unwrap_or_default();
        field_name(bare).map(|_| format!(".{name}"))
    });
    names.collect()
}

/// What was expected, of what serde says, or of what our own types say.
fn said(told: &str, is_plain: bool) -> String {
    let is_ours = ["type", "value", "length"].iter().all(|theirs| !told.starts_with(&format!("invalid {theirs}: ")));
    if told.starts_with("invalid ") && is_ours {
        return told.to_owned();
    }
    let expected = told.rsplit_once(", expected ").map_or("", |(_, expected)| expected);
    if expected.contains("string") && is_plain {
        return "is not text: put it in quotes".to_owned();
    }
    let words: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
    match expected {
        _ if !words.is_empty() => format!("is not one of {}", words.join(", ")),
        "a boolean" => "is neither true nor false".to_owned(),
        "a sequence" => "is not a list: expected [a, b]".to_owned(),
        "a map" => "has no fields: write {name: value}".to_owned(),
        _ if expected.starts_with("struct") || expected.contains("enum") => {
            "has no fields of its own: write {name: value}".to_owned()
        }
        _ if expected.contains("string") => "is not text".to_owned(),
        _ if expected.starts_with(['i', 'u']) => "is not a whole number in range".to_owned(),
        _ => "has a value that is not understood there".to_owned(),
    }
}

/// A name, if it looks like a field's.
pub(super) fn field_name(name: &str) -> Option<&str> {
    let is_name =
        name.len() <= MAX_NAME_BYTES && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    is_name.then_some(name)
}

/// The same sentence without the scalars of the file: of those that it quotes there is an ellipsis left, and of long
/// ones wherever they stand.
pub(super) fn without_scalars(sentence: &str, value: &Value) -> String {
    const LONG: usize = 8;
    // What is suggested is ours.
    let end = ["; did you mean ", ": expected one of "].iter().filter_map(|ours| sentence.find(ours)).min();
    let (left, ours) = sentence.split_at(end.unwrap_or(sentence.len()));
    let mut left = left.to_owned();
    let mut waiting = vec![value];
    while let Some(value) = waiting.pop() {
        let scalar = match value {
            Value::Array(items) => {
                waiting.extend(items);
                continue;
            }
            Value::Object(fields) => {
                waiting.extend(fields.values());
                continue;
            }
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(_) | Value::Null => continue,
        };
        if scalar.is_empty() {
            continue;
        }
        left = left.replace(&format!("{scalar:?}"), "\"…\"");
        if scalar.len() >= LONG {
            left = left.replace(&scalar, "…");
        }
    }
    left + ours
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    thread_local! {
        static READ: Cell<u64> = const { Cell::new(0) };
    }

    /// A number that counts how often one is read.
    struct Counted;

    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            READ.set(READ.get() + 1);
            u8::deserialize(deserializer).map(|_| Self)
        }
    }

    /// A mistake that a program made for each namespace must not keep a webhook busy for minutes.
    #[test]
    #[expect(clippy::zero_sized_map_values, reason = "all that matters is that they are read")]
    fn p9_many_faults_are_told_up_to_a_bound_and_soon() {
        let field = |number: u16| (format!("n{number:03}"), if number < 300 { json!(1) } else { json!("x") });
        let fields = (0..600).map(field).collect();
        let mut faults = Faults::default();
        assert!(read_all::<BTreeMap<String, Counted>>(&fields, &mut faults).is_none());
        let told = faults.into_errors();
        assert_eq!((told.len(), told[0].place(), told[99].place()), (100, ".n300", ".n399"));
        assert!(READ.get() < 1_000_000, "{} numbers were read", READ.get());
    }

    /// What is wrong with a store's own settings is told field by field, and each of what goes together once.
    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn p9_all_faults_of_a_stores_settings_are_told_at_once() {
        for (store, expected) in [
            (
                "type: vault, address: 'http://v.example', ca: x, namespace: '/', writableMounts: [pki, /a, 'b/'], \
                 auth: {mount: auth/k, roleIdFile: a}",
                &[
                    ".address: address",
                    ".ca: ca has no",
                    ".namespace: invalid",
                    ".writableMounts[1]: invalid",
                    ".writableMounts[2]: invalid",
                    ".auth.mount: invalid",
                    ".auth.roleIdFile: is of no use to method kubernetes",
                ][..],
            ),
            // What is of no use cannot be told of a method that is none.
            (
                "type: vault, address: 5, namespace: 5, adress: x, auth: {method: tokn, roleIdFil: a, mount: 5}",
                &[
                    ".address: is not text",
                    ".namespace: is not text",
                    ": unknown field \"adress\"",
                    ".auth.method: is not one of kubernetes, jwt, token, approle",
                    ".auth: unknown field \"roleIdFil\"",
                    ".auth.mount: is not text",
                ],
            ),
            // What is missing and may stand there by another name is told once; all else with it.
            ("type: vault, adress: x, namespace: '/'", &[": unknown field \"adress\"", ".namespace: invalid"]),
            ("type: vault, namespace: '/'", &[".address: is missing", ".namespace: invalid"]),
            ("type: azure, tenant: ../x", &[".address: is missing", ".tenant: invalid"]),
            ("type: azure, address: 'https://v', tennant: x", &[": unknown field \"tennant\""]),
            ("type: azure, address: 'https://v', auth: {method: manged-identity}", &[".auth.method: is not one of"]),
            (
                "type: azure, address: x, authority: y, scope: z",
                &[".address: address", ".authority: address", ".tenant: is missing", ".scope: invalid"],
            ),
            (
                "type: aws, region: x, account: '1', endpoint: x, ssoEndpoint: y, auth: {profile: p, configFile: /x}",
                &[
                    ".region: invalid",
                    ".account: invalid",
                    ".endpoint: address",
                    ".ssoEndpoint: address",
                    ".auth.profile: is of no use",
                    ".auth.configFile: is of no use",
                ],
            ),
            (
                "type: gcp, project: x/y, location: X, auth: {file: /x, metadata: m}",
                &[
                    ".project: invalid",
                    ".location: invalid",
                    ".auth.audience: is missing: method",
                    ".auth.file: is of no use",
                    ".auth.metadata: is of no use",
                    ".auth.metadata: address",
                ],
            ),
            (
                "type: gcp, auth: {audience: x}",
                &[".auth.audience: invalid audience \"…\": expected //iam.googleapis.com/"],
            ),
            (
                "type: infisical, address: 'https://i/api', organization: a b, project: a b, \
                 namespaces: {a: {}, b: {environment: x/y, projet: z}}",
                &[
                    ".address: address ends in /api",
                    ".organization: invalid",
                    ".project: invalid",
                    ".namespaces.a: is empty",
                    ".namespaces.b.environment: invalid",
                    ".namespaces.b: unknown field \"projet\"",
                ],
            ),
            ("type: file, path: x, identityFile: y", &[".path: invalid path", ".identityFile: invalid path"]),
            ("type: file, pth: /x", &[": unknown field \"pth\""]),
            ("type: file, path: /x, volumes: true", &[".path: path and volumes: write one"]),
            ("type: file, path: 5, volumes: true", &[".path: is not text"]),
            ("type: vault, address: 'https://v', caBundle: {}", &[".caBundle"]),
        ] {
            let faults = Config::read(&format!("image: i\nproviders:\n  v: {{{store}}}\n")).unwrap_err().0;
            let told: Vec<_> = faults.iter().map(|fault| fault.error.to_string()).collect();
            assert_eq!(told.len(), expected.len(), "{store}: {told:#?}");
            for part in expected {
                let whole = format!(".providers.v{part}");
                assert!(told.iter().any(|told| told.contains(&whole)), "{store}: no {whole:?} in {told:#?}");
            }
            assert!(faults.iter().all(|fault| fault.line == 3 && fault.column >= 3), "{faults:?}");
        }
    }
}

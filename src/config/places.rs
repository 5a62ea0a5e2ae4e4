//! Where in the file a fault stands, and which keys stand there twice: looked at only when something is wrong.

use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

use super::error::{ConfigError, ConfigFault};
use super::shape;
use crate::bundle::{Places, TextPosition};

/// Reads a file's text, whose keys may stand there twice.
///
/// # Errors
/// Where it is not YAML.
pub(super) fn read(text: &str) -> Result<(Places, Value), TextPosition> {
    let options = serde_saphyr::options! {
        strict_booleans: true, with_snippet: false, duplicate_keys: DuplicateKeyPolicy::LastWins
    };
    let value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| error.location().map_or((1, 1), |at| (at.line(), at.column())))?;
    Ok((Places::of_documents(text).into_iter().next().unwrap_or_default(), value))
}

/// Keys that stand twice in one place: the later ones.
pub(super) fn twice(places: &Places) -> Vec<ConfigFault> {
    let mut found = Vec::new();
    find_twice(places, "", &mut found);
    found
}

fn find_twice(places: &Places, place: &str, found: &mut Vec<ConfigFault>) {
    for (index, (key, (line, column), inside)) in places.fields().enumerate() {
        let shown = shape::field_name(key).map_or_else(String::new, |key| format!(".{key}"));
        let place = format!("{place}{shown}");
        if let Some((_, (first, _), _)) = places.fields().take(index).find(|(earlier, ..)| *earlier == key) {
            let problem = format!("has the same key twice, first at line {first}: leave one of them out");
            found.push(ConfigFault { line, column, error: ConfigError::new(&*place, problem) });
        }
        find_twice(inside, &place, found);
    }
    for (index, inside) in places.items().iter().enumerate() {
        find_twice(inside, &format!("{place}[{index}]"), found);
    }
}

/// The place of an error. Of what is not there, the place where it should be.
pub(super) fn locate(places: &Places, error: ConfigError) -> ConfigFault {
    let (at, inside, _) = places.follow(&error.place);
    let deeper = error.field.as_deref().and_then(|field| find(inside, field));
    let (line, column) = deeper.unwrap_or(at);
    ConfigFault { line, column, error }
}

/// The first key of this name, here or deeper.
fn find(places: &Places, name: &str) -> Option<TextPosition> {
    let here = places.fields().find(|(key, ..)| *key == name).map(|(_, at, _)| at);
    let deeper =
        || places.fields().map(|(.., inside)| inside).chain(places.items()).find_map(|inside| find(inside, name));
    here.or_else(deeper)
}

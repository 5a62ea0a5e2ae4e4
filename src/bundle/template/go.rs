//! Templates in Go's syntax, as Vault Agent, consul-template, External Secrets and Infisical's agent have them: what to
//! write instead.

use super::names::{FILTERS, elsewhere};

/// What begins an action of Go's templates, with something behind it that Jinja would put elsewhere.
const WORDS: [&str; 25] = [
    "block",
    "default",
    "define",
    "else",
    "env",
    "file",
    "fromJson",
    "getSecretByName",
    "html",
    "if",
    "include",
    "index",
    "key",
    "len",
    "listSecrets",
    "pkiCert",
    "print",
    "printf",
    "println",
    "range",
    "required",
    "secret",
    "template",
    "tpl",
    "with",
];

/// The line to write instead of what stands between `{{` and `}}`, if that is Go's. `name` is what the template's `from`
/// calls its first secret, if it has names.
pub(super) fn instead(inside: &str, name: Option<&str>) -> Option<String> {
    let inside = inside.trim_start_matches('-').trim_end_matches('-').trim();
    if let Some(comment) = inside.strip_prefix("/*") {
        return Some(format!("{{# {} #}}", comment.trim_end_matches("*/").trim()));
    }
    let (first, rest) = inside.split_once(char::is_whitespace).unwrap_or((inside, ""));
    let rest = rest.trim();
    if let Some(variable) = first.strip_prefix('$').filter(|variable| variable.starts_with(char::is_alphabetic)) {
        return Some(match rest.strip_prefix(":=") {
            Some(value) => format!("{{% set {variable} = {} %}}", expression(value.trim(), name)),
            None => format!("{{{{ {} }}}}", expression(inside, name)),
        });
    }
    if let Some(call) = inside.strip_prefix('(').filter(|call| call.starts_with(char::is_alphabetic)) {
        return instead(call, name);
    }
    let is_field = |text: &str| {
        text == "."
            || text.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_alphabetic() || c == '_'))
    };
    if is_field(first) {
        return Some(format!("{{{{ {} }}}}", expression(inside, name)));
    }
    let begins_go = is_field(rest.split_whitespace().next().unwrap_or_default())
        || rest.starts_with(['"', '`', '$', '('])
        || rest.starts_with(|c: char| c.is_alphabetic());
    let is_jinja = rest
        .split_whitespace()
        .next()
        .is_some_and(|word| matches!(word, "if" | "else" | "is" | "in" | "not" | "and" | "or") && first != "else");
    // Jinja has no text and no variable behind a word that is not its own.
    let is_call = first.starts_with(char::is_alphabetic)
        && first.chars().all(char::is_alphanumeric)
        && rest.starts_with(['"', '`', '$'])
        && first != "not";
    // A filter of ours, or what others call it, which takes no value behind it.
    let filter = FILTERS.iter().find(|(own, _)| *own == first).map(|(own, _)| format!("| {own}"));
    let filter = elsewhere(first).map(str::to_owned).or(filter);
    let is_filter = filter.is_some() && rest.starts_with(['.', '(']);
    if is_jinja || !(is_call || is_filter || WORDS.contains(&first) && begins_go) {
        return None;
    }
    Some(action(first, rest, filter, name))
}

/// The line to write instead of an action that begins with this word; `filter` is what a filter of its meaning is called.
fn action(word: &str, rest: &str, filter: Option<String>, name: Option<&str>) -> String {
    let own = name.unwrap_or("db");
    match word {
        "if" => format!("{{% if {} %}} … {{% endif %}}", expression(rest, name)),
        "else" => "{% elif … %}, or {% else %}".to_owned(),
        "range" => {
            let list = rest.rsplit(":=").next().unwrap_or(rest).trim();
            let list = if list.starts_with(['.', '$']) { expression(list, name) } else { own.to_owned() };
            format!("{{% for key, value in {list} | items %}} … {{% endfor %}}")
        }
        "with" | "secret" | "listSecrets" | "getSecretByName" | "pkiCert" if !rest.starts_with('.') => {
            format!("{{{{ {own}.key }}}} with from: {{{own}: REFERENCE}}, and neither this line nor its end")
        }
        "with" => format!("{{% with it = {} %}} … {{% endwith %}}", expression(rest, name)),
        "printf" => {
            let (text, values) = quoted(rest);
            let values: Vec<_> = values.split_whitespace().map(|value| expression(value, name)).collect();
            format!("{{{{ {text} | format({}) }}}}", values.join(", "))
        }
        "index" => {
            let (of, key) = rest.split_once(char::is_whitespace).unwrap_or((rest, "\"key\""));
            format!("{{{{ {}[{}] }}}}", expression(of, name), key.trim())
        }
        "default" | "required" => {
            let (text, of) = quoted(rest);
            let of = expression(of.trim(), name);
            if word == "default" { format!("{{{{ {of} | default({text}) }}}}") } else { format!("{{{{ {of} }}}}") }
        }
        "len" => format!("{{{{ {} | length }}}}", expression(rest, name)),
        "print" | "println" | "html" => format!("{{{{ {} }}}}", expression(rest, name)),
        "block" | "define" | "include" | "template" | "tpl" => {
            "one template that holds it all: there are no blocks and no other templates".to_owned()
        }
        _ => match filter {
            Some(instead) if !instead.starts_with('|') => instead,
            Some(filter) => format!("{{{{ {} {filter} }}}}", expression(rest, name)),
            None => format!("{{{{ {own}.key }}}}: a template has no other source than its from"),
        },
    }
}

/// A pipeline: its value, and the filters as ours are called.
fn expression(text: &str, name: Option<&str>) -> String {
    let mut parts = text.split('|').map(str::trim);
    let mut written = value(parts.next().unwrap_or_default(), name);
    for filter in parts {
        let word = filter.split_whitespace().next().unwrap_or_default();
        let known = FILTERS.iter().any(|(own, _)| *own == word).then(|| format!("| {word}"));
        let ours = elsewhere(word).map(str::to_owned).or(known);
        written = format!("{written} {}", ours.unwrap_or_else(|| format!("| {word}")));
    }
    written
}

/// `.Data.data.x` is `db.x`, where `db` is a name in `from`, and `x` where there is none.
fn value(text: &str, name: Option<&str>) -> String {
    let text = text.trim_matches(['(', ')']);
    let Some(path) = text.strip_prefix('.') else { return text.trim_start_matches('$').to_owned() };
    let path = path.strip_prefix("Data").filter(|rest| rest.is_empty() || rest.starts_with('.')).unwrap_or(path);
    let path = path.trim_start_matches('.');
    let path = path.strip_prefix("data").filter(|rest| rest.is_empty() || rest.starts_with('.')).unwrap_or(path);
    let path = path.trim_start_matches('.');
    // Of a bare field, the first part may be a name already.
    match name {
        Some(name) if path.is_empty() => name.to_owned(),
        Some(name) if path.split('.').next() != Some(name) => format!("{name}.{path}"),
        _ if path.is_empty() => "value".to_owned(),
        _ => path.to_owned(),
    }
}

/// A literal and what follows it.
fn quoted(text: &str) -> (String, &str) {
    let delimiter = text.chars().next().filter(|c| matches!(c, '"' | '`'));
    let end = delimiter.and_then(|delimiter| text.get(1..)?.find(delimiter)).map(|end| end + 2);
    match end.and_then(|end| Some((text.get(1..end - 1)?, text.get(end..)?))) {
        Some((literal, rest)) => (format!("\"{literal}\""), rest),
        None => ("\"…\"".to_owned(), ""),
    }
}

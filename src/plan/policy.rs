//! Who may ask for what: the operator's rules, by namespace and by canonical request.
//!
//! Defence in depth: the store's own policy is the authority. These rules keep a tenant's typo, or a role that is too
//! wide, from reaching further than the operator meant.

use super::Identity;
use crate::config::{Allow, expand};
use crate::reference::Request;

/// Whether one of the rules lets this identity make this request; no rules let everyone.
///
/// # Errors
/// One sentence that says what is not allowed, and where.
pub fn check(rules: Option<&[Allow]>, identity: &Identity, request: &Request) -> Result<(), String> {
    let Some(rules) = rules else { return Ok(()) };
    let namespace = &identity.namespace;
    let mut mine = rules.iter().filter(|rule| rule.namespaces.iter().any(|glob| matches(glob, namespace))).peekable();
    if mine.peek().is_none() {
        return Err(format!(
            "namespace {namespace:?} may not use provider {:?} (the operator's allow rules)",
            request.provider
        ));
    }
    let allowed = mine.flat_map(|rule| &rule.requests).any(|glob| {
        // A template that cannot be filled was refused when the configuration was loaded: here it allows nothing.
        expand(glob, identity).is_ok_and(|glob| request_matches(&glob, request))
    });
    if allowed {
        return Ok(());
    }
    Err(format!("namespace {namespace:?} may not request {request} (the operator's allow rules)"))
}

/// A glob without `?` speaks of paths alone; one with `?` of path and parameters, `version` apart.
fn request_matches(glob: &str, request: &Request) -> bool {
    if !glob.contains('?') {
        return matches(glob, &request.path);
    }
    let mut unpinned = request.clone();
    unpinned.params.remove(crate::reference::VERSION_PARAM);
    let text = unpinned.to_string();
    matches(glob, text.strip_prefix(&format!("{}:", request.provider)).unwrap_or(&text))
}

/// `*` stands for any characters, `/` among them, as in the policies of Vault and AWS; all else for itself.
#[must_use]
pub fn matches(glob: &str, text: &str) -> bool {
    let Some((head, tail)) = glob.split_once('*') else { return glob == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    (0..=rest.len())
        .filter(|&at| rest.is_char_boundary(at))
        .any(|at| rest.get(at..).is_some_and(|end| matches(tail, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("team-*", "team-a", true),
            ("team-*", "steam-a", false),
            ("a/*/c", "a/b/b/c", true),
            ("a/*/c", "a/c", false),
            ("secret/data/web", "secret/data/web2", false),
            ("*web", "secret/data/web", true),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} on {text}");
        }
    }

    #[test]
    fn p6_rules_are_by_namespace_and_request() {
        let rules = [
            Allow { namespaces: vec!["team-*".into()], requests: vec!["secret/data/{{namespace}}/*".into()] },
            Allow { namespaces: vec!["team-a".into()], requests: vec!["pki/issue/web?common_name=*.a.svc".into()] },
        ];
        let request = |path: &str, params: &[(&str, &str)]| Request {
            provider: "vault".into(),
            path: path.into(),
            params: params.iter().map(|&(k, v)| (k.into(), v.into())).collect(),
        };
        for (namespace, request, part) in [
            ("team-a", request("secret/data/team-a/db", &[]), None),
            ("team-a", request("secret/data/team-a/db", &[("version", "3")]), None),
            ("team-a", request("secret/data/team-b/db", &[]), Some("may not request vault:secret/data/team-b/db")),
            ("team-a", request("pki/issue/web", &[("common_name", "x.a.svc")]), None),
            ("team-a", request("pki/issue/web", &[("common_name", "x.b.svc")]), Some("may not request")),
            ("team-b", request("pki/issue/web", &[("common_name", "x.a.svc")]), Some("may not request")),
            ("other", request("secret/data/other/db", &[]), Some("may not use provider \"vault\"")),
        ] {
            let identity = Identity { namespace: namespace.into(), service_account: "web".into() };
            let outcome = check(Some(&rules), &identity, &request);
            match part {
                None => assert_eq!(outcome, Ok(()), "{namespace} {request}"),
                Some(part) => assert!(outcome.as_ref().is_err_and(|e| e.contains(part)), "{request}: {outcome:?}"),
            }
            assert_eq!(check(None, &identity, &request), Ok(()));
        }
    }
}

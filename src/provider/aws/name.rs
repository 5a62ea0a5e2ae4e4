//! Canonical names of secrets and parameters.
//!
//! A secret has several names: its own, its ARN with six random characters at the end, and the ARN without them. Within
//! the account that the operator named, all of them become the name. An ARN of another account (or of any, if none was
//! named) stays, whole: globs of names never match it, so reading across accounts is an operator's explicit wish.

use std::collections::BTreeMap;

use super::settings::{AwsSettings, is_account};
use crate::parse_error::{ParseError, invalid, rule};
use crate::reference::{Reference, Request, VERSION_PARAM};

/// The staging label that is read if nothing else is asked for.
pub(super) const CURRENT: &str = "AWSCURRENT";

/// Secrets Manager puts a hyphen and this many random characters behind a name to make an ARN.
const SUFFIX: usize = 6;

/// Parameter Store hands Secrets Manager's secrets out under this path.
const BORROWED: &str = "/aws/reference/secretsmanager/";

/// An ARN of the provider's own service and region.
struct Arn<'a> {
    account: &'a str,
    /// What follows `secret:` or `parameter`.
    resource: &'a str,
}

/// Whether a version is meant by its id, not by a staging label. Secrets Manager makes ids of this form (a UUID).
pub(super) fn is_version_id(version: &str) -> bool {
    let groups: Vec<_> = version.split('-').collect();
    let lengths = groups.iter().map(|group| group.len());
    lengths.eq([8, 4, 4, 4, 12]) && groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a path means all parameters below it.
pub(super) fn is_tree(path: &str) -> bool {
    path.ends_with('/')
}

/// The canonical request for a secret.
pub(super) fn secret(settings: &AwsSettings, provider: &str, reference: &Reference) -> Result<Request, ParseError> {
    let given = reference.path.as_str();
    let path = match Arn::parse(settings, given, "secretsmanager", "secret:")? {
        None => secret_name(given)?,
        Some(arn) => {
            let short = arn.resource.rsplit_once('-').filter(|(_, suffix)| is_suffix(suffix)).map(|(name, _)| name);
            secret_name(short.unwrap_or(arn.resource))?;
            match short {
                short if arn.is_own(settings) => short.unwrap_or(arn.resource),
                Some(_) => given,
                None => {
                    return Err(rule(format!(
                        "{given:?} lacks the hyphen and the six characters at its end: write the whole ARN, or the \
                         secret's name if it is in this account"
                    )));
                }
            }
        }
    };
    let mut params = version_only(reference)?;
    if let Some(version) = params.get(VERSION_PARAM) {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
        if version.is_empty() || version.len() > 256 || !version.bytes().all(is_fine) {
            return Err(invalid("version", version, "a staging label such as AWSPREVIOUS, or a version's id"));
        }
        if version == CURRENT {
            params.clear();
        }
    }
    Ok(request(provider, path, params))
}

fn secret_name(name: &str) -> Result<&str, ParseError> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
    if name.is_empty() || name.len() > 512 || !name.bytes().all(is_fine) {
        return Err(invalid(
            "secret name",
            name,
            "letters, digits and /_+=.@-, at most 512, such as prod/db, or an ARN",
        ));
    }
    Ok(name)
}

fn is_suffix(text: &str) -> bool {
    text.len() == SUFFIX && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The canonical request for a parameter or a tree of them.
pub(super) fn parameter(settings: &AwsSettings, provider: &str, reference: &Reference) -> Result<Request, ParseError> {
    let given = reference.path.as_str();
    let mut params = version_only(reference)?;
    let path = match Arn::parse(settings, given, "ssm", "parameter")? {
        None => given.to_owned(),
        Some(arn) => {
            let name = arn.resource;
            parameter_name(name)?;
            match (arn.is_own(settings), name.matches('/').count()) {
                (false, _) if is_tree(name) => {
                    return Err(rule(format!("{given:?}: parameters that another account shares are read one by one")));
                }
                (false, _) => return Ok(request(provider, given, version(params)?)),
                // Both `db` and `/db` have this ARN.
                (true, 1) => return Err(rule(format!("{given:?}: write the parameter's name, as it was created"))),
                (true, _) => name.to_owned(),
            }
        }
    };
    parameter_name(&path)?;
    if is_tree(&path) && !params.is_empty() {
        return Err(rule(format!("{path:?} is a tree, which has no versions: leave ?version= out")));
    }
    params = version(params)?;
    Ok(request(provider, &path, params))
}

fn request(provider: &str, path: &str, params: BTreeMap<String, String>) -> Request {
    Request { provider: provider.to_owned(), path: path.to_owned(), params }
}

fn parameter_name(name: &str) -> Result<(), ParseError> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"/_.-".contains(&byte);
    if name.contains(':') {
        return Err(rule(format!(
            "{name:?} has a ':', which no parameter's name has: write ?version=<number or label>"
        )));
    }
    let inner = name.strip_suffix('/').unwrap_or(name);
    let components = inner.strip_prefix('/').unwrap_or(inner);
    let is_rooted = name.starts_with('/') || !name.contains('/');
    if components.is_empty() || components.split('/').any(str::is_empty) || !is_rooted || !name.bytes().all(is_fine) {
        return Err(invalid(
            "parameter name",
            name,
            "letters, digits and /_.-, such as /prod/web/db-password, or /prod/web/ for all below it",
        ));
    }
    if name.starts_with(BORROWED) || format!("{name}/").starts_with(BORROWED) {
        return Err(rule(format!("{name:?} is a secret of Secrets Manager: read it with a provider of type aws")));
    }
    Ok(())
}

/// `version` as a plain number, or as a label.
fn version(mut params: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ParseError> {
    let Some(version) = params.get_mut(VERSION_PARAM) else { return Ok(params) };
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let begins_well = version.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '.' || c == '-');
    match version.parse::<u64>() {
        Ok(number) if number > 0 && !version.starts_with('+') => *version = number.to_string(),
        Err(_) if begins_well && version.len() <= 100 && version.bytes().all(is_label) => {}
        _ => return Err(invalid("version", version, "a whole number above zero, or a label")),
    }
    Ok(params)
}

fn version_only(reference: &Reference) -> Result<BTreeMap<String, String>, ParseError> {
    match reference.params.keys().find(|name| *name != VERSION_PARAM) {
        Some(name) => Err(rule(format!("AWS takes no parameter but version: remove \"{name}=…\""))),
        None => Ok(reference.params.clone()),
    }
}

// === impl Arn ===

impl<'a> Arn<'a> {
    /// `None` if the text is a name.
    fn parse(settings: &AwsSettings, text: &'a str, service: &str, kind: &str) -> Result<Option<Self>, ParseError> {
        let Some(rest) = text.strip_prefix("arn:") else { return Ok(None) };
        let bad = |problem: String| Err(rule(format!("{text:?} {problem}")));
        let partition = settings.partition();
        let form = || format!("expected arn:{partition}:{service}:{}:<account>:{kind}…, or a name", settings.region);
        let mut parts = rest.splitn(5, ':');
        let mut part = || parts.next().unwrap_or_default();
        let (in_partition, of_service, region, account, resource) = (part(), part(), part(), part(), part());
        let Some(resource) = resource.strip_prefix(kind).filter(|_| in_partition == partition) else {
            return bad(format!("is not an ARN that this provider reads: {}", form()));
        };
        if of_service != service || !is_account(account) {
            return bad(format!("is not an ARN that this provider reads: {}", form()));
        }
        if region != settings.region {
            return bad(format!(
                "is in region {region:?}, and this provider reads {:?}: use a provider of that region",
                settings.region
            ));
        }
        Ok(Some(Self { account, resource }))
    }

    fn is_own(&self, settings: &AwsSettings) -> bool {
        settings.account.as_deref() == Some(self.account)
    }
}

//! Reads of secrets: by folder or one by one, by the API that the server has, and only if they changed.

use std::collections::BTreeMap;

use aws_lc_rs::{hmac, rand};
use hyper::Method;
use hyper::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use zeroize::Zeroizing;

use super::api::Api;
use super::api_types::{Document, Listing, Secret, Single};
use super::asked::{Asked, What};
use super::errors::{is_about_reference, is_absence, is_unknown_route};
use super::limits::Kind;
use crate::provider::http::{Call, Failure, Response, Scope};
use crate::provider::session::Outcome;
use crate::provider::{Answer, ErrorKind, Reading, Version};
use crate::reference::Request;

/// The API's generations. The older one works on every server, but is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ApiVersion {
    V3,
    V4,
}

/// What is remembered of an answer, without its values.
///
/// An `ETag` is the server's digest of the decrypted answer: values could be guessed from it, so it stays here and
/// is not part of the [`Version`]. That is made of the secrets' own versions, on which all replicas agree. A secret
/// that another one refers to may change without them: then the values differ while the versions do not, and a count of
/// such changes is added, which means something in this process only.
#[derive(Debug)]
pub(super) struct Seen {
    etag: Option<HeaderValue>,
    versions: String,
    content: Vec<u8>,
    /// Changes of the content under these versions.
    changes: u32,
}

/// What was learnt about the server and its secrets.
#[derive(Debug)]
pub(super) struct Secrets {
    /// The newest API that the server is known to have: it has answered.
    api: Option<ApiVersion>,
    /// What was read, for the next time.
    seen: BTreeMap<Request, Seen>,
    /// Key of the digests in `seen`: they stay in this process.
    key: hmac::Key,
}

/// Most secrets of a folder that are asked for one by one.
const MAX_REFERRING: usize = 64;

// === impl ApiVersion ===

impl ApiVersion {
    fn path(self) -> &'static str {
        match self {
            Self::V3 => "api/v3/secrets/raw",
            Self::V4 => "api/v4/secrets",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::V3 => Self::V4,
            Self::V4 => Self::V3,
        }
    }

    async fn ask(
        self,
        api: &mut Api,
        project: &str,
        asked: &Asked,
        etag: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let path = match &asked.what {
            What::Secret { name, .. } => format!("{}/{name}", self.path()),
            _ => self.path().to_owned(),
        };
        let mut call = self.call(api.call(Method::GET, path)?, project, asked);
        if let Some(etag) = etag {
            call = call.header(IF_NONE_MATCH, etag.clone());
        }
        api.send(Kind::Secrets, call).await
    }

    /// Every switch is said, since servers of several years take different things for granted; and always in the same
    /// order, since the `ETag` of a newer server belongs to the parameters as they stand.
    fn call(self, call: Call, project: &str, asked: &Asked) -> Call {
        let project_param = if self == Self::V3 { "workspaceId" } else { "projectId" };
        let mut call = call
            .query(project_param, project)
            .query("environment", &asked.environment)
            .query("secretPath", &asked.path)
            .query("viewSecretValue", "true")
            .query("expandSecretReferences", &asked.expands.to_string());
        // A pin would be answered with an import's secret of that name, if the version is gone.
        let imports = !matches!(asked.what, What::Secret { version: Some(_), .. });
        call = call.query("include_imports", &imports.to_string());
        if self == Self::V4 {
            call = call.query("includeImports", &imports.to_string());
        }
        match &asked.what {
            What::Secret { version, .. } => {
                call = call.query("type", "shared");
                version.iter().fold(call, |call, version| call.query("version", version))
            }
            What::Folder { recursive, tags } => {
                if self == Self::V4 {
                    call = call.query("includePersonalOverrides", "false");
                }
                call = call.query("recursive", &recursive.to_string());
                tags.iter().fold(call, |call, tags| call.query("tagSlugs", tags))
            }
            What::Lease { .. } => call,
        }
    }
}

// === impl Seen ===

impl Seen {
    fn new(etag: Option<HeaderValue>, document: &Document, before: Option<&Self>) -> Self {
        let Document { versions, content, .. } = document;
        let changes = match before {
            Some(before) if before.versions == *versions => before.changes + u32::from(before.content != *content),
            _ => 0,
        };
        Self { etag, versions: versions.clone(), content: content.clone(), changes }
    }

    fn version(&self) -> Version {
        match self.changes {
            0 => Version(self.versions.clone()),
            count => Version(format!("{}+{count}", self.versions)),
        }
    }
}

// === impl Secrets ===

impl Secrets {
    pub(super) fn new() -> Self {
        let mut key = Zeroizing::new([0; 32]);
        // Without randomness the digests are still no one's but this process's.
        let _ = rand::fill(&mut *key);
        Self { api: None, seen: BTreeMap::new(), key: hmac::Key::new(hmac::HMAC_SHA256, &*key) }
    }

    pub(super) async fn read(
        &mut self,
        api: &mut Api,
        project: &str,
        request: &Request,
        asked: &Asked,
        known: Option<&Version>,
    ) -> Outcome {
        let before = self.seen.get(request).filter(|seen| known == Some(&seen.version()));
        let held = before.and_then(|seen| seen.etag.clone());
        let response = self.ask(api, project, asked, held.as_ref()).await?;
        if response.status.as_u16() == 304 && held.is_some() {
            return Ok(Reading::NotModified);
        }
        let (document, etag) = if is_about_reference(&response) && matches!(asked.what, What::Folder { .. }) {
            (self.read_piecemeal(api, project, asked).await?, None)
        } else {
            (self.take_document(api, &response, asked)?, response.headers.get(ETAG).cloned())
        };
        let before = self.seen.remove(request);
        let was_known = before.as_ref().is_some_and(|seen| known == Some(&seen.version()));
        let seen = Seen::new(etag, &document, before.as_ref());
        let version = seen.version();
        self.seen.insert(request.clone(), seen);
        // Newer servers forget an ETag within minutes, and answer in full what has not changed.
        if was_known && known == Some(&version) {
            return Ok(Reading::NotModified);
        }
        Ok(Reading::Fresh(Answer { tree: document.tree, version: Some(version), expires_in: None, lease: None }))
    }

    /// Asks by the newest API that is known to be there, and where it is not, by the other one from now on. A
    /// missing secret counts only if an API reports it that has answered before, or if both do.
    async fn ask(
        &mut self,
        api: &mut Api,
        project: &str,
        asked: &Asked,
        etag: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let version = self.api.unwrap_or(ApiVersion::V4);
        let first = version.ask(api, project, asked, etag).await?;
        let is_open = is_unknown_route(&first) || (self.api.is_none() && is_absence(&first));
        if !is_open {
            self.note_version(version, &first);
            return Ok(first);
        }
        let other = version.other();
        let second = other.ask(api, project, asked, None).await?;
        if is_unknown_route(&second) {
            return Ok(first);
        }
        self.note_version(other, &second);
        Ok(second)
    }

    /// A folder in which one secret refers to what this identity may not read, which servers refuse as a whole: as it
    /// stands, and of what refers to others, each alone.
    async fn read_piecemeal(&mut self, api: &mut Api, project: &str, asked: &Asked) -> Result<Document, Failure> {
        let plain = Asked { expands: false, ..asked.clone() };
        let response = self.ask(api, project, &plain, None).await?;
        let mut secrets = take_secrets(api, &response, asked)?;
        let referring = secrets.iter_mut().filter(|(_, secret)| secret.refers());
        for (at, (name, secret)) in referring.enumerate() {
            if at == MAX_REFERRING {
                let message = format!(
                    "{}: more than {MAX_REFERRING} secrets refer to others, and one of them to what this identity may \
                     not read: allow it that, or take secrets one by one (?secret=<KEY>)",
                    asked.describe()
                );
                return Err(Failure::denied(message));
            }
            // Of a sub-folder; an imported one has another environment in its place, and is found from here.
            let is_below = secret.path.starts_with('/');
            let path = if is_below { secret.path.clone() } else { asked.path.clone() };
            let what = What::Secret { name: name.clone(), version: None };
            let one = Asked { path, what, ..asked.clone() };
            let response = self.ask(api, project, &one, None).await?;
            match api.parse::<Single>(&response, &one.describe()) {
                Ok(Single { secret: found }) => secret.take_value(found),
                Err(failure) if failure.scope == Scope::Call && failure.error.kind == ErrorKind::Denied => {
                    secret.is_out_of_reach = true;
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(Document::new(secrets, asked.keeps_unresolved, &self.key))
    }

    fn note_version(&mut self, version: ApiVersion, response: &Response) {
        if response.status.is_success() || response.status.as_u16() == 304 || is_about_reference(response) {
            self.api = Some(version);
        }
    }

    fn take_document(&self, api: &Api, response: &Response, asked: &Asked) -> Result<Document, Failure> {
        let what = asked.describe();
        let What::Secret { name, version } = &asked.what else {
            return Ok(Document::new(take_secrets(api, response, asked)?, asked.keeps_unresolved, &self.key));
        };
        let secret = api.parse::<Single>(response, &what)?.secret;
        let number = secret.version.to_string();
        if version.as_ref().is_some_and(|version| *version != number) {
            return Err(Failure::not_found(format!("{what} does not exist")));
        }
        // Who asks for one wants that one.
        if let Some(fault) = secret.fault(asked.keeps_unresolved) {
            return Err(Failure::new(fault.kind, format!("{what} {}", fault.why)));
        }
        let document = Document::new(BTreeMap::from([(name.clone(), secret)]), asked.keeps_unresolved, &self.key);
        // Its own number is what a pin wants.
        Ok(Document { versions: number, ..document })
    }
}

fn take_secrets(api: &Api, response: &Response, asked: &Asked) -> Result<BTreeMap<String, Secret>, Failure> {
    let what = asked.describe();
    let secrets = api.parse::<Listing>(response, &what)?.into_secrets();
    if secrets.is_empty() {
        // Servers say this of folders that they do not have, too: never a reason to empty files.
        let message = format!("{what} is empty, or does not exist: check project, environment and path");
        return Err(Failure::not_found(message));
    }
    Ok(secrets)
}

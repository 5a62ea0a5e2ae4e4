//! Folders and their secrets, read by v3 and v4.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::server::Reply;
use super::clock::iso;
use super::logins::Rights;
use super::{Answer, Call, Limited, PROJECT, Server, Year, error};

#[derive(Default)]
pub(super) struct Folder {
    secrets: BTreeMap<String, SecretEntry>,
    /// Environment and path, in the order that they were added.
    imports: Vec<(String, String)>,
}

/// A secret.
#[derive(Debug, Clone, Default)]
pub(crate) struct SecretEntry {
    id: String,
    /// Oldest first.
    values: Vec<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) comment: String,
    /// This server shows it to a caller that may know of it, with its value left out.
    pub(crate) is_hidden: bool,
}

/// A list's or a secret's parameters.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "they are the API's parameters")]
struct Params {
    project: String,
    environment: String,
    path: String,
    shows_values: bool,
    expands: bool,
    imports: bool,
    recursive: bool,
    tags: Vec<String>,
}

// === impl Server ===

impl Server {
    /// Stores a value in the project that is there from the start, anew or as the next version.
    pub(crate) fn put(&mut self, environment: &str, path: &str, key: &str, value: &str) {
        self.put_in(PROJECT, environment, path, key, value);
    }

    pub(crate) fn put_in(&mut self, project: &str, environment: &str, path: &str, key: &str, value: &str) {
        let id = self.next_id();
        let place = (environment.to_owned(), path.to_owned());
        let folder = self.projects.get_mut(project).unwrap().folders.entry(place).or_default();
        let entry = folder.secrets.entry(key.to_owned()).or_insert(SecretEntry { id, ..SecretEntry::default() });
        entry.values.push(value.to_owned());
        let event = if entry.values.len() == 1 { "create" } else { "update" };
        self.changed(project, event, environment, path, key);
    }

    /// Changes what is beside a value.
    pub(crate) fn secret(&mut self, environment: &str, path: &str, key: &str) -> &mut SecretEntry {
        let place = (environment.to_owned(), path.to_owned());
        self.etags.clear();
        self.projects.get_mut(PROJECT).unwrap().folders.get_mut(&place).unwrap().secrets.get_mut(key).unwrap()
    }

    pub(crate) fn remove(&mut self, environment: &str, path: &str, key: &str) {
        let place = (environment.to_owned(), path.to_owned());
        self.projects.get_mut(PROJECT).unwrap().folders.get_mut(&place).unwrap().secrets.remove(key);
        self.changed(PROJECT, "delete", environment, path, key);
    }

    /// Adds an import to a folder.
    pub(crate) fn import(&mut self, environment: &str, path: &str, from: (&str, &str)) {
        let place = (environment.to_owned(), path.to_owned());
        let folder = self.projects.get_mut(PROJECT).unwrap().folders.entry(place).or_default();
        folder.imports.push((from.0.to_owned(), from.1.to_owned()));
        self.changed(PROJECT, "import-mutation", environment, path, "");
    }

    /// Forgets which answers had which `ETag`, as after a quarter of an hour.
    pub(crate) fn forget_etags(&mut self) {
        self.etags.clear();
    }

    pub(super) fn get_secrets(&mut self, call: &Call<'_>, is_v4: bool, rest: &[&str]) -> Answer {
        self.as_caller(Limited::Secrets, call, |this, identity| {
            let params = this.params(call, is_v4)?;
            let key = format!("{identity} {} {}", call.received.path, call.received.query);
            let is_list = rest.is_empty();
            let asked = call.received.header("if-none-match");
            // The newest server compares before it reads, and only what it still knows.
            if is_list
                && this.year == Year::Y2026
                && asked.is_some()
                && this.etags.get(&key).map(String::as_str) == asked
            {
                let etag = asked.unwrap_or_default().to_owned();
                return Ok(
                    Reply { body: axum::body::Body::empty(), ..Reply::json(304, &Value::Null) }.header("etag", etag)
                );
            }
            let body = match rest {
                [] => this.list(identity, &params)?,
                [name] => this.single(identity, &params, name, call)?,
                _ => return Err(error(404, "NotFound", "Secret not found")),
            };
            let etag = etag(&body);
            if is_list {
                this.etags.insert(key, etag.clone());
            }
            let compares = !(is_list && this.year == Year::Y2026);
            let reply = if compares && asked == Some(etag.as_str()) {
                Reply { body: axum::body::Body::empty(), ..Reply::json(304, &Value::Null) }
            } else {
                Reply::json(200, &body)
            };
            Ok(reply.header("etag", etag))
        })
    }

    fn params(&self, call: &Call<'_>, is_v4: bool) -> Result<Params, Reply> {
        let query = |name: &str| call.query.get(name).map(String::as_str);
        let switch = |name: &str, default: bool| match query(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(self.invalid(name, "Invalid enum value. Expected 'true' | 'false'")),
        };
        let newest = is_v4 && self.year == Year::Y2026;
        let project = query(if is_v4 { "projectId" } else { "workspaceId" });
        let project = match (project, query("workspaceSlug")) {
            (None, Some(slug)) if !is_v4 => Some(self.project_by_slug(slug)?),
            (project, _) => project.map(str::to_owned),
        };
        let (Some(project), Some(environment)) = (project, query("environment")) else {
            return Err(error(400, "BadRequest", "Missing project id or environment"));
        };
        if !self.projects.contains_key(&project) {
            return Err(error(404, "NotFound", &format!("Project with ID '{project}' not found")));
        }
        let path = query("secretPath").unwrap_or("/");
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        let tags = query("tagSlugs").map(|tags| tags.split(',').map(|tag| tag.trim().to_owned()).collect());
        Ok(Params {
            project,
            environment: environment.to_owned(),
            path: path.to_owned(),
            shows_values: switch("viewSecretValue", true)?,
            expands: switch("expandSecretReferences", newest)?,
            imports: if newest { switch("includeImports", true)? } else { switch("include_imports", false)? },
            recursive: switch("recursive", false)?,
            tags: tags.unwrap_or_default(),
        })
    }

    fn list(&self, identity: &str, params: &Params) -> Result<Value, Reply> {
        let Params { project, environment, path, .. } = params;
        let folders = &self.projects[project].folders;
        let below = format!("{}/", path.trim_end_matches('/'));
        let covers = |other: &str| other == path || (params.recursive && other.starts_with(&below));
        let found: Vec<_> = folders.iter().filter(|((env, at), _)| env == environment && covers(at)).collect();
        let mut secrets = Vec::new();
        for ((_, at), folder) in &found {
            let rights = self.rights(identity, environment, at);
            if self.year == Year::Y2024 && rights != Rights::Read {
                return Err(denied(environment, at));
            }
            if rights == Rights::Nothing {
                continue;
            }
            // The order is the database's, which is none.
            for (key, secret) in folder.secrets.iter().rev().filter(|(_, secret)| secret.has_tag(&params.tags)) {
                if params.shows_values && rights != Rights::Read && !secret.is_hidden {
                    if at != path {
                        continue;
                    }
                    return Err(denied(environment, at));
                }
                if let Some(refusal) =
                    self.forbidden(identity, params, at, key, secret).filter(|_| self.year == Year::Y2026)
                {
                    return Err(refusal);
                }
                secrets.push(self.shown(identity, params, at, key, secret, None));
            }
        }
        let mut body = json!({"secrets": secrets});
        if params.imports {
            let imports = found.iter().flat_map(|(_, folder)| &folder.imports);
            body["imports"] = imports.filter_map(|from| self.imported(identity, params, from)).collect();
        } else if self.year != Year::Y2024 {
            body["imports"] = json!([]);
        }
        Ok(body)
    }

    fn imported(&self, identity: &str, params: &Params, (environment, path): &(String, String)) -> Option<Value> {
        let folder = self.projects[&params.project].folders.get(&(environment.clone(), path.clone()))?;
        if self.rights(identity, environment, path) != Rights::Read {
            return Some(json!({"secretPath": path, "environment": environment, "folderId": "f", "secrets": []}));
        }
        let place = Params { environment: environment.clone(), ..params.clone() };
        let shown = |(key, secret): (&String, &SecretEntry)| {
            let mut shown = self.shown(identity, &place, path, key, secret, None);
            let fields = shown.as_object_mut().unwrap();
            for name in ["createdAt", "updatedAt", "secretPath"] {
                fields.remove(name);
            }
            fields.insert("workspace".to_owned(), json!(""));
            shown
        };
        let secrets: Vec<_> = folder.secrets.iter().map(shown).collect();
        Some(json!({"secretPath": path, "environment": environment, "folderId": "f", "secrets": secrets}))
    }

    fn single(&self, identity: &str, params: &Params, name: &str, call: &Call<'_>) -> Result<Value, Reply> {
        let Params { project, environment, path, .. } = params;
        let place = (environment.clone(), path.clone());
        let no_folder = || {
            let message = format!("Folder with path '{path}' in environment with slug '{environment}' not found");
            error(404, "GetSecretByName", &message)
        };
        let folder = self.projects[project].folders.get(&place).ok_or_else(no_folder)?;
        let version = call.query.get("version").map(|version| version.parse::<usize>());
        let version = match version {
            None => None,
            Some(Ok(number)) => Some(number),
            Some(Err(_)) => return Err(self.invalid("version", "Expected number, received nan")),
        };
        let is_there = |secret: &&SecretEntry| version.is_none_or(|number| (1..=secret.values.len()).contains(&number));
        let rights = self.rights(identity, environment, path);
        if rights == Rights::Nothing {
            return Err(denied(environment, path));
        }
        let Some(secret) = folder.secrets.get(name).filter(is_there) else {
            // As the server does it: also for a version that is not there.
            let imported = folder.imports.iter().rev().filter(|_| params.imports).find_map(|from| {
                let import = self.imported(identity, params, from)?;
                import["secrets"].as_array()?.iter().find(|secret| secret["secretKey"] == name).cloned()
            });
            let missing = || error(404, "NotFound", &format!("Secret with name '{name}' not found"));
            return imported.map(|secret| json!({"secret": secret})).ok_or_else(missing);
        };
        if params.shows_values && rights != Rights::Read {
            return Err(error(403, "ForbiddenReadSecretError", "You do not have permission to view secret value"));
        }
        if let Some(refusal) = self.forbidden(identity, params, path, name, secret) {
            return Err(refusal);
        }
        Ok(json!({"secret": self.shown(identity, params, path, name, secret, version)}))
    }

    /// What is said of a secret that refers to one that the caller may not read. Some years swallow it in lists, and show
    /// the value as it stands.
    fn forbidden(&self, identity: &str, params: &Params, path: &str, key: &str, secret: &SecretEntry) -> Option<Reply> {
        let value = secret.values.last().filter(|_| params.expands)?;
        let references = value.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
        references.filter(|(name, _)| name.contains('.')).find_map(|(name, _)| {
            let parts: Vec<_> = name.split('.').collect();
            let [environment, folders @ .., other] = parts.as_slice() else { unreachable!() };
            let folder = format!("/{}", folders.join("/"));
            (self.rights(identity, environment, &folder) != Rights::Read).then(|| {
                let message = format!(
                    "You do not have permission to read secret '{other}' in environment '{environment}' at path \
                     '{folder}', which is referenced by secret '{key}' in environment '{}' at path '{path}'.",
                    params.environment
                );
                error(403, "ForbiddenRequestError", &message)
            })
        })
    }

    fn shown(
        &self,
        identity: &str,
        params: &Params,
        path: &str,
        key: &str,
        secret: &SecretEntry,
        version: Option<usize>,
    ) -> Value {
        let number = version.unwrap_or(secret.values.len());
        let value = &secret.values[number - 1];
        let is_hidden = secret.is_hidden || !params.shows_values;
        let value = match (is_hidden, params.expands) {
            (true, _) => "<hidden-by-infisical>".to_owned(),
            (false, true) if self.forbidden(identity, params, path, key, secret).is_some() => value.clone(),
            (false, true) => self.expanded(&params.project, &params.environment, path, value, 0),
            (false, false) => value.clone(),
        };
        let at = iso(Duration::from_secs(1_700_000_000));
        let tags: Vec<_> =
            secret.tags.iter().map(|slug| json!({"id": slug, "slug": slug, "name": slug, "color": ""})).collect();
        json!({
            "id": secret.id, "_id": secret.id, "workspace": params.project, "environment": params.environment,
            "version": number, "type": "shared", "secretKey": key, "secretValue": value,
            "secretComment": secret.comment, "secretReminderNote": null, "secretReminderRepeatDays": null,
            "skipMultilineEncoding": false, "createdAt": at, "updatedAt": at, "secretPath": path,
            "secretValueHidden": is_hidden, "isRotatedSecret": false, "rotationId": null, "actor": null,
            "secretMetadata": [], "tags": tags
        })
    }

    /// `${KEY}` and `${env.folder.KEY}`; what leads nowhere stays.
    fn expanded(&self, project: &str, environment: &str, path: &str, value: &str, depth: usize) -> String {
        let mut text = String::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once("${") {
            text.push_str(before);
            let Some((name, tail)) = after.split_once('}') else {
                rest = &rest[before.len()..];
                break;
            };
            let parts: Vec<_> = name.split('.').collect();
            let (env, folder, key) = match parts.as_slice() {
                [key] => (environment, path.to_owned(), *key),
                [env, folders @ .., key] => (*env, format!("/{}", folders.join("/")), *key),
                [] => unreachable!(),
            };
            let folders = &self.projects[project].folders;
            let found = folders.get(&(env.to_owned(), folder.clone())).and_then(|found| found.secrets.get(key));
            match found.and_then(|secret| secret.values.last()).filter(|_| depth < 10) {
                Some(found) => text.push_str(&self.expanded(project, env, &folder, found, depth + 1)),
                None => text.extend(["${", name, "}"]),
            }
            rest = tail;
        }
        text + rest
    }
}

fn denied(environment: &str, path: &str) -> Reply {
    let body = json!({"reqId": "req-canary", "statusCode": 403, "error": "PermissionDenied",
        "message": "You are not allowed to readValue on secrets", "details": [{"action": ["readValue"], "inverted": false,
        "subject": ["secrets"], "conditions": {"environment": environment, "secretPath": {"$eq": path}}}]});
    Reply::json(403, &body)
}

/// Strong and quoted.
fn etag(body: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    body.to_string().hash(&mut hasher);
    format!("\"{:x}\"", hasher.finish())
}

// === impl SecretEntry ===

impl SecretEntry {
    fn has_tag(&self, wanted: &[String]) -> bool {
        wanted.is_empty() || wanted.iter().any(|tag| self.tags.contains(tag))
    }
}

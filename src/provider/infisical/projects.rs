//! A project's id and its slug: secrets are asked for by the one, leases by the other.

use std::collections::BTreeMap;

use hyper::Method;
use serde::Deserialize;

use super::api::Api;
use super::errors::is_unknown_route;
use super::limits::Kind;
use super::settings::InfisicalSettings;
use crate::provider::http::Failure;
use crate::provider::names::is_uuid;

/// What is known of projects, by id and by slug. They keep both for life.
#[derive(Debug)]
pub(super) struct Projects {
    learnt: BTreeMap<String, Project>,
    /// The operator's project, and its slug beside its id.
    own: (Option<String>, Option<String>),
}

/// A project's names.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Project {
    pub(super) id: String,
    pub(super) slug: String,
}

/// Servers of several years put the same into different frames.
#[derive(Deserialize)]
#[serde(untagged)]
enum ProjectAnswer {
    Project { project: Project },
    Workspace { workspace: Project },
    Plain(Project),
}

// === impl Projects ===

impl Projects {
    pub(super) fn new(settings: &InfisicalSettings) -> Self {
        Self { learnt: BTreeMap::new(), own: (settings.project.clone(), settings.project_slug.clone()) }
    }

    /// The id of a project that may be named by its slug.
    pub(super) async fn id(&mut self, api: &mut Api, name: &str) -> Result<String, Failure> {
        if is_uuid(name) {
            return Ok(name.to_owned());
        }
        self.look_up(api, name, [format!("api/v1/projects/slug/{name}"), format!("api/v2/workspace/{name}")])
            .await
            .map(|project| project.id)
    }

    /// The slug of a project that may be named by its id.
    pub(super) async fn slug(&mut self, api: &mut Api, name: &str) -> Result<String, Failure> {
        if !is_uuid(name) {
            return Ok(name.to_owned());
        }
        if let (Some(project), Some(slug)) = &self.own
            && project == name
        {
            return Ok(slug.clone());
        }
        self.look_up(api, name, [format!("api/v1/projects/{name}"), format!("api/v1/workspace/{name}")])
            .await
            .map(|project| project.slug)
    }

    /// Asks by the new path, and where that is unknown by the old one.
    async fn look_up(&mut self, api: &mut Api, name: &str, [path, old_path]: [String; 2]) -> Result<Project, Failure> {
        if let Some(project) = self.learnt.get(name) {
            return Ok(project.clone());
        }
        let mut response = api.send(Kind::Read, api.call(Method::GET, path)?).await?;
        if is_unknown_route(&response) {
            response = api.send(Kind::Read, api.call(Method::GET, old_path)?).await?;
        }
        let answer = api.parse(&response, &format!("project {name}"))?;
        let (ProjectAnswer::Project { project }
        | ProjectAnswer::Workspace { workspace: project }
        | ProjectAnswer::Plain(project)) = answer;
        self.learnt.insert(name.to_owned(), project.clone());
        Ok(project)
    }
}

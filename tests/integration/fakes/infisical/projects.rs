//! Projects, environments and folders.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::server::Reply;
use super::{Answer, Call, Limited, Server, Year, error};

use super::secrets::Folder;

/// A project.
pub(super) struct Project {
    pub(super) slug: String,
    /// By environment and path.
    pub(super) folders: BTreeMap<(String, String), Folder>,
}

// === impl Project ===

impl Project {
    pub(super) fn new(slug: &str) -> Self {
        Self { slug: slug.to_owned(), folders: BTreeMap::new() }
    }
}

// === impl Server ===

impl Server {
    pub(crate) fn add_project(&mut self, id: &str, slug: &str) {
        self.projects.insert(id.to_owned(), Project::new(slug));
    }

    pub(super) fn project_by_slug(&self, slug: &str) -> Result<String, Reply> {
        let found = self.projects.iter().find(|(_, project)| project.slug == slug);
        let missing = || error(404, "NotFound", &format!("Project with slug '{slug}' not found"));
        found.map(|(id, _)| id.clone()).ok_or_else(missing)
    }

    pub(super) fn show_project(&mut self, call: &Call<'_>, name: &str, by_id: bool) -> Answer {
        self.as_caller(Limited::Read, call, |this, _| {
            let id = if by_id { name.to_owned() } else { this.project_by_slug(name)? };
            let missing = || error(404, "NotFound", &format!("Project with ID '{id}' not found"));
            let slug = &this.projects.get(&id).ok_or_else(missing)?.slug;
            let project: Value = json!({"id": id, "_id": id, "name": "Shop", "slug": slug, "environments": []});
            let body = match (by_id, this.year) {
                (false, _) => project,
                (true, Year::Y2024) => json!({"workspace": project}),
                (true, _) => json!({"project": project}),
            };
            Ok(Reply::json(200, &body))
        })
    }
}

//! A directory of files in the suite of all stores, as far as there is something to promise: nobody is asked, nothing is
//! logged in to, and a file has no versions. What is its own is in `src/provider/file`.

use std::fs;
use std::os::unix::fs::symlink;

use hushpod::provider::file::{FileSettings, Files};
use hushpod::provider::http::Limits;
use hushpod::provider::{Login, Provider};

use super::Subject;
use crate::fakes::server::{FakeServer, Received};

/// A directory, and beside it a file that is none of the store's.
pub(crate) struct Directory(tempfile::TempDir);

super::suite::cases!(fake crate::contract::file::Directory:
    values_are_exact,
    documents_are_exact,
    what_is_missing_says_so,
    what_is_denied_says_so,
    a_rotation_is_seen,
    p3_what_went_away_is_missing_and_not_empty,
    a_batch_is_answered_in_order,
);

// === impl Directory ===

impl Directory {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join("store").join(name)
    }
}

impl Subject for Directory {
    type Settings = FileSettings;

    async fn fake() -> Self {
        let store = Self(tempfile::tempdir().unwrap());
        fs::create_dir(store.path("")).unwrap();
        store
    }

    fn server(&self) -> Option<&FakeServer> {
        None
    }

    fn settings(&self, _ca: Option<&str>) -> FileSettings {
        FileSettings::at(self.path("").to_str().unwrap())
    }

    fn connect(&self, settings: &FileSettings, _limits: Limits) -> Box<dyn Provider> {
        let login = Login { provider: "files".into(), role: None, token: "/nowhere".into() };
        Box::new(Files::connect(settings, login).unwrap())
    }

    async fn put(&self, name: &str, value: &str) -> String {
        self.put_bytes(name, value.as_bytes()).await.unwrap()
    }

    async fn put_bytes(&self, name: &str, value: &[u8]) -> Option<String> {
        fs::write(self.path(name), value).unwrap();
        Some(name.to_owned())
    }

    async fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    async fn denied(&self) -> String {
        fs::write(self.0.path().join("other"), "canary").unwrap();
        symlink("../other", self.path("closed")).unwrap();
        "closed".to_owned()
    }

    async fn end_logins(&self) -> bool {
        false
    }

    fn is_read(_received: &Received) -> bool {
        false
    }

    async fn pin(&self, _name: &str, _nth: u32) -> Option<String> {
        None
    }
}

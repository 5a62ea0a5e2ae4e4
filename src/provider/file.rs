//! Files.
use super::{Known, Lease, Login, Pending, Provider, ProviderError, ReadResult};
use crate::reference::{Reference, Request};
use serde::{Deserialize, Serialize};
/// Settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FileSettings {
    /// Path.
    pub path: String,
}
impl FileSettings {
    #[allow(missing_docs, clippy::all)]
    pub fn resolve(&self, _: &str, _: &Reference) -> Result<Request, String> {
        todo!()
    }
    #[allow(missing_docs, clippy::all)]
    pub fn validate(&self) -> Result<(), String> {
        todo!()
    }
}
/// Files.
#[derive(Debug)]
pub struct Files;
impl Files {
    #[allow(missing_docs)]
    pub fn connect(_: &FileSettings, _: Login) -> Result<Self, ProviderError> {
        todo!()
    }
}
impl Provider for Files {
    fn read<'a>(&'a mut self, _: &'a [Request], _: &'a Known) -> Pending<'a, Vec<ReadResult>> {
        todo!()
    }
    fn renew<'a>(&'a mut self, _: &'a Lease) -> Pending<'a, Result<Lease, ProviderError>> {
        todo!()
    }
    fn revoke<'a>(&'a mut self, _: &'a Lease) -> Pending<'a, Result<(), ProviderError>> {
        todo!()
    }
}

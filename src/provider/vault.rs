//! Vault.
use super::{Known, Lease, Login, Pending, Provider, ProviderError, ReadResult};
use crate::reference::{Reference, Request};
use serde::{Deserialize, Serialize};
/// Settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VaultSettings {
    /// Address.
    pub address: String,
}
impl VaultSettings {
    #[allow(missing_docs, clippy::all)]
    pub fn resolve(&self, _: &str, _: &Reference) -> Result<Request, String> {
        todo!()
    }
    #[allow(missing_docs, clippy::all)]
    pub fn is_leased(&self, _: &Request) -> bool {
        todo!()
    }
    #[allow(missing_docs, clippy::all)]
    pub fn default_audience(&self) -> Option<&'static str> {
        todo!()
    }
    #[allow(missing_docs, clippy::all)]
    pub fn needs_role(&self) -> bool {
        todo!()
    }
    #[allow(missing_docs, clippy::all)]
    pub fn validate(&self) -> Result<(), String> {
        todo!()
    }
}
/// Vault client.
#[derive(Debug)]
pub struct Vault;
impl Vault {
    #[allow(missing_docs)]
    pub fn connect(_: &VaultSettings, _: Login) -> Result<Self, ProviderError> {
        todo!()
    }
}
impl Provider for Vault {
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

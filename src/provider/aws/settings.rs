//! The operator's settings for AWS.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::parse_error::{invalid, rule};
use crate::provider::{SettingsFaults, auth, http};

/// Where Secrets Manager is and how to log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AwsSettings {
    /// Such as `eu-west-1`. A secret of another region needs a provider of its own.
    pub region: String,
    /// The account whose secrets are meant by names; ARNs of this account become names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Another address than the region's public one, such as a VPC endpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The same for the Security Token Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sts_endpoint: Option<String>,
    /// The same for IAM Identity Center's access portal, which profiles of people may need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sso_endpoint: Option<String>,
    /// PEM certificates of the authorities that may sign these endpoints'; without them, the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// How to log in.
    #[serde(default)]
    pub auth: AwsAuth,
}

/// Where Parameter Store is and how to log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SsmSettings(pub AwsSettings);

/// Where credentials come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AwsAuth {
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// `web-identity`: a file with a JWT to show instead of the pod's projected token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// `pod-identity`: another address of the agent on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// `profile`: its name, instead of `AWS_PROFILE`'s or `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// `profile`: the file of credentials, instead of `AWS_SHARED_CREDENTIALS_FILE`'s or `~/.aws/credentials`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// `profile`: the file of settings, instead of `AWS_CONFIG_FILE`'s or `~/.aws/config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_file: Option<PathBuf>,
}

/// Ways to credentials that fit a pod, a laptop or a CI job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A token of the cluster (or another OIDC issuer) buys a role's credentials at STS: IRSA on EKS.
    #[default]
    WebIdentity,
    /// EKS Pod Identity: the agent on the node buys them.
    PodIdentity,
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if it is set, `AWS_SESSION_TOKEN`.
    Environment,
    /// A profile in the shared files of AWS's command line.
    Profile,
}

/// Where the EKS Pod Identity agent listens on every node.
///
/// <https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html>
const POD_IDENTITY_AGENT: &str = "http://169.254.170.23/v1/credentials";

/// Each `DescribeSecret` and each advanced parameter is paid for, and an account's rates are shared by all its pods.
pub(super) const REFRESH: Duration = Duration::from_mins(5);

// === impl Method ===

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

// === impl AwsAuth ===

impl AwsAuth {
    /// Where the agent on the node is: its address, and the path that has the credentials.
    pub(super) fn agent(&self) -> (&str, &str) {
        let url = self.agent.as_deref().unwrap_or(POD_IDENTITY_AGENT);
        let host = url.find("://").map_or(0, |at| at + 3);
        let end = url.get(host..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| host + at);
        url.split_at_checked(end).unwrap_or((url, ""))
    }

    pub(super) fn check(&self, faults: &mut SettingsFaults) {
        let method = self.method;
        for (field, is_set, of) in [
            ("tokenFile", self.token_file.is_some(), Method::WebIdentity),
            ("agent", self.agent.is_some(), Method::PodIdentity),
            ("profile", self.profile.is_some(), Method::Profile),
            ("credentialsFile", self.credentials_file.is_some(), Method::Profile),
            ("configFile", self.config_file.is_some(), Method::Profile),
        ] {
            if is_set && self.method != of {
                let problem = rule(format!("is of no use to method {method}: it belongs to {of}"));
                faults.together(&format!("auth.{field}"), &[auth::METHOD], problem);
            }
        }
        faults.of("auth.agent", http::check_address(Some(self.agent().0)));
    }
}

// === impl AwsSettings ===

impl AwsSettings {
    /// The part of AWS that the region is in: accounts and ARNs of one are unknown in another.
    pub(super) fn partition(&self) -> &'static str {
        partition(&self.region)
    }

    pub(super) fn endpoint(&self, service: &str) -> String {
        self.endpoint.clone().unwrap_or_else(|| public_address(service, &self.region))
    }

    pub(super) fn sts_endpoint(&self) -> String {
        self.sts_endpoint.clone().unwrap_or_else(|| public_address("sts", &self.region))
    }

    /// The access portal, which may be in another region than the secrets.
    pub(super) fn sso_endpoint(&self, region: &str) -> String {
        self.sso_endpoint.clone().unwrap_or_else(|| public_address("portal.sso", region))
    }

    pub(super) fn default_audience(&self) -> Option<&'static str> {
        match self.auth.method {
            Method::WebIdentity if self.auth.token_file.is_none() => Some("sts.amazonaws.com"),
            Method::PodIdentity => Some("pods.eks.amazonaws.com"),
            _ => None,
        }
    }

    pub(super) fn check(&self, faults: &mut SettingsFaults) {
        if !is_region(&self.region) {
            faults.of("region", Err(invalid("region", &self.region, "one such as eu-west-1")));
        }
        if let Some(account) = self.account.as_deref().filter(|account| !is_account(account)) {
            faults.of("account", Err(invalid("account", account, "its twelve digits, in quotes")));
        }
        faults.of("endpoint", http::check_address(self.endpoint.as_deref()));
        faults.of("stsEndpoint", http::check_address(self.sts_endpoint.as_deref()));
        faults.of("ssoEndpoint", http::check_address(self.sso_endpoint.as_deref()));
        faults.of("ca", self.ca.as_deref().map_or(Ok(()), http::check_ca));
        self.auth.check(faults);
    }
}

fn partition(region: &str) -> &'static str {
    match region.get(..3) {
        Some("cn-") => "aws-cn",
        Some("us-") if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// The region's public address of a service.
fn public_address(service: &str, region: &str) -> String {
    let suffix = if partition(region) == "aws-cn" { ".cn" } else { "" };
    format!("https://{service}.{region}.amazonaws.com{suffix}")
}

/// Whether this could be a region: it becomes a part of hosts' names.
pub(super) fn is_region(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.contains('-') && text.bytes().all(is_fine)
}

/// Whether this could be an account's number.
pub(super) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

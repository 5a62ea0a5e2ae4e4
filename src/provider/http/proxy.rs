//! The way to a store: direct, or through an HTTP proxy's tunnel.

use std::net::IpAddr;

use crate::parse_error::{ParseError, invalid, rule};
use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use serde::{Deserialize, Serialize};

/// What the operator says about proxies; the plan carries it, so there is no secret in it. Without one, the
/// environment counts (`HTTPS_PROXY`, `NO_PROXY`), as a laptop or a CI job has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Proxy {
    /// `http://<host>:<port>`; `None` for no proxy, whatever the environment says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What is reached without it: names with all that end in them, addresses, networks as CIDR, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_proxy: Vec<String>,
}

// === impl Proxy ===

impl Proxy {
    /// What an operator writes for no proxy where there is one for all.
    pub const NONE: &str = "none";

    /// Which addresses are reached through a proxy by the operator's word, or else the environment's.
    #[must_use]
    pub fn matcher_of(settings: Option<&Self>) -> Matcher {
        settings.map_or_else(Matcher::from_env, Self::matcher)
    }

    /// Which addresses are reached through it.
    #[must_use]
    pub fn matcher(&self) -> Matcher {
        let builder = Matcher::builder().no(self.no_proxy.join(","));
        match &self.url {
            Some(url) => builder.https(url.as_str()),
            None => builder,
        }
        .build()
    }

    /// The address of a proxy as configuration has it.
    ///
    /// # Errors
    /// One sentence that says what to write. What may be a password is not repeated.
    pub fn check_url(text: &str) -> Result<(), ParseError> {
        const WRITE: &str = "write http://<host>:<port>, or none";
        if text == Self::NONE {
            return Ok(());
        }
        if text.contains('@') {
            return Err(rule(format!(
                "has a user or a password in it, which would stand in every pod: let the proxy know the cluster by its \
                 addresses, and {WRITE}"
            )));
        }
        let uri: Uri = text.parse().map_err(|_| rule(format!("{text:?} is not a URL: {WRITE}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(rule(format!(
                "{text:?} is not an http:// proxy (what goes through it is encrypted all the same): {WRITE}"
            )));
        }
        if uri.port_u16().is_none() || !matches!(uri.path_and_query().map_or("/", |path| path.as_str()), "/") {
            return Err(rule(format!("{text:?} is not a host and port: {WRITE}")));
        }
        Ok(())
    }

    /// Checks what is reached without a proxy.
    ///
    /// # Errors
    /// One sentence that names the entry.
    pub fn check_exceptions(entries: &[String]) -> Result<(), ParseError> {
        match entries.iter().find(|entry| !is_exception(entry)) {
            Some(entry) => Err(invalid(
                "entry",
                entry,
                "a name (and all below it) such as svc.cluster.local, an address, a network such as 10.0.0.0/8, or \"*\", without a port",
            )),
            None => Ok(()),
        }
    }
}

fn is_exception(entry: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    match entry.split_once('/') {
        Some((address, bits)) => {
            let most = address.parse().map_or(None, |address: IpAddr| Some(if address.is_ipv4() { 32 } else { 128 }));
            most.zip(bits.parse::<u8>().ok()).is_some_and(|(most, bits)| bits <= most)
        }
        None => {
            entry == "*"
                || entry.parse::<IpAddr>().is_ok()
                || entry.strip_prefix('.').unwrap_or(entry).split('.').all(is_label)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_names_with_what_is_below_them_addresses_and_networks() {
        let entries = ["svc.cluster.local", ".corp.example", "10.0.0.0/8", "192.0.2.7", "fd00::/8", "2001:db8::1"];
        let proxy = Proxy { url: Some("http://proxy:3128".to_owned()), no_proxy: entries.map(str::to_owned).into() };
        assert_eq!(Proxy::check_exceptions(&proxy.no_proxy), Ok(()));
        for (address, is_tunneled) in [
            ("https://vault.vault.svc.cluster.local:8200", false),
            ("https://VAULT.corp.example", false),
            ("https://corp.example", false),
            ("https://notcorp.example", true),
            ("https://vault.example", true),
            ("https://10.1.2.3:8200", false),
            ("https://11.1.2.3:8200", true),
            ("https://192.0.2.7", false),
            ("https://192.0.2.8", true),
            ("https://[fd00::5]:8200", false),
            ("https://[2001:db8::1]", false),
            ("https://[2001:db8::2]", true),
        ] {
            let uri = address.parse().unwrap();
            assert_eq!(proxy.matcher().intercept(&uri).is_some(), is_tunneled, "{address}");
            let none = Proxy { url: None, ..proxy.clone() };
            assert!(none.matcher().intercept(&uri).is_none(), "{address}");
        }
        let all = Proxy { no_proxy: vec!["*".to_owned()], ..proxy };
        assert!(all.matcher().intercept(&"https://vault.example".parse().unwrap()).is_none());
    }

    #[test]
    fn p9_what_is_no_proxy_or_exception_says_what_to_write() {
        for (url, part) in [
            ("", "is not a URL"),
            ("proxy:3128", "is not an http:// proxy"),
            ("https://proxy:3128", "encrypted all the same"),
            ("socks5://proxy:1080", "is not an http:// proxy"),
            ("http://proxy", "is not a host and port"),
            ("http://proxy:3128/path", "is not a host and port"),
            ("http://proxy:3128?x", "is not a host and port"),
            ("http://me:canary@proxy:3128", "has a user or a password"),
        ] {
            let problem = Proxy::check_url(url).unwrap_err().to_string();
            assert!(problem.contains(part) && problem.contains("write http://<host>:<port>"), "{url}: {problem}");
            assert!(!problem.contains("canary"), "{problem}");
        }
        for url in ["none", "http://10.0.0.1:3128/", "http://[fd00::1]:3128"] {
            assert_eq!(Proxy::check_url(url), Ok(()), "{url}");
        }
        for entry in ["", "https://vault", "vault:8200", "*.svc", "a b", "a,b", "10.0.0.0/33", "fd00::/129", "x/8", "."]
        {
            let problem = Proxy::check_exceptions(&[entry.to_owned()]).unwrap_err().to_string();
            assert!(problem.starts_with(&format!("invalid entry {entry:?}: expected")), "{problem}");
        }
    }
}

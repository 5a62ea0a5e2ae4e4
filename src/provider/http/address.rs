//! A store's address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::parse_error::{ParseError, invalid, rule};
use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

/// A store's address: `https://host[:port][/prefix]`, or `http://` where nothing leaves the machine: on this one alone,
/// and at the link-local addresses (RFC 3927) where clouds' machines ask for their own identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    is_https: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    authority: String,
    /// Empty, or begins with `/` and does not end in one.
    prefix: String,
}

// === impl Address ===

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// One sentence that says what to write.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let bad = |problem: &str| rule(format!("address {text:?} {problem}: expected https://<host>[:<port>]"));
        let uri: Uri = text.parse().map_err(|_| bad("is not a URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(bad("has no scheme or no host"));
        };
        if authority.as_str().contains('@') {
            // A password that somebody put here must not end up in a log.
            return Err(rule("address has a user or password in it: leave it out, and set auth"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(bad("has a query or fragment"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_https = match scheme {
            "https" => true,
            "http" if is_loopback(&host) || is_link_local(&host) => false,
            "http" => return Err(bad("is not encrypted, which is allowed only for localhost and 169.254.0.0/16")),
            _ => return Err(bad("has another scheme")),
        };
        if host.is_empty() || (authority.as_str().len() > authority.host().len() && authority.port_u16().is_none()) {
            return Err(bad("has no host, or no port after ':'"));
        }
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { is_https, host, port, authority: authority.to_string(), prefix })
    }

    /// Refuses an address that ends in what every path begins with anyway.
    ///
    /// # Errors
    /// One sentence that says so.
    pub fn must_not_end_in(&self, beginning: &str) -> Result<(), ParseError> {
        if self.prefix.rsplit('/').next() == Some(beginning) {
            return Err(rule(format!(
                "address ends in /{beginning}, with which every path begins anyway: leave /{beginning} out"
            )));
        }
        Ok(())
    }

    /// The host, for logs.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The whole URL of a path and its parameters, percent-encoded.
    pub(super) fn uri(&self, path: &str, query: &[(String, String)]) -> Result<Uri, ParseError> {
        let mut text = format!("{}://{}{}/", self.scheme(), self.authority, self.prefix);
        text.extend(utf8_percent_encode(path, PATH));
        for (index, (name, value)) in query.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.extend(encode(name).chain(["="]).chain(encode(value)));
        }
        text.parse().map_err(|_| rule("cannot be asked for a path this long"))
    }

    pub(super) fn is_same_origin(&self, other: &Uri) -> bool {
        let default_port = if self.is_https { 443 } else { 80 };
        other.scheme_str() == Some(self.scheme())
            && other.host().is_some_and(|host| host.trim_matches(['[', ']']).eq_ignore_ascii_case(&self.host))
            && other.port_u16().unwrap_or(default_port) == self.port
    }

    pub(super) fn is_https(&self) -> bool {
        self.is_https
    }

    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority, self.prefix)
    }
}

/// Checks an address, if there is one.
///
/// # Errors
/// One sentence that says what to write.
pub fn check_address(address: Option<&str>) -> Result<(), ParseError> {
    address.map_or(Ok(()), |address| Address::parse(address).map(drop))
}

/// Checks the URL of an endpoint.
///
/// # Errors
/// One sentence that says what to write.
pub fn check_endpoint(url: &str) -> Result<(), ParseError> {
    match split_endpoint(url) {
        (address, path) if !path.is_empty() && path.bytes().all(|b| b.is_ascii_graphic() && !b"%?#".contains(&b)) => {
            Address::parse(address).map(drop)
        }
        _ => Err(invalid("endpoint", url, "https://<host>/<path>")),
    }
}

/// The address, and the last component of the path.
pub(super) fn split_endpoint(url: &str) -> (&str, &str) {
    match url.rsplit_once('/') {
        Some((address, path)) if !address.ends_with('/') => (address, path),
        _ => (url, ""),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_link_local(host: &str) -> bool {
    // AWS's counterpart for nodes without IPv4; it is answered by the node itself.
    const AWS_POD_IDENTITY: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23);
    match host.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip == AWS_POD_IDENTITY,
        Err(_) => false,
    }
}

/// What stands for itself everywhere (RFC 3986, 2.3), beside letters and digits.
const PARAMETER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What stands for itself in a path (RFC 3986, 3.3).
const PATH: &AsciiSet = &PARAMETER
    .remove(b'/')
    .remove(b':')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=');

/// A parameter, percent-encoded piece by piece.
pub(super) fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, PARAMETER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_https_or_local() {
        for (text, shown) in [
            ("https://vault.vault.svc:8200", "https://vault.vault.svc:8200"),
            ("https://vault.example/", "https://vault.example"),
            ("https://[fd00::1]:8200/team/vault/", "https://[fd00::1]:8200/team/vault"),
            ("http://127.0.0.1:8200", "http://127.0.0.1:8200"),
            ("http://[::1]", "http://[::1]"),
            ("http://localhost:1", "http://localhost:1"),
            ("http://169.254.169.254", "http://169.254.169.254"),
            ("http://[fd00:ec2::23]/v1", "http://[fd00:ec2::23]/v1"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn p9_bad_addresses_say_what_to_write() {
        for (text, part) in [
            ("", "is not a URL"),
            ("vault:8200", "has no scheme"),
            ("vault.vault.svc", "has no scheme"),
            ("http://vault.vault.svc:8200", "only for localhost"),
            ("http://127.0.0.1.evil.example", "only for localhost"),
            ("http://169.255.169.254", "only for localhost"),
            ("http://169.254.169.254.evil.example", "only for localhost"),
            ("http://[fe80::1]", "only for localhost"),
            ("http://[fd00:ec2::254]", "only for localhost"),
            ("ftp://vault", "another scheme"),
            ("https://vault:", "no port"),
            ("https://vault:99999", "no port"),
            ("https://vault?x=y", "query"),
            ("https://vault/#x", "query or fragment"),
        ] {
            let message = Address::parse(text).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("https://<host>"), "{text}: {message}");
        }
    }

    #[test]
    fn p5_a_password_in_an_address_is_not_repeated() {
        let message = Address::parse("https://me:canary@vault").unwrap_err().to_string();
        assert!(!message.contains("canary"), "{message}");
    }

    #[test]
    fn paths_and_parameters_are_encoded() {
        let address = Address::parse("https://vault/prefix").unwrap();
        let uri = address.uri("v1/secret/a b%?#/ü", &[("cn".to_owned(), "a&b=c d".to_owned())]).unwrap();
        assert_eq!(uri, "https://vault/prefix/v1/secret/a%20b%25%3F%23/%C3%BC?cn=a%26b%3Dc%20d");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let address = Address::parse("https://vault:443/x").unwrap();
        for (uri, is_same) in [
            ("https://vault/y", true),
            ("https://VAULT:443/y", true),
            ("https://vault:8200/y", false),
            ("http://vault:443/y", false),
            ("https://vault.evil/y", false),
        ] {
            assert_eq!(address.is_same_origin(&uri.parse().unwrap()), is_same, "{uri}");
        }
    }

    #[test]
    fn endpoints_are_urls_with_a_path() {
        for url in ["https://sts.googleapis.com/v1/token", "http://127.0.0.1:1/x"] {
            check_endpoint(url).unwrap();
        }
        for url in
            ["https://sts.googleapis.com", "https://host/", "https://host/a?b", "https://host/a%20b", "http://h/x", ""]
        {
            check_endpoint(url).unwrap_err();
        }
    }
}

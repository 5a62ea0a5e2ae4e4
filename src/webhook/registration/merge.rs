//! Computes what a `caBundle` should hold, without I/O.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::webhook::certificate::ORGANIZATION;

/// Most certificates of ours in one bundle, by which the chart's `replicaCount` goes: 64 of them are about 45 KB, and
/// replicas that were killed leave theirs behind for a day.
pub(super) const MAX_OURS: usize = 64;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// One replica's authorities.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'a> {
    /// Common name of their subjects.
    pub common_name: &'a str,
    /// They have to be there.
    pub wanted: &'a [CertificateDer<'static>],
    /// They may stay until they expire, but are not put back.
    pub kept: &'a [CertificateDer<'static>],
}

/// The bundle that should stand in place of `existing`, in PEM; `None` if that is as it should be.
///
/// Every certificate of others stays, in its place. Ours go when they have expired, when an earlier life of the same
/// pod left them, and, the first to expire first, when there are more than [`MAX_OURS`].
#[must_use]
pub(super) fn merge(existing: &[u8], own: Own<'_>, now: SystemTime) -> Option<String> {
    let (found, is_clean) = certificates(existing);
    let mut merged: Vec<CertificateDer<'static>> = Vec::new();
    for certificate in &found {
        if !merged.contains(certificate) && own.lets_stay(certificate, now) {
            merged.push(certificate.clone());
        }
    }
    for certificate in own.wanted {
        if !merged.contains(certificate) {
            merged.push(certificate.clone());
        }
    }
    limit(&mut merged, own.wanted);
    let is_same = is_clean && merged == found;
    (!is_same).then(|| merged.iter().map(pem).collect())
}

/// Whether the bundle holds this certificate where a reader will find it.
#[must_use]
pub(super) fn holds(bundle: &[u8], certificate: &CertificateDer<'_>) -> bool {
    certificates(bundle).0.contains(certificate)
}

/// Whether the bundle holds an authority of any replica.
#[must_use]
pub(super) fn holds_ours(bundle: &[u8]) -> bool {
    certificates(bundle).0.iter().any(|certificate| ours(certificate).is_some())
}

/// One certificate in PEM.
#[must_use]
pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut pem = BEGIN.to_owned();
    for (index, character) in STANDARD.encode(certificate).chars().enumerate() {
        // RFC 7468 §2: 64 characters a line.
        if index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push('\n');
    pem.push_str(END);
    pem.push('\n');
    pem
}

/// The certificates of a bundle, and whether all that claims to be one can be read. Text between them does not matter,
/// but a block that is cut short may hide the one after it from other parsers: then the bundle has to be rewritten.
fn certificates(bundle: &[u8]) -> (Vec<CertificateDer<'static>>, bool) {
    let text = String::from_utf8_lossy(bundle);
    let (mut found, mut is_clean) = (Vec::new(), true);
    for block in text.split(BEGIN).skip(1) {
        let certificate = block
            .split_once(END)
            .and_then(|(body, _)| CertificateDer::from_pem_slice(format!("{BEGIN}{body}{END}\n").as_bytes()).ok());
        match certificate {
            Some(certificate) => found.push(certificate),
            None => is_clean = false,
        }
    }
    (found, is_clean)
}

fn limit(certificates: &mut Vec<CertificateDer<'static>>, wanted: &[CertificateDer<'static>]) {
    loop {
        let ours: Vec<(usize, i64)> = certificates
            .iter()
            .enumerate()
            .filter_map(|(index, certificate)| ours(certificate).map(|(_, not_after)| (index, not_after)))
            .collect();
        if ours.len() <= MAX_OURS {
            return;
        }
        let others =
            ours.into_iter().filter(|(index, _)| certificates.get(*index).is_some_and(|c| !wanted.contains(c)));
        let Some((first, _)) = others.min_by_key(|(_, not_after)| *not_after) else { return };
        certificates.remove(first);
    }
}

/// Common name and end (Unix seconds) of a certificate that a replica of ours made.
fn ours(certificate: &CertificateDer<'_>) -> Option<(String, i64)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let organization = subject.iter_organization().next()?.as_str().ok()?;
    let common_name = subject.iter_common_name().next()?.as_str().ok()?;
    (organization == ORGANIZATION).then(|| (common_name.to_owned(), certificate.validity().not_after.timestamp()))
}

// === impl Own ===

impl Own<'_> {
    fn lets_stay(&self, certificate: &CertificateDer<'static>, now: SystemTime) -> bool {
        if self.wanted.contains(certificate) {
            return true;
        }
        let Some((common_name, not_after)) = ours(certificate) else { return true };
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let is_over = i64::try_from(now).is_ok_and(|now| not_after <= now);
        !is_over && (common_name != self.common_name || self.kept.contains(certificate))
    }
}

#[cfg(test)]
pub(super) mod tests;

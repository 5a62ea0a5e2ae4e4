//! The webhook's own certificates, made in memory for one day and never stored (src/README.md, Certificates).
//!
//! Every replica is its own authority: it makes a CA, signs one leaf with it and forgets the CA's key. Only the CA's
//! certificate leaves the process. The leaf's key exists only inside aws-lc, which wipes what it frees; it is never
//! serialised, so there is no copy of it to wipe.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, alg_id};
use rustls::sign::{CertifiedKey, Signer, SigningKey, public_key_to_spki};
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::serve::tls::{TlsCredentials, TlsError};

/// The organisation in the subjects of our authorities: by it we know them in a `caBundle`.
pub(super) const ORGANIZATION: &str = "hushpod";

/// How long an authority and its leaf live.
pub(super) const LIFE: Duration = Duration::from_hours(24);

/// Clocks of other machines may be this much behind ours.
const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// Longest common name that X.509 allows (RFC 5280 appendix A.1, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// Whom certificates are for.
#[derive(Debug, Clone)]
pub struct Names {
    /// The pod, which names the authority.
    pub pod: String,
    /// The container, where the pod has more than one of this program: then it names the authority, too.
    pub container: Option<String>,
    /// The Service through which kube-apiserver calls.
    pub service: String,
    /// The namespace of both.
    pub namespace: String,
}

/// A new authority's certificate and the leaf that it signed.
#[derive(Debug, Clone)]
pub struct Issued {
    /// What callers must trust.
    pub authority: CertificateDer<'static>,
    /// What is served.
    pub credentials: TlsCredentials,
    /// When both begin to be old.
    pub renew_at: SystemTime,
    /// When both end.
    pub expires: SystemTime,
}

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No randomness.
    #[error("cannot generate a key")]
    Generate,
    /// A name cannot stand in a certificate.
    #[error("cannot make a certificate for {host}: {cause}")]
    Sign {
        /// The name that the leaf is for.
        host: String,
        /// What rcgen said.
        #[source]
        cause: rcgen::Error,
    },
    /// What was made does not work.
    #[error(transparent)]
    Unusable(#[from] TlsError),
}

/// An ECDSA P-256 key that never becomes bytes.
#[derive(Clone)]
struct EphemeralKey(Arc<EcdsaKeyPair>);

/// Makes an authority and a leaf that are valid from a little before `now` for [`LIFE`].
pub fn issue(names: &Names, now: SystemTime) -> Result<Issued, CertificateError> {
    let host = names.host();
    let expires = now + LIFE;
    let authority_key = EphemeralKey::generate()?;
    let leaf_key = EphemeralKey::generate()?;
    let sign = || -> Result<_, rcgen::Error> {
        let mut params = names.params(Vec::new(), now, expires)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let authority = params.self_signed(&authority_key)?;
        let issuer = Issuer::from_params(&params, &authority_key);

        let mut params = names.params(vec![host.clone()], now, expires)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok((authority, params.signed_by(&leaf_key, &issuer)?))
    };
    let (authority, leaf) = sign().map_err(|cause| CertificateError::Sign { host: host.clone(), cause })?;
    let credentials = TlsCredentials::new(CertifiedKey::new(vec![leaf.into()], Arc::new(leaf_key)))?;
    Ok(Issued { authority: authority.into(), credentials, renew_at: now + LIFE / 2, expires })
}

// === impl Names ===

impl Names {
    /// The name that kube-apiserver calls and verifies (`ServerName` of its webhook client).
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// The authority's common name, `<pod>` or `<pod>/<container>`; or as much of its end, where it is unique, as X.509
    /// has room for.
    #[must_use]
    pub fn common_name(&self) -> String {
        let mut name = self.pod.clone();
        if let Some(container) = &self.container {
            name.push('/');
            name.push_str(container);
        }
        let cut = name.len().saturating_sub(MAX_COMMON_NAME);
        name.get(cut..).map(str::to_owned).unwrap_or(name)
    }

    fn params(
        &self,
        hosts: Vec<String>,
        now: SystemTime,
        expires: SystemTime,
    ) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(hosts)?;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = expires.into();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
        params.distinguished_name.push(DnType::CommonName, self.common_name());
        Ok(params)
    }
}

// === impl EphemeralKey ===

impl EphemeralKey {
    fn generate() -> Result<Self, CertificateError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| CertificateError::Generate)?;
        Ok(Self(Arc::new(pair)))
    }

    fn sign_bytes(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.0.sign(&SystemRandom::new(), message).ok().map(|signature| signature.as_ref().to_vec())
    }
}

impl fmt::Debug for EphemeralKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl PublicKeyData for EphemeralKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for EphemeralKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.sign_bytes(message).ok_or(rcgen::Error::RingUnspecified)
    }
}

impl SigningKey for EphemeralKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as _)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(public_key_to_spki(&alg_id::ECDSA_P256, self.0.public_key()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for EphemeralKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.sign_bytes(message).ok_or_else(|| rustls::Error::General("signing failed".to_owned()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

#[cfg(test)]
mod tests;

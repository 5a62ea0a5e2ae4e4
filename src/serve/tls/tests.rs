use ::aws_lc_rs::encoding::AsDer;
use ::aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use tempfile::TempDir;

use super::*;

fn pem(label: &str, der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn certificate(key: &KeyPair) -> String {
    CertificateParams::new(vec!["hushpod.test.svc".to_owned()]).unwrap().self_signed(key).unwrap().pem()
}

async fn load_pair(certificate: &str, key: &str) -> Result<TlsCredentials, String> {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join(CERTIFICATE_FILE), certificate).unwrap();
    std::fs::write(directory.path().join(KEY_FILE), key).unwrap();
    let loaded = load(directory.path()).await;
    loaded.map_err(|error| error.to_string().replace(&format!("{}/", directory.path().display()), ""))
}

#[tokio::test]
async fn every_form_of_key_is_read() {
    let p256 = KeyPair::generate().unwrap();
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let sec1 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &p256.serialize_der()).unwrap();
    let sec1 = sec1.private_key().as_der().unwrap();
    // RFC 5208: the PKCS#1 key stands behind version, algorithm and the octet string's head.
    let pkcs1 = rsa.serialize_der().split_off(26);
    let cases = [
        ("PKCS#8 P-256", certificate(&p256), p256.serialize_pem()),
        ("PKCS#8 RSA", certificate(&rsa), rsa.serialize_pem()),
        ("SEC1", certificate(&p256), pem("EC PRIVATE KEY", sec1.as_ref())),
        ("PKCS#1", certificate(&rsa), pem("RSA PRIVATE KEY", &pkcs1)),
        ("chain", certificate(&p256) + &certificate(&rsa), p256.serialize_pem()),
    ];
    for (name, certificate, key) in cases {
        assert!(load_pair(&certificate, &key).await.is_ok(), "{name}");
    }
}

#[tokio::test]
async fn p5_what_cannot_be_served_is_said_without_showing_it() {
    let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let canary = "Y2FuYXJ5";
    let cases = [
        (certificate(&one), other.serialize_pem(), "cannot be used together"),
        (certificate(&one), String::new(), "tls.key holds no PEM private key"),
        (certificate(&one), pem("PRIVATE KEY", b"canary"), "cannot be used together"),
        (certificate(&one), canary.to_owned(), "tls.key holds no PEM private key"),
        (certificate(&one), format!("-----BEGIN PRIVATE KEY-----\n{canary}"), "tls.key holds no PEM private key"),
        (String::new(), one.serialize_pem(), "tls.crt holds no PEM certificate"),
        (one.serialize_pem(), one.serialize_pem(), "tls.crt holds no PEM certificate"),
        ("-----BEGIN CERTIFICATE-----\n".to_owned(), one.serialize_pem(), "tls.crt is not valid PEM"),
        (pem("CERTIFICATE", b"garbage"), one.serialize_pem(), "cannot be used together"),
    ];
    for (certificate, key, expected) in cases {
        let error = load_pair(&certificate, &key).await.unwrap_err();
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
        assert!(!error.contains(canary) && !error.contains("canary"), "{error}");
    }
    // At the limit, and a byte over it.
    for (blanks, part) in
        [(MAX_FILE, "tls.crt holds no PEM certificate"), (MAX_FILE + 1, "tls.crt has more than 1 MiB")]
    {
        let error = load_pair(&" ".repeat(blanks), "").await.unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    let missing = load(Path::new("/nonexistent")).await.unwrap_err().to_string();
    assert!(missing.starts_with("cannot read /nonexistent/tls.crt: No such file"), "{missing}");
}

#[tokio::test]
async fn p5_debug_shows_no_key() {
    let key = KeyPair::generate().unwrap();
    let loaded = load_pair(&certificate(&key), &key.serialize_pem()).await.unwrap();
    assert_eq!(format!("{loaded:?}"), format!("Credentials {{ not_after: {}, .. }}", loaded.not_after));
}

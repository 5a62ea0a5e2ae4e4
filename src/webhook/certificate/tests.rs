use std::time::UNIX_EPOCH;

use axum::Router;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::*;
use crate::serve::tests::Client;
use crate::serve::tls::{Served, server_config};
use crate::serve::{Server, tls};

fn names(pod: &str) -> Names {
    Names { pod: pod.to_owned(), container: None, service: "hushpod".to_owned(), namespace: "secrets".to_owned() }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

#[test]
fn authority_and_leaf_are_what_they_should_be() {
    let now = UNIX_EPOCH + Duration::from_hours(500_000);
    let issued = issue(&names("hushpod-7d9-x2x"), now).unwrap();
    assert_eq!((issued.renew_at, issued.expires), (now + LIFE / 2, now + LIFE));
    assert_eq!(issued.credentials.expires(), issued.expires);

    let (rest, authority) = X509Certificate::from_der(&issued.authority).unwrap();
    assert!(rest.is_empty());
    let subject = authority.subject().to_string();
    assert_eq!(subject, "O=hushpod, CN=hushpod-7d9-x2x");
    let constraints = authority.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca && constraints.value.path_len_constraint == Some(0));
    let usage = authority.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && !usage.value.crl_sign());
    assert!(authority.subject_alternative_name().unwrap().is_none());

    let chain = issued.credentials.chain();
    assert_eq!(chain.len(), 1, "callers hold the authority already");
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    assert_eq!(leaf.issuer().to_string(), subject);
    let alternative = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(alternative.value.general_names, [GeneralName::DNSName("hushpod.secrets.svc")]);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.value.digital_signature() && !usage.value.key_cert_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap();
    assert!(extended.value.server_auth && !extended.value.client_auth && !extended.value.any);
    assert!(!leaf.is_ca());
    for certificate in [&authority, &leaf] {
        let validity = certificate.validity();
        assert_eq!(validity.not_before.timestamp(), seconds(now) - 300, "clocks may be slow");
        assert_eq!(validity.not_after.timestamp(), seconds(now) + 24 * 3600);
    }
}

#[test]
fn every_issue_has_keys_of_its_own() {
    let (first, second) =
        (issue(&names("a"), SystemTime::now()).unwrap(), issue(&names("a"), SystemTime::now()).unwrap());
    let key = |der: &CertificateDer<'_>| X509Certificate::from_der(der).unwrap().1.public_key().raw.to_vec();
    let keys = [&first, &second].map(|issued| [key(&issued.authority), key(&issued.credentials.chain()[0])]).concat();
    for (index, one) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(one));
    }
}

#[test]
fn long_pod_names_keep_their_unique_end() {
    let long = format!("{}-x2x4z", "a".repeat(200));
    let name = names(&long);
    assert_eq!((name.common_name().len(), name.common_name().ends_with("-x2x4z")), (64, true));
    assert!(issue(&name, SystemTime::now()).is_ok());
}

#[test]
fn containers_of_one_pod_have_authorities_of_their_own() {
    let of = |container: &str| Names { container: Some(container.to_owned()), ..names("pod-a") };
    assert_eq!([of("webhook").common_name(), of("twin").common_name()], ["pod-a/webhook", "pod-a/twin"]);
    assert!(issue(&of("twin"), SystemTime::now()).is_ok());
}

#[test]
fn names_that_no_certificate_can_have_are_refused() {
    let names = Names { service: "hüsh".to_owned(), ..names("a") };
    let error = issue(&names, SystemTime::now()).unwrap_err().to_string();
    assert!(error.starts_with("cannot make a certificate for hüsh.secrets.svc: "), "{error}");
}

#[test]
fn p1_debug_shows_no_key() {
    let issued = issue(&names("a"), SystemTime::now()).unwrap();
    assert!(format!("{:?}", issued.credentials).starts_with("Credentials { not_after: "));
    assert_eq!(format!("{:?}", EphemeralKey::generate().unwrap()), "<redacted>");
}

#[tokio::test]
async fn callers_that_trust_the_authority_can_connect_and_others_cannot() {
    let (issued, renewed) =
        (issue(&names("a"), SystemTime::now()).unwrap(), issue(&names("a"), SystemTime::now()).unwrap());
    let served = Served::default();
    let bound = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_tls(server_config(&served).unwrap());
    let client = Client { address: bound.address(), root: issued.authority, host: "hushpod.secrets.svc" };
    tokio::spawn(bound.run(Router::new(), CancellationToken::new()));

    assert!(client.connect(tls::ALPN_HTTP2).await.is_err(), "nothing to serve yet");
    served.publish(issued.credentials);
    assert!(client.connect(tls::ALPN_HTTP2).await.is_ok());
    let other_host = Client { host: "hushpod.other.svc", ..client.clone() };
    assert!(other_host.connect(tls::ALPN_HTTP2).await.is_err());
    served.publish(renewed.credentials);
    assert!(client.connect(tls::ALPN_HTTP2).await.is_err(), "same subject, another authority");
}

use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair};

use super::*;
use crate::webhook::certificate::{LIFE, Names, issue};

/// Late enough that the certificates of a day before are over.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(500_000)
}

/// An authority of `pod` that has this many hours to live.
fn ours_for(pod: &str, hours: u64) -> CertificateDer<'static> {
    let names =
        Names { pod: pod.to_owned(), container: None, service: "hushpod".to_owned(), namespace: "secrets".to_owned() };
    issue(&names, now() + Duration::from_hours(hours) - LIFE).unwrap().authority
}

fn foreign(name: &str) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
}

fn bundle(certificates: &[&CertificateDer<'static>]) -> String {
    certificates.iter().map(|certificate| pem(certificate)).collect()
}

fn merge_for(existing: &str, wanted: &[CertificateDer<'static>], kept: &[CertificateDer<'static>]) -> Option<String> {
    let own = Own { common_name: "pod-a", wanted, kept };
    let merged = merge(existing.as_bytes(), own, now());
    if let Some(merged) = &merged {
        assert_eq!(merge(merged.as_bytes(), own, now()), None, "merging again has nothing to do");
    }
    merged
}

/// A `caBundle` as the API server writes it, with another replica's authority, which does not end soon.
pub(in crate::webhook::registration) fn bundle_of(pod: &str) -> String {
    STANDARD.encode(bundle(&[&ours_for(pod, 24)]))
}

/// Common names of our certificates in a bundle.
pub(in crate::webhook::registration) fn pods(bundle: &[u8]) -> Vec<String> {
    certificates(bundle).0.iter().map(|certificate| ours(certificate).unwrap().0).collect()
}

#[test]
fn table() {
    let (own, next, former) = (ours_for("pod-a", 24), ours_for("pod-a", 23), ours_for("pod-a", 12));
    let (other, over, cert_manager) = (ours_for("pod-b", 20), ours_for("pod-c", 0), foreign("cert-manager"));
    let (mine, both) = (std::slice::from_ref(&own), [own.clone(), next.clone()]);
    // What looks like ours but is not: the organisation decides.
    let namesake = foreign("pod-a");
    let text = format!("# kept by hand\n{}", bundle(&[&cert_manager, &own]));
    let cut_short = "-----BEGIN CERTIFICATE-----\nMIIB\n";
    let not_base64 = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
    let b = bundle;

    // What it is, what the bundle holds, what is wanted, what may stay, what it should hold (None: no change).
    let cases: Vec<(&str, String, &[_], &[_], Option<String>)> = vec![
        ("empty", String::new(), mine, &[], Some(b(&[&own]))),
        ("the chart's placeholder Cg==", "\n".to_owned(), mine, &[], Some(b(&[&own]))),
        ("already there", b(&[&own]), mine, &[], None),
        ("already there among others", b(&[&cert_manager, &other, &own]), mine, &[], None),
        ("order does not matter", b(&[&own, &other]), mine, &[], None),
        ("appended", b(&[&cert_manager, &other]), mine, &[], Some(b(&[&cert_manager, &other, &own]))),
        ("overlap", b(&[&own]), &both, &[], Some(b(&[&own, &next]))),
        ("an earlier life of this pod", b(&[&former, &other]), mine, &[], Some(b(&[&other, &own]))),
        ("but not one of this life", b(&[&former, &own]), mine, std::slice::from_ref(&former), None),
        ("which is not put back either", b(&[&own]), mine, std::slice::from_ref(&former), None),
        ("ours that is over", b(&[&over, &own]), mine, &[], Some(b(&[&own]))),
        ("even of this life", b(&[&over, &own]), mine, std::slice::from_ref(&over), Some(b(&[&own]))),
        ("twice", b(&[&own, &other, &own]), mine, &[], Some(b(&[&own, &other]))),
        ("others twice", b(&[&cert_manager, &cert_manager, &own]), mine, &[], Some(b(&[&cert_manager, &own]))),
        ("a namesake is not ours", b(&[&namesake, &own]), mine, &[], None),
        ("text between does not matter", text.clone(), mine, &[], None),
        ("text goes with a change", text, &both, &[], Some(b(&[&cert_manager, &own, &next]))),
        ("Windows' line ends", b(&[&own]).replace('\n', "\r\n"), mine, &[], None),
        ("cut short before ours", format!("{cut_short}{}", b(&[&own])), mine, &[], Some(b(&[&own]))),
        ("cut short after ours", b(&[&own]) + cut_short, mine, &[], Some(b(&[&own]))),
        ("not base64", not_base64.to_owned() + &b(&[&other]), mine, &[], Some(b(&[&other, &own]))),
        ("not PEM", "garbage \u{0}\u{fffd}".to_owned(), mine, &[], Some(b(&[&own]))),
    ];
    for (name, existing, wanted, kept, expected) in cases {
        assert_eq!(merge_for(&existing, wanted, kept), expected, "{name}");
    }
}

#[test]
fn bytes_that_are_no_text_hide_nothing() {
    let (own, other) = (ours_for("pod-a", 24), foreign("other"));
    let existing = [&[0xff, 0xfe, b'\n'][..], bundle(&[&other]).as_bytes()].concat();
    let merged = merge(&existing, Own { common_name: "pod-a", wanted: std::slice::from_ref(&own), kept: &[] }, now());
    assert_eq!(merged, Some(bundle(&[&other, &own])));
}

#[test]
fn at_most_64_of_ours_and_the_first_to_expire_goes_first() {
    let own = ours_for("pod-a", 1);
    let mut others: Vec<_> = (0..MAX_OURS as u64).map(|pod| ours_for(&format!("pod-{pod}"), 2 + pod % 20)).collect();
    // Others' certificates do not count and are not touched.
    let strangers: Vec<_> = (0..3).map(|index| foreign(&format!("stranger-{index}"))).collect();
    let soonest = ours_for("pod-soonest", 1);
    others.insert(40, soonest.clone());
    let existing: String = strangers.iter().chain(&others).map(pem).collect();

    let merged = merge_for(&existing, std::slice::from_ref(&own), &[]).unwrap();
    let (merged, _) = certificates(merged.as_bytes());
    assert_eq!(merged.len(), MAX_OURS + strangers.len());
    assert!(merged.contains(&own), "never its own, though it expires first");
    assert!(!merged.contains(&soonest));
    assert!(strangers.iter().all(|stranger| merged.contains(stranger)));
    let gone: Vec<_> =
        others.iter().filter(|other| !merged.contains(other)).map(|other| ours(other).unwrap().1).collect();
    let stayed = others.iter().filter(|other| merged.contains(other)).map(|other| ours(other).unwrap().1).min();
    assert_eq!(gone.len(), 2);
    assert!(gone.into_iter().max() <= stayed);
}

#[test]
fn pem_is_what_others_read() {
    let certificate = ours_for("pod-a", 24);
    let text = pem(&certificate);
    assert!(text.lines().all(|line| line.len() <= 64), "{text}");
    assert!(!text.contains("\n\n"), "{text}");
    assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap(), certificate);
}

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::csi::tokens::MAX_TOKENS;

const ROOT: &str = "/var/lib/kubelet";
const TARGET: &str = "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/s/mount";
const CONFIG: &str = "
image: i
defaultProvider: vault
csi: {}
providers:
  vault:
    type: vault
    address: https://vault.example
    role: '{{service_account}}'
    allow: [{namespaces: [shop]}]
  files: {type: file, volumes: true}
";

/// A token as kubelet has them, of the service account with this UID.
fn token(uid: &str) -> String {
    let claims = format!(r#"{{"kubernetes.io":{{"serviceaccount":{{"name":"web","uid":"{uid}"}}}}}}"#);
    format!("e30.{}.canary", URL_SAFE_NO_PAD.encode(claims))
}

fn tokens(audience: &str) -> String {
    format!(r#"{{"{audience}":{{"token":"{}","expirationTimestamp":"2026-11-28T12:00:00Z"}}}}"#, token("u-1"))
}

fn request(attributes: &[(&str, &str)]) -> NodePublishVolumeRequest {
    let kubelets = [
        (POD_NAME, "web-1".to_owned()),
        (POD_NAMESPACE, "shop".to_owned()),
        (POD_UID, "p-1".to_owned()),
        (ACCOUNT, "web".to_owned()),
        (EPHEMERAL, "true".to_owned()),
        (TOKENS, tokens("vault")),
    ];
    let kubelets = kubelets.map(|(key, value)| (format!("{CSI_KUBELET_PREFIX}{key}"), value));
    let own = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    NodePublishVolumeRequest {
        volume_id: "csi-1".to_owned(),
        target_path: TARGET.to_owned(),
        volume_capability: Some(capability("")),
        readonly: true,
        secrets: HashMap::new(),
        volume_context: kubelets.into_iter().chain(own).collect(),
    }
}

fn capability(group: &str) -> super::super::proto::csi::VolumeCapability {
    let mount = MountVolume { volume_mount_group: group.to_owned(), ..MountVolume::default() };
    super::super::proto::csi::VolumeCapability { access_type: Some(AccessType::Mount(mount)) }
}

fn planned_of(request: NodePublishVolumeRequest) -> Result<Publication, CallFailure> {
    PublishCall::of(request, Path::new(ROOT))?.planned(&Config::from_yaml(CONFIG).unwrap(), &NamespaceLabels::NotAsked)
}

const FILE: (&str, &str) = ("file.db", "secret/data/db#password");

#[test]
fn whose_the_files_are_follows_from_the_attributes_and_the_fs_group() {
    let owner = |user, group| Owner { user, group };
    for (attributes, group, expected, mode) in [
        (&[][..], "", owner(None, None), "0444"),
        (&[], "2000", owner(None, Some(2000)), "0440"),
        (&[("run-as-user", "1000")], "", owner(Some(1000), None), "0400"),
        (&[("run-as-user", "1000"), ("file-mode", "0440")], "2000", owner(Some(1000), Some(2000)), "0440"),
        (&[("run-as-group", "7"), ("run-as-user", "8")], "2000", owner(Some(8), Some(7)), "0400"),
    ] {
        let all: Vec<_> = attributes.iter().copied().chain([FILE]).collect();
        let asked = NodePublishVolumeRequest { volume_capability: Some(capability(group)), ..request(&all) };
        let record = planned_of(asked).unwrap().record;
        assert_eq!(record.owner, expected, "{attributes:?} {group}");
        assert_eq!(record.plan.items[0].mode.to_string(), mode, "{attributes:?} {group}");
    }
}

#[test]
fn what_is_generated_is_each_volumes_own_unless_shared() {
    for (attributes, is_own) in [
        (&[FILE][..], false),
        (&[("file.a", "database/creds/web#password")], true),
        (&[("file.a", "database/creds/web#password"), ("share-leases", "true")], false),
        (&[("file.a", "pki/issue/web?common_name=a.svc#certificate")], true),
        (&[("file.a", "secret/data/db?version=3#password")], false),
    ] {
        assert_eq!(planned_of(request(attributes)).unwrap().record.is_own, is_own, "{attributes:?}");
    }
}

#[test]
fn p6_the_account_is_its_uid_and_tokens_come_from_the_secrets_first() {
    let publication = planned_of(request(&[FILE])).unwrap();
    assert_eq!(publication.record.account.as_deref(), Some("u-1"));
    assert_eq!(publication.tokens["vault"].value, token("u-1").as_str().into());
    let mut newer = request(&[FILE]);
    let key = format!("{CSI_KUBELET_PREFIX}{TOKENS}");
    newer.secrets.insert(key, tokens("vault").replace(&token("u-1"), &token("u-2")));
    assert_eq!(planned_of(newer).unwrap().record.account.as_deref(), Some("u-2"));
    for bad in ["", "canary", "a.b", "a.!.c", &format!("e30.{}.c", URL_SAFE_NO_PAD.encode("{}"))] {
        assert_eq!(account_of(&bad.into()), None, "{bad}");
    }
}

/// One change of a request that was good.
type Change = fn(&mut NodePublishVolumeRequest);

#[test]
fn p9_what_cannot_be_is_refused_with_one_sentence() {
    fn set(request: &mut NodePublishVolumeRequest, key: &str, value: &str) {
        request.volume_context.insert(key.to_owned(), value.to_owned());
    }
    let cases: [(Change, FailureKind, &[&str]); 23] = [
        (|r| r.volume_id.clear(), FailureKind::Invalid, &["no volume id"]),
        (|r| r.volume_id = "a/../b".to_owned(), FailureKind::Invalid, &["invalid volume id"]),
        (|r| r.volume_id = "x".repeat(129), FailureKind::Invalid, &["invalid volume id"]),
        (|r| r.target_path.clear(), FailureKind::Invalid, &["no target path"]),
        (|r| r.target_path = "/etc".to_owned(), FailureKind::Invalid, &["invalid target path"]),
        (|r| r.target_path = "/var/lib/kubelet".to_owned(), FailureKind::Invalid, &["invalid target path"]),
        (|r| r.target_path += &"x".repeat(4096), FailureKind::Invalid, &["invalid target path"]),
        (|r| r.target_path = "/var/lib/kubelet/../x".to_owned(), FailureKind::Invalid, &["'..'"]),
        (|r| r.target_path = "/var/lib/kubelet//x".to_owned(), FailureKind::Invalid, &["invalid target path"]),
        (|r| r.volume_capability = None, FailureKind::Invalid, &["capability"]),
        (|r| r.readonly = false, FailureKind::Invalid, &["readOnly", "expected true"]),
        (|r| set(r, "csi.storage.k8s.io/ephemeral", "false"), FailureKind::Invalid, &["PersistentVolumes"]),
        (|r| set(r, "csi.storage.k8s.io/pod.uid", ""), FailureKind::Precondition, &["podInfoOnMount"]),
        (|r| set(r, "fil.db", "a"), FailureKind::Invalid, &["volumeAttributes: fil.db", "did you mean \"file.db\"?"]),
        (|r| set(r, "notify", "http:http://localhost/"), FailureKind::Invalid, &["annotation hushpod.dev/notify"]),
        (|r| set(r, "file.x", "valt:a#b"), FailureKind::Invalid, &["file.x", "did you mean \"vault\"?"]),
        (|r| set(r, "file.x", "files:v/a"), FailureKind::Invalid, &["pod's own volume", "mode sidecar"]),
        (|r| set(r, "program", "exec"), FailureKind::Invalid, &["program"]),
        (|r| set(r, "csi.storage.k8s.io/pod.namespace", "other"), FailureKind::Denied, &["file.db", "other"]),
        (
            |r| set(r, "csi.storage.k8s.io/serviceAccount.tokens", &tokens("aws")),
            FailureKind::Precondition,
            &["audience \"vault\"", "upgrade the chart"],
        ),
        (|r| set(r, "csi.storage.k8s.io/serviceAccount.tokens", ""), FailureKind::Precondition, &["upgrade the chart"]),
        (|r| set(r, "csi.storage.k8s.io/serviceAccount.tokens", "canary"), FailureKind::Invalid, &["tokens"]),
        (
            |r| set(r, "csi.storage.k8s.io/serviceAccount.tokens", &"x".repeat(MAX_TOKENS + 1)),
            FailureKind::Invalid,
            &["tokens"],
        ),
    ];
    for (change, kind, parts) in cases {
        let mut changed = request(&[FILE]);
        change(&mut changed);
        let failure = match PublishCall::of(changed, Path::new(ROOT)) {
            Ok(call) if call.is_program().is_err() => call.is_program().unwrap_err(),
            Ok(call) => call.planned(&Config::from_yaml(CONFIG).unwrap(), &NamespaceLabels::NotAsked).unwrap_err(),
            Err(failure) => failure,
        };
        assert_eq!(failure.kind, kind, "{failure}");
        let said = failure.to_string();
        assert!(parts.iter().all(|part| said.contains(part)) && !said.contains("canary"), "{said}");
    }
    assert!(planned_of(request(&[FILE])).is_ok(), "or this would show nothing");
}

/// CVE-2023-2878.
#[test]
fn p5_no_request_is_shown_whole() {
    let request = request(&[FILE]);
    assert!(!format!("{request:?}").contains("canary"));
    let call = PublishCall::of(request, Path::new(ROOT)).unwrap();
    assert!(!format!("{call:?}").contains("canary"));
}

/// What `tests/fuzz` does for longer.
#[test]
fn p9_whatever_the_attributes_are_they_make_a_plan_or_a_sentence() {
    let config = Config::from_yaml(CONFIG).unwrap();
    let seeds = [
        ("file.db", "secret/data/db#password"),
        ("dir.all", "secret/data/db"),
        ("format.db", "json"),
        ("file-mode", "0440"),
        ("size-limit", "64Ki"),
        ("run-as-user", "1000"),
        ("share-leases", "true"),
        ("env.A", "database/creds/web#password"),
        ("template.x", "{{ secret \"secret/data/db#password\" }}"),
        ("program", "exec"),
        ("csi.storage.k8s.io/pod.namespace", "shop"),
        ("csi.storage.k8s.io/ephemeral", "true"),
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let (mut plans, mut sentences) = (0, 0);
    for _ in 0..5000 {
        let mut context = request(&[]).volume_context;
        for _ in 0..=random(3) {
            let (key, value) = seeds[random(seeds.len())];
            let mut pair: Vec<char> = format!("{key}={value}").chars().collect();
            for _ in 0..random(3) {
                let odd = ['\0', '\n', '/', '.', '#', '{', '}', '"', ':', '?', '%', '=', 'é', '\u{202e}', 'a', '9'];
                let at = random(pair.len() + 1);
                match random(3) {
                    0 => pair.insert(at, odd[random(odd.len())]),
                    1 => drop(pair.splice(at.min(pair.len() - 1).., [odd[random(odd.len())]])),
                    _ => pair = pair.repeat(1 + random(40)),
                }
            }
            let pair: String = pair.into_iter().collect();
            let (key, value) = pair.split_once('=').unwrap_or((&pair, ""));
            context.insert(key.to_owned(), value.to_owned());
        }
        let group = ["", "0", "2000", "-1", "99999999999", "x"][random(6)];
        match plan_of_context(context.into_iter().collect(), group, &config) {
            Ok(_) => plans += 1,
            Err(sentence) => {
                sentences += 1;
                assert!(!sentence.is_empty() && !sentence.contains('\n') && sentence.len() < 1024, "{sentence}");
                assert!(!sentence.contains("canary"), "{sentence}");
            }
        }
    }
    assert!(plans > 100 && sentences > 100, "{plans} {sentences}");
}

use std::time::Duration;

use super::*;
use crate::options::{InitOrder, Mode};

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (format!("{PREFIX}{key}"), value.to_owned())).collect()
}

fn parsed(pairs: &[(&str, &str)]) -> (Bundle, Options) {
    parse(&annotations(pairs)).unwrap()
}

const FILE_X: (&str, &str) = ("file.x", "vault:a#b");

#[test]
fn any_key_of_ours_opts_in_unless_inject_is_false() {
    for (pairs, expected) in [
        (&[][..], false),
        (&[FILE_X][..], true),
        (&[("fiel.x", "typo")], true),
        (&[("inject", "false")], false),
        (&[FILE_X, ("inject", "false")], false),
        (&[FILE_X, ("inject", "no")], true),
    ] {
        assert_eq!(opts_in(&annotations(pairs)), expected, "{pairs:?}");
    }
    assert!(!opts_in(&BTreeMap::from([("hushpod.device/x".to_owned(), String::new())])));
}

#[test]
fn short_forms_and_options() {
    let (bundle, options) = parsed(&[
        ("file.hf-token", "infisical:/inference#HF_TOKEN"),
        ("dir.app", "infisical:/backend"),
        ("role.infisical", "id-1"),
        ("provider", "vault"),
        ("mode", "init+sidecar"),
        ("mount-path", "/etc/creds/"),
        ("containers", "app, worker"),
        ("init-order", "after:istio-init"),
        ("refresh", "5m"),
        ("notify", "signal:SIGHUP:nginx http:http://localhost:8080/-/reload"),
        ("file-mode", "0440"),
        ("run-as-user", "1000"),
        ("size-limit", "64Ki"),
        ("resources.cpu-request", "0.5"),
        ("hold", "true"),
        ("pin", "abc"),
        ("refresh-now", "1"),
    ]);
    assert_eq!(bundle.items.len(), 2);
    assert_eq!(bundle.items[1].place, "hushpod.dev/file.hf-token");
    assert_eq!(options.roles["infisical"], "id-1");
    assert_eq!(options.mode, Some(Mode::InitAndSidecar));
    assert_eq!(options.mount_path.as_deref(), Some("/etc/creds"));
    assert!(options.containers.unwrap().iter().eq(["app", "worker"]));
    assert_eq!(options.init_order, Some(InitOrder::After("istio-init".to_owned())));
    assert_eq!(options.refresh, Some(Duration::from_mins(5)));
    let notify: Vec<_> = options.notify.iter().map(ToString::to_string).collect();
    assert_eq!(notify, ["signal:HUP:nginx", "http:http://localhost:8080/-/reload"]);
    assert_eq!(options.size_limit, Some(65536));
}

#[test]
fn p9_every_bad_value_is_answered_with_its_key_and_what_to_write() {
    for (key, value, part) in [
        ("fiel.x", "a#b", "did you mean \"file.x\"?"),
        ("moed", "x", "did you mean \"mode\"?"),
        ("zzzzzz", "x", "expected one of inject, file.<name>, "),
        ("inject", "yes", "expected true or false"),
        ("hold", "yes", "expected true or false"),
        ("deny", "deny[0]", "leave it out"),
        ("deny", "", "leave it out"),
        ("file.x", "a b", "white space"),
        ("file...", "a", "begins with '..'"),
        ("dir.x", "arn:aws:x", "aws:arn:"),
        ("secrets", "a: b", "not a list"),
        ("secrets", "- {file: y, from: x, format: tmol}", "[0].format"),
        ("provider", "Vault", "invalid provider name"),
        ("role.", "x", "role.<provider>"),
        ("mode", "side", "init+sidecar, init or csi"),
        ("mount-path", "secrets", "absolute path"),
        ("mount-path", "/a/../b", "without '.', '..'"),
        ("mount-path", "/", "below /"),
        ("containers", "a,,b", "empty name"),
        ("containers", "", "empty name"),
        ("init-order", "before:x", "after:<init container>"),
        ("refresh", "5 minutes", "30s, 5m"),
        ("refresh", "10", "30s, 5m"),
        ("refresh", "100ms", "a second is the least"),
        ("notify", "kill:x", "signal:<SIGNAL>:<process>"),
        ("notify", "signal:HUP", "names no process"),
        ("notify", "signal:KILL:x", "HUP, USR1"),
        ("notify", "http:http://example.com/", "not on localhost"),
        ("notify", "http:http://localhost@example.com/", "not on localhost"),
        ("notify", "http:https://localhost/", "http://"),
        ("notify", "exec:reload", "no shell"),
        ("file-mode", "777x", "octal"),
        ("run-as-user", "0", "never runs as root"),
        ("run-as-user", "-1", "1 to 2147483647"),
        ("size-limit", "1 MB", "1Mi"),
        ("size-limit", "0", "1Mi"),
        ("env", "app.env,", "with commas"),
        ("env", "app.evn", "unknown file \"app.evn\""),
        ("env.9", "a", "no digit first"),
        ("env.LD_AUDIT", "a", "reserved (LD_*)"),
        ("env.A", "a b", "white space"),
        ("file..hushpod-env/A", "a", "hushpod's own"),
        ("on-change", "signal:KILL", "HUP, USR1"),
        ("on-change", "restart-all", "has no effect without"),
        ("on-change-jitter", "soon", "30s, 5m"),
        ("metrics-port", "443", "1024 to 65535"),
        ("metrics-port", "9102/tcp", "1024 to 65535"),
        ("resources.cpu-limit", "1 core", "50m"),
        ("resources.memory-limit", "1.5gi", "64Mi"),
        ("resources.memory-limit", "0", "above zero"),
        ("resources.memory-limits", "1Gi", "did you mean \"resources.memory-limit\"?"),
    ] {
        let message = parse(&annotations(&[("file.other", "vault:a#b"), (key, value)])).unwrap_err().to_string();
        assert!(message.starts_with(&format!("annotation {PREFIX}{key}")), "{message}");
        assert!(message.contains(part), "{key}={value}: {message}");
        assert!(!message.contains('\n'), "one sentence: {message}");
    }
}

#[test]
fn p9_where_nothing_can_be_mounted_is_no_mount_path() {
    let long = format!("/{}", "x".repeat(4096));
    for (path, part) in [
        ("/proc", "outside of /proc"),
        ("/proc/x/", "outside of /proc"),
        ("/sys/fs", "outside of /proc"),
        ("/dev/", "outside of /proc"),
        (&long, "expected at most 3072"),
    ] {
        let message = parse(&annotations(&[FILE_X, ("mount-path", path)])).unwrap_err().to_string();
        assert!(message.contains(part), "{path}: {message}");
    }
    for path in ["/process", "/dev/secrets", "/sysroot"] {
        assert!(parse(&annotations(&[FILE_X, ("mount-path", path)])).is_ok(), "{path}");
    }
}

#[test]
fn p9_a_bundle_delivers_something_and_nothing_twice() {
    let message = parse(&annotations(&[("refresh-now", "1")])).unwrap_err().to_string();
    assert!(message.contains("nothing to deliver"), "{message}");
    let twice = parse(&annotations(&[FILE_X, ("secrets", "- {file: x, from: c}")])).unwrap_err().to_string();
    assert!(twice.contains("delivered twice"), "{twice}");
}

#[test]
fn what_is_named_twice_counts_once() {
    let (_, options) =
        parsed(&[FILE_X, ("containers", "a, b,a"), ("notify", "http://localhost/ signal:HUP:x http://localhost/")]);
    assert!(options.containers.unwrap().iter().eq(["a", "b"]));
    let notify: Vec<_> = options.notify.iter().map(ToString::to_string).collect();
    assert_eq!(notify, ["http:http://localhost/", "signal:HUP:x"]);
}

#[test]
fn options_fall_back_to_the_operators_defaults() {
    let mut defaults = Options::default();
    set(&mut defaults, MOUNT_PATH, "/run/creds").unwrap();
    set(&mut defaults, MEMORY_LIMIT, "64Mi").unwrap();
    let (_, options) = parsed(&[FILE_X, ("mount-path", "/mine")]);
    let options = options.or(&defaults);
    assert_eq!(options.mount_path.as_deref(), Some("/mine"));
    assert_eq!(options.resources.memory_limit, Some("64Mi".parse().unwrap()));
}

#[test]
fn every_key_is_understood() {
    for key in KEYS {
        let known = match key.name {
            FILE | DIR | ROLE | ENV_VARIABLE => format!("{}x", key.name),
            name => name.to_owned(),
        };
        let message = parse(&annotations(&[FILE_X, (&known, "?")])).err().map(|error| error.to_string());
        assert!(!message.is_some_and(|message| message.contains("unknown key")), "{known}");
    }
}

#[test]
fn p9_a_volumes_attributes_are_the_same_keys_without_prefix() {
    let parse = |pairs: &[(&'static str, &'static str)]| super::parse_attributes(pairs.iter().copied());
    let (bundle, options) =
        parse(&[("file.db", "secret/data/db#password"), ("file-mode", "0440"), ("share-leases", "true")]).unwrap();
    assert_eq!(bundle.items.len(), 1);
    assert!(options.share_leases && options.file_mode.is_some());
    for (attributes, expected) in [
        (&[("fil.db", "a")][..], &["volumeAttributes: fil.db: unknown key", "did you mean \"file.db\"?"][..]),
        (&[("hushpod.dev/file.db", "a")], &["unknown key"]),
        (
            &[("file.db", "a"), ("notify", "signal:HUP:a")],
            &["volumeAttributes: notify", "annotation hushpod.dev/notify"],
        ),
        (&[("file.db", "a"), ("hold", "true")], &["annotation hushpod.dev/hold"]),
        (&[("refresh", "1m")], &["nothing to deliver: add file.<name>, dir.<name>"]),
        (&[("file...", "a")], &["volumeAttributes: file...:"]),
        (&[("file.a", "a"), ("share-leases", "yes")], &["share-leases", "true or false"]),
    ] {
        let error = parse(attributes).unwrap_err().to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{attributes:?}: {error}");
    }
}

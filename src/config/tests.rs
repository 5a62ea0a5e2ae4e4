use super::*;

const GOOD: &str = r#"
image: registry/hushpod:0.1.0
defaultProvider: files
providers:
  files: {type: file, path: /srv/secrets, role: "{{namespace}}-{{ service_account }}", refresh: 30s,
          allow: [{namespaces: ["team-*"]}]}
defaults: {mount-path: /run/secrets-of-mine, mode: init+sidecar, size-limit: 65536}
runtimeClasses: [runc]
"#;

#[test]
fn a_full_configuration_is_understood() {
    let config = Config::from_yaml(GOOD).unwrap();
    assert_eq!(config.defaults.mount_path.as_deref(), Some("/run/secrets-of-mine"));
    assert_eq!(config.defaults.size_limit, Some(65536));
    let files = &config.providers["files"];
    assert_eq!(files.refresh, Some(Duration::from_secs(30)));
    assert_eq!(files.allow.as_ref().unwrap()[0].requests, None);
    let identity = Identity { namespace: "team-a".to_owned(), service_account: "web".to_owned() };
    assert_eq!(expand(files.role.as_ref().unwrap(), &identity).unwrap(), "team-a-web");
}

#[test]
fn rules_that_allow_more_than_they_say_are_told_of_when_they_are_read() {
    let warnings = |store: &str, requests: &str| {
        let text = format!(
            "image: i\nproviders: {{s: {{{store}, role: r, allow: [{{namespaces: [a], requests: [{requests}]}}]}}}}"
        );
        Config::from_yaml(&text).unwrap().warnings()
    };
    let vault = "type: vault, address: 'https://v'";
    let infisical = "type: infisical, address: 'https://i', project: p, environment: e";
    for (store, requests, parts) in [
        (vault, "'secret/data/*'", &["providers.s.allow", "\"secret/data/*?NAME=*\"", "secret/data/*"][..]),
        (vault, "'pki/issue/web?common_name=*'", &["pki/issue/web?common_name=*"]),
        (vault, "'pki/issue/web?common_name=a.svc'", &[]),
        (vault, "'pki/*?*'", &["name=value", "next release"]),
        (vault, "'secret/data/a#key'", &["whole requests", "next release"]),
        (vault, "'pki?a=1&a=2'", &["twice", "next release"]),
        (vault, "'50%'", &["%25", "next release"]),
        (infisical, "'/a?recursiv=true'", &["did you mean \"recursive\"?", "next release"]),
        (infisical, "'/a?recursive=true'", &[]),
        ("type: file, path: /srv", "'a/*'", &[]),
        ("type: aws, region: eu-west-1", "'a/*', '*'", &[]),
    ] {
        let warnings = warnings(store, requests);
        assert_eq!(warnings.len(), usize::from(!parts.is_empty()), "{requests}: {warnings:?}");
        for part in parts {
            assert!(warnings[0].contains(part), "{requests}: {warnings:?} lacks {part:?}");
        }
    }
    let many = vec!["'secret/data/*'"; 1000].join(",");
    assert!(warnings(vault, &many)[0].len() < 2000);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn p9_all_faults_are_told_at_once_each_with_its_line_and_column() {
    let text = "image: r/h:1
defaultProvider: valt
providers:
  vault:
    type: vault
    adress: https://vault.example
    refresh: soon
    tokenSeconds: 60
    allow:
      - {namespace: [a]}
      - {namespaces: [\"{{namespace}}\"], roles: a}
  vault:
    type: vault
    address: https://other.example
  files: {type: fil}
csi:
  bytesPerNod: 1Gi
deny:
  - {}
  - references: [secret/data/x]
defaults:
  mode: both
  mount-pth: /x
runtimClasses: []
";
    let faults = Config::read(text).unwrap_err().0;
    let found: Vec<_> = faults.iter().map(|fault| (fault.line, fault.column, fault.error.to_string())).collect();
    let expected: [(u64, u64, &[&str]); 9] = [
        (2, 1, &[".defaultProvider", "did you mean \"vault\"?"]),
        (12, 3, &[".providers.vault", "has the same key twice, first at line 4"]),
        (15, 11, &[".providers.files.type", "did you mean \"file\"?"]),
        (17, 3, &[".csi", "did you mean \"bytesPerNode\"?"]),
        (19, 5, &[".deny[0]", "everything for everyone"]),
        (20, 18, &[".deny[1].references[0]", "names no provider"]),
        (22, 3, &[".defaults.mode", "init+sidecar"]),
        (23, 3, &[".defaults", "did you mean \"mount-path\"?"]),
        (24, 1, &["did you mean \"runtimeClasses\"?"]),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, column, told), (at_line, at_column, parts)) in found.iter().zip(expected) {
        assert_eq!((*line, *column), (at_line, at_column), "{told}");
        for part in parts {
            assert!(told.contains(part), "{told:?} lacks {part:?}");
        }
    }
    // Of one of the two providers: what is wrong with the other is told when that one is the only one.
    let text = text.replacen("  vault:\n    type: vault\n    address: https://other.example\n", "", 1);
    let faults = Config::read(&text).unwrap_err().0;
    let of_vault: Vec<_> =
        faults.iter().filter(|fault| (4..=11).contains(&fault.line)).map(|fault| (fault.line, fault.column)).collect();
    assert_eq!(
        of_vault,
        [(6, 5), (7, 5), (8, 5), (10, 10), (11, 23), (11, 41)],
        "rules and times need no address: {faults:#?}"
    );
    let faults = Config::read(&text.replace("adress", "address")).unwrap_err().0;
    let of_vault: Vec<_> =
        faults.iter().filter(|fault| (4..=11).contains(&fault.line)).map(|fault| (fault.line, fault.column)).collect();
    assert_eq!(of_vault, [(7, 5), (8, 5), (10, 10), (11, 23), (11, 41)], "{faults:#?}");
    for text in ["a: [b\n", "image: r/h:1\n  x: y\n", "image: r/h:1\n---\nb: c\n"] {
        let faults = Config::read(text).unwrap_err().0;
        assert!(faults.len() == 1 && faults[0].line > 0 && faults[0].column > 0, "{text}: {faults:?}");
    }
    assert_eq!(Config::read(GOOD), Ok(Config::from_yaml(GOOD).unwrap()));
}

/// What stands in the way of one fault hides no other, and makes none up.
#[test]
fn p9_what_depends_on_what_is_wrong_is_told_with_it() {
    let vault = "v: {type: vault, address: 'https://x'}";
    for (stores, more, expected) in [
        // A type that is misspelt is taken for the one that it may be; without one, what all types have is looked at.
        ("v: {type: vualt, adress: x, refresh: soon}", "", &[".type: unknown", "address", ".refresh: invalid"][..]),
        ("v: {type: nothing, adress: x, refresh: soon}", "", &[".type: unknown", ".refresh: invalid"]),
        ("v: {refresh: soon}", "", &[".type: is missing: expected one of vault", ".refresh: invalid"]),
        // An identity of a store that is wrong is not judged; of one that is not there it is, whatever else is wrong.
        (
            "v: {type: vault, adress: x}, f: {type: file, volumes: true, identity: 'v:a#k'}",
            "",
            &["unknown field \"adress\""],
        ),
        (
            "f: {type: file, volumes: true, identity: 'w:a#k'}",
            "image: ''\nmadeUp: 1",
            &["no other provider", ".image: write", "madeUp"],
        ),
        ("v: {type: vault, adress: x}", "defaultProvider: v", &["adress"]),
        ("v: {type: vault, adress: x}", "defaultProvider: elsewhere", &["adress", "expected v"]),
        ("", "defaultProvider: elsewhere", &["there is none"]),
        (
            "",
            "csi: {bytesPerNode: 1, bytesPerNamespace: x, unavailable: [{}, {nodeSelectr: {}}, {labels: 5}]}",
            &[
                ".csi.bytesPerNode: is not text: put it in quotes",
                ".csi.bytesPerNamespace: invalid",
                ".csi.unavailable[0]: would be every pod",
                ".csi.unavailable[1]: unknown field \"nodeSelectr\"",
                ".csi.unavailable[2].labels: has no fields",
            ],
        ),
        // Each item of a list, whatever the other fields of its rule are.
        (
            &format!(
                "{}, allow: [{{namespaces: ['{{{{a}}}}', b, '{{{{c}}}}'], requests: 5}}]}}",
                &vault[..vault.len() - 1]
            ),
            "",
            &[".namespaces[0]: ", ".namespaces[2]: ", ".requests: is not a list"],
        ),
        (
            &format!("{}, allow: [{{namespaces: 5}}]}}", &vault[..vault.len() - 1]),
            "deny: [{references: 5}, {references: [x, 'v:y', z], namespace: [a]}]",
            &[
                ".namespaces: is not",
                "deny[0].references: is not",
                "[1].references[0]",
                "[1].references[2]",
                "\"namespace\"",
            ],
        ),
    ] {
        let image = if more.contains("image") { "" } else { "image: i\n" };
        let text = format!("{image}providers: {{{stores}}}\n{more}\n");
        let faults = Config::read(&text).unwrap_err().0;
        let told: Vec<_> = faults.iter().map(|fault| fault.error.to_string()).collect();
        assert_eq!(told.len(), expected.len(), "{text}: {told:#?}");
        for part in expected {
            assert!(told.iter().any(|told| told.contains(part)), "{text}: no {part:?} in {told:#?}");
        }
        assert!(faults.iter().all(|fault| fault.line > 0), "{faults:?}");
    }
}

#[test]
fn p9_a_hundred_faults_are_told_and_that_there_are_more() {
    for (stores, told) in [(99, 99), (100, 101), (101, 101), (5000, 101)] {
        let stores: Vec<_> =
            (0..stores).map(|n| format!("  p{n}: {{type: aws, region: eu-west-1, adress: x}}\n")).collect();
        let faults = Config::read(&format!("image: i\nproviders:\n{}", stores.concat())).unwrap_err().0;
        assert_eq!(faults.len(), told);
        assert_eq!(faults.last().unwrap().error.to_string().contains("there may be more"), told > 100);
    }
}

#[test]
fn p9_a_bad_configuration_names_the_field() {
    for (from, to, parts) in [
        ("image: registry/hushpod:0.1.0", "image: ''", &[".image", "registry"][..]),
        ("image: registry/hushpod:0.1.0", "imge: x", &["imge"]),
        ("defaultProvider: files", "defaultProvider: file", &[".defaultProvider", "\"files\""]),
        ("type: file", "type: fil", &[".providers.files.type", "\"file\""]),
        ("type: file, path: /srv/secrets", "type: file, path: /srv/secrets, pth: x", &[".providers.files", "pth"]),
        ("refresh: 30s", "refresh: soon", &[".providers.files.refresh", "30s"]),
        ("refresh: 30s", "refresh: 10ms", &[".providers.files.refresh", "second"]),
        ("refresh: 30s", "audience: x", &[".providers.files.audience", "leave it out"]),
        ("[\"team-*\"]", "[\"{{namespace}}\"]", &[".allow[0].namespaces", "everyone"]),
        ("[\"team-*\"]", "[a], requests: [\"{{pod}}/*\"]", &[".allow[0].requests", "expected namespace or"]),
        ("[\"team-*\"]", "[a], roles: [\"{{\"]", &[".allow[0].roles", "}}"]),
        ("namespaces: [\"team-*\"]", "roles: [a]", &["providers.files.allow[0].namespaces", "is missing"]),
        (
            "namespaces: [\"team-*\"]",
            "namespace: [a]",
            &["providers.files.allow[0]", "unknown field", "did you mean \"namespaces\"?"],
        ),
        ("[\"team-*\"]", "[a], roles: a", &["providers.files.allow[0].roles", "is not a list"]),
        ("[{namespaces: [\"team-*\"]}]", "[a]", &["providers.files.allow"]),
        ("[\"team-*\"]", "[a], serviceAccount: [a]", &[".providers.files", "serviceAccounts"]),
        ("refresh: 30s", "tokenSeconds: 60", &[".providers.files.tokenSeconds", "600"]),
        ("{{namespace}}-", "{{nmespace}}-", &["nmespace", "expected namespace or"]),
        ("{{namespace}}-", "{{namespace-", &["asks for another name"]),
        ("mode: init+sidecar", "mode: both", &[".defaults.mode", "init+sidecar"]),
        ("mount-path: /run/secrets-of-mine", "mount-path: /hushpod-bin", &[".defaults.mount-path", "program goes"]),
        ("mount-path: /run/secrets-of-mine", "mount-path: /hushpod-bin/x/", &[".defaults.mount-path", "another"]),
        ("mode: init+sidecar", "\"x\\ny\": x", &[".defaults: no annotation"]),
        (
            "type: file, path: /srv/secrets",
            "type: file, path: 5",
            &[".providers.files.path: is not text: put it in quotes"],
        ),
        (
            "type: file, path: /srv/secrets",
            "type: aws, region: x, account: 123456789012",
            &[".providers.files.account: is not text: put it in quotes"],
        ),
        ("image: registry/hushpod:0.1.0", "", &[".image: is missing"]),
        ("runtimeClasses: [runc]", "runtimeClasses: runc", &[".runtimeClasses: is not a list"]),
        ("runtimeClasses: [runc]", "nativeSidecars: 3", &[".nativeSidecars: is neither true nor false"]),
        ("runtimeClasses: [runc]", "image: x", &["has the same key twice at line", "leave one of them out"]),
        ("runtimeClasses: [runc]", "---\nimage: x", &["several YAML documents", "write one"]),
        ("mode: init+sidecar", "pin: x", &[".defaults.pin", "default"]),
        ("mode: init+sidecar", "file-mode: 0440", &[".defaults.file-mode", "quotes"]),
        ("  files:", "  Files:", &[".providers.Files", "lower-case"]),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        let message = Config::from_yaml(&text).unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{to}: {message:?} lacks {part:?}");
        }
    }
}

#[test]
fn p9_the_drivers_daemon_set_is_one_that_there_could_be() {
    let longest = "x".repeat(253);
    for (name, is_one) in [
        ("driver", true),
        ("kube-system/driver.1", true),
        (&longest, true),
        (&format!("{longest}x"), false),
        ("", false),
        ("driver/", false),
        ("a/b/c", false),
        ("Driver", false),
    ] {
        let text = GOOD.replace("runtimeClasses: [runc]", &format!("csi: {{daemonSet: '{name}'}}"));
        match Config::from_yaml(&text) {
            Ok(config) => assert!(is_one && config.csi.unwrap().daemon_set == name, "{name}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!is_one && error.contains(".csi.daemonSet: expected <name> or <namespace>/<name>"), "{error}");
            }
        }
    }
}

#[test]
fn a_proxy_for_all_is_every_stores_unless_it_has_its_own() {
    let config = |for_all: &str, own: &str| {
        let vault = format!("{{type: vault, address: 'https://vault:8200'{own}}}");
        let files = "{type: file, path: /srv}";
        Config::from_yaml(&format!("image: r/h:1\n{for_all}\nproviders: {{files: {files}, vault: {vault}}}\n"))
    };
    let all = "proxy: 'http://all:3128'\nnoProxy: [svc, 10.0.0.0/8]";
    for (for_all, own, proxy) in [
        ("", "", None),
        (all, "", Some((Some("http://all:3128"), &["svc", "10.0.0.0/8"][..]))),
        (all, ", proxy: 'http://own:1'", Some((Some("http://own:1"), &["svc", "10.0.0.0/8"]))),
        (all, ", noProxy: []", Some((Some("http://all:3128"), &[]))),
        (all, ", proxy: none", Some((None, &["svc", "10.0.0.0/8"]))),
        ("", ", proxy: 'http://own:1', noProxy: [vault]", Some((Some("http://own:1"), &["vault"]))),
    ] {
        let config = config(for_all, own).unwrap();
        let expected = proxy.map(|(url, list)| Proxy {
            url: url.map(str::to_owned),
            no_proxy: list.iter().map(|&entry| entry.to_owned()).collect(),
        });
        assert_eq!(config.providers["vault"].proxy, expected, "{for_all} {own}");
        assert_eq!(config.providers["files"].proxy, None);
    }
    for (for_all, own, part) in [
        ("proxy: 'https://p:1'", "", ".proxy"),
        ("noProxy: ['http://x']", "", ".noProxy"),
        ("", ", proxy: 'http://me:canary@p:1'", "vault.proxy"),
        ("", ", noProxy: ['a b']", "vault.noProxy"),
    ] {
        let problem = config(for_all, own).unwrap_err().to_string();
        assert!(problem.contains(part) && !problem.contains("canary"), "{problem}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn p5_no_scalar_of_the_file_is_told() {
    let with = |from: &str, to: &str| GOOD.replace(from, to);
    for text in [
        // Files that were given by mistake.
        "hvs.canary-token".to_owned(),
        "eyJhbGciOiJSUzI1NiJ9.canary.x\n".to_owned(),
        "[default]\naws_secret_access_key = canary\n".to_owned(),
        "TOKEN=canary\nOTHER='canary".to_owned(),
        "- canary\n- {a: canary}".to_owned(),
        "password: canary".to_owned(),
        "canary-canary-canary-canary-canary-canary-canary: x".to_owned(),
        "a: [canary".to_owned(),
        "a: 'canary\nb: canary".to_owned(),
        "a: *canary".to_owned(),
        "a: canary\na: canary".to_owned(),
        "a: canary\n---\nb: canary".to_owned(),
        "{\"apiVersion\":\"canary\"}".to_owned(),
        "a:\n\t- canary: canary: canary".to_owned(),
        "%canary\n".to_owned(),
        "!canary x".to_owned(),
        // Each value of a good one is another.
        with("image: registry/hushpod:0.1.0", "image: my canary"),
        with("image: registry/hushpod:0.1.0", "image: {x: canary}"),
        with("image: registry/hushpod:0.1.0", "image: x\nimagePullPolicy: canary"),
        with("image: registry/hushpod:0.1.0", "image: x\nnativeSidecars: canary"),
        with("image: registry/hushpod:0.1.0", "image: x\nimagePullSecrets: canary"),
        with("defaultProvider: files", "defaultProvider: canary"),
        with("type: file", "type: canary"),
        with("path: /srv/secrets", "path: [canary]"),
        with("path: /srv/secrets", "path: canary, identityFrom: 'canary:canary'"),
        with("type: file, path: /srv/secrets", "type: vault, address: 'https://canary:canary@x'"),
        with("type: file, path: /srv/secrets", "type: vault, address: 'http://canary.example'"),
        with("type: file, path: /srv/secrets", "type: vault, address: 'https://x', namespace: '/'"),
        with("type: file, path: /srv/secrets", "type: vault, address: 'https://x', auth: {method: canary}"),
        with("type: file, path: /srv/secrets", "type: vault, address: 'https://x', auth: {mount: 'auth/canary'}"),
        with("type: file, path: /srv/secrets", "type: vault, address: 'https://x', ca: canary"),
        with("type: file, path: /srv/secrets", "type: aws, region: 'can ary canary'"),
        with("type: file, path: /srv/secrets", "type: infisical, address: 'https://x', project: 'canary canary'"),
        with("type: file, path: /srv/secrets", "type: azure, address: 'canary://canary'"),
        with("type: file, path: /srv/secrets", "type: gcp, project: 'canary canary'"),
        with("refresh: 30s", "refresh: canary"),
        with("refresh: 30s", "tokenSeconds: canary"),
        with("refresh: 30s", "audience: canary"),
        with("refresh: 30s", "revokeOnExit: canary"),
        with("{{namespace}}-", "{{namespace-canary"),
        with("namespaces: [\"team-*\"]", "namespaces: canary"),
        with("namespaces: [\"team-*\"]", "namespaces: [a], requests: ['{{canary']"),
        with("mode: init+sidecar", "mode: canary"),
        with("mode: init+sidecar", "file-mode: canary"),
        with("mode: init+sidecar", "notify: 'canary:canary'"),
        with("size-limit: 65536", "size-limit: canary"),
        with("mount-path: /run/secrets-of-mine", "mount-path: canary"),
        with("runtimeClasses: [runc]", "runtimeClasses: canary"),
        with("runtimeClasses: [runc]", "deny: canary"),
        with("runtimeClasses: [runc]", "deny: [canary]"),
        with("runtimeClasses: [runc]", "deny: [{references: [canary]}]"),
        with("runtimeClasses: [runc]", "deny: [{references: ['canary:x#canary']}]"),
        with("runtimeClasses: [runc]", "deny: [{namespaces: ['{{canary']}]"),
        with("namespaces: [\"team-*\"]", "namespaceLabels: {a: '{{canary'}"),
        with("namespaces: [\"team-*\"]", "namespaceLabels: canary"),
        with("runtimeClasses: [runc]", "runtimeClasses: [{a: canary}]"),
    ] {
        assert_ne!(text, GOOD);
        let all = Config::read(&text).err().map(|faults| faults.to_string()).unwrap_or_default();
        assert!(!all.contains("canary") && !all.contains('\n'), "{text}: {all}");
        // Some of them are good: what is wrong with those is seen later.
        if let Err(error) = Config::from_yaml(&text) {
            let message = error.to_string();
            assert!(!message.contains("canary") && !message.contains('\n'), "{text}: {message}");
            assert!(!message.contains("Options") && !message.contains("Policy in"), "a library's words: {message}");
        }
    }
}

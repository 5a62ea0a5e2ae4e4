//! The audit line of each decision.

use hushpod::audit::{AuditEvent, AuditLine, AuditOutcome, Program};

use super::*;

const RULES: &str = r#"
image: registry/hushpod:0.1.0
defaultProvider: vault
providers:
  vault:
    type: vault
    address: "https://vault.example:8200"
    role: "{{service_account}}"
    allow:
      - {namespaces: [other]}
      - {namespaces: ["team-*"], requests: ["secret/data/db", "secret/data/x/*"]}
  files: {type: file, path: /srv/secrets}
"#;

const USER: &str = "system:serviceaccount:kube-system:replicaset-controller";

/// A review as an API server sends it, which is no dry run.
fn asked(sub_resource: &str, pod: &Value) -> Value {
    let mut review = review("CREATE", sub_resource, pod);
    review["request"]["dryRun"] = json!(false);
    review["request"]["userInfo"] = json!({"username": USER, "uid": "u", "groups": ["system:authenticated"]});
    review
}

/// The lines that a review makes.
fn lines(config: &str, review: &Value) -> Vec<AuditLine> {
    let (log, _listening) = Log::listen(Level::INFO);
    let injector = injector(config);
    let request = serde_json::to_vec(review).unwrap();
    // What is remembered is told as well.
    assert_eq!(answer(&request, &injector), answer(&request, &injector));
    let lines: Vec<_> = log.text().lines().filter_map(AuditLine::read).collect();
    assert!(lines.len() == 2 || lines.is_empty(), "{lines:?}");
    if let [first, second] = &lines[..] {
        assert_eq!(AuditLine { time: second.time.clone(), ..first.clone() }, *second);
    }
    lines.into_iter().take(1).collect()
}

fn line(pairs: &[(&str, &str)]) -> AuditLine {
    lines(RULES, &asked("", &annotated(pod(), pairs))).pop().unwrap()
}

#[test]
fn what_was_asked_for_by_whom_and_which_rules_allow_it_is_told() {
    let told = line(&[("file.more", "secret/data/x/more#k"), ("file.note", "files:note.txt")]);
    assert_eq!((told.by, told.event, told.outcome), (Program::Webhook, AuditEvent::Admission, AuditOutcome::Allowed));
    assert_eq!((told.user.as_deref(), told.problem.as_deref()), (Some(USER), None));
    assert_eq!((told.who.namespace.as_str(), told.who.account.as_str()), ("team-a", "web"));
    assert_eq!((told.who.pod.as_deref(), &told.who.uid, &told.who.node), (Some("web-*"), &None, &None));
    let requests: Vec<_> =
        told.requests.iter().map(|asked| (asked.reference.as_str(), asked.rule.as_deref().unwrap_or("-"))).collect();
    let expected = [
        ("files:note.txt", "-"),
        ("vault:secret/data/db", "providers.vault.allow[1]"),
        ("vault:secret/data/x/more", "providers.vault.allow[1]"),
    ];
    assert_eq!(requests, expected);
}

#[test]
fn why_a_pod_was_denied_is_told_and_whether_by_the_rules() {
    for (pairs, outcome, part) in [
        (&[("file.a", "secret/data/other#k")][..], AuditOutcome::Denied, "may not request vault:secret/data/other"),
        (&[("role.vault", "admin")], AuditOutcome::Allowed, ""),
        (&[("fil.a", "secret/data/db#k")], AuditOutcome::Invalid, "did you mean"),
        (&[("file.a", "nowhere:x#k")], AuditOutcome::Invalid, "nowhere"),
        (&[("mount-path", "/cache")], AuditOutcome::Invalid, "/cache"),
    ] {
        let told = line(pairs);
        assert_eq!(told.outcome, outcome, "{told:?}");
        assert!(told.problem.as_deref().unwrap_or_default().contains(part), "{told:?}");
        assert_eq!(told.requests.is_empty(), outcome != AuditOutcome::Allowed, "{told:?}");
        assert_eq!((told.who.account.as_str(), told.user.as_deref()), ("web", Some(USER)));
    }
}

#[test]
fn lines_are_told_of_pods_that_ask_and_nowhere_else() {
    let mut unasked = pod();
    unasked["metadata"]["annotations"] = json!({"other": "x"});
    let dry = review("CREATE", "", &pod());
    let off = RULES.replacen("image:", "audit: false\nimage:", 1);
    for (what, config, review) in [
        ("a pod that does not ask", RULES, asked("", &unasked)),
        ("a dry run", RULES, dry),
        ("an operator who wants none", off.as_str(), asked("", &pod())),
        ("an ephemeral container that may come", RULES, asked("ephemeralcontainers", &pod())),
    ] {
        assert_eq!(lines(config, &review), [], "{what}");
    }
    let mount = json!([{"name": "hushpod-state", "mountPath": "/x"}]);
    let reaching =
        with(pod(), "/spec/ephemeralContainers", json!([{"name": "debug", "image": "x", "volumeMounts": mount}]));
    let told = lines(RULES, &asked("ephemeralcontainers", &reaching)).pop().unwrap();
    assert!(told.outcome == AuditOutcome::Invalid && told.problem.unwrap().contains("hushpod-state"));
}

#[test]
fn a_pod_that_is_let_makes_one_line_audit_or_not() {
    let off = RULES.replacen("image:", "audit: false\nimage:", 1);
    for (what, config, review, part) in [
        ("the audit's", RULES, asked("", &pod()), r#""outcome":"allowed""#),
        ("no audit", off.as_str(), asked("", &pod()), "injected"),
        ("a dry run", RULES, review("CREATE", "", &pod()), "injected"),
    ] {
        let (log, _listening) = Log::listen(Level::INFO);
        let answered = answer(&serde_json::to_vec(&review).unwrap(), &injector(config));
        let text = log.text();
        assert_eq!(answered.outcome, Outcome::Injected, "{what}");
        assert!(text.lines().count() == 1 && text.contains(part), "{what}: {text}");
    }
}

#[test]
fn a_line_of_a_large_pod_is_bounded_and_says_what_it_leaves_out() {
    let long = "x".repeat(900);
    let items: Vec<_> = (0..60)
        .map(|index| json!({"file": format!("f{index}"), "from": format!("secret/data/x/{long}{index}#k")}))
        .collect();
    let told = line(&[("secrets", &json!(items).to_string())]);
    assert_eq!(told.outcome, AuditOutcome::Allowed);
    assert!(told.requests.len() > 4 && told.requests.len() + told.more == 61, "{}", told.requests.len());
    assert!(serde_json::to_string(&told).unwrap().len() < 10_000);
}

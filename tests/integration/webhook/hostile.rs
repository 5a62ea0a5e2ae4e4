//! Pods that nobody writes by mistake, and second passes that once were not quiet.

use super::*;

/// A pod with these annotations alone.
fn asking(pairs: &[(&str, &str)]) -> Value {
    annotated(with(pod(), "/metadata/annotations", json!({})), pairs)
}

#[test]
fn a_template_of_any_shape_is_answered() {
    for (begin, middle, end) in [
        ("{{ a", "|e", " }}"),
        ("{{ a", ".a", " }}"),
        ("{{ a", "[0]", " }}"),
        ("{{ a", "()", " }}"),
        ("{{ a", "+a", " }}"),
        ("{{ a", "~a", " }}"),
        ("{{ a", " and a", " }}"),
        ("{{ a", " is odd", " }}"),
        ("{{ a", " if a else a", " }}"),
        ("{{ ", "not ", "a }}"),
        ("{{ ", "-", "a }}"),
        ("{{ ", "a**", "a }}"),
        ("{{ ", "(", " }}"),
        ("{{ ", "[", " }}"),
        ("{% if a %}", "{% elif a %}", "{% endif %}"),
        ("", "{% if a %}", ""),
        // What looks like an end inside of it.
        ("{{ '}}'", "|e", " }}"),
        ("{{ {'a': {'b': 1}}", "|e", " }}"),
        ("{% raw %}{{ ' {% endraw %}{{ a", "|e", " }}"),
    ] {
        // The last are short enough to be compiled.
        for count in [30_000 / middle.len(), 240, 120, 60] {
            let template = format!("{begin}{}{end}", middle.repeat(count));
            let secrets = json!([{"file": "x", "from": {"a": "secret/data/x#a"}, "template": template}]).to_string();
            let decided = decide(&asking(&[("secrets", &secrets)]));
            if count > 1000 {
                let message = decided.response["status"]["message"].as_str().unwrap();
                assert!(message.contains("template") && message.len() < 3000, "{message}");
            }
        }
    }
    // Text outside of tags may be as long as it likes, and an honest template has many of them.
    let honest = format!("{}\n{}", "key = value, and more. ".repeat(700), "url = {{ a }}\n".repeat(1000));
    let secrets = json!([{"file": "x", "from": {"a": "secret/data/x#a"}, "template": honest}]).to_string();
    injected(&asking(&[("secrets", &secrets)]));
}

#[test]
fn p9_denials_are_one_sentence_of_a_readable_length() {
    let many = |count: usize| {
        let items: Vec<_> = (0..count).map(|index| json!({"file": format!("a{index}"), "from": "x"})).collect();
        json!(items).to_string()
    };
    let long = "x".repeat(100_000);
    for (pairs, part) in [
        (vec![("containers", long.as_str())], "hushpod.dev/containers"),
        (vec![("secrets", many(1001).as_str())], "1000"),
        (vec![("file.a", "secret/data/a#k"), ("env", "a,a")], "\"a\" stands there twice"),
        (vec![("file.a", "secret/data/a#k"), ("size-limit", "9999999999Gi")], "hushpod.dev/size-limit"),
        (vec![("file.a", "secret/data/a#k"), ("size-limit", "2Gi")], "1Gi"),
        (vec![("file.a", "secret/data/a#k"), ("a\n2026-11-22T01:16:27Z  INFO injected", "x")], "a\\n2026"),
    ] {
        let mut pairs = pairs;
        if pairs.len() == 1 && pairs[0].0 == "containers" {
            pairs.push(("file.a", "secret/data/a#k"));
        }
        let message = denial(&asking(&pairs));
        assert!(message.contains(part) && message.len() < 3000, "{message}");
    }
}

#[test]
fn a_second_pass_over_what_the_api_server_filled_in_is_quiet() {
    // The one source of a store without tokens.
    let mut once = injected(&asking(&[("file.a", "files:a")]));
    let volumes = once["spec"]["volumes"].as_array_mut().unwrap();
    let tokens = volumes.iter_mut().find(|volume| volume["name"] == "hushpod-tokens").unwrap();
    let field = &mut tokens["projected"]["sources"][0]["downwardAPI"]["items"][0]["fieldRef"];
    assert!(field.is_object(), "{field}");
    field["apiVersion"] = json!("v1");
    let again = decide(&once);
    assert_eq!((again.outcome, again.patch), (Outcome::Unchanged, Vec::new()));
    // Three generations of 1 GiB less a page: the API server writes 3Gi.
    let once = injected(&asking(&[("file.a", "secret/data/a#k"), ("size-limit", "1073737728")]));
    let volumes = once["spec"]["volumes"].as_array().unwrap();
    let secrets = volumes.iter().find(|volume| volume["name"] == "hushpod-secrets").unwrap();
    assert_eq!(secrets["emptyDir"]["sizeLimit"], "3Gi");
}

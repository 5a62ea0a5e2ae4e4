//! What a review may cost: every list of the grammar at its worst, counted in steps.

use hushpod::annotations::MAX_BYTES;
use hushpod::bundle::{MAX_REFERENCE_BYTES, MAX_TEMPLATE_BYTES, MAX_YAML_NODES};
use hushpod::steps;
use hushpod::webhook::review::MAX_NODES;

use super::*;

/// A store with this many rules, all of them about the pod, and none of them but the last about its requests.
fn config(rules: usize) -> String {
    let rules: Vec<_> = (0..rules).map(|index| format!("\"*/{index}/*x\", ")).collect();
    let rules = rules.concat();
    let secrets: Vec<_> = (0..20).map(|index| format!("pull-{index}")).collect();
    format!(
        r#"
image: registry/hushpod:0.1.0
imagePullSecrets: {secrets:?}
csi: {{}}
defaultProvider: vault
providers:
  vault: {{type: vault, address: "https://vault.example", role: web}}
  ruled: {{type: vault, address: "https://vault.example", role: web, allow: [{{namespaces: ["*"], requests: [{rules} "secret/*"]}}]}}
  sops: {{type: file, volumes: true, identity: "vault:secret/data/age#key"}}
"#
    )
}

struct Counted {
    steps: u64,
    outcome: Outcome,
    response: Value,
}

fn count(injector: &Injector, review: &Value) -> Counted {
    let body = serde_json::to_vec(review).unwrap();
    assert!(body.len() <= 3 << 20, "{} bytes are more than the webhook reads", body.len());
    let (answered, steps) = steps::within(u64::MAX, || answer(&body, injector));
    let response = serde_json::from_slice::<Value>(&answered.body).unwrap()["response"].take();
    let message = response["status"]["message"].as_str().unwrap_or_default();
    assert!(message.len() < 2100, "a sentence of {} bytes", message.len());
    assert!(response["warnings"].as_array().is_none_or(|warnings| warnings.len() <= 17), "warnings without end");
    Counted { steps, outcome: answered.outcome, response }
}

/// A pod with these annotations and this spec, under review.
fn asking(pairs: &[(&str, String)], spec: Value) -> Value {
    let annotations = pairs.iter().map(|(key, value)| (format!("hushpod.dev/{key}"), json!(value)));
    let annotations: serde_json::Map<_, _> = annotations.collect();
    review("CREATE", "", &json!({"metadata": {"annotations": annotations}, "spec": spec}))
}

fn each<T>(count: usize, of: impl Fn(usize) -> T) -> Vec<T> {
    (0..count).map(of).collect()
}

fn file() -> (&'static str, String) {
    ("file.a", "secret/data/a#k".to_owned())
}

fn app() -> Value {
    json!([{"name": "app", "command": ["app"]}])
}

fn containers(count: usize) -> Vec<Value> {
    each(count, |index| json!({"name": format!("c{index}"), "command": ["a"]}))
}

fn secrets(items: &[Value]) -> (&'static str, String) {
    ("secrets", json!(items).to_string())
}

fn files(count: usize, from: impl Fn(usize) -> String) -> (&'static str, String) {
    secrets(&each(count, |index| json!({"file": format!("f{index}"), "from": from(index)})))
}

type Case = (&'static str, usize, fn(usize) -> Value, &'static str);

/// A list, how long it is at most, a pod with one of a length, and a part of the denial; none if it is admitted.
const CASES: &[Case] = &[
    (
        "annotations of ours",
        1000,
        |n| {
            let keys = each(n, |index| format!("file.f{index}"));
            let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), "secret/data/a#k".to_owned())).collect();
            asking(&pairs, json!({"containers": app()}))
        },
        "",
    ),
    (
        "annotations of others",
        20_000,
        |n| {
            let mut review = asking(&[file()], json!({"containers": app()}));
            for index in 0..n {
                review["request"]["object"]["metadata"]["annotations"][format!("other/{index}")] = json!("x");
            }
            review
        },
        "",
    ),
    (
        "roles",
        3000,
        |n| {
            let keys = each(n, |index| format!("role.p{index}"));
            let mut pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), "r".to_owned())).collect();
            pairs.push(file());
            asking(&pairs, json!({"containers": app()}))
        },
        "unknown provider",
    ),
    (
        "containers, one name again and again",
        30_000,
        |n| asking(&[file(), ("containers", vec!["c99"; n].join(","))], json!({"containers": containers(3000)})),
        "",
    ),
    (
        "containers, each by its name",
        3000,
        |n| {
            let names = each(n, |index| format!("c{index}"));
            asking(&[file(), ("containers", names.join(","))], json!({"containers": containers(n)}))
        },
        "",
    ),
    (
        "containers, long names that are nearly known",
        400,
        |n| {
            let name = |index: usize| format!("{index:0253}");
            let known = each(n, |index| json!({"name": name(index)}));
            asking(&[file(), ("containers", name(1_000_000))], json!({"containers": known}))
        },
        "has no container",
    ),
    ("application containers", 8000, |n| asking(&[file()], json!({"containers": containers(n)})), ""),
    (
        "init containers behind the agent",
        8000,
        |n| asking(&[file()], json!({"initContainers": containers(n), "containers": [{"name": "app"}]})),
        "",
    ),
    (
        "init containers before the agent",
        8000,
        |n| {
            let pairs = [file(), ("init-order", "last".to_owned())];
            asking(&pairs, json!({"initContainers": containers(n), "containers": [{"name": "app"}]}))
        },
        "",
    ),
    (
        "containers of one name",
        8000,
        |n| asking(&[file()], json!({"containers": each(n, |_| json!({"name": "app"}))})),
        "two containers of the name \"app\"",
    ),
    (
        "containers of our name and form",
        5000,
        |n| {
            let ours = json!({"name": "hushpod", "command": ["/hushpod-agent"], "env": [{"name": "HUSHPOD_PLAN"}]});
            asking(&[file()], json!({"containers": each(n, |_| ours.clone())}))
        },
        "two containers of the name \"hushpod\"",
    ),
    (
        "our container's lists, as a tenant writes them",
        5000,
        |n| {
            let variables = each(n, |index| json!({"name": format!("V{index}")}));
            let mounts = each(n, |index| json!({"name": "hushpod-state", "mountPath": format!("/m{index}")}));
            let mut ours =
                json!({"name": "hushpod", "command": ["/hushpod-agent"], "env": variables, "volumeMounts": mounts});
            ours["env"].as_array_mut().unwrap().push(json!({"name": "HUSHPOD_PLAN"}));
            asking(&[file()], json!({"initContainers": [ours], "containers": app()}))
        },
        "*",
    ),
    (
        "our container's plan, as a tenant writes it",
        2_000_000,
        |n| {
            let plan = format!("{{\"version\":1,\"items\":[{}0]}}", "0,".repeat(n / 2));
            let ours = json!({"name": "hushpod", "command": ["/hushpod-agent"], "env": [{"name": "HUSHPOD_PLAN", "value": plan}]});
            asking(&[file()], json!({"initContainers": [ours], "containers": app()}))
        },
        "*",
    ),
    (
        "volumes",
        20_000,
        |n| {
            let volumes = each(n, |index| json!({"name": format!("v{index}")}));
            asking(&[file()], json!({"containers": app(), "volumes": volumes}))
        },
        "",
    ),
    (
        "volumes that are read",
        1000,
        |n| {
            let volumes = each(n, |index| json!({"name": format!("v{index}"), "configMap": {"name": "x"}}));
            let pairs = [files(n, |index| format!("sops:v{index}/a"))];
            asking(&pairs, json!({"containers": app(), "volumes": volumes}))
        },
        "",
    ),
    (
        "volume mounts",
        12_000,
        |n| {
            let mounts = each(n, |index| json!({"name": "data", "mountPath": format!("/m{index}")}));
            asking(&[file()], json!({"containers": [{"name": "app", "volumeMounts": mounts}]}))
        },
        "",
    ),
    (
        "mounts of our volume in a container before the agent",
        8000,
        |n| {
            let mount =
                json!({"name": "hushpod-secrets", "mountPath": "/secrets", "subPath": "live", "readOnly": true});
            let early = json!({"name": "early", "volumeMounts": vec![mount; n]});
            asking(
                &[file(), ("init-order", "last".to_owned())],
                json!({"initContainers": [early], "containers": app()}),
            )
        },
        "runs before the agent",
    ),
    (
        "mounts of single files",
        8000,
        |n| {
            let mount = |index| json!({"name": "hushpod-secrets", "mountPath": format!("/m{index}"), "subPath": "live/a", "readOnly": true});
            asking(&[file()], json!({"containers": [{"name": "app", "volumeMounts": each(n, mount)}]}))
        },
        "",
    ),
    (
        "env of a container",
        15_000,
        |n| {
            let variables = each(n, |index| json!({"name": format!("V{index}"), "value": "x"}));
            let spec = json!({"containers": [{"name": "app", "command": ["app"], "env": variables}]});
            asking(&[("env.OURS", "secret/data/a#k".to_owned())], spec)
        },
        "",
    ),
    (
        "envFrom of a container",
        15_000,
        |n| {
            let sources = each(n, |index| json!({"configMapRef": {"name": format!("m{index}")}}));
            let spec = json!({"containers": [{"name": "app", "command": ["app"], "envFrom": sources}]});
            asking(&[("env.OURS", "secret/data/a#k".to_owned())], spec)
        },
        "",
    ),
    (
        "command and args of a container",
        20_000,
        |n| {
            let words = vec!["x"; n];
            let spec = json!({"containers": [{"name": "app", "command": words, "args": words}]});
            asking(&[("env.OURS", "secret/data/a#k".to_owned())], spec)
        },
        "",
    ),
    (
        "env, a list of files",
        900,
        |n| {
            let names = each(n, |index| format!("f{index}"));
            let items =
                each(n, |index| json!({"file": format!("f{index}"), "from": "secret/data/a", "format": "dotenv"}));
            asking(&[secrets(&items), ("env", names.join(","))], json!({"containers": app()}))
        },
        "",
    ),
    (
        "env, a list of files for many containers",
        700,
        |n| {
            let names = each(n, |index| format!("f{index}"));
            let items =
                each(n, |index| json!({"file": format!("f{index}"), "from": "secret/data/a", "format": "dotenv"}));
            asking(&[secrets(&items), ("env", names.join(","))], json!({"containers": containers(3000)}))
        },
        "more than one review may take",
    ),
    (
        "notify",
        4000,
        |n| {
            let urls = each(n, |index| format!("http://localhost/{index}"));
            asking(&[file(), ("notify", urls.join(" "))], json!({"containers": app()}))
        },
        "*",
    ),
    (
        "notify, one again and again",
        5000,
        |n| asking(&[file(), ("notify", vec!["http://localhost/"; n].join(" "))], json!({"containers": app()})),
        "",
    ),
    (
        "notify, by the parents of many containers",
        1000,
        |n| {
            let targets = each(32, |index| format!("signal:HUP:p{index}"));
            let pairs = [file(), ("env.OURS", "secret/data/a#k".to_owned()), ("mode", "csi".to_owned())];
            let pairs = [&pairs[..], &[("notify", targets.join(" "))]].concat();
            asking(&pairs, json!({"containers": containers(n)}))
        },
        "",
    ),
    ("secrets, items", 1000, |n| asking(&[files(n, |_| "a/b#k".to_owned())], json!({"containers": app()})), ""),
    (
        "secrets, deep paths",
        30,
        |n| {
            let items = each(n, |index| json!({"file": format!("{}{index}", "a/".repeat(2000)), "from": "a/b#k"}));
            asking(&[secrets(&items)], json!({"containers": app()}))
        },
        "*",
    ),
    (
        "from, a list",
        4000,
        |n| {
            let from = each(n, |index| format!("a/{index}"));
            asking(&[secrets(&[json!({"file": "a", "format": "json", "from": from})])], json!({"containers": app()}))
        },
        "",
    ),
    (
        "from, a list of the same",
        4000,
        |n| {
            asking(
                &[secrets(&[json!({"file": "a", "format": "json", "from": vec!["a/b"; n]})])],
                json!({"containers": app()}),
            )
        },
        "stands there twice",
    ),
    (
        "from, a map",
        4000,
        |n| {
            let from: serde_json::Map<_, _> = (0..n).map(|index| (format!("n{index}"), json!("a/b"))).collect();
            asking(&[secrets(&[json!({"file": "a", "format": "json", "from": from})])], json!({"containers": app()}))
        },
        "",
    ),
    (
        "rules and requests",
        800,
        |n| asking(&[files(n, |index| format!("ruled:secret/{index}#k"))], json!({"containers": app()})),
        "",
    ),
    (
        "rules and long requests",
        30,
        |n| asking(&[files(n, |index| format!("ruled:{}{index}#k", "x/".repeat(1900)))], json!({"containers": app()})),
        "may not request",
    ),
    (
        "image pull secrets",
        20_000,
        |n| {
            let secrets = each(n, |index| json!({"name": format!("s{index}")}));
            asking(&[file()], json!({"containers": app(), "imagePullSecrets": secrets}))
        },
        "",
    ),
    (
        "labels of nodes",
        20_000,
        |n| {
            let labels: serde_json::Map<_, _> = (0..n).map(|index| (format!("l{index}"), json!("x"))).collect();
            asking(&[file()], json!({"containers": app(), "nodeSelector": labels}))
        },
        "",
    ),
    (
        "resources",
        20_000,
        |n| {
            let names: serde_json::Map<_, _> = (0..n).map(|index| (format!("r{index}"), json!("1"))).collect();
            asking(&[file()], json!({"containers": [{"name": "app", "resources": {"limits": names}}]}))
        },
        "",
    ),
    (
        "ephemeral containers and what they target",
        4000,
        |n| {
            let ephemeral = |index| json!({"name": format!("e{index}"), "targetContainerName": format!("c{index}"), "volumeMounts": [{"name": "data"}]});
            let agents = each(n, |index| json!({"name": format!("d{index}"), "command": ["/hushpod-agent"]}));
            let spec = json!({"containers": agents, "ephemeralContainers": each(n, ephemeral)});
            review("UPDATE", "ephemeralcontainers", &json!({"spec": spec}))
        },
        "",
    ),
];

#[test]
fn every_list_at_its_worst_takes_steps_in_proportion_and_within_the_budget() {
    let config = config(300);
    for &(name, most, build, denial) in CASES {
        let counts = [most / 4, most / 2, most].map(|length| count(&injector(&config), &build(length)));
        for counted in &counts {
            let message = counted.response["status"]["message"].as_str().unwrap_or_default();
            assert!(counted.steps <= steps::REVIEW, "{name}: {} steps", counted.steps);
            match denial {
                "*" => {}
                "" => assert_ne!(counted.outcome, Outcome::Denied, "{name}: {message}"),
                part => assert!(message.contains(part), "{name}: {message}"),
            }
        }
        let [quarter, half, whole] = counts.map(|counted| counted.steps);
        assert!(
            half <= quarter * 5 / 2 + 500 && whole <= half * 5 / 2 + 500,
            "{name}: {quarter}, {half}, {whole} steps"
        );
    }
}

#[test]
fn a_usual_pod_takes_a_thousandth_of_the_budget() {
    let pairs = [file(), ("env.TOKEN", "ruled:secret/data/b#k".to_owned()), ("containers", "app".to_owned())];
    let usual = count(&injector(&config(20)), &asking(&pairs, json!({"containers": app()})));
    assert_eq!(usual.outcome, Outcome::Injected, "{}", usual.response);
    assert!((50..steps::REVIEW / 1000).contains(&usual.steps), "{}", usual.steps);
}

#[test]
fn what_is_over_a_limit_is_denied_by_name_and_what_is_at_it_is_not() {
    let injector = injector(&config(1));
    let one = |yaml: String| vec![("secrets", yaml)];
    let padded = |bytes: usize| {
        let (key, value) = file();
        let room = bytes - "hushpod.dev/".len() * 2 - key.len() - value.len() - "refresh-now".len();
        vec![(key, value), ("refresh-now", "x".repeat(room))]
    };
    let reference = |bytes: usize| vec![("file.a", format!("a{}#k", "/a".repeat((bytes - 3) / 2)))];
    let template =
        |bytes: usize| one(json!([{"file": "a", "from": {"a": "b"}, "template": "x".repeat(bytes)}]).to_string());
    // The list, the item, its keys and values, and the references.
    let nodes = |count: usize| {
        one(json!([{"file": "a", "format": "json", "from": each(count - 8, |index| format!("a{index}"))}]).to_string())
    };
    for (name, at, over, part) in [
        ("annotations", padded(MAX_BYTES), padded(MAX_BYTES + 1), "refresh-now: is the largest"),
        ("a reference", reference(MAX_REFERENCE_BYTES - 1), reference(MAX_REFERENCE_BYTES + 1), "at most 4096 bytes"),
        (
            "a template",
            template(MAX_TEMPLATE_BYTES),
            template(MAX_TEMPLATE_BYTES + 1),
            "template has at most 32768 bytes",
        ),
        ("YAML", nodes(MAX_YAML_NODES), nodes(MAX_YAML_NODES + 1), "more than 10000 values"),
    ] {
        let ask = |pairs: &[(&str, String)]| count(&injector, &asking(pairs, json!({"containers": app()})));
        let at = ask(&at).response;
        assert!(!at["status"]["message"].as_str().is_some_and(|message| message.contains(part)), "{name}: {at}");
        let over = ask(&over).response;
        assert!(over["status"]["message"].as_str().is_some_and(|message| message.contains(part)), "{name}: {over}");
    }
    let nodes = |count: usize| {
        let values = json!(vec![0; count]);
        // The pod, metadata, annotations and its one, spec, containers, one with name, command and a word; the list.
        count_of(&injector, &asking(&[file()], json!({"containers": app(), "imagePullSecrets": values})))
    };
    assert_eq!(nodes(MAX_NODES - 11), None);
    assert!(nodes(MAX_NODES - 10).is_some_and(|message| message.contains("more than 50000 values")));
}

/// The denial.
fn count_of(injector: &Injector, review: &Value) -> Option<String> {
    count(injector, review).response["status"]["message"].as_str().map(str::to_owned)
}

#[test]
fn yaml_of_annotations_has_no_aliases() {
    let injector = injector(&config(1));
    let bomb =
        "- &a [x,x,x,x,x,x,x,x]\n- &b [*a,*a,*a,*a,*a,*a,*a,*a]\n- &c [*b,*b,*b,*b,*b,*b,*b,*b]\n- [*c,*c,*c,*c]";
    for (yaml, part) in [
        (bomb, "has an anchor or alias at line 1"),
        ("- {file: a, from: *a}", "alias"),
        ("- {file: a, from: &a b#k}", "has an anchor or alias"),
        ("- {<<: {file: a}, from: b#k}", "secrets"),
    ] {
        let message = count_of(&injector, &asking(&[("secrets", yaml.to_owned())], json!({"containers": app()})));
        assert!(message.as_ref().is_some_and(|message| message.contains(part)), "{yaml}: {message:?}");
    }
}

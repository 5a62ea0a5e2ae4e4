//! What we admit, Kubernetes accepts, and a Guaranteed pod stays one: judged by Kubernetes' own defaulting and validation
//! (`tests/cluster/go/oracle`), over pods that others wrote. `tests/oracle/run` gathers them and calls this.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;

/// A pod, as the API server shows it to webhooks, and what Kubernetes thinks of it.
#[derive(Debug, Clone)]
struct Judged {
    problems: Vec<String>,
    qos: String,
    pod: Value,
}

fn variable(name: &str) -> PathBuf {
    env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: tests/oracle/run sets it")).into()
}

/// Kubernetes' verdict on each of some pods.
fn judge(pods: &[Value]) -> Vec<Judged> {
    let mut oracle = Command::new(variable("HUSHPOD_ORACLE"))
        .arg("judge")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the oracle starts");
    let mut lines = Vec::new();
    for pod in pods {
        serde_json::to_writer(&mut lines, pod).unwrap();
        lines.push(b'\n');
    }
    let mut stdin = oracle.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&lines));
    let output = oracle.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let verdicts: Vec<_> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter::<Value>()
        .map(|verdict| {
            let mut verdict = verdict.unwrap();
            let problems = verdict["problems"].as_array().unwrap().iter().map(text).collect();
            Judged { problems, qos: text(&verdict["qos"]), pod: verdict["pod"].take() }
        })
        .collect();
    assert_eq!(verdicts.len(), pods.len());
    verdicts
}

/// Once, by what remembers: the other tests look for differences.
fn decide_by(config: &str, pod: &Value) -> Decided {
    let review = review("CREATE", "", pod);
    let answered = answer(&serde_json::to_vec(&review).unwrap(), &seasoned(config));
    applied(&answered, &review)
}

/// JSON values, one after the other.
fn values(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::Deserializer::from_slice(&text).into_iter().map_while(Result::ok).collect()
}

/// Pods, and what decides on them.
type Cases = Vec<(&'static str, Value)>;

/// What the other tests asked about.
fn of_tests() -> Cases {
    let kept = values(&variable("HUSHPOD_ASKED"));
    assert!(kept.len() > 200, "only {} pods were asked about: did the other tests run?", kept.len());
    let config = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    kept.into_iter().map(|mut asked| (config(asked["config"].as_str().unwrap()), asked["pod"].take())).collect()
}

/// What fuzzing starts from.
fn of_fuzzing() -> Cases {
    const CONFIG: &str = include_str!("../../fuzz/src/config.yaml");
    let corpus = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus/admission")).unwrap();
    let reviews = corpus.flat_map(|entry| values(&entry.unwrap().path()));
    reviews.map(|mut review| (CONFIG, review["request"]["object"].take())).filter(|(_, pod)| pod.is_object()).collect()
}

/// What others wrote, with annotations that ask for much in different ways.
fn of_others() -> Cases {
    const WITHOUT_NATIVE: &str = "nativeSidecars: false\nimagePullSecrets: [pull]\n";
    const NOTHING: &str = "defaults: {resources.cpu-request: none, resources.cpu-limit: none, resources.memory-request: none, resources.memory-limit: none}\n";
    let classical: &'static str = Box::leak(format!("{CONFIG}{WITHOUT_NATIVE}").into_boxed_str());
    let none: &'static str = Box::leak(format!("{CONFIG}{NOTHING}").into_boxed_str());
    let found = values(&variable("HUSHPOD_PODS"));
    assert!(found.len() > 500, "only {} pods were found", found.len());
    let file = ("file.db", "secret/data/db#password");
    let mut cases = Cases::new();
    for mut pod in found {
        if pod["metadata"]["annotations"].is_null() {
            pod["metadata"]["annotations"] = json!({});
        }
        let mut with_commands = annotated(pod.clone(), &[file, ("env.HUSH", "secret/data/db#password")]);
        for container in with_commands["spec"]["containers"].as_array_mut().into_iter().flatten() {
            container["command"] = json!(["/app"]);
        }
        cases.extend([
            (CONFIG, annotated(pod.clone(), &[file])),
            (CONFIG, annotated(pod.clone(), &[file, ("mode", "init+sidecar"), ("init-order", "last")])),
            (CONFIG, annotated(pod.clone(), &[file, ("mode", "init"), ("resources.cpu-limit", "0.1")])),
            (
                CONFIG,
                annotated(pod.clone(), &[file, ("metrics-port", "9102"), ("notify", "http:http://localhost:1/x")]),
            ),
            (CONFIG, with_commands),
            (classical, annotated(pod.clone(), &[file, ("metrics-port", "8080"), ("mode", "sidecar")])),
            (none, annotated(pod.clone(), &[file])),
            // As much of everything as there can be in a pod.
            (CONFIG, annotated(guaranteed(pod.clone(), false), &[file])),
            (CONFIG, annotated(guaranteed(pod.clone(), true), &[file, ("resources.memory-limit", "1Gi")])),
            (CONFIG, annotated(with_requests(pod.clone(), json!({"cpu": "64"})), &[file])),
            (CONFIG, annotated(with_requests(pod.clone(), json!({"memory": "64Gi"})), &[file, ("mode", "init")])),
            (classical, annotated(with_requests(pod.clone(), json!({"cpu": "64", "memory": "64Gi"})), &[file])),
            (none, annotated(guaranteed(pod, true), &[file, ("mode", "init+sidecar")])),
        ]);
    }
    cases
}

/// The same pod with requests that equal its limits, each written in its own way; by container, or as a whole.
fn guaranteed(mut pod: Value, as_a_whole: bool) -> Value {
    let resources =
        json!({"requests": {"cpu": "1", "memory": "1073741824"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            container["resources"] = if as_a_whole { Value::Null } else { resources.clone() };
        }
    }
    if as_a_whole {
        pod["spec"]["resources"] = resources;
    }
    pod
}

/// The same by container, with requests of the pod as a whole, whose limits Kubernetes fills in.
fn with_requests(pod: Value, requests: Value) -> Value {
    with(guaranteed(pod, false), "/spec/resources", json!({"requests": requests}))
}

#[derive(Debug, Default)]
struct Tally {
    refused_before: usize,
    denied: BTreeMap<String, usize>,
    unchanged: usize,
    injected: BTreeMap<String, usize>,
    faults: Vec<String>,
}

fn check(name: &str, cases: Cases) -> Tally {
    let mut tally = Tally::default();
    let (configs, pods): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let before = judge(&pods);
    let mut asked = Vec::new();
    for (config, before) in configs.into_iter().zip(before) {
        if !before.problems.is_empty() {
            tally.refused_before += 1;
            continue;
        }
        let decided = decide_by(config, &before.pod);
        match decided.outcome {
            Outcome::Injected => asked.push((config, before, decided.pod)),
            Outcome::Unchanged => tally.unchanged += 1,
            Outcome::Denied => {
                let message = decided.response["status"]["message"].as_str().unwrap();
                let kind: String = message.chars().filter(|c| !c.is_ascii_digit()).take(48).collect();
                *tally.denied.entry(kind).or_default() += 1;
            }
            Outcome::Error => tally.faults.push(format!("{name}: {}", decided.response)),
        }
    }
    let after = judge(&asked.iter().map(|(_, _, pod)| pod.clone()).collect::<Vec<_>>());
    for ((config, before, patched), after) in asked.into_iter().zip(after) {
        *tally.injected.entry(format!("{} to {}", before.qos, after.qos)).or_default() += 1;
        let mut fault =
            |what: String| tally.faults.push(format!("{name}: {what}\n  before: {}\n  after: {patched}", before.pod));
        if !after.problems.is_empty() {
            fault(after.problems.join("; "));
            continue;
        }
        if before.qos == "Guaranteed" && after.qos != before.qos {
            fault(format!("it was Guaranteed, and is {}", after.qos));
        }
        let again = decide_by(config, &after.pod);
        if !again.patch.is_empty() || again.outcome != Outcome::Unchanged {
            fault(format!("a second pass: {:?} {}", again.patch, again.response));
        }
    }
    tally
}

#[test]
#[ignore = "tests/oracle/run builds what it asks, and gathers pods"]
fn p7_what_we_admit_kubernetes_accepts() {
    let (mut faults, mut said) = (Vec::new(), std::io::stdout());
    for (name, cases) in [("the tests", of_tests()), ("fuzzing", of_fuzzing()), ("others", of_others())] {
        let tally = check(name, cases);
        let (refused, unchanged) = (tally.refused_before, tally.unchanged);
        writeln!(said, "pods of {name}: {refused} that Kubernetes refuses anyway, {unchanged} left as they were")
            .unwrap();
        writeln!(said, "  injected, by QoS class: {:?}\n  denied: {:?}", tally.injected, tally.denied).unwrap();
        assert!(tally.injected.values().sum::<usize>() > 0, "nothing of {name} was injected");
        faults.extend(tally.faults);
    }
    let most = 10;
    assert!(
        faults.is_empty(),
        "{} faults, of which the first:\n{}",
        faults.len(),
        faults[..faults.len().min(most)].join("\n")
    );
}

#[test]
#[ignore = "tests/oracle/run builds what it asks, and gathers pods"]
fn the_oracle_sees_what_it_is_there_for() {
    let equal = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
    let whole = with(pod(), "/spec/resources", equal.clone());
    let more = with(whole.clone(), "/spec/containers/0/resources", equal.clone());
    let sidecar = json!({"name": "late", "image": "x", "resources": {"requests": {"cpu": "50m"}}});
    let over = with(more.clone(), "/spec/containers/1", sidecar.clone());
    let guaranteed = with(pod(), "/spec/containers/0/resources", equal);
    let burstable = with(guaranteed.clone(), "/spec/containers/1", sidecar);
    let verdicts = judge(&[pod(), whole, more, over, guaranteed, burstable]);
    let classes: Vec<_> = verdicts.iter().map(|judged| (judged.qos.as_str(), judged.problems.len())).collect();
    let expected = [
        ("BestEffort", 0),
        ("Guaranteed", 0),
        ("Guaranteed", 0),
        ("Guaranteed", 1),
        ("Guaranteed", 0),
        ("Burstable", 0),
    ];
    assert_eq!(classes, expected, "{verdicts:?}");
    assert!(verdicts[3].problems[0].contains("aggregate container requests"), "{:?}", verdicts[3].problems);
}

/// By sums a pod may be Guaranteed although one of its containers has a request below its limit: where an init container
/// has more than both. Ours run beside that container, and bring the difference to light if the init container has less
/// memory than the sum with ours. With zeros the pod would stay Guaranteed, but ours would live on the application's memory.
#[test]
#[ignore = "tests/oracle/run builds what it asks, and gathers pods"]
fn p7_a_class_that_rests_on_an_init_container_may_be_lost() {
    let resources = |request: &str, limit: &str| json!({"requests": {"memory": request}, "limits": {"memory": limit}});
    let cpu = json!({"cpu": "1"});
    let hidden = with(pod(), "/spec/resources", json!({"requests": cpu, "limits": cpu}));
    let hidden = with(hidden, "/spec/containers/0/resources", resources("10Mi", "18Mi"));
    for (memory, order, expected) in
        [("20Mi", "first", "Guaranteed"), ("20Mi", "last", "Burstable"), ("1Gi", "last", "Guaranteed")]
    {
        let init = json!([{"name": "early", "image": "x", "resources": resources(memory, memory)}]);
        let whole = annotated(with(hidden.clone(), "/spec/initContainers", init), &[("init-order", order)]);
        let before = judge(&[whole]).remove(0);
        assert_eq!((before.qos.as_str(), before.problems.len()), ("Guaranteed", 0), "{before:?}");
        let after = judge(&[decide_by(CONFIG, &before.pod).pod]).remove(0);
        assert_eq!((after.qos.as_str(), after.problems.len()), (expected, 0), "{memory} {order}: {after:?}");
    }
}

/// Whatever the configuration takes for a bundle, the API server takes in a pod, and the other way round: but for names
/// of signers that there cannot be, which it looks at where a bundle is made.
#[test]
#[ignore = "tests/oracle/run builds what it asks, and gathers pods"]
fn p9_a_bundle_that_the_configuration_takes_kubernetes_takes() {
    let (long, longer, longest) = ("a".repeat(63), "a".repeat(64), "a".repeat(253));
    let many = [&*long; 4].join(".");
    let names = format!(
        "a a.b a-b a--b a..b .a a. -a a- A a_b a/b ä 0 {longer} {longest} {many} example.com:a:b example.com:a:b.c \
         example.com:a: example.com:a.b:c"
    );
    let of_no_signer = ["example.com::b", ":a:b", "example:a:b", "a:b", "a.b:c:d:e", "Example.com:a:b"];
    let names = names.split(' ').chain(of_no_signer).chain(["a b", ""]);
    let mut bundles: Vec<_> = names.map(|name| json!({"name": name})).collect();
    let signers = format!(
        "example.com/a example.com/a.b example/a example.com example.com/ /a example.com/a/b Example.com/a example.com/A \
         example.com/a_b -a.com/a a..com/a {longer}.com/a {long}.com/{longer} {many}.com/a a.b/c..d a.b/c-"
    );
    bundles.extend(signers.split(' ').map(|signer| json!({"signerName": signer, "labelSelector": {}})));
    let labels = format!(
        "a a.b_c-d A _a a_ -a a. ä {long} {longer} example.com/a example/a Example.com/a example.com/a/b /a a/ \
         example..com/a 0"
    );
    let selected = |selector: Value| json!({"signerName": "example.com/a", "labelSelector": selector});
    for label in labels.split(' ').chain(["a b"]) {
        bundles.push(selected(json!({"matchLabels": {label: "x"}})));
        bundles.push(selected(json!({"matchLabels": {"x": label}})));
        bundles.push(selected(json!({"matchExpressions": [{"key": label, "operator": "Exists"}]})));
        bundles.push(selected(json!({"matchExpressions": [{"key": "x", "operator": "In", "values": ["y", label]}]})));
    }
    bundles.push(selected(json!({"matchLabels": {"x": ""}, "matchExpressions": []})));
    for (operator, values) in ["In", "NotIn", "Exists", "DoesNotExist", "Gt"]
        .iter()
        .flat_map(|operator| [json!([]), json!(["a"]), json!(["a", ""])].map(|values| (*operator, values)))
    {
        bundles.push(selected(json!({"matchExpressions": [{"key": "x", "operator": operator, "values": values}]})));
    }
    let pods: Vec<_> = bundles
        .iter()
        .map(|bundle| {
            let mut source = bundle.clone();
            source["path"] = json!("vault");
            let sources = json!([{"clusterTrustBundle": source}]);
            with(pod(), "/spec/volumes/1", json!({"name": "ca", "projected": {"sources": sources}}))
        })
        .collect();
    let (mut taken, mut refused, mut differ) = (0, 0, Vec::new());
    for (bundle, judged) in bundles.iter().zip(judge(&pods)) {
        let config =
            json!({"image": "i", "providers": {"s": {"type": "vault", "address": "https://v", "caBundle": bundle}}});
        let ours = Config::from_yaml(&config.to_string());
        let is_nobodys = bundle["name"].as_str().is_some_and(|name| of_no_signer.contains(&name));
        if (ours.is_ok() || is_nobodys) != judged.problems.is_empty() || (is_nobodys && ours.is_ok()) {
            differ.push(format!("{bundle}: {:?}, {:?}", ours.as_ref().err(), judged.problems));
        }
        *if ours.is_ok() { &mut taken } else { &mut refused } += 1;
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(taken > 20 && refused > 20, "{taken} taken, {refused} refused");
}

//! Parameter Store's names, versions and trees.

use super::*;
use hushpod::secret::SecretTree;

on_aws!(
    parameters_of_every_type_are_read,
    versions_and_labels_are_read_beside_the_present_one,
    shared_parameters_are_read_by_their_arn,
    a_tree_is_a_document_of_its_parameters,
    a_tree_of_many_pages_is_read_whole,
    an_empty_tree_is_missing,
    many_parameters_take_few_calls,
);

/// `GetParameters`, or another operation, and whether it decrypts.
fn calls(store: &Store) -> Option<Vec<(String, bool)>> {
    let calls = store.seen()?;
    Some(calls.iter().map(|seen| (operation(seen), seen.json()["WithDecryption"] == json!(true))).collect())
}

async fn parameters_of_every_type_are_read(store: &Store) {
    let root = format!("/{}", store.name("types"));
    let pod = store.pod(&root).await;
    let mut parameters = pod.parameters();
    for (kind, needs_decryption) in [("String", false), ("StringList", false), ("SecureString", true)] {
        let name = format!("{root}/{kind}");
        store.put_parameter(&name, kind, "canary,1").await;
        let requests = [pod.parameter(&name)];
        let answer = fresh(read(&mut parameters, &requests[0]).await);
        assert_eq!(shown(&answer, "x"), b"canary,1");
        let held = [answer.version];
        store.put_parameter(&name, kind, "canary,2").await;
        store.seen();
        let answer = fresh(read_all(&mut parameters, &requests, &held).await.remove(0));
        assert_eq!(shown(&answer, "x"), b"canary,2");
        let Some(calls) = calls(store) else { continue };
        let look = ("GetParameters".to_owned(), false);
        let expected = if needs_decryption { vec![look, ("GetParameters".to_owned(), true)] } else { vec![look] };
        assert_eq!(calls, expected, "{kind}");
    }
}

async fn versions_and_labels_are_read_beside_the_present_one(store: &Store) {
    let name = format!("/{}", store.name("db"));
    for round in 1..4 {
        store.put_parameter(&name, "SecureString", &format!("canary-{round}")).await;
    }
    let label = json!({"Name": name, "ParameterVersion": 2, "Labels": ["stable"]});
    store.must("ssm", "LabelParameterVersion", label).await;
    let pod = store.pod(&name).await;
    let mut parameters = pod.parameters();
    let references = ["", "?version=1", "?version=stable", "?version=3"];
    let requests = references.map(|version| pod.parameter(&format!("{name}{version}")));
    let results = parameters.read(&requests, &Known::new()).await;
    let found: Vec<_> = results.into_iter().map(|result| shown(&fresh(result), "x")).collect();
    assert_eq!(found, ["canary-3", "canary-1", "canary-2", "canary-3"].map(|text| text.as_bytes().to_vec()));
    for version in ["77", "canary-free"] {
        let error = refused(&mut parameters, &pod.parameter(&format!("{name}?version={version}"))).await;
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.message.contains(&format!("version {version}")), "{error}");
    }
}

async fn shared_parameters_are_read_by_their_arn(store: &Store) {
    let name = format!("/{}/db", store.name("shared"));
    store.put_parameter(&name, "SecureString", "canary").await;
    let pod = store.pod(&name).await;
    let mut parameters = pod.parameters();
    let arn = pod.parameter(&format!("ssm:arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{name}"));
    assert_eq!(text(&mut parameters, &arn).await, "canary");
}

async fn a_tree_is_a_document_of_its_parameters(store: &Store) {
    let root = format!("/{}", store.name("tree"));
    for (name, kind) in [("user", "String"), ("password", "SecureString"), ("tls/key", "SecureString")] {
        store.put_parameter(&format!("{root}/{name}"), kind, &format!("canary-{name}")).await;
    }
    store.put_parameter(&format!("{root}-beside/user"), "String", "canary-beside").await;
    let pod = store.pod(&root).await;
    let mut parameters = pod.parameters();
    let requests = [pod.parameter(&format!("{root}/"))];
    let answer = fresh(read(&mut parameters, &requests[0]).await);
    for name in ["user", "password", "tls/key"] {
        assert_eq!(shown(&answer, &format!("x#{name}")), format!("canary-{name}").as_bytes());
    }
    let held = [answer.version];
    store.seen();
    assert_eq!(read_all(&mut parameters, &requests, &held).await, [Ok(Reading::NotModified)]);
    assert!(calls(store).is_none_or(|calls| calls == [("GetParametersByPath".to_owned(), false)]));
    store.put_parameter(&format!("{root}/password"), "SecureString", "canary-new").await;
    store.delete_parameter(&format!("{root}/user")).await;
    let answer = fresh(read_all(&mut parameters, &requests, &held).await.remove(0));
    assert_eq!(shown(&answer, "x#password"), b"canary-new");
    assert!(answer.tree.key("user").is_err() && answer.version != held[0]);
}

async fn a_tree_of_many_pages_is_read_whole(store: &Store) {
    let root = format!("/{}", store.name("tree"));
    for number in 0..23 {
        store.put_parameter(&format!("{root}/p{number}"), "String", &format!("canary-{number}")).await;
    }
    let pod = store.pod(&root).await;
    let mut parameters = pod.parameters();
    store.seen();
    let answer = fresh(read(&mut parameters, &pod.parameter(&format!("{root}/"))).await);
    for number in 0..23 {
        assert_eq!(shown(&answer, &format!("x#p{number}")), format!("canary-{number}").as_bytes());
    }
    assert!(calls(store).is_none_or(|calls| calls.len() == 1 + 3), "the login and three pages");
}

async fn an_empty_tree_is_missing(store: &Store) {
    let root = format!("/{}", store.name("tree"));
    store.put_parameter(&format!("{root}/user"), "String", "canary").await;
    let pod = store.pod(&root).await;
    let mut parameters = pod.parameters();
    let requests = [pod.parameter(&format!("{root}/"))];
    let held = [fresh(read(&mut parameters, &requests[0]).await).version];
    store.delete_parameter(&format!("{root}/user")).await;
    let error = read_all(&mut parameters, &requests, &held).await.remove(0).unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["no parameters below", &root]);
}

async fn many_parameters_take_few_calls(store: &Store) {
    let root = format!("/{}", store.name("many"));
    let pod = store.pod(&root).await;
    let mut requests = Vec::new();
    for number in 0..20 {
        let name = format!("{root}/p{number}");
        store.put_parameter(&name, "SecureString", &format!("canary-{number}")).await;
        requests.push(pod.parameter(&name));
    }
    let mut parameters = pod.parameters();
    let results = parameters.read(&requests, &Known::new()).await;
    let mut held = Vec::new();
    for (number, result) in results.into_iter().enumerate() {
        let answer = fresh(result);
        assert_eq!(shown(&answer, "x"), format!("canary-{number}").as_bytes());
        held.push(answer.version);
    }
    store.seen();
    let results = read_all(&mut parameters, &requests, &held).await;
    assert!(results.iter().all(|result| *result == Ok(Reading::NotModified)));
    assert!(calls(store).is_none_or(|calls| calls == vec![("GetParameters".to_owned(), false); 2]));
}

#[tokio::test]
async fn a_parameter_made_anew_is_another_although_its_number_is_the_same() {
    let store = Store::fake().await;
    let name = format!("/{}", store.name("again"));
    store.put_parameter(&name, "SecureString", "canary-1").await;
    let pod = store.pod(&name).await;
    let mut parameters = pod.parameters();
    let requests = [pod.parameter(&name)];
    let held = [fresh(read(&mut parameters, &requests[0]).await).version];
    store.delete_parameter(&name).await;
    store.put_parameter(&name, "SecureString", "canary-2").await;
    let answer = fresh(read_all(&mut parameters, &requests, &held).await.remove(0));
    assert_eq!(shown(&answer, "x"), b"canary-2");
}

#[tokio::test]
async fn one_denied_parameter_does_not_cost_the_others() {
    let store = Store::fake().await;
    let root = format!("/{}", store.name("mixed"));
    for name in ["open-1", "closed", "open-2"] {
        store.put_parameter(&format!("{root}/{name}"), "SecureString", &format!("canary-{name}")).await;
    }
    let open = format!("{root}/open-");
    let pod = store.pod_with(&[("ssm:GetParameters", &open), ("kms:Decrypt", &open)]).await;
    let mut parameters = pod.parameters();
    let requests = ["open-1", "closed", "open-2"].map(|name| pod.parameter(&format!("{root}/{name}")));
    // All together, each alone; from then on the denied one alone, the others together.
    for expected in [1 + 1 + 3, 2] {
        store.seen();
        let mut results = parameters.read(&requests, &Known::new()).await;
        let error = results.remove(1).unwrap_err();
        assert_error(&error, ErrorKind::Denied, &["/closed", "lacks ssm:GetParameters"]);
        let found: Vec<_> = results.into_iter().map(|result| shown(&fresh(result), "x")).collect();
        assert_eq!(found, [b"canary-open-1".to_vec(), b"canary-open-2".to_vec()]);
        assert_eq!(store.seen().unwrap().len(), expected);
    }
}

#[tokio::test]
async fn what_cannot_be_decrypted_in_a_tree_withholds_itself_alone() {
    let store = Store::fake().await;
    let root = format!("/{}", store.name("forest"));
    for (name, kind) in
        [("open-1", "SecureString"), ("closed", "SecureString"), ("open-2", "SecureString"), ("plain", "String")]
    {
        store.put_parameter(&format!("{root}/{name}"), kind, &format!("canary-{name}")).await;
    }
    let open = format!("{root}/open-");
    let rights =
        [("ssm:GetParameters", root.as_str()), ("ssm:GetParametersByPath", root.as_str()), ("kms:Decrypt", &open)];
    let pod = store.pod_with(&rights).await;
    let (mut one, mut two) = (pod.parameters(), pod.parameters());
    let request = pod.parameter(&format!("{root}/"));
    let answer = fresh(read(&mut one, &request).await);
    for name in ["open-1", "open-2", "plain"] {
        let SecretTree::Text(value) = answer.tree.key(name).unwrap() else { panic!("{name}") };
        assert_eq!(value.expose_str(), Some(format!("canary-{name}").as_str()));
    }
    let SecretTree::Withheld(why) = answer.tree.key("closed").unwrap() else { panic!("it may not be decrypted") };
    assert!(why.contains("kms:Decrypt") && !why.contains("canary"), "{why}");
    assert_eq!(fresh(read(&mut two, &request).await).version, answer.version, "replicas agree on what they leave out");
    let held = [answer.version.clone()];
    let requests = [request];
    assert_eq!(read_all(&mut one, &requests, &held).await.remove(0), Ok(Reading::NotModified));
    store.put_parameter(&format!("{root}/open-1"), "SecureString", "canary-new").await;
    let next = fresh(read_all(&mut one, &requests, &held).await.remove(0));
    assert!(next.tree.key("open-1").unwrap() == SecretTree::Text("canary-new".into()));
    assert_ne!(next.version, answer.version);
}

#[tokio::test]
async fn what_cannot_be_decrypted_names_the_right_that_lacks() {
    let store = Store::fake().await;
    let name = format!("/{}", store.name("locked"));
    store.put_parameter(&name, "SecureString", "canary").await;
    let pod = store.pod_with(&[("ssm:GetParameters", &name)]).await;
    let error = refused(&mut pod.parameters(), &pod.parameter(&name)).await;
    assert_error(&error, ErrorKind::Denied, &["lacks kms:Decrypt"]);
}

#[tokio::test]
async fn there_are_no_leases() {
    let store = Store::fake().await;
    let root = format!("/{}", store.name("unleased"));
    store.put_parameter(&format!("{root}/db"), "SecureString", "canary").await;
    let pod = store.pod(&root).await;
    for reference in [format!("{root}/db"), format!("{root}/")] {
        assert_no_leases(&mut pod.parameters(), &pod.parameter(&reference)).await;
    }
}

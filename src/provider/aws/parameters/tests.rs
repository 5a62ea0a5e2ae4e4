use super::*;

fn request(path: &str) -> Request {
    let (path, version) = path.split_once(':').map_or((path, None), |(path, version)| (path, Some(version)));
    let params = version.map(|version| ("version".to_owned(), version.to_owned())).into_iter().collect();
    Request { provider: "ssm".into(), path: path.into(), params }
}

#[test]
fn a_call_names_ten_parameters_and_each_once() {
    let many: Vec<_> = (0..23).map(|number| request(&format!("/p{number}"))).collect();
    for (requests, alone, sizes) in [
        (many.clone(), vec![], vec![10, 10, 3]),
        (many, vec![request("/p3"), request("/p4")], vec![1, 1, 10, 10, 1]),
        (vec![request("/p"), request("/p:1"), request("/p:2"), request("/q:1")], vec![], vec![2, 1, 1]),
        (vec![], vec![request("/p")], vec![]),
    ] {
        let requests: Vec<_> = requests.iter().collect();
        let found = batches(&requests, &alone.into_iter().collect());
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
        assert_eq!(found.concat().into_iter().collect::<BTreeSet<_>>(), requests.into_iter().collect());
    }
}

#[test]
fn versions_of_trees_are_of_names_and_versions_alone() {
    let parameter = |version: u64, date: f64, value: &str| Parameter {
        name: String::new(),
        arn: None,
        kind: "SecureString".into(),
        value: value.into(),
        version,
        last_modified_date: date,
    };
    let tree = |name: &str, parameter| BTreeMap::from([(name.to_owned(), parameter)]);
    let of = |name: &str, parameter| tree_version(&tree(name, parameter), &BTreeMap::new());
    let without = |name: &str| {
        tree_version(&tree("a", parameter(1, 1.5, "canary")), &BTreeMap::from([(name.to_owned(), UNDECRYPTED)]))
    };
    let version = of("a", parameter(1, 1.5, "canary"));
    assert_eq!(version, of("a", parameter(1, 1.5, "other")));
    assert_eq!(version.0.len(), 2 * DIGEST);
    for other in [
        of("b", parameter(1, 1.5, "canary")),
        of("a", parameter(2, 1.5, "canary")),
        of("a", parameter(1, 2.5, "canary")),
        without("b"),
    ] {
        assert_ne!(version, other);
    }
    assert_ne!(without("b"), without("c"), "what is left out is in it, too");
}

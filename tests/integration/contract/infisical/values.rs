//! Folders, imports, references, versions: what becomes of an answer.

use super::*;

#[tokio::test]
async fn a_folder_is_one_request_whatever_is_taken_of_it() {
    let pod = Pod::new().await;
    pod.put("/inference", "HF_TOKEN", "canary-1");
    pod.put("/inference", "OTHER", "canary-2");
    let requests: Vec<_> =
        ["/inference#HF_TOKEN", "/inference#OTHER", "inference"].map(|text| pod.request(text)).into();
    assert!(requests.windows(2).all(|pair| pair[0] == pair[1]));
    let answer = pod.fresh(&mut pod.infisical(), "/inference").await;
    assert_eq!(shown(&answer), pairs(&[("HF_TOKEN", "canary-1"), ("OTHER", "canary-2")]));
    assert_eq!(pod.seen(), ["v1/auth/kubernetes-auth/login", "v4/secrets"]);
}

#[tokio::test]
async fn servers_of_all_years_are_read_alike_and_what_they_have_is_remembered() {
    for (year, paths) in [
        (Year::Y2024, &["v4/secrets", "v3/secrets/raw", "v3/secrets/raw"][..]),
        (Year::Y2025, &["v4/secrets", "v4/secrets"]),
        (Year::Y2026, &["v4/secrets", "v4/secrets"]),
    ] {
        let pod = Pod::of(year).await;
        // Some take imports and references for granted, and some do not.
        pod.put("/a", "OWN", "canary ${REFERRED} ${prod.b.IMPORTED}");
        pod.put("/a", "REFERRED", "canary-r");
        pod.put("/b", "IMPORTED", "canary-i");
        pod.fake.server().import("prod", "/a", ("prod", "/b"));
        let mut infisical = pod.infisical();
        for _ in 0..2 {
            let answer = pod.fresh(&mut infisical, "/a").await;
            let expected = [("IMPORTED", "canary-i"), ("OWN", "canary canary-r canary-i"), ("REFERRED", "canary-r")];
            assert_eq!(shown(&answer), pairs(&expected), "{year:?}");
        }
        let seen = pod.seen();
        assert_eq!(&seen[1..], paths, "{year:?}");
        pod.fresh(&mut infisical, "/a?secret=OWN").await;
        let prefix = if year == Year::Y2024 { "v3/secrets/raw" } else { "v4/secrets" };
        assert_eq!(pod.seen(), [format!("{prefix}/OWN")]);
    }
}

/// A server of 2024 shows a web page in place of what its API does not know.
#[tokio::test]
async fn what_is_missing_is_missing_only_if_an_api_says_so() {
    let own =
        |message: &str| json!({"reqId": "r", "statusCode": 404, "error": "NotFound", "message": message}).to_string();
    for year in [Year::Y2024, Year::Y2025, Year::Y2026] {
        let pod = Pod::of(year).await;
        pod.put("/a", "K", "canary");
        let error = pod.refused(&mut pod.infisical(), "/a?secret=NONE").await;
        assert_error(&error, ErrorKind::NotFound, &["NONE", "does not exist"]);
        // The newer API says so, and nobody knows yet that it is there: the older one is asked.
        pod.fake.fail(|received| received.path.contains("/v4/"), 1, Fault::Status(404, Vec::new(), own("Not here")));
        let mut infisical = pod.infisical();
        assert_eq!(shown(&pod.fresh(&mut infisical, "/a?secret=K").await), pairs(&[("K", "canary")]), "{year:?}");
        pod.seen();
        pod.fresh(&mut infisical, "/a").await;
        assert_eq!(pod.seen(), ["v3/secrets/raw"]);
    }
}

#[tokio::test]
async fn imports_are_merged_from_the_last_to_the_first_and_direct_secrets_win() {
    for year in [Year::Y2024, Year::Y2026] {
        let pod = Pod::of(year).await;
        pod.put("/a", "X", "direct");
        for (path, keys) in [("/one", ["X", "Y", "Z"]), ("/two", ["X", "Y", "W"])] {
            for key in keys {
                pod.put(path, key, path);
            }
            pod.fake.server().import("prod", "/a", ("prod", path));
        }
        let answer = pod.fresh(&mut pod.infisical(), "/a").await;
        assert_eq!(shown(&answer), pairs(&[("W", "/two"), ("X", "direct"), ("Y", "/two"), ("Z", "/one")]));
    }
}

#[tokio::test]
async fn sub_folders_are_read_if_that_is_wished_and_repeat_no_key() {
    let pod = Pod::new().await;
    pod.put("/a", "TOP", "1");
    pod.put("/a/b", "BELOW", "2");
    pod.put("/ab", "BESIDE", "3");
    let mut infisical = pod.infisical();
    assert_eq!(shown(&pod.fresh(&mut infisical, "/a").await), pairs(&[("TOP", "1")]));
    let below = pairs(&[("BELOW", "2"), ("TOP", "1")]);
    assert_eq!(shown(&pod.fresh(&mut infisical, "/a?recursive=true").await), below);
    pod.put("/a/b/c", "TOP", "canary");
    let answer = pod.fresh(&mut infisical, "/a?recursive=true").await;
    assert_eq!(withheld(&answer, "TOP"), "is in two of its folders: take them one by one, or rename one");
    assert_eq!(answer.tree.key("BELOW"), Ok(SecretTree::Text("2".into())));
}

#[tokio::test]
async fn tags_choose() {
    for year in [Year::Y2024, Year::Y2026] {
        let pod = Pod::of(year).await;
        for (key, tag) in [("A", "web"), ("B", "db"), ("C", "other")] {
            pod.put("/a", key, "v");
            pod.fake.server().secret("prod", "/a", key).tags = vec![tag.to_owned()];
        }
        let answer = pod.fresh(&mut pod.infisical(), "/a?tags=db,web").await;
        assert_eq!(shown(&answer), pairs(&[("A", "v"), ("B", "v")]));
    }
}

#[tokio::test]
async fn p3_references_that_lead_nowhere_are_told_and_not_delivered() {
    let pod = Pod::new().await;
    pod.put("/a", "URL", "canary://${prod.db.PASSWORD}@db");
    let mut infisical = pod.infisical();
    pod.put("/a", "OTHER", "canary-o");
    let answer = pod.fresh(&mut infisical, "/a").await;
    assert!(
        withheld(&answer, "URL").contains("has a ${…} in it") && withheld(&answer, "URL").contains("?unresolved=keep")
    );
    assert_eq!(
        answer.tree.key("OTHER"),
        Ok(SecretTree::Text("canary-o".into())),
        "what is not asked for spoils nothing"
    );
    let error = pod.refused(&mut infisical, "/a?secret=URL").await;
    assert_error(&error, ErrorKind::Invalid, &["/a", "URL", "${…}", "?unresolved=keep"]);
    pod.fake.server().remove("prod", "/a", "OTHER");
    let kept = pod.fresh(&mut infisical, "/a?unresolved=keep").await;
    assert_eq!(shown(&kept), pairs(&[("URL", "canary://${prod.db.PASSWORD}@db")]));
    pod.put("/db", "PASSWORD", "canary-p");
    assert_eq!(shown(&pod.fresh(&mut infisical, "/a").await), pairs(&[("URL", "canary://canary-p@db")]));
    // What a shell writes is no reference.
    pod.put("/s", "SCRIPT", "cd ${HOME:-/}; echo $${#}");
    pod.fresh(&mut infisical, "/s").await;
}

#[tokio::test]
async fn p5_a_hidden_value_is_a_denial_and_never_a_value() {
    let pod = Pod::new().await;
    pod.put("/a", "OPEN", "canary-open");
    pod.put("/a", "HIDDEN", "canary-hidden");
    pod.fake.server().secret("prod", "/a", "HIDDEN").is_hidden = true;
    let mut infisical = pod.infisical();
    let answer = pod.fresh(&mut infisical, "/a").await;
    assert!(withheld(&answer, "HIDDEN").starts_with("is hidden from this identity"));
    assert_eq!(answer.tree.key("OPEN"), Ok(SecretTree::Text("canary-open".into())));
    assert_eq!(pod.refused(&mut infisical, "/a?secret=HIDDEN").await.kind, ErrorKind::Denied);
    let open = pod.fresh(&mut infisical, "/a?secret=OPEN#OPEN").await;
    assert_eq!(shown(&open), pairs(&[("OPEN", "canary-open")]));
    assert_eq!(pod.logins(), 1, "no login makes it visible");
}

/// Servers refuse the whole folder for it, or leave the reference in the value.
#[tokio::test]
async fn what_refers_to_what_may_not_be_read_withholds_itself_alone() {
    for year in [Year::Y2024, Year::Y2025, Year::Y2026] {
        let pod = Pod::of(year).await;
        let closed = ("prod".to_owned(), "/closed".to_owned(), Rights::Describe);
        pod.fake.server().identity(IDENTITY).rights.push(closed);
        pod.put("/closed", "PASSWORD", "canary-closed");
        pod.put("/b", "HOST", "canary-host");
        pod.put("/a", "URL", "canary://${prod.closed.PASSWORD}@db");
        pod.put("/a", "ADDRESS", "${prod.b.HOST}:5432");
        pod.put("/a", "PLAIN", "canary-1");
        let (mut one, mut two) = (pod.infisical(), pod.infisical());
        let answer = pod.fresh(&mut one, "/a").await;
        assert!(!withheld(&answer, "URL").contains("canary"), "{year:?}");
        for (key, value) in [("ADDRESS", "canary-host:5432"), ("PLAIN", "canary-1")] {
            assert_eq!(answer.tree.key(key), Ok(SecretTree::Text(value.into())), "{year:?}");
        }
        assert_eq!(pod.fresh(&mut two, "/a").await.version, answer.version, "replicas agree on what they leave out");
        assert_eq!(pod.read_again(&mut one, "/a", answer.version.as_ref()).await, Ok(Reading::NotModified));
        // A rotation arrives, and so does the right.
        pod.put("/a", "PLAIN", "canary-2");
        let next = fresh(pod.read_again(&mut one, "/a", answer.version.as_ref()).await);
        assert_eq!(next.tree.key("PLAIN"), Ok(SecretTree::Text("canary-2".into())));
        pod.fake.server().identity(IDENTITY).rights.pop();
        let whole = fresh(pod.read_again(&mut one, "/a", next.version.as_ref()).await);
        assert_eq!(whole.tree.key("URL"), Ok(SecretTree::Text("canary://canary-closed@db".into())), "{year:?}");
        assert_ne!(whole.version, next.version);
        assert_eq!(pod.logins(), 2);
    }
}

#[tokio::test]
async fn p9_so_many_that_refer_are_asked_for_one_by_one_and_not_one_more() {
    let pod = Pod::of(Year::Y2026).await;
    let closed = ("prod".to_owned(), "/closed".to_owned(), Rights::Describe);
    pod.fake.server().identity(IDENTITY).rights.push(closed);
    pod.put("/closed", "PASSWORD", "canary-closed");
    for number in 0..64 {
        pod.put("/a", &format!("URL_{number}"), "canary://${prod.closed.PASSWORD}@db");
    }
    let mut infisical = pod.infisical();
    assert!(!withheld(&pod.fresh(&mut infisical, "/a").await, "URL_63").contains("canary"));
    pod.put("/a", "URL_64", "canary://${prod.closed.PASSWORD}@db");
    let error = pod.refused(&mut infisical, "/a").await;
    assert_error(&error, ErrorKind::Denied, &["more than 64 secrets refer to others", "?secret=<KEY>"]);
}

fn withheld(answer: &Answer, key: &str) -> String {
    match answer.tree.key(key).unwrap() {
        SecretTree::Withheld(why) => why.as_ref().to_owned(),
        other => panic!("{key} is not withheld: {other:?}"),
    }
}

#[tokio::test]
async fn p3_an_empty_folder_is_missing_and_never_empties_files() {
    for year in [Year::Y2024, Year::Y2026] {
        let pod = Pod::of(year).await;
        pod.put("/a", "K", "canary");
        let mut infisical = pod.infisical();
        for reference in ["/none", "/A"] {
            let error = pod.refused(&mut infisical, reference).await;
            assert_error(&error, ErrorKind::NotFound, &[reference, "prod", "is empty, or does not exist"]);
        }
        let held = pod.fresh(&mut infisical, "/a").await.version;
        pod.fake.server().remove("prod", "/a", "K");
        let error = pod.read_again(&mut infisical, "/a", held.as_ref()).await.unwrap_err();
        assert_error(&error, ErrorKind::NotFound, &["/a", "is empty"]);
        pod.put("/a", "K", "canary");
        pod.fresh(&mut infisical, "/a").await;
    }
}

#[tokio::test]
async fn what_an_identity_may_not_see_is_denied_or_missing() {
    for (year, rights, kind) in [
        (Year::Y2024, Rights::Nothing, ErrorKind::Denied),
        (Year::Y2026, Rights::Nothing, ErrorKind::NotFound),
        (Year::Y2026, Rights::Describe, ErrorKind::Denied),
    ] {
        let pod = Pod::of(year).await;
        pod.put("/a", "K", "canary");
        pod.fake.server().identity(IDENTITY).rights.push(("prod".to_owned(), "/a".to_owned(), rights));
        let mut infisical = pod.infisical();
        for _ in 0..2 {
            assert_eq!(pod.refused(&mut infisical, "/a").await.kind, kind, "{year:?} {rights:?}");
        }
        assert_eq!(pod.logins(), 1, "403 PermissionDenied is not a reason to log in");
    }
}

#[tokio::test]
async fn an_unchanged_folder_is_a_304_with_the_exact_etag() {
    for (year, reference) in
        [(Year::Y2024, "/a"), (Year::Y2024, "/a?secret=K"), (Year::Y2025, "/a"), (Year::Y2026, "/a")]
    {
        let pod = Pod::of(year).await;
        pod.put("/a", "K", "canary");
        let mut infisical = pod.infisical();
        let held = pod.fresh(&mut infisical, reference).await.version;
        pod.fake.take_answered();
        for _ in 0..3 {
            assert_eq!(pod.read_again(&mut infisical, reference, held.as_ref()).await, Ok(Reading::NotModified));
        }
        let answered = pod.fake.take_answered();
        assert!(answered.iter().all(|(.., status)| *status == 304), "{year:?} {reference}: {answered:?}");
        // A caller that holds nothing, or something else, is answered in full.
        pod.fresh(&mut infisical, reference).await;
        let other = Version("0123456789abcdef".to_owned());
        fresh(pod.read_again(&mut infisical, reference, Some(&other)).await);
    }
}

#[tokio::test]
async fn a_forgotten_etag_is_no_change() {
    let pod = Pod::new().await;
    pod.put("/a", "K", "canary");
    let mut infisical = pod.infisical();
    let held = pod.fresh(&mut infisical, "/a").await.version;
    pod.fake.server().forget_etags();
    pod.fake.take_answered();
    for status in [200, 304] {
        assert_eq!(pod.read_again(&mut infisical, "/a", held.as_ref()).await, Ok(Reading::NotModified));
        assert_eq!(pod.fake.take_answered()[0].2, status);
    }
}

#[tokio::test]
async fn a_changed_comment_is_no_change() {
    let pod = Pod::new().await;
    pod.put("/a", "K", "canary");
    let mut infisical = pod.infisical();
    let held = pod.fresh(&mut infisical, "/a").await.version;
    pod.fake.server().secret("prod", "/a", "K").comment = "rotated by hand".to_owned();
    assert_eq!(pod.read_again(&mut infisical, "/a", held.as_ref()).await, Ok(Reading::NotModified));
}

#[tokio::test]
async fn replicas_agree_on_versions_and_a_change_elsewhere_is_seen_all_the_same() {
    let pod = Pod::new().await;
    pod.put("/a", "URL", "canary://${prod.db.PASSWORD}");
    pod.put("/db", "PASSWORD", "canary-1");
    let (mut one, mut two) = (pod.infisical(), pod.infisical());
    let held = pod.fresh(&mut one, "/a").await.version;
    assert_eq!(pod.fresh(&mut two, "/a").await.version, held);
    assert!(!held.as_ref().unwrap().0.contains('+'));
    // No version of anything in /a tells this.
    pod.put("/db", "PASSWORD", "canary-2");
    let next = fresh(pod.read_again(&mut one, "/a", held.as_ref()).await);
    assert_eq!(shown(&next), pairs(&[("URL", "canary://canary-2")]));
    assert_ne!(next.version, held);
    assert_eq!(pod.read_again(&mut one, "/a", next.version.as_ref()).await, Ok(Reading::NotModified));
    // From the next version on, they agree again.
    pod.put("/a", "URL", "canary://${prod.db.PASSWORD}/x");
    let version = fresh(pod.read_again(&mut one, "/a", next.version.as_ref()).await).version;
    assert_eq!(pod.fresh(&mut two, "/a").await.version, version);
}

#[tokio::test]
async fn a_pin_is_not_answered_with_an_imports_secret() {
    let pod = Pod::new().await;
    pod.put("/a", "K", "canary-own");
    pod.put("/b", "K", "canary-imported");
    pod.fake.server().import("prod", "/a", ("prod", "/b"));
    let mut infisical = pod.infisical();
    let pinned = pod.fresh(&mut infisical, "/a?version=1#K").await;
    assert_eq!(shown(&pinned), pairs(&[("K", "canary-own")]));
    assert_eq!(pinned.version, Some(Version("1".to_owned())));
    let error = pod.refused(&mut infisical, "/a?version=2#K").await;
    assert_error(&error, ErrorKind::NotFound, &["version 2 of K of /a"]);
    pod.seen();
    let held = pinned.version.as_ref();
    assert_eq!(pod.read_again(&mut infisical, "/a?version=1#K", held).await, Ok(Reading::NotModified));
    assert!(pod.seen().is_empty(), "a version never changes");
}

#[tokio::test]
async fn a_folder_cannot_be_read_again_as_it_was() {
    let pod = Pod::new().await;
    pod.put("/a", "K", "canary");
    let mut infisical = pod.infisical();
    // As the source asks for an earlier generation.
    let mut request = pod.request("/a");
    request.params.insert("version".to_owned(), pod.fresh(&mut infisical, "/a").await.version.unwrap().0);
    let error = super::super::read(&mut infisical, &request, None).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["/a", "a folder has no versions"]);
    let mut request = pod.request("/a?secret=K");
    request.params.insert("version".to_owned(), "1".to_owned());
    fresh(super::super::read(&mut infisical, &request, None).await);
}

#[tokio::test]
async fn a_project_is_looked_up_by_its_slug_once() {
    for (year, paths) in [
        (Year::Y2024, &["v1/projects/slug/shop-x1", "v2/workspace/shop-x1"][..]),
        (Year::Y2026, &["v1/projects/slug/shop-x1"]),
    ] {
        let pod = Pod::with(year, json!({"project": PROJECT_SLUG, "allowParams": ["project", "env"]})).await;
        pod.put("/a", "K", "canary");
        let mut infisical = pod.infisical();
        pod.fresh(&mut infisical, "/a").await;
        pod.fresh(&mut infisical, "/a").await;
        let looked_up: Vec<_> = pod.seen().into_iter().filter(|path| !path.contains("secrets")).skip(1).collect();
        assert_eq!(looked_up, paths);
        let error = pod.refused(&mut infisical, "/a?project=no-such").await;
        assert_error(&error, ErrorKind::NotFound, &["no-such", "not a member"]);
    }
}

#[tokio::test]
async fn references_choose_project_and_environment_where_they_may() {
    let pod = Pod::with(Year::Y2026, json!({"allowParams": ["project", "env"]})).await;
    let other = "11111111-0b52-4c5e-9b0a-3f4e1d2c7a11";
    pod.fake.server().identity(IDENTITY).rights.push(("dev".to_owned(), "/".to_owned(), Rights::Read));
    pod.fake.server().add_project(other, "other");
    pod.put("/a", "K", "here");
    pod.fake.server().put("dev", "/a", "K", "dev");
    pod.fake.server().put_in(other, "dev", "/a", "K", "other");
    let mut infisical = pod.infisical();
    for (reference, value) in [("/a", "here"), ("/a?env=dev", "dev"), ("/a?env=dev&project=other", "other")] {
        assert_eq!(shown(&pod.fresh(&mut infisical, reference).await), pairs(&[("K", value)]), "{reference}");
    }
}

#[tokio::test]
async fn a_failing_store_is_asked_once_in_a_batch() {
    let pod = Pod::new().await;
    pod.put("/a", "K", "canary");
    let mut infisical = pod.infisical();
    pod.fresh(&mut infisical, "/a").await;
    let requests: Vec<_> = ["/a", "/b", "/c"].map(|text| pod.request(text)).into();
    pod.fake.fail(|_| true, 1, Fault::Status(429, vec![("retry-after", "9".to_owned())], "canary".to_owned()));
    pod.seen();
    for result in infisical.read(&requests, &Known::new()).await {
        let error = result.unwrap_err();
        assert_error(&error, ErrorKind::Throttled { retry_after: Some(Duration::from_secs(9)) }, &["patience"]);
    }
    assert_eq!(pod.seen().len(), 1);
}

#[tokio::test]
async fn p5_nothing_shows_a_value_or_a_token() {
    let pod = Pod::new().await;
    pod.put("/a", "K", "canary-value");
    let mut infisical = pod.infisical();
    let answer = pod.fresh(&mut infisical, "/a").await;
    let shown = format!("{answer:?} {infisical:?} {:?}", infisical.session());
    assert!(!shown.contains("canary"), "{shown}");
}

use std::fs;

use super::*;

fn files(project: &str, local: &str) -> (tempfile::TempDir, ProjectFiles) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(PROJECT_FILE);
    fs::write(&path, project).unwrap();
    let mut files = vec![SourceFile::read(&path).unwrap()];
    if !local.is_empty() {
        let path = directory.path().join(LOCAL_FILE);
        fs::write(&path, local).unwrap();
        files.push(SourceFile::read(&path).unwrap());
    }
    (directory, ProjectFiles { project: files, user: None })
}

const PROJECT: &str = "\
defaultProvider: vault
providers:
  vault: {type: vault, address: 'https://vault.example:8200', auth: {method: approle, roleIdFile: ./role, secretIdFile: ~/secret}}
  files: {type: file, path: ../secrets.yaml}
secrets:
  - {file: app.env, from: ['secret/data/db', 'secret/data/mail'], format: dotenv}
  - {file: tls.key, from: 'secret/data/tls#key'}
env: [app.env]
variables:
  TOKEN: secret/data/hf#token
  OTHER: {from: secret/data/other#x, optional: true}
profiles:
  prod:
    providers: {vault: {auth: {method: jwt}}}
    variables: {TOKEN: secret/data/prod/hf#token}
";

#[test]
fn a_profile_is_laid_over_what_is_laid_over_the_project() {
    let (directory, files) =
        files(PROJECT, "variables: {TOKEN: files:local}\nsecrets: [{file: tls.key, from: 'files:key'}]\n");
    let takes = |section: &ProjectSection, path: &str| {
        let (bundle, _) = section.bundle().unwrap();
        let item = bundle.items.iter().find(|item| item.target.path().as_str() == path).unwrap().clone();
        let crate::bundle::From::One(reference) = item.from else { panic!("{item:?}") };
        reference.to_string()
    };
    let plain = files.section(None).unwrap();
    assert_eq!(takes(&plain, ".hushpod-env/TOKEN"), "files:local");
    assert_eq!(takes(&plain, "tls.key"), "files:key");
    let prod = files.section(Some("prod")).unwrap();
    assert_eq!(takes(&prod, ".hushpod-env/TOKEN"), "secret/data/prod/hf#token");
    let auth = |section: &ProjectSection| section.providers["vault"]["auth"].clone();
    assert_eq!(auth(&prod), serde_json::json!({"method": "jwt"}), "one method's fields are of no use to another");
    let role = directory.path().join("role").display().to_string();
    assert_eq!(auth(&plain)["roleIdFile"], role.as_str());
    assert!(auth(&plain)["secretIdFile"].as_str().unwrap().starts_with('/'));
    let beside = directory.path().parent().unwrap().join("secrets.yaml").display().to_string();
    assert_eq!(plain.providers["files"]["path"], beside.as_str());
    let (_, options) = plain.bundle().unwrap();
    let sources: Vec<_> = options.environment.iter().map(|source| source.path.as_str()).collect();
    assert_eq!((sources, options.provider.as_deref()), (vec!["app.env", ENV_DIR], Some("vault")));
}

#[test]
fn paths_that_are_laid_over_begin_at_their_own_file_with_or_without_a_type() {
    for local in ["{path: mine/a.yaml}", "{type: file, path: ./mine/a.yaml}", "{path: x/../mine/a.yaml, refresh: 5s}"] {
        let (directory, files) = files(PROJECT, &format!("providers: {{files: {local}}}\n"));
        let mine = directory.path().join("mine/a.yaml").display().to_string();
        let plain = files.section(None).unwrap();
        assert_eq!(
            (&plain.providers["files"]["path"], &plain.providers["files"]["type"]),
            (&mine.into(), &"file".into())
        );
    }
    let (_directory, files) = files(PROJECT, "providers: {files: {path: ~/mine}}\n");
    let home = std::env::home_dir().unwrap().join("mine").display().to_string();
    assert_eq!(files.section(None).unwrap().providers["files"]["path"], home.as_str());
}

#[test]
fn p9_errors_name_file_line_and_column_and_what_would_be_accepted() {
    for (text, place, part) in [
        ("variabels: {}\n", ":1:1: ", "did you mean \"variables\"?"),
        ("env: x\n", ":1:1: ", "is not a list"),
        ("env:\n- nothing\n", ":1:1: ", "unknown file \"nothing\""),
        ("variables:\n  1A: x\n", ":2:3: ", "not a variable's name"),
        ("variables:\n  A: x\n  PATH: x\n", ":3:3: ", "reserved (PATH)"),
        ("variables:\n  A: {from: x, optinal: true}\n", ":2:16: ", "did you mean \"optional\"?"),
        ("variables:\n  A: 'a b'\n", ":2:3: ", "white space"),
        ("secrets:\n  - {file: a, from: b}\n  - {file: a, from: c}\n", ":3:5: ", "delivered twice"),
        ("secrets:\n  - {file: a, form: b}\n", ":2:15: ", "did you mean \"from\"?"),
        ("secrets:\n  - {file: .hushpod-env/A, from: b}\n", ":2:5: ", "hushpod's own"),
        ("providers:\n  Vault: {}\n", ":2:3: ", "lower-case"),
        ("profiles:\n  prod:\n    varables: {}\n", ":3:5: ", "did you mean \"variables\"?"),
        ("a: [1\n", ":", "is not YAML"),
        ("- a\n", ":1:1: ", "has no fields"),
        ("variables: {A: x, A: y}\n", ":1:", "same key twice"),
    ] {
        let (_directory, files) = files(text, "");
        let error = files.section(None).and_then(|section| section.bundle()).unwrap_err().problem;
        assert!(error.contains(&format!("{PROJECT_FILE}{place}")) && error.contains(part), "{text}: {error}");
    }
    let (_directory, files) = files(PROJECT, "");
    let error = files.section(Some("prd")).unwrap_err().problem;
    assert!(error.contains("unknown profile \"prd\"; did you mean \"prod\"?"), "{error}");
    assert!(
        files.at(".providers.vault.address").unwrap().ends_with(":3:24"),
        "{:?}",
        files.at(".providers.vault.address")
    );
}

#[test]
fn a_project_is_found_up_to_the_root_of_its_repository() {
    let root = tempfile::tempdir().unwrap();
    let inner = root.path().join("repository/src/deep");
    fs::create_dir_all(&inner).unwrap();
    fs::write(root.path().join(PROJECT_FILE), "").unwrap();
    assert_eq!(find_project(&inner), None, "without a repository the directory alone is looked at");
    fs::create_dir(root.path().join("repository/.git")).unwrap();
    assert_eq!(find_project(&inner), None, "what lies above the repository is not its own");
    let own = root.path().join("repository").join(PROJECT_FILE);
    fs::write(&own, "").unwrap();
    assert_eq!(find_project(&inner), Some(own));
}

//! Pages hold what they say: links lead somewhere, examples are admitted, commands are run or marked, sentences exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hushpod::config::Config;
use hushpod::contract::PREFIX;
use serde_json::{Value, json};

use crate::readme::page;

/// What all lines of the README together may be.
const README_LINES: usize = 220;

/// Stores of the examples, by the names that they use.
pub(crate) const CONFIG: &str = r#"
image: registry/hushpod-agent:0.1.0
csi: {}
defaultProvider: vault
providers:
  vault: {type: vault, address: "https://vault.example:8200", role: "{{service_account}}"}
  aws: {type: aws, region: eu-west-1, role: "arn:aws:iam::123456789012:role/{{namespace}}-{{service_account}}"}
  infisical: {type: infisical, address: "https://app.infisical.com", project: 5f1d3a70-0b52-4c5e-9b0a-3f4e1d2c7a11, environment: prod, role: 5f1d3a70-0b52-4c5e-9b0a-3f4e1d2c7a12}
  sops: {type: file, volumes: true, identity: "vault:secret/data/age#key"}
"#;

/// A fenced block: the words behind the fence, and what it holds.
struct Block {
    page: String,
    info: Vec<String>,
    text: String,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a directory whose names end so, by their paths from the root.
pub(crate) fn files(directory: &str, end: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root().join(directory)];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.to_str().unwrap().ends_with(end) {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<String> {
    let mut found = vec!["README.md".to_owned()];
    for directory in [".github", "src", "charts", "deploy", "tests"] {
        found.extend(files(directory, ".md"));
    }
    found
}

fn blocks() -> Vec<Block> {
    let mut found = Vec::new();
    for path in pages() {
        let text = page(&path);
        let mut open: Option<Block> = None;
        for line in text.lines() {
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(info)) => {
                    let info = info.split(' ').map(str::to_owned).collect();
                    open = Some(Block { page: path.clone(), info, text: String::new() });
                }
                (Some(_), Some(_)) => found.extend(open.take()),
                (Some(block), None) => block.text.extend([line, "\n"]),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{path}: a block has no end");
    }
    found
}

fn blocks_of(language: &str) -> Vec<Block> {
    blocks().into_iter().filter(|block| block.info[0] == language).collect()
}

#[test]
fn the_readme_is_short() {
    let lines = page("README.md").lines().count();
    assert!(lines <= README_LINES, "{lines} lines: move what describes one part beside that part");
}

/// What GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(is_kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(path: &str) -> BTreeSet<String> {
    let headings = page(path).lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    headings.iter().map(|line| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    for path in pages() {
        let text = page(&path);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').map_or((target, None), |(file, rest)| (file, Some(rest)));
            let beside = Path::new(&path).parent().unwrap();
            let target_path = if file.is_empty() { PathBuf::from(&path) } else { beside.join(file) };
            let absolute = root().join(&target_path);
            assert!(absolute.exists(), "{path}: {target} leads nowhere");
            if let Some(heading) = heading {
                let inside = anchors(absolute.to_str().unwrap());
                assert!(inside.contains(heading), "{path}: {target}: there are {inside:?}");
            }
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen} links");
}

/// What runs blocks: CI's script and the end-to-end tests, each with the words by which it takes one.
fn runners() -> String {
    let mut text = fs::read_to_string(root().join(".ci/run")).unwrap();
    for file in files("tests/e2e", ".py") {
        text.push_str(&page(&file));
    }
    text
}

#[test]
fn every_command_block_is_run_or_says_that_it_is_not() {
    let runners = runners();
    let is_taken = |block: &Block, name: &str| {
        let page = &block.page;
        runners.contains(&format!("block {page} {name})"))
            || runners.contains(&format!("block(\"{page}\", \"{name}\")"))
    };
    let blocks = blocks_of("sh");
    let taken: BTreeSet<_> = blocks
        .iter()
        .filter(|block| block.info.get(1).is_some_and(|name| is_taken(block, name)))
        .map(|block| block.text.as_str())
        .collect();
    assert!(!taken.is_empty());
    for Block { page, info, text } in &blocks {
        let name = info.get(1).unwrap_or_else(|| panic!("{page}: name this block, or write ```sh not-run:\n{text}"));
        // The same commands on another page are run as well.
        let is_run = taken.contains(text.as_str());
        assert_eq!(is_run, name != "not-run", "{page}: {name}: is run: {is_run}:\n{text}");
    }
    let known = ["sh", "yaml", "json", "diff", "text", "console", "mermaid", "rust", "toml"];
    for Block { page, info, text } in self::blocks() {
        assert!(known.contains(&info[0].as_str()), "{page}: a block of {info:?}:\n{text}");
    }
}

/// A block's documents.
fn documents(block: &Block) -> Vec<Value> {
    let parse = |text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{}: {error}:\n{text}", block.page));
    block.text.split("---\n").map(parse).collect()
}

/// The pod that an example is about: what it leaves out is usual.
fn pod_of(example: &Value) -> Value {
    let places = ["/spec/jobTemplate/spec/template", "/spec/template"];
    let template = places.iter().find_map(|place| example.pointer(place)).unwrap_or(example);
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"],
        "spec": {
            "serviceAccountName": "web", "securityContext": {"runAsUser": 1000, "runAsNonRoot": true},
            "containers": [{"name": "app", "image": "app", "command": ["/app"]}],
        },
    });
    for (field, value) in template["spec"].as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

#[test]
fn every_example_of_annotations_is_admitted() {
    let mut seen = 0;
    let mut manifests = files("deploy/examples", ".yaml");
    assert!(manifests.len() >= 8, "{manifests:?}");
    manifests.push("deploy/try/web.yaml".to_owned());
    let whole = manifests.iter().map(|file| Block { page: file.clone(), info: Vec::new(), text: page(file) });
    for block in blocks_of("yaml").into_iter().chain(whole).filter(|block| block.text.contains(PREFIX)) {
        for example in documents(&block) {
            let pod = pod_of(&example);
            if pod["metadata"]["annotations"].is_null() {
                continue;
            }
            let (denial, is_patched) = crate::webhook::admitted(CONFIG, &pod);
            assert!(denial.is_none(), "{}: {denial:?}:\n{}", block.page, block.text);
            assert!(is_patched, "{}: nothing is injected:\n{}", block.page, block.text);
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen} examples");
}

#[test]
fn the_page_of_examples_has_all_of_them() {
    let told: BTreeSet<_> =
        rows("deploy/examples/README.md", "<!-- examples: tested by tests/integration/pages.rs -->\n")
            .into_iter()
            .map(|row| format!("deploy/examples/{}", row[0].split(['[', ']']).nth(1).unwrap()))
            .collect();
    assert_eq!(told, files("deploy/examples", ".yaml").into_iter().collect());
}

/// The names of all tests: functions with an attribute, and end-to-end cases.
fn tests() -> BTreeSet<String> {
    // The line above says it: of an ignored test its reason, of a case with many arguments their end.
    let is_rust = |above: &str| ["test]", "test("].iter().any(|end| above.contains(end)) || above.contains("#[ignore");
    let is_python = |above: &str| above.starts_with("@test(") || above == ")";
    let mut found = BTreeSet::new();
    for (directory, end) in [("src", ".rs"), ("tests/integration", ".rs"), ("tests/e2e/cases", ".py")] {
        for text in files(directory, end).iter().map(|file| page(file)) {
            for (at, start) in text.match_indices(if end == ".rs" { "fn " } else { "def " }) {
                let name = text[at + start.len()..].split(['(', '<']).next().unwrap();
                let above = text[..at].trim_end_matches("async ").trim_end().lines().next_back().unwrap_or_default();
                let is_marked = if end == ".rs" { is_rust(above) } else { is_python(above) };
                if is_marked {
                    found.insert(name.to_owned());
                }
            }
        }
    }
    found
}

/// What the claims of a page name as their tests: the row, and the names.
fn claims(path: &str) -> Vec<(String, Vec<String>)> {
    let text = page(path);
    let mark = "<!-- claims: tested by tests/integration/pages.rs -->\n";
    let tables = text.split(mark).skip(1).map(|rest| rest.split_once("<!-- end -->").unwrap().0.trim());
    let rows = tables.flat_map(|table| {
        assert!(table.lines().next().unwrap().ends_with("| test |"), "{path}: {table}");
        table.lines().skip(2)
    });
    let named = |row: &str| {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap();
        (row.to_owned(), last.split('`').skip(1).step_by(2).map(str::to_owned).collect())
    };
    rows.map(named).collect()
}

#[test]
fn every_file_of_cases_is_one_that_e2e_runs() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/cases");
    let listed = std::fs::read_to_string(cases.join("__init__.py")).unwrap();
    let files = std::fs::read_dir(&cases).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|file| file.extension().is_some_and(|end| end == "py")) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let is_listed = listed.lines().any(|line| line.trim() == format!("{name},"));
        assert!(name == "__init__" || is_listed, "tests/e2e/cases/__init__.py does not import {name}");
    }
}

#[test]
fn every_claim_of_the_threat_model_has_its_test() {
    let tests = tests();
    let is_one = |name: &str| tests.contains(name);
    let claims = claims("src/threat-model.md");
    assert!(claims.len() >= 40, "{}", claims.len());
    for (row, names) in &claims {
        assert!(!names.is_empty(), "no test holds: {row}");
        for name in names {
            assert!(is_one(name), "there is no test {name}: {row}");
        }
    }
    // What is no test is not taken for one.
    for name in ["no_such_test", "pod_of", "refused_by_vault", "deliver", "every_claim_of"] {
        assert!(!is_one(name), "{name}");
    }
}

#[test]
fn every_example_of_a_configuration_is_one() {
    let mut seen = 0;
    let values = "deploy/try/values.yaml";
    let files = [Block { page: values.to_owned(), info: Vec::new(), text: page(values) }];
    for block in blocks_of("yaml").iter().chain(&files) {
        for document in documents(block) {
            let config = document.get("config").unwrap_or(&document);
            if ["providers", "proxy"].iter().all(|field| config.get(field).is_none()) {
                continue;
            }
            let mut config = config.clone();
            config["image"] = json!("registry/hushpod-agent:0.1.0");
            let read = Config::from_yaml(&config.to_string());
            assert!(read.is_ok(), "{}: {read:?}:\n{}", block.page, block.text);
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen} examples");
}

/// What a sentence of the code is made of: literals that go on in the next line are joined.
fn literals(files: &[String]) -> String {
    let text: String = files.iter().map(|file| page(file)).collect();
    let mut parts = text.split("\\\n").map(str::to_owned).collect::<Vec<_>>();
    for part in parts.iter_mut().skip(1) {
        *part = part.trim_start().to_owned();
    }
    parts.concat()
}

#[test]
fn sentences_that_a_stores_page_explains_are_the_codes() {
    for (name, more) in
        [("vault", None), ("infisical", None), ("aws", None), ("azure", None), ("gcp", None), ("file", Some("webhook"))]
    {
        let mut code = files("src/provider", ".rs");
        code.retain(|file| {
            let below = file.strip_prefix("src/provider/").unwrap();
            below.starts_with(&format!("{name}.")) || below.starts_with(&format!("{name}/"))
        });
        code.extend(more.into_iter().flat_map(|directory| files(&format!("src/{directory}"), ".rs")));
        let said = literals(&code);
        let text = page(&format!("src/provider/{name}.md"));
        let (_, errors) = text.split_once("\n| the sentence says | cause and cure |\n|---|---|\n").unwrap();
        let rows: Vec<_> = errors.lines().take_while(|line| line.starts_with('|')).collect();
        assert!(rows.len() > 3, "{name}: {rows:?}");
        for cell in rows.iter().map(|row| row.split('|').nth(1).unwrap()) {
            for part in cell.split('`').skip(1).step_by(2) {
                assert!(said.contains(part), "{name}: no sentence of the code has {part:?} any more");
            }
        }
    }
}

#[test]
fn all_places_have_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let told = Command::new(root().join("deploy/version")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), version, "{}", String::from_utf8_lossy(&told.stderr));
    // Names of our images in other places would be forgotten.
    for file in pages().into_iter().chain(files("charts", ".yaml")).chain(files("deploy", "ockerfile")) {
        let text = page(&file);
        let tags = ["hushpod:", "hushpod-agent:", "tag: "].iter().flat_map(|name| text.split(name).skip(1));
        for tag in tags.filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
            assert!(tag.starts_with(version), "{file}: {}", tag.lines().next().unwrap_or_default());
        }
    }
}

#[test]
fn what_is_explained_can_be_cut_off_and_what_is_unknown_is_wrong_usage() {
    let explain = |topic: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hushpod"));
        command.args(["explain", topic]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let told = explain("annotations").output().unwrap();
    assert!(told.status.success() && told.stderr.is_empty(), "{told:?}");
    assert!(String::from_utf8(told.stdout).unwrap().contains("hushpod.dev/on-change-jitter"));

    // As `| head` does it.
    let mut cut = explain("annotations").spawn().unwrap();
    drop(cut.stdout.take());
    let cut = cut.wait_with_output().unwrap();
    assert!(cut.status.success() && cut.stderr.is_empty(), "{cut:?}");

    let unknown = explain("vualt").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    let sentence = String::from_utf8(unknown.stderr).unwrap();
    assert!(sentence.contains("unknown topic") && sentence.contains("did you mean \"vault\"?"), "{sentence}");
}

#[test]
fn what_developers_type_is_there() {
    let just = page(".justfile");
    let recipes: BTreeSet<_> = just
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()) && line.ends_with(':'))
        .map(|line| line.split([' ', ':']).next().unwrap())
        .collect();
    assert!(recipes.contains("check"), "{recipes:?}");
    let contributing = page(".github/CONTRIBUTING.md");
    for recipe in recipes.iter().filter(|recipe| **recipe != "default") {
        assert!(contributing.contains(&format!("`just {recipe}")), "CONTRIBUTING.md does not name {recipe}");
    }
    for command in just.lines().filter_map(|line| line.strip_prefix("    ")) {
        let program = command.trim_start_matches('@').split(' ').next().unwrap();
        let is_built = program.starts_with("target/");
        let is_known = ["cargo", "just"].contains(&program) || is_built || root().join(program).is_file();
        assert!(is_known, ".justfile: there is no {program}");
    }
    // Steps are told without running any.
    let listed = Command::new(root().join(".ci/run")).arg("--list").output().unwrap();
    let steps = String::from_utf8(listed.stdout).unwrap();
    for step in ["test", "lints", "image", "contract", "promises"] {
        assert!(steps.lines().any(|line| line.split(' ').next() == Some(step)), "{step}: {steps}");
    }
    let unknown = Command::new(root().join(".ci/run")).arg("tset").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
}

/// The rows of a table between two comments, without its head: cells without backticks.
fn rows(path: &str, mark: &str) -> Vec<Vec<String>> {
    let text = page(path);
    let (_, rest) = text.split_once(mark).unwrap_or_else(|| panic!("{path}: no {mark}"));
    let (table, _) = rest.split_once("<!-- end -->").unwrap();
    let rows = table.trim().lines().skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
}

#[test]
fn the_index_leads_to_what_it_names() {
    let index = |page| rows(page, "<!-- index: tested by tests/integration/pages.rs -->\n");
    let (of_source, of_tests) = (index("src/README.md"), index("tests/README.md"));
    assert!(of_source.iter().filter(|row| !row[0].starts_with('…')).count() >= 6, "{of_source:?}");
    for row in of_source.into_iter().chain(of_tests) {
        let [question, file, name] = &row[..] else { panic!("{row:?}") };
        let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{question} {file}: {error}"));
        let (_, rest) =
            text.split_once(&format!("fn {name}")).unwrap_or_else(|| panic!("{question} no fn {name} in {file}"));
        assert!(rest.starts_with(['(', '<']), "{question} no fn {name} in {file}");
    }
}

#[test]
fn the_glossary_has_few_words() {
    let page = page("src/README.md");
    let (_, rest) = page.split_once("\n## Glossary\n").unwrap();
    let words = rest.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with('|')).count() - 2;
    assert!((20..=40).contains(&words), "{words} words");
}

/// Names of series in a text; a name may go on in words, or stop in the middle of one with `_`.
fn series_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let names = text.match_indices("hushpod_").filter(|(at, _)| !text[..*at].ends_with(is_part));
    names.map(|(at, _)| text[at..].chars().take_while(|c| is_part(*c)).collect()).collect()
}

#[test]
fn names_of_metrics_stand_in_one_place_and_all_others_know_them() {
    let catalogue = "src/metrics/catalogue.rs";
    let known = series_in(&page(catalogue));
    assert!(known.len() > 40, "{known:?}");
    // The page of them is compared by a test of its own.
    assert_eq!(series_in(&page("src/metrics.md")), known);
    for path in files("src", ".rs").into_iter().filter(|path| path != catalogue) {
        let text = page(&path);
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        let is_tests = path.contains("/tests") || path.contains("explain");
        assert!(is_tests || !code.contains("\"hushpod_"), "{path}: a name belongs in {catalogue}");
    }
    let said = pages().into_iter().chain(files("charts", ".yaml")).chain(files("charts", ".json"));
    for path in said.chain(files("charts", ".tpl")) {
        for name in series_in(&page(&path)) {
            let ends = ["", "_bucket", "_sum", "_count"].map(|end| name.strip_suffix(end).map(str::to_owned));
            let is_known = ends.into_iter().flatten().any(|name| known.contains(&name)) || name.ends_with('_');
            assert!(is_known, "{path}: unknown metric {name}");
        }
    }
}

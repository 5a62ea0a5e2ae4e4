//! What several programs must agree on is written once, in `src/contract.rs`.

use std::collections::BTreeSet;
use std::fs;

use hushpod::annotations::KEYS;
use hushpod::contract::{AGENT, BIN_PATH, INIT, PREFIX, PROGRAM};

use crate::pages::{files, root};
use crate::sources::{Source, Token, sources};

/// Words of the contract that stand for something else, too: below which paths, and what they are there.
const OTHER_MEANINGS: &[(&str, &[&str], &str)] = &[
    ("..", &["provider", "webhook/mounts.rs", "exec/read.rs", "deliver/volume/tree.rs"], "a directory's parent"),
    (
        "..",
        &["bundle/volume_path.rs", "annotations", "deliver/controls.rs"],
        "what a name that is written may not begin with",
    ),
    ("/secrets", &["provider/azure"], "a part of a vault's URL"),
    ("annotations", &["csi/object.rs", "fleet", "webhook", "demo/pod.rs"], "a field of Kubernetes' metadata"),
    ("annotations", &["explain.rs"], "a page"),
    ("exec", &["explain.rs"], "a page"),
    ("exec", &["options.rs"], "a kind of notification that does not exist"),
    ("live", &["fleet/table.rs"], "a field of the JSON that --live adds"),
    (
        "hushpod",
        &["cli/webhook.rs", "demo", "explain.rs", "process", "provider", "webhook"],
        "the name of this project",
    ),
];

/// Words of the chart's own: objects that it names, and volumes of the webhook's pod.
const OF_THE_CHART: [&str; 17] = [
    "hushpod-agents",
    "hushpod-config",
    "hushpod-controls",
    "hushpod-csi-config",
    "hushpod-csi-privileged",
    "hushpod-dashboard",
    "hushpod-ephemeral-containers",
    "hushpod-etcd-secrets",
    "hushpod-etcd-secrets-workloads",
    "hushpod-running-pods",
    "hushpod-viewer",
    "hushpod-webhook-ca",
    "hushpod-webhook-self-signed",
    "hushpod-webhook-tls",
    "hushpod-test",
    "hushpod-workloads",
    "hushpod.dev/file.password",
];

/// The contract's texts.
fn words(sources: &[Source]) -> BTreeSet<&str> {
    let contract = sources.iter().find(|source| source.file == "contract.rs").unwrap();
    contract.texts().collect()
}

/// Where else the contract's words are written.
fn second_literals(sources: &[Source]) -> BTreeSet<(&str, &str)> {
    let words = words(sources);
    let others = sources.iter().filter(|source| source.file != "contract.rs");
    let texts = others.flat_map(|source| source.texts().map(|text| (text, source.file.as_str())));
    texts.filter(|(text, _)| words.contains(text) || text.starts_with("/run/hushpod")).collect()
}

#[test]
fn what_programs_agree_on_is_written_once() {
    let sources = sources();
    let found = second_literals(&sources);
    let means_other = |(text, file): &&(&str, &str)| {
        OTHER_MEANINGS.iter().any(|(word, paths, _)| word == text && paths.iter().any(|path| file.starts_with(path)))
    };
    let second: Vec<_> = found.iter().filter(|literal| !means_other(literal)).collect();
    assert!(second.is_empty(), "take the constants of src/contract.rs: {second:?}");
    for (word, paths, meaning) in OTHER_MEANINGS {
        for path in *paths {
            let is_there = found.iter().any(|(text, file)| text == word && file.starts_with(path));
            assert!(is_there, "{word:?} is not in {path}, as {meaning}");
        }
    }
}

#[test]
fn a_second_literal_is_found() {
    let mut sources = sources();
    for text in [PROGRAM, "/run/hushpod/other"] {
        sources.push(Source { file: "planted.rs".to_owned(), tokens: vec![Token::Text(text.to_owned())] });
        assert!(second_literals(&sources).contains(&(text, "planted.rs")), "{text}");
    }
}

/// Words of ours in the chart's templates.
fn chart_words() -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let mut found = BTreeSet::new();
    for path in files("charts/hushpod/templates", "") {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let words = text.split(|c| !is_part(c)).map(|word| word.trim_end_matches(['.', '/', '-']));
        found.extend(
            words
                .filter(|word| ["hushpod-", "/hushpod-", "HUSHPOD_", "hushpod.dev"].iter().any(|p| word.starts_with(p)))
                .map(str::to_owned),
        );
    }
    found
}

#[test]
fn the_chart_says_no_word_that_the_code_does_not_know() {
    let sources = sources();
    let mut known: BTreeSet<String> = sources.iter().flat_map(Source::texts).map(str::to_owned).collect();
    known.extend([PREFIX.trim_end_matches('/').to_owned(), "hushpod".to_owned()]);
    known.extend(OF_THE_CHART.map(str::to_owned));
    known.extend(KEYS.iter().map(|key| format!("{PREFIX}{}", key.name.trim_end_matches('.'))));
    let words = chart_words();
    for word in [INIT, AGENT, BIN_PATH] {
        assert!(words.iter().any(|found| found.starts_with(word)), "{word}: {words:?}");
    }
    let unknown: Vec<_> = words.iter().filter(|word| !known.contains(*word)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

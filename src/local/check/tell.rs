//! How it is told: for people, for programs, for code scanning (SARIF 2.1.0), and as annotations of GitHub's checks.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::arguments::CheckFormat;
use super::findings::{Checked, FileFinding, FindingKind, RuleAnswer};
use crate::local::error::LocalError;
use crate::local::github::{data, property};
use crate::local::output::emit;
use crate::sentence::{counted, counted_with};

/// What a path keeps in a URI (RFC 3986, `pchar` and `/`), as far as nobody reads it otherwise.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The schema that editors and uploaders look for.
const SARIF_SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// Tells it on standard output.
///
/// # Errors
/// One sentence, if it cannot be written.
pub(super) fn print(format: CheckFormat, checked: &Checked) -> Result<(), LocalError> {
    let told = match format {
        CheckFormat::Text => to_text(checked),
        CheckFormat::Json => pretty(&serde_json::to_value(checked).unwrap_or_default()),
        CheckFormat::Sarif => pretty(&to_sarif(checked)),
        CheckFormat::Github => to_github(checked),
    };
    emit(None, told.as_bytes())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn to_text(checked: &Checked) -> String {
    let mut out = String::new();
    for (finding, word) in all(checked) {
        let FileFinding { file, line, column, problem, .. } = finding;
        let word = if word == ERROR { "" } else { "warning: " };
        let _ = writeln!(out, "{file}:{line}:{column}: {word}{problem}");
    }
    for RuleAnswer { reference, request, allowed, rule, sentence } in &checked.answers {
        let shown = request.as_ref().unwrap_or(reference);
        let _ = match (allowed, rule) {
            (true, Some(rule)) => writeln!(out, "allowed: {shown}: {rule}: {sentence}"),
            (true, None) => writeln!(out, "allowed: {shown}: its provider has no allow rules: {sentence}"),
            (false, Some(rule)) => writeln!(out, "refused: {shown}: {rule}: {sentence}"),
            (false, None) => writeln!(out, "refused: {shown}: {sentence}"),
        };
    }
    if checked.is_fine() && checked.answers.is_empty() {
        let files = counted(checked.files, "file");
        let ask = counted_with(checked.pods, "pod", "that asks", "that ask");
        let _ = writeln!(out, "{files}, {ask} for secrets: nothing is wrong");
    }
    out
}

const ERROR: &str = "error";
const WARNING: &str = "warning";

/// All findings in the order of their files, each with its level.
fn all(checked: &Checked) -> Vec<(&FileFinding, &'static str)> {
    let faults = checked.faults.iter().map(|finding| (finding, ERROR));
    let mut all: Vec<_> = faults.chain(checked.warnings.iter().map(|finding| (finding, WARNING))).collect();
    all.sort();
    all
}

/// What may not be had, of what was asked for on the command line.
fn refusals(checked: &Checked) -> impl Iterator<Item = String> {
    let refused = checked.answers.iter().filter(|answer| !answer.allowed);
    refused.map(|answer| format!("{}: {}", answer.reference, answer.sentence))
}

/// <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>
fn to_sarif(checked: &Checked) -> Value {
    // A reference of the command line has no place but its rules'.
    let refused = refusals(checked).map(|problem| FileFinding {
        file: checked.rules.clone(),
        line: 1,
        column: 1,
        rule: FindingKind::Policy,
        problem,
    });
    let refused: Vec<_> = refused.collect();
    let result = |(finding, level): (&FileFinding, &str)| {
        let FileFinding { file, line, column, rule, problem } = finding;
        let uri = utf8_percent_encode(file, IN_PATH).to_string();
        let artifact = if file.starts_with('/') {
            json!({"uri": format!("file://{uri}")})
        } else {
            json!({"uri": uri, "uriBaseId": "%SRCROOT%"})
        };
        json!({
            "ruleId": rule.word(),
            "ruleIndex": FindingKind::ALL.iter().position(|known| known == rule),
            "level": level,
            "message": {"text": problem},
            "locations": [{"physicalLocation": {
                "artifactLocation": artifact,
                "region": {"startLine": line, "startColumn": column},
            }}],
        })
    };
    let results = all(checked).into_iter().chain(refused.iter().map(|one| (one, ERROR))).map(result);
    let rule = |kind: FindingKind| json!({"id": kind.word(), "shortDescription": {"text": kind.meaning()}});
    let driver = json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "rules": FindingKind::ALL.map(rule),
    });
    json!({
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": driver},
            "columnKind": "unicodeCodePoints",
            "results": results.collect::<Vec<_>>(),
        }],
    })
}

/// <https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands>
fn to_github(checked: &Checked) -> String {
    let mut out = String::new();
    for (finding, level) in all(checked) {
        let FileFinding { file, line, column, rule, problem } = finding;
        let (file, title) = (property(file), property(&format!("hushpod: {}", rule.word())));
        let _ = writeln!(out, "::{level} file={file},line={line},col={column},title={title}::{}", data(problem));
    }
    for problem in refusals(checked) {
        let _ = writeln!(out, "::error ::{}", data(&problem));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked() -> Checked {
        let finding = |file: &str, rule, problem: &str| FileFinding {
            file: file.to_owned(),
            line: 3,
            column: 5,
            rule,
            problem: problem.to_owned(),
        };
        let faults = vec![finding("a b,c:%/é.yaml", FindingKind::Policy, "100 %: no")];
        let warnings = vec![finding("/abs/x.yaml", FindingKind::Misplaced, "it stands elsewhere")];
        Checked { faults, warnings, files: 2, pods: 1, ..Checked::default() }
    }

    #[test]
    fn each_format_escapes_as_its_reader_reads() {
        let text = to_text(&checked());
        assert_eq!(text, "/abs/x.yaml:3:5: warning: it stands elsewhere\na b,c:%/é.yaml:3:5: 100 %: no\n");
        let github = to_github(&checked());
        assert!(github.starts_with("::warning file=/abs/x.yaml,line=3,col=5,title=hushpod%3A misplaced::it stands"));
        assert!(
            github.ends_with("::error file=a b%2Cc%3A%25/é.yaml,line=3,col=5,title=hushpod%3A policy::100 %25: no\n")
        );
        let fine = Checked { files: 1, pods: 2, ..Checked::default() };
        assert_eq!(to_text(&fine), "1 file, 2 pods that ask for secrets: nothing is wrong\n");
        assert_eq!(to_github(&fine), "");
        let one = Checked { pods: 1, ..fine };
        assert_eq!(to_text(&one), "1 file, 1 pod that asks for secrets: nothing is wrong\n");
    }

    #[test]
    fn sarif_has_all_that_its_schema_requires() {
        let sarif = to_sarif(&checked());
        assert_eq!((&sarif["version"], sarif["runs"].as_array().map(Vec::len)), (&json!("2.1.0"), Some(1)));
        let driver = &sarif["runs"][0]["tool"]["driver"];
        assert_eq!((&driver["name"], driver["rules"].as_array().map(Vec::len)), (&json!("hushpod"), Some(11)));
        let uris: Vec<_> = sarif["runs"][0]["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| {
                let rule = result["ruleIndex"].as_u64().and_then(|at| driver["rules"].get(usize::try_from(at).ok()?));
                assert_eq!(rule.unwrap()["id"], result["ruleId"]);
                assert!(
                    result["message"]["text"].is_string()
                        && ["error", "warning"].contains(&result["level"].as_str().unwrap())
                );
                let place = &result["locations"][0]["physicalLocation"];
                assert_eq!(place["region"], json!({"startLine": 3, "startColumn": 5}));
                place["artifactLocation"]["uri"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(uris, ["file:///abs/x.yaml", "a%20b%2Cc%3A%25/%C3%A9.yaml"]);
        let answer = |allowed| RuleAnswer {
            reference: "v:a".to_owned(),
            request: None,
            allowed,
            rule: None,
            sentence: "no rule allows it".to_owned(),
        };
        let asked = Checked { answers: vec![answer(true), answer(false)], rules: "op.yaml".to_owned(), ..checked() };
        let results = to_sarif(&asked)["runs"][0]["results"].clone();
        assert_eq!(results.as_array().map(Vec::len), Some(3));
        assert_eq!((&results[2]["ruleId"], &results[2]["level"]), (&json!("policy"), &json!("error")));
        assert_eq!(results[2]["message"]["text"], "v:a: no rule allows it");
        assert_eq!(results[2]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "op.yaml");
        for kind in FindingKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word(), "JSON and SARIF say the same");
        }
    }
}

//! `hushpod check`: all that is wrong with an operator's configuration, and which of its rules lets whom have what.
//! Neither a cluster nor a store is asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::annotations;
use crate::config::{Config, ConfigFaults, Identity, NamespaceLabels};
use crate::contract::PREFIX;
use crate::options::Options;
use crate::plan::Plan;
use crate::plan::policy::Rights;
use crate::reference::{Reference, Request};

/// Bytes of a configuration.
const MOST: u64 = 4 << 20;

/// What is asked for.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  hushpod check --config FILE                                          all that is wrong, by line\n  \
                  hushpod check --config FILE --as team-a/web secret/data/team-a/db    which rule says what\n\n\
                  Exit codes: 0 nothing is wrong, and everything is allowed · 1 something is wrong, or refused · 2 the \
                  command line is wrong, or the file cannot be read")]
pub struct CheckArgs {
    /// The operator's configuration (YAML).
    #[arg(long, env = "HUSHPOD_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Who asks.
    #[arg(long = "as", value_name = "NAMESPACE/ACCOUNT", value_parser = identity, requires = "references")]
    identity: Option<Identity>,
    /// Labels of that namespace, for rules that ask for them.
    #[arg(long, value_name = "NAME=VALUE,…", value_parser = pair, value_delimiter = ',', requires = "identity")]
    namespace_labels: Vec<(String, String)>,
    /// A role that is asked for by annotation.
    #[arg(long = "role", value_name = "PROVIDER=ROLE", value_parser = pair, requires = "identity")]
    roles: Vec<(String, String)>,
    /// For what, as in an annotation.
    #[arg(value_name = "REFERENCE", value_parser = reference, requires = "identity")]
    references: Vec<String>,
    /// text or json
    #[arg(long, short = 'o', value_name = "FORMAT", default_value = "text")]
    output: CheckFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    Text,
    Json,
}

/// All that there is to say.
#[derive(Debug, Default, Serialize)]
struct Checked {
    faults: Vec<ToldFault>,
    warnings: Vec<String>,
    answers: Vec<RuleAnswer>,
}

#[derive(Debug, Serialize)]
struct ToldFault {
    line: u64,
    column: u64,
    problem: String,
}

/// Whether somebody may have something.
#[derive(Debug, Serialize)]
struct RuleAnswer {
    reference: String,
    /// In the one form that the store knows; `None` if it has none.
    request: Option<String>,
    allowed: bool,
    /// The place of the rule that decides; `None` if none does.
    rule: Option<String>,
    sentence: String,
}

/// Who asks.
struct Asking {
    identity: Identity,
    labels: NamespaceLabels,
    options: Options,
}

fn identity(text: &str) -> Result<Identity, String> {
    let parts = text.split_once('/').filter(|(namespace, account)| !namespace.is_empty() && !account.is_empty());
    let (namespace, account) = parts.ok_or("expected NAMESPACE/ACCOUNT")?;
    Ok(Identity { namespace: namespace.to_owned(), service_account: account.to_owned() })
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn reference(text: &str) -> Result<String, String> {
    text.parse::<Reference>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Checks a configuration, and answers by it.
#[must_use]
pub fn run(args: CheckArgs) -> ExitCode {
    let CheckArgs { config: path, identity, namespace_labels, roles, references, output } = args;
    let text = match read(&path) {
        Ok(text) => text,
        Err(problem) => {
            // If standard error is gone, the exit code has to do.
            let _ = writeln!(io::stderr(), "{}: {problem}", path.display());
            return ExitCode::from(2);
        }
    };
    let asking = identity.map(|identity| Asking {
        identity,
        labels: if namespace_labels.is_empty() {
            NamespaceLabels::Unknown("say them with --namespace-labels".into())
        } else {
            NamespaceLabels::known(namespace_labels.into_iter().collect())
        },
        options: Options { roles: roles.into_iter().collect(), ..Options::default() },
    });
    let checked = check(&text, asking.as_ref(), &references);
    let told = match output {
        CheckFormat::Text => checked.to_text(&path),
        CheckFormat::Json => serde_json::to_string_pretty(&checked).unwrap_or_default() + "\n",
    };
    // A reader that closed the pipe has seen enough.
    let _ = io::stdout().write_all(told.as_bytes());
    if checked.is_fine() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.kind().to_string())?;
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(|error| error.kind().to_string())?;
    if bytes.len() as u64 > MOST {
        return Err(format!("expected at most {MOST} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "expected text".to_owned())
}

fn check(text: &str, asking: Option<&Asking>, references: &[String]) -> Checked {
    match Config::read(text) {
        Ok(config) => Checked {
            faults: Vec::new(),
            warnings: config.warnings(),
            answers: asking
                .map(|asking| references.iter().map(|one| asking.ask(one, &config)).collect())
                .unwrap_or_default(),
        },
        Err(ConfigFaults(faults)) => {
            let told = faults.into_iter().map(|fault| ToldFault {
                line: fault.line,
                column: fault.column,
                problem: fault.error.to_string(),
            });
            Checked { faults: told.collect(), ..Checked::default() }
        }
    }
}

// === impl Asking ===

impl Asking {
    fn ask(&self, reference: &str, config: &Config) -> RuleAnswer {
        let outcome = self.plan(reference, config);
        let request = self.request(reference, config);
        let (allowed, sentence) = match &outcome {
            Ok(warnings) if warnings.is_empty() => (true, "may be requested".to_owned()),
            Ok(warnings) => (true, warnings.join("; ")),
            Err(problem) => (false, problem.clone()),
        };
        let rule = request
            .as_ref()
            .and_then(|request| if allowed { self.allowing(request, config) } else { self.denying(request, config) });
        let request = request.map(|request| request.to_string());
        RuleAnswer { reference: reference.to_owned(), request, allowed, rule, sentence }
    }

    /// As the webhook would: with what unlocks a store, and the role that it needs.
    fn plan(&self, reference: &str, config: &Config) -> Result<Vec<String>, String> {
        // As a document, whatever is asked for.
        let item = serde_json::json!([{"file": "x", "from": {"x": reference}, "format": "json"}]);
        let annotations = BTreeMap::from([(format!("{PREFIX}{}", annotations::SECRETS), item.to_string())]);
        let (bundle, _) = annotations::parse(&annotations).map_err(|error| error.to_string())?;
        let options = self.options.clone().or(&config.defaults);
        let planned = Plan::build_with_warnings(self.identity.clone(), &self.labels, &bundle, &options, config);
        planned.map(|built| built.warnings).map_err(|error| error.problem)
    }

    fn request(&self, reference: &str, config: &Config) -> Option<Request> {
        let reference: Reference = reference.parse().ok()?;
        let name = reference.provider.as_ref().or(config.defaults.provider.as_ref());
        let name = name.or(config.default_provider.as_ref())?;
        let settings = config.providers.get(name)?.settings.in_namespace(&self.identity.namespace);
        settings.as_settings().resolve(name, &reference).ok()
    }

    /// The first rule that would do alone.
    fn allowing(&self, request: &Request, config: &Config) -> Option<String> {
        let name = &request.provider;
        let provider = config.providers.get(name)?;
        let parameters = provider.settings.as_settings().parameters();
        let role = self.options.roles.get(name).map(String::as_str);
        let is_enough = |rule| {
            let rights = Rights::of(name, Some(std::slice::from_ref(rule)), &self.identity, &self.labels, role);
            rights.is_ok_and(|rights| rights.check(request, &parameters).is_ok())
        };
        let index = provider.allow.as_ref()?.iter().position(is_enough)?;
        Some(format!("providers.{name}.allow[{index}]"))
    }

    fn denying(&self, request: &Request, config: &Config) -> Option<String> {
        let is_it = |rule: &crate::config::Deny| rule.is_about(&self.identity) && rule.names(request, &self.identity);
        config.deny.iter().position(is_it).map(|index| format!("deny[{index}]"))
    }
}

// === impl Checked ===

impl Checked {
    fn is_fine(&self) -> bool {
        self.faults.is_empty() && self.answers.iter().all(|answer| answer.allowed)
    }

    fn to_text(&self, path: &Path) -> String {
        let (path, mut out) = (path.display(), String::new());
        for ToldFault { line, column, problem } in &self.faults {
            let _ = writeln!(out, "{path}:{line}:{column}: {problem}");
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "{path}: warning: {warning}");
        }
        for RuleAnswer { reference, request, allowed, rule, sentence } in &self.answers {
            let shown = request.as_ref().unwrap_or(reference);
            let _ = match (allowed, rule) {
                (true, Some(rule)) => writeln!(out, "allowed: {shown}: {rule}: {sentence}"),
                (true, None) => writeln!(out, "allowed: {shown}: its provider has no allow rules: {sentence}"),
                (false, Some(rule)) => writeln!(out, "refused: {shown}: {rule}: {sentence}"),
                (false, None) => writeln!(out, "refused: {shown}: no rule allows it: {sentence}"),
            };
        }
        if out.is_empty() {
            let _ = writeln!(out, "{path}: nothing is wrong");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
image: i
defaultProvider: vault
providers:
  vault:
    type: vault
    address: "https://v"
    role: web
    allow:
      - {namespaces: [ops]}
      - {namespaces: ["team-*"], requests: ["secret/data/{{namespace}}/*"]}
      - {namespaceLabels: {tier: prod}, requests: ["secret/data/prod/*"]}
  open: {type: aws, region: eu-west-1, role: "arn:aws:iam::123456789012:role/{{service_account}}"}
  sops: {type: file, volumes: true, identity: "vault:secret/data/age#key"}
deny:
  - {references: ["vault:secret/data/team-a/old"]}
  - {namespaces: [team-z]}
"#;

    fn asked(who: &str, labels: Option<&str>, reference: &str) -> RuleAnswer {
        let labels = labels.map(|text| NamespaceLabels::known(text.split(',').map(|one| pair(one).unwrap()).collect()));
        let asking = Asking {
            identity: identity(who).unwrap(),
            labels: labels.unwrap_or_else(|| NamespaceLabels::Unknown("say them with --namespace-labels".into())),
            options: Options::default(),
        };
        let mut checked = check(CONFIG, Some(&asking), &[reference.to_owned()]);
        assert!(checked.faults.is_empty(), "{:?}", checked.faults);
        checked.answers.pop().unwrap()
    }

    #[test]
    fn p6_the_rule_that_decides_is_named() {
        for (who, labels, reference, rule, part) in [
            ("ops/web", None, "secret/data/x#k", Ok(Some("providers.vault.allow[0]")), "may be requested"),
            ("team-a/web", None, "/v1/secret/data/team-a/db", Ok(Some("providers.vault.allow[1]")), "may be"),
            ("team-a/web", None, "secret/data/team-a/old", Err(Some("deny[0]")), "rule deny[0]"),
            ("team-a/web", Some("tier=prod"), "secret/data/prod/x", Ok(Some("providers.vault.allow[2]")), "may be"),
            ("team-a/web", Some("tier=dev"), "secret/data/prod/x", Err(None), "may not request"),
            ("other/web", None, "secret/data/prod/x", Err(None), "say them with --namespace-labels"),
            ("other/web", Some("a=b"), "secret/data/prod/x", Err(None), "may not use provider"),
            ("team-z/web", None, "open:db", Err(Some("deny[1]")), "deny[1]"),
            ("other/web", None, "open:db", Ok(None), "may be"),
            ("other/web", None, "oepn:db", Err(None), "did you mean \"open\"?"),
            ("team-a/web", None, "sops:v/x.yaml", Err(None), "is unlocked by vault:secret/data/age"),
        ] {
            let answer = asked(who, labels, reference);
            assert_eq!(answer.allowed, rule.is_ok(), "{reference}: {answer:?}");
            let (Ok(rule) | Err(rule)) = rule;
            assert_eq!(answer.rule.as_deref(), rule, "{reference}: {answer:?}");
            assert!(answer.sentence.contains(part), "{reference}: {answer:?}");
        }
    }

    #[test]
    fn p9_all_faults_are_printed_by_line() {
        let checked = check("image: i\nproviders:\n  v: {type: vualt}\n  w: {type: aws}\nx: y\n", None, &[]);
        assert!(!checked.is_fine());
        let text = checked.to_text(Path::new("c.yaml"));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        for (line, start) in lines.iter().zip(["c.yaml:3:7: ", "c.yaml:4:3: ", "c.yaml:5:1: "]) {
            assert!(line.starts_with(start), "{text}");
        }
        let fine = check("image: i\n", None, &[]);
        assert!(fine.is_fine() && fine.to_text(Path::new("c")).contains("nothing is wrong"));
        let warned = check("image: i\ndeny: [{namespaces: [A]}]\n", None, &[]);
        assert!(warned.is_fine() && warned.to_text(Path::new("c")).starts_with("c: warning: deny[0].namespaces"));
    }
}

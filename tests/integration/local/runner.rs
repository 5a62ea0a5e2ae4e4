//! Stand-ins for the runners of GitHub and GitLab: what their documents say that they do with a job, and no more
//! (<https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>,
//! <https://docs.github.com/actions/reference/workflows-and-actions/metadata-syntax>,
//! <https://docs.gitlab.com/ci/inputs/>, <https://docs.gitlab.com/ci/yaml/>).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::{Map, Value};

/// Variables by name.
pub(super) type Variables = BTreeMap<String, String>;

/// What a runner shows in place of a value.
const STARS: &str = "***";

/// A job on GitHub, step by step.
pub(super) struct GithubJob {
    workspace: PathBuf,
    /// What the machine has, and what earlier steps wrote to `$GITHUB_ENV`.
    pub(super) variables: Variables,
    /// What it was told to hide.
    pub(super) masks: Vec<String>,
    /// What readers of the log see.
    pub(super) log: String,
    /// Where `uses: ./…` are, if not in the workspace.
    pub(super) actions: BTreeMap<String, Value>,
    /// Where its files are.
    files: tempfile::TempDir,
}

/// The mapping below a field; empty, if there is none.
fn fields(value: &Value, name: &str) -> Map<String, Value> {
    value.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// A scalar as expressions have it.
fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Runs a script as a step of a job: `bash` as GitHub calls it, both streams in their order.
fn bash(script: &str, directory: &Path, variables: &Variables, files: &Path) -> (ExitStatus, String) {
    let (script_file, log_file) = (files.join("script.sh"), files.join("log"));
    fs::write(&script_file, script).unwrap();
    let log = File::create(&log_file).unwrap();
    let status = Command::new("bash")
        .args(["--noprofile", "--norc", "-eo", "pipefail"])
        .arg(&script_file)
        .current_dir(directory)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .status()
        .unwrap();
    let log = fs::read(&log_file).unwrap();
    (status, String::from_utf8_lossy(&log).into_owned())
}

// === impl GithubJob ===

impl GithubJob {
    pub(super) fn new(workspace: &Path, variables: Variables) -> Self {
        let mut variables = variables;
        variables.extend([("CI", "true"), ("GITHUB_ACTIONS", "true")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        Self {
            workspace: workspace.to_owned(),
            variables,
            masks: Vec::new(),
            log: String::new(),
            actions: BTreeMap::new(),
            files: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs steps until one fails; gives the exit code of the last one.
    pub(super) fn steps(&mut self, steps: &Value) -> Option<i32> {
        let mut code = Some(0);
        for step in steps.as_array().unwrap() {
            code = self.step(step);
            if code != Some(0) {
                break;
            }
        }
        code
    }

    fn step(&mut self, step: &Value) -> Option<i32> {
        match step.get("uses").and_then(Value::as_str) {
            // What it would bring is there.
            Some(uses) if uses.starts_with("actions/checkout@") => Some(0),
            Some(uses) => {
                let action = self.actions.get(uses).unwrap_or_else(|| panic!("there is no action {uses}")).clone();
                self.action(&action, &fields(step, "with"))
            }
            None => self.script(step, &|text| text.to_owned()),
        }
    }

    /// Runs a composite action with these inputs.
    pub(super) fn action(&mut self, action: &Value, with: &Map<String, Value>) -> Option<i32> {
        let known = fields(action, "inputs");
        for name in with.keys() {
            assert!(known.contains_key(name), "the runner would warn: unexpected input {name}");
        }
        assert_eq!(action["runs"]["using"], "composite");
        let inputs: Variables = known
            .iter()
            .map(|(name, input)| (name.clone(), scalar(with.get(name).unwrap_or(&input["default"]))))
            .collect();
        let replaced = |text: &str| {
            inputs
                .iter()
                .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{{{ inputs.{name} }}}}"), value))
        };
        let mut code = Some(0);
        for step in action["runs"]["steps"].as_array().unwrap() {
            assert_eq!(step["shell"], "bash", "a step of an action names its shell");
            code = self.script(step, &replaced);
            if code != Some(0) {
                break;
            }
        }
        code
    }

    fn script(&mut self, step: &Value, replaced: &dyn Fn(&str) -> String) -> Option<i32> {
        let mut variables = self.variables.clone();
        for (name, value) in fields(step, "env") {
            let value = replaced(&scalar(&value));
            assert!(!value.contains("${{"), "an expression that this stand-in does not know: {value}");
            variables.insert(name, value);
        }
        let script = replaced(step["run"].as_str().unwrap());
        for name in ["GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH"] {
            let file = variables.entry(name.to_owned()).or_insert_with(|| scalar(&path_of(self.files.path(), name)));
            if !Path::new(file).is_dir() {
                fs::write(file, "").unwrap();
            }
        }
        let (status, log) = bash(&script, &self.workspace, &variables, self.files.path());
        self.hear(&log);
        assert_eq!(fs::read_to_string(&variables["GITHUB_OUTPUT"]).unwrap(), "", "outputs go to other jobs");
        let written = Path::new(&variables["GITHUB_ENV"]);
        if written.is_file() {
            self.variables.extend(assignments(&fs::read_to_string(written).unwrap()));
        }
        status.code()
    }

    /// Reads a log line by line: commands are obeyed and not shown, and what was to be hidden before is.
    fn hear(&mut self, log: &str) {
        for line in log.split_inclusive('\n') {
            if let Some(mask) = line.strip_prefix("::add-mask::") {
                let mask = mask.trim_end_matches('\n').replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%");
                assert!(!mask.is_empty(), "the runner would hide everything");
                self.masks.push(mask);
                continue;
            }
            let mut masks = self.masks.clone();
            masks.sort_by_key(|mask| std::cmp::Reverse(mask.len()));
            self.log.push_str(&masks.iter().fold(line.to_owned(), |line, mask| line.replace(mask, STARS)));
        }
    }
}

fn path_of(directory: &Path, name: &str) -> Value {
    Value::from(directory.join(name).to_str().unwrap())
}

/// A file of the form `NAME=value` or `NAME<<DELIMITER`, in lines.
pub(super) fn assignments(text: &str) -> Variables {
    let mut found = Variables::new();
    let mut lines = text.split('\n');
    while let Some(line) = lines.next() {
        let is_block = match (line.find("<<"), line.find('=')) {
            (Some(block), Some(equals)) => block < equals,
            (block, _) => block.is_some(),
        };
        let (name, value) = if is_block {
            let (name, delimiter) = line.split_once("<<").unwrap();
            let inner: Vec<_> = lines.by_ref().take_while(|line| *line != delimiter).collect();
            (name, inner.join("\n"))
        } else if line.is_empty() {
            continue;
        } else {
            let (name, value) = line.split_once('=').expect("the runner would say: invalid format");
            (name, value.to_owned())
        };
        assert!(!name.starts_with("GITHUB_") && !name.starts_with("RUNNER_"), "the runner does not take {name}");
        found.insert(name.to_owned(), value);
    }
    found
}

/// A job of a pipeline on GitLab: what it extends is in `template`, which `include:` has with inputs. `sign` gives the
/// token for an audience. Gives the exit code and the log.
pub(super) fn gitlab(
    workspace: &Path,
    pipeline: &Value,
    (job, template): (&str, &str),
    variables: &Variables,
    sign: impl Fn(&str) -> String,
) -> (Option<i32>, String) {
    let (header, body) = template.split_once("\n---\n").unwrap();
    let header: Value = serde_saphyr::from_str(header).unwrap();
    let given = fields(&pipeline["include"][0], "inputs");
    let known = fields(&header["spec"], "inputs");
    let mut body = body.to_owned();
    for name in given.keys() {
        assert!(known.contains_key(name), "GitLab would say: unknown input arguments: {name}");
    }
    for (name, input) in &known {
        let value = scalar(given.get(name).unwrap_or(&input["default"]));
        let options = input["options"].as_array();
        assert!(options.is_none_or(|options| options.contains(&Value::from(value.clone()))), "{name}: {value}");
        body = body.replace(&format!("$[[ inputs.{name} ]]"), &value);
    }
    assert!(!body.contains("$[["), "{body}");
    let templates: Value = serde_saphyr::from_str(&body).unwrap();
    let job = &pipeline[job];
    let mut merged = templates[job["extends"].as_str().unwrap()].clone();
    merge(&mut merged, job);

    let mut all = variables.clone();
    all.extend([("CI", "true"), ("GITLAB_CI", "true")].map(|(name, value)| (name.to_owned(), value.to_owned())));
    all.extend(fields(&merged, "variables").into_iter().map(|(name, value)| (name, scalar(&value))));
    for (name, token) in fields(&merged, "id_tokens") {
        all.insert(name, sign(token["aud"].as_str().unwrap()));
    }
    let lines =
        ["before_script", "script"].iter().flat_map(|part| merged[*part].as_array().cloned().unwrap_or_default());
    let script: Vec<_> = lines.map(|line| scalar(&line)).collect();
    let files = tempfile::tempdir().unwrap();
    let (status, log) = bash(&script.join("\n"), workspace, &all, files.path());
    (status.code(), log)
}

/// Mappings are merged, and anything else is replaced.
fn merge(into: &mut Value, over: &Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (name, value) in over {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, over) => *into = over.clone(),
    }
}

//! Environment variables: the selected containers' commands are put behind `hushpod-agent exec`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::kubelet_env;
use super::patch::{Patched, at};
use super::pod::{LISTS, containers, env_of, is_ours, name_of};
use super::refusal::Refusal;
use super::selection::Selection;
use crate::annotations::{self, CONTAINERS, ENV, ENV_VARIABLE, MODE, ON_CHANGE};
use crate::bundle::Bundle;
use crate::config::Config;
use crate::contract::{
    DEFAULT_MOUNT_PATH, END_OF_OPTIONS, ENV_DIR, ENV_OPTION, EXEC_COMMAND, GRACE_OPTION, JITTER_OPTION, KEEP_OPTION,
    NOTIFY_OPTION, ON_CHANGE_OPTION, OPTIONAL_ENV_OPTION, PREFIX, PROGRAM,
};
use crate::env_vars::check_name;
use crate::options::{DEFAULT_JITTER, Mode, Notify, OnChange, Options};
use crate::steps;

/// What Kubernetes gives a pod to end, unless it says otherwise.
const DEFAULT_GRACE: u64 = 30;
/// Steps for two words that are written: they take more memory than what is looked at.
const WRITTEN: usize = 16;

/// What is the same for all containers of a pod.
#[derive(Debug)]
pub(super) struct EnvWrapper<'a> {
    options: &'a Options,
    /// Variables that are annotated one by one.
    names: BTreeSet<&'a str>,
    /// Seconds that the application is given to end.
    grace: u64,
    /// Whether kubelet sets the variables of containers that say no command.
    kubelet: bool,
    /// Whether it would in another mode: it reads them out of an `emptyDir` alone.
    kubelet_elsewhere: bool,
    /// Whom the application's parent tells of changes: nobody, where an agent does.
    notify: &'a [Notify],
}

/// What a container's command is now.
enum Present {
    /// Not ours; the application's.
    Plain(Vec<String>),
    /// Ours, and behind it the application's.
    Wrapped(Vec<String>),
    /// Somebody put theirs in front of ours.
    Inside,
}

// === impl EnvWrapper ===

impl<'a> EnvWrapper<'a> {
    /// `None` if the pod asks for no variables.
    ///
    /// # Errors
    /// [`Refusal`], if the pod cannot have what it asks for.
    pub(super) fn of(
        spec: &Value,
        bundle: &'a Bundle,
        options: &'a Options,
        mode: Mode,
        config: &Config,
    ) -> Result<Option<Self>, Refusal> {
        if options.environment.is_empty() {
            return Ok(None);
        }
        let never =
            |why: &str| Err(Refusal::Pod(format!("annotation {PREFIX}{ON_CHANGE}: {} {why}", options.on_change)));
        if options.on_change != OnChange::None && mode == Mode::Init {
            return never(&format!("needs files that change: write {PREFIX}{MODE}: sidecar or init+sidecar"));
        }
        if options.on_change == OnChange::Restart && spec.get("restartPolicy") == Some(&json!("Never")) {
            return never("with restartPolicy Never would end the pod: write OnFailure or Always, or none here");
        }
        if options.on_change == OnChange::RestartAll && mode == Mode::Csi {
            return never(&format!(
                "needs a sidecar, which mode csi has not: write {PREFIX}{MODE}: sidecar, or restart here"
            ));
        }
        if options.on_change == OnChange::RestartAll && !config.native_sidecars {
            return never(
                "needs native sidecars and Kubernetes 1.36, which this cluster has not: write restart, or none",
            );
        }
        let grace = spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(DEFAULT_GRACE);
        let names = bundle.items.iter().filter_map(annotations::variable).collect();
        let is_csi = mode == Mode::Csi;
        let notify = if is_csi { options.notify.as_slice() } else { &[] };
        let (kubelet, kubelet_elsewhere) = (config.kubelet_env && !is_csi, config.kubelet_env && is_csi);
        Ok(Some(Self { options, names, grace, kubelet, kubelet_elsewhere, notify }))
    }

    /// The variables that are annotated one by one.
    pub(super) fn names(&self) -> &BTreeSet<&'a str> {
        &self.names
    }

    /// The selected containers whose variables kubelet sets.
    ///
    /// # Errors
    /// [`Refusal`] names the container, and what kubelet cannot do for it.
    pub(super) fn for_kubelet<'b>(&self, spec: &'b Value, selection: &Selection) -> Result<BTreeSet<&'b str>, Refusal> {
        let mut names = BTreeSet::new();
        for list in LISTS {
            let meant = containers(spec, list).iter().filter(|container| is_meant(container, list, selection));
            for container in meant.filter(|container| self.is_for_kubelet(&present(container))) {
                self.check_for_kubelet(name_of(container))?;
                names.insert(name_of(container));
            }
        }
        Ok(names)
    }

    /// The containers whose parents tell of changes: those of ours that are there when one comes. An init container
    /// has ended by then, unless it is a native sidecar.
    pub(super) fn tellers<'b>(&self, spec: &'b Value, selection: &Selection) -> impl Iterator<Item = &'b str> {
        let stays = |list: &str, container: &Value| {
            list == "containers" || container.get("restartPolicy").is_some_and(|policy| policy == "Always")
        };
        let all =
            LISTS.into_iter().flat_map(|list| containers(spec, list).iter().map(move |container| (list, container)));
        let tellers = all.filter(move |(list, container)| {
            !self.notify.is_empty() && is_meant(container, list, selection) && stays(list, container)
        });
        tellers.map(|(_, container)| name_of(container))
    }

    fn is_for_kubelet(&self, present: &Present) -> bool {
        self.kubelet && matches!(present, Present::Plain(inner) if inner.is_empty())
    }

    fn check_for_kubelet(&self, container: &str) -> Result<(), Refusal> {
        let refuse = |annotation: &str, problem: &str| {
            Err(Refusal::Pod(format!(
                "annotation {PREFIX}{annotation}: container {container:?} has no command, and {problem}, or add command \
                 (the image's ENTRYPOINT, and args if there are none)"
            )))
        };
        if self.options.environment.iter().any(|source| source.path.as_str() != ENV_DIR) {
            return refuse(ENV, "kubelet sets only variables that are known by name: write env.<NAME> for each");
        }
        if !matches!(self.options.on_change, OnChange::None | OnChange::RestartAll) {
            return refuse(
                ON_CHANGE,
                "nothing of hushpod runs in it that could act: write restart-all (Kubernetes 1.36)",
            );
        }
        Ok(())
    }

    /// Wraps every selected container once.
    ///
    /// # Errors
    /// [`Refusal`] names the container, and what it lacks.
    pub(super) fn converge(&self, patched: &mut Patched, selection: &Selection) -> Result<(), Refusal> {
        let spec = patched.object().get("spec").unwrap_or(&Value::Null);
        let tellers: BTreeMap<String, usize> =
            self.tellers(spec, selection).enumerate().map(|(place, name)| (name.to_owned(), place)).collect();
        for list in LISTS {
            let spec = patched.object().get("spec").unwrap_or(&Value::Null);
            let (mut commands, mut variables) = (Vec::new(), Vec::new());
            for (index, container) in containers(spec, list).iter().enumerate() {
                if !is_meant(container, list, selection) {
                    continue;
                }
                let present = present(container);
                if self.is_for_kubelet(&present) {
                    variables.push((index, self.missing(container)?));
                } else {
                    let told = self.told_by(tellers.get(name_of(container)).copied());
                    commands
                        .extend(self.command(container, present, selection, &told)?.map(|command| (index, command)));
                }
            }
            for (index, command) in commands {
                patched.set(&at!["spec", list, index, "command"], json!(command));
            }
            for (index, missing) in variables {
                let env = at!["spec", list, index, "env"];
                for variable in missing {
                    patched.insert(&env, patched.list(&env).len(), &variable, variable.clone());
                }
            }
        }
        Ok(())
    }

    /// The variables that kubelet is yet to be told of.
    fn missing(&self, container: &Value) -> Result<Vec<Value>, Refusal> {
        let own: BTreeMap<&str, &Value> =
            env_of(container).iter().map(|variable| (name_of(variable), variable)).collect();
        steps::take(own.len() + self.names.len() * WRITTEN)?;
        let mut missing = Vec::new();
        for name in &self.names {
            let wanted = kubelet_env::variable(name);
            match own.get(name) {
                None => missing.push(wanted),
                Some(present) if **present == wanted => {}
                Some(_) => return Err(set_twice(container, name)),
            }
        }
        Ok(missing)
    }

    /// The command that a container must have; `None` if it is to be left alone.
    fn command(
        &self,
        container: &Value,
        present: Present,
        selection: &Selection,
        told: &[&Notify],
    ) -> Result<Option<Vec<String>>, Refusal> {
        let name = name_of(container);
        let inner = match present {
            Present::Inside => return Ok(None),
            Present::Plain(inner) | Present::Wrapped(inner) => inner,
        };
        if inner.is_empty() {
            let way_out = if selection.is_asked() { "leave it out of" } else { "name only others in" };
            let elsewhere = if self.kubelet_elsewhere {
                ", use mode sidecar (of mode csi's volume kubelet reads no variables)"
            } else {
                ""
            };
            return Err(Refusal::Pod(format!(
                "container {name:?} has no command, and the image's own is not known here: add command (the image's \
                 ENTRYPOINT, and args if there are none){elsewhere}, or {way_out} {PREFIX}{CONTAINERS}"
            )));
        }
        let own: Vec<_> = env_of(container).iter().map(name_of).collect();
        if let Some(twice) = own.iter().find(|variable| self.names.contains(*variable)) {
            return Err(set_twice(container, twice));
        }
        // Each container gets all of them: products of two lists that a tenant writes.
        steps::take((self.options.environment.len() + told.len()) * WRITTEN + own.len() + inner.len())?;
        let mut command = vec![PROGRAM.to_owned(), EXEC_COMMAND.to_owned()];
        command.extend(self.arguments());
        command.extend(told.iter().flat_map(|told| [NOTIFY_OPTION.to_owned(), literal(&told.to_string())]));
        // An explicit env beats what files bring, as it beats envFrom; names that no file may bring need no word.
        let kept = own.into_iter().filter(|variable| check_name(variable).is_ok());
        command.extend(kept.flat_map(|variable| [KEEP_OPTION.to_owned(), variable.to_owned()]));
        command.push(END_OF_OPTIONS.to_owned());
        command.extend(inner);
        Ok(Some(command))
    }

    /// Whom the parent in a container tells, by the container's place among those that tell. Each sees the processes of
    /// its own container only; localhost is the whole pod's, so one that tells is enough.
    fn told_by(&self, place: Option<usize>) -> Vec<&'a Notify> {
        let is_told = |notify: &&Notify| match (notify, place) {
            (_, None) => false,
            (Notify::Signal { .. }, _) => true,
            (Notify::Http { .. }, Some(place)) => place == 0,
        };
        self.notify.iter().filter(is_told).collect()
    }

    fn arguments(&self) -> impl Iterator<Item = String> {
        let root = self.options.mount_path.as_deref().unwrap_or(DEFAULT_MOUNT_PATH);
        let mut arguments = Vec::new();
        for source in &self.options.environment {
            let option = if source.optional { OPTIONAL_ENV_OPTION } else { ENV_OPTION };
            arguments.extend([option.to_owned(), literal(&format!("{root}/{}", source.path))]);
        }
        let jitter = match self.options.on_change {
            // The agent does it, and no parent needs to stay.
            OnChange::None | OnChange::RestartAll => return arguments.into_iter(),
            OnChange::Restart => self.options.on_change_jitter.unwrap_or(DEFAULT_JITTER),
            // It costs nothing to be told.
            OnChange::Signal(_) => self.options.on_change_jitter.unwrap_or(Duration::ZERO),
        };
        arguments.extend([ON_CHANGE_OPTION.to_owned(), self.options.on_change.to_string()]);
        if !jitter.is_zero() {
            arguments.extend([JITTER_OPTION.to_owned(), format!("{}ms", jitter.as_millis())]);
        }
        arguments.extend([GRACE_OPTION.to_owned(), format!("{}s", self.grace)]);
        arguments.into_iter()
    }
}

/// A word of a command as kubelet is to leave it: it expands $(NAME), and $$ is a dollar.
fn literal(word: &str) -> String {
    word.replace('$', "$$")
}

fn present(container: &Value) -> Present {
    let words = |field: &str| {
        let list = container.get(field).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let command = words("command");
    if command.first().is_some_and(|first| first == PROGRAM) {
        let end = command.iter().position(|word| word == END_OF_OPTIONS).unwrap_or(0);
        return Present::Wrapped(command.into_iter().skip(end + 1).collect());
    }
    if command.iter().chain(&words("args")).any(|word| word.contains(PROGRAM)) {
        return Present::Inside;
    }
    Present::Plain(command)
}

/// Whether a container is started through our program.
pub(super) fn is_wrapped(container: &Value) -> bool {
    !matches!(present(container), Present::Plain(_))
}

/// Init containers run other programs, if nobody says otherwise.
fn is_meant(container: &Value, list: &str, selection: &Selection) -> bool {
    let is_selected = selection.takes(name_of(container)) && (selection.is_asked() || list == "containers");
    is_selected && !is_ours(container)
}

fn set_twice(container: &Value, variable: &str) -> Refusal {
    let name = name_of(container);
    Refusal::Pod(format!(
        "container {name:?} has {variable} in env, and {PREFIX}{ENV_VARIABLE}{variable} sets it too: take one of them away"
    ))
}

//! Which containers get the files.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod::{LISTS, containers, is_ours, name_of};
use super::refusal::Refusal;
use crate::annotations::CONTAINERS;
use crate::config::{Config, matches};
use crate::contract::PREFIX;
use crate::options::{InitOrder, Options};
use crate::sentence::suggestion;
use crate::steps;

/// Names that a sentence tells, of as many as there may be.
const SHOWN: usize = 8;

/// The containers that get the files.
#[derive(Debug)]
pub(super) struct Selection {
    /// Their names; those that the pod names may be yet to come.
    names: BTreeSet<String>,
    /// Whether the pod names them itself.
    is_asked: bool,
    /// Whether an earlier pass was here, so mounts of ours are its own.
    is_again: bool,
}

// === impl Selection ===

impl Selection {
    /// Those that the pod names; else those that an earlier pass wrote down; else all that nobody is known to inject.
    /// What others add when we were asked already gets nothing: a mesh's proxy that waits for the files would keep the
    /// agent from its store.
    ///
    /// # Errors
    /// [`Refusal`] suggests the name that was meant, or says that nobody is left.
    pub(super) fn of(
        spec: &Value,
        options: &Options,
        earlier: Option<&[String]>,
        config: &Config,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Refusal> {
        let is_again = earlier.is_some();
        let is_injected = |name: &str| {
            // Most of them differ in the first letter.
            let may = |glob: &&String| glob.starts_with('*') || glob.as_bytes().first() == name.as_bytes().first();
            config.injected_containers.iter().filter(may).any(|glob| matches(glob, name))
        };
        let others = || LISTS.iter().flat_map(|list| containers(spec, list)).filter(|container| !is_ours(container));
        let present = || -> BTreeSet<_> { others().map(name_of).collect() };
        steps::take(LISTS.iter().map(|list| containers(spec, list).len()).sum())?;
        if let Some(names) = &options.containers {
            let present = present();
            for absent in names.iter().filter(|name| !present.contains(name.as_str())) {
                if !is_injected(absent) {
                    let known: Vec<_> = present.iter().copied().collect();
                    return Err(Refusal::Pod(format!(
                        "annotation {PREFIX}{CONTAINERS}: the pod has no container {absent:?}{}",
                        suggestion(absent, &known)
                    )));
                }
                warnings.push(format!(
                    "{PREFIX}{CONTAINERS}: no container {absent:?} yet; it gets the files when another webhook adds it"
                ));
            }
            return Ok(Self { names: names.clone(), is_asked: true, is_again });
        }
        let kept = earlier.map_or_else(BTreeSet::new, |chosen| {
            let present = present();
            chosen.iter().filter(|name| present.contains(name.as_str())).cloned().collect()
        });
        let (injected, own): (Vec<_>, Vec<_>) = candidates(spec, options).partition(|name| is_injected(name));
        // A copy of a pod may have other names: then nothing was chosen of it yet.
        if !kept.is_empty() {
            for late in own.iter().filter(|name| !kept.contains(**name)).take(SHOWN) {
                warnings.push(format!(
                    "container {late:?} came later and gets no files: name it in {PREFIX}{CONTAINERS} if it wants them"
                ));
            }
            return Ok(Self { names: kept, is_asked: false, is_again });
        }
        let some = injected.get(..SHOWN).filter(|some| some.len() < injected.len());
        let left_out = some.map_or_else(|| injected.join(", "), |some| some.join(", ") + ", …");
        if own.is_empty() && !injected.is_empty() {
            return Err(Refusal::Pod(format!(
                "the pod has no containers but {left_out}, whose names other webhooks give to what they inject: say \
                 in the annotation {PREFIX}{CONTAINERS} which of them get the files"
            )));
        }
        if !injected.is_empty() {
            warnings.push(format!(
                "{left_out}: no files, since other webhooks inject containers of such names: write \
                 {PREFIX}{CONTAINERS} to choose yourself"
            ));
        }
        let names = own.into_iter().map(str::to_owned).collect();
        Ok(Self { names, is_asked: false, is_again })
    }

    /// Their names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The containers that will read the files. Init containers count if they are named, or if no application
    /// container is left to ask.
    #[must_use]
    pub(super) fn containers<'a>(&self, spec: &'a Value) -> Vec<&'a Value> {
        let lists = if self.is_asked { &LISTS[..] } else { &["containers"] };
        let all = lists.iter().flat_map(|list| containers(spec, list));
        all.filter(|container| !is_ours(container) && self.takes(name_of(container))).collect()
    }

    /// Whether a container gets the files, if there are any when it starts.
    #[must_use]
    pub(super) fn takes(&self, container: &str) -> bool {
        self.names.contains(container)
    }

    /// Whether an earlier pass was here, so mounts of ours are its own.
    #[must_use]
    pub(super) fn is_again(&self) -> bool {
        self.is_again
    }

    /// Whether the pod names them itself.
    #[must_use]
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }
}

/// Names of the containers that start behind the gate, ours apart.
fn candidates<'a>(spec: &'a Value, options: &Options) -> impl Iterator<Item = &'a str> {
    let inits = containers(spec, "initContainers");
    let position = |name: &str| inits.iter().position(|container| name_of(container) == name);
    let agent = inits.iter().rposition(is_ours);
    let early = match &options.init_order {
        Some(InitOrder::After(name)) => agent.max(position(name)).map_or(0, |place| place + 1),
        Some(InitOrder::Last) if agent.is_none() => inits.len(),
        _ => agent.map_or(0, |place| place + 1),
    };
    let others = inits.iter().skip(early).chain(containers(spec, "containers"));
    others.filter(|container| !is_ours(container)).map(name_of)
}

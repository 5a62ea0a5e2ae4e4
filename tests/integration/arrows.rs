//! Imports go one way. What is not in these tables is refused: an arrow more is a decision, made here.

use std::collections::BTreeSet;

use crate::house::{Arrow, arrows, circles};
use crate::sources::sources;

/// Std and serde alone: everyone may use them.
const LEAVES: [&str; 9] =
    ["contract", "secret", "sentence", "reference", "bundle", "dotenv", "env_vars", "quantity", "steps"];

/// Which other modules each one may use, beside [`LEAVES`].
const ARROWS: &[(&str, &[&str])] = &[
    ("contract", &[]),
    ("generation", &[]),
    ("options", &[]),
    ("report", &[]),
    ("secret", &[]),
    ("sentence", &[]),
    ("reference", &[]),
    ("bundle", &[]),
    ("steps", &[]),
    ("dotenv", &[]),
    ("env_vars", &[]),
    ("quantity", &[]),
    ("process", &[]),
    ("serve", &[]),
    ("annotations", &[]),
    ("provider", &["process"]),
    ("config", &["annotations", "provider"]),
    ("plan", &["annotations", "config", "provider"]),
    ("source", &["plan", "provider"]),
    ("deliver", &["annotations", "plan", "source"]),
    ("webhook", &["annotations", "config", "plan", "process", "serve"]),
    ("exec", &["annotations", "process"]),
    ("agent", &["annotations", "deliver", "exec", "plan", "process", "provider", "source"]),
    // The chain from end to end on one machine: the one front end that runs another.
    ("demo", &["annotations", "config", "deliver", "plan", "process", "serve", "webhook"]),
    // Puts together what runs.
    ("cli", &["annotations", "config", "demo", "process", "serve", "webhook"]),
    ("lib", &[]),
    ("main", &[]),
    ("bin", &[]),
];

/// Crates that only these modules may use.
const CRATES: &[(&str, &[&str])] = &[
    ("kube", &["webhook"]),
    ("k8s_openapi", &["webhook"]),
    ("tonic", &[]),
    ("axum", &["demo", "serve", "webhook"]),
    ("json_patch", &["demo", "webhook"]),
    ("hyper_rustls", &["provider"]),
];

/// Files that still use each other, with the room that has them.
const KNOWN_CIRCLES: &[&str] = &["agent", "bundle", "config", "deliver", "demo", "exec", "secret", "source", "webhook"];

fn room(file: &str) -> &str {
    file.split('/').next().unwrap()
}

/// Arrows from one room into another that [`ARROWS`] does not allow.
fn forbidden(arrows: &BTreeSet<Arrow>) -> Vec<&Arrow> {
    let is_fine = |arrow: &&Arrow| {
        let from = match room(&arrow.from) {
            "" => "lib",
            room => room,
        };
        let (_, allowed) = ARROWS.iter().find(|(name, _)| *name == from).unwrap_or_else(|| panic!("{from}: no arrows"));
        let to = arrow.room.as_str();
        to == from || LEAVES.contains(&to) || allowed.contains(&to)
    };
    arrows.iter().filter(|arrow| !is_fine(arrow)).collect()
}

#[test]
fn modules_import_in_one_direction() {
    let sources = sources();
    let arrows = arrows(&sources);
    assert!(arrows.len() > 300, "{}", arrows.len());
    assert_eq!(forbidden(&arrows), Vec::<&Arrow>::new());
}

#[test]
fn no_two_files_use_each_other() {
    let sources = sources();
    let arrows = arrows(&sources);
    let circles = circles(&arrows);
    let is_known =
        |circle: &&BTreeSet<&str>| circle.iter().all(|file| KNOWN_CIRCLES.iter().any(|known| file.starts_with(known)));
    let found: Vec<_> = circles.iter().filter(|circle| !is_known(circle)).collect();
    assert!(found.is_empty(), "{found:?}");
    for known in KNOWN_CIRCLES {
        let is_there = circles.iter().flatten().any(|file| file.starts_with(known));
        assert!(is_there, "{known} has no circle any more: take it out of this list");
    }
}

#[test]
fn providers_do_not_know_each_other() {
    let providers = ["vault", "file", "aws", "azure", "gcp", "infisical"].map(|name| format!("provider/{name}"));
    let sources = sources();
    for Arrow { from, to, .. } in arrows(&sources) {
        let store = |file: &str| providers.iter().find(|name| file.starts_with(name.as_str()));
        assert!(store(&from).is_none() || store(&to).is_none() || store(&from) == store(&to), "{from}: {to}");
    }
}

#[test]
fn crates_stay_where_they_belong() {
    for source in sources() {
        for (name, modules) in CRATES {
            let uses = source.tokens.windows(2).any(|two| two[0].word() == Some(name) && two[1].is_sign("::"));
            assert!(!uses || modules.contains(&source.room()), "{}: {name} belongs in {modules:?}", source.file);
        }
    }
}

#[test]
fn a_store_of_files_asks_nobody() {
    let files: Vec<_> = sources().into_iter().filter(|source| source.file.starts_with("provider/file")).collect();
    assert!(files.len() > 3, "{files:?}");
    for source in files {
        let network = ["http", "hyper", "rustls", "net", "TcpStream", "oauth", "bearer"];
        let found = source.words().find(|word| network.contains(word));
        assert_eq!(found, None, "{}: src/config.md says 0 requests an hour", source.file);
    }
}

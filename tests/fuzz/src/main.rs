//! Fuzz targets for every parser of outside bytes; `tests/fuzz/run` builds and runs them.
//!
//! Each target asks for more than that nothing panics: see the function's comment. Inputs are text where that can be: a seed can then
//! be written, and a crashing input be read.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

mod admission;
mod files;
mod store;
mod text;

/// What stands in values and never may stand in a message. It is in seeds too.
const MARKER: &str = "canary";

type Target = fn(&[u8]);

/// Every target by name; the seeds are in `corpus/<name>/`.
const TARGETS: &[(&str, Target)] = &[
    ("reference", text::reference),
    ("annotations", text::annotations),
    ("attributes", text::attributes),
    ("bundle", text::bundle),
    ("config", text::config),
    ("plan", text::plan),
    ("report", text::report),
    ("admission", admission::review),
    ("dotenv", files::dotenv),
    ("template", files::template),
    ("files", files::documents),
    ("sops", files::encrypted),
    ("vault", |input| store::answers(&store::VAULT, input)),
    ("infisical", |input| store::answers(&store::INFISICAL, input)),
    ("aws", |input| store::answers(&store::AWS, input)),
    ("ssm", |input| store::answers(&store::SSM, input)),
    ("azure", |input| store::answers(&store::AZURE, input)),
    ("gcp", |input| store::answers(&store::GCP, input)),
];

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn choose() -> Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    match TARGETS.iter().find(|(known, _)| *known == name) {
        Some((_, target)) => *target,
        None => {
            let known: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            eprintln!("FUZZ_TARGET: {name:?} is not one of {}", known.join(" "));
            std::process::exit(2);
        }
    }
}

fuzz_target!(init: { CHOSEN.get_or_init(choose); }, |input: &[u8]| {
    CHOSEN.get_or_init(choose)(input);
});

/// A directory in memory for this process: `FUZZ_DIR`, which its setter removes.
fn scratch() -> PathBuf {
    let dir = std::env::var_os("FUZZ_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(std::process::id().to_string());
    std::fs::create_dir_all(&dir).expect("somewhere to write");
    dir
}

/// A message for people: one line, not empty, and no value in it.
fn assert_message(message: &str) {
    assert!(!message.trim().is_empty(), "an empty message");
    assert!(!message.contains(MARKER), "a value in a message: {message:?}");
}

//! Imports go one way. What is not in these tables is refused: an arrow more is a decision, made here.

use std::collections::BTreeSet;

use crate::house::{Arrow, arrows, circles};
use crate::sources::{Source, sources};

/// They use no other room of ours, so everyone may use them.
const LEAVES: [&str; 16] = [
    "audit",
    "bounded_read",
    "contract",
    "generation",
    "metrics",
    "options",
    "parse_error",
    "report",
    "secret",
    "sentence",
    "reference",
    "bundle",
    "dotenv",
    "env_vars",
    "quantity",
    "steps",
];

/// Which other modules each one may use, beside [`LEAVES`].
const ARROWS: &[(&str, &[&str])] = &[
    ("audit", &[]),
    ("bounded_read", &[]),
    ("contract", &[]),
    ("generation", &[]),
    ("metrics", &[]),
    ("options", &[]),
    ("parse_error", &[]),
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
    ("config", &["annotations", "process", "provider"]),
    ("plan", &["annotations", "config", "provider"]),
    ("source", &["plan", "provider"]),
    ("deliver", &["annotations", "plan", "source"]),
    ("webhook", &["annotations", "cluster", "config", "plan", "process", "serve"]),
    ("cluster", &["config"]),
    ("csi", &["annotations", "cluster", "config", "deliver", "plan", "process", "provider", "serve", "source"]),
    ("exec", &["process"]),
    ("agent", &["annotations", "deliver", "exec", "plan", "process", "provider", "source"]),
    // The chain from end to end on one machine: the one front end that runs another.
    ("demo", &["cluster", "config", "deliver", "process", "serve", "webhook"]),
    ("explain", &["process"]),
    ("fleet", &["annotations", "audit", "cluster", "config", "deliver", "plan", "process"]),
    // Checks manifests as the webhook would.
    ("local", &["annotations", "config", "deliver", "plan", "process", "provider", "source", "webhook"]),
    // Puts together what runs.
    ("cli", &["cluster", "config", "csi", "demo", "explain", "fleet", "local", "process", "serve", "webhook"]),
    ("lib", &[]),
    ("main", &[]),
    ("bin", &[]),
];

/// Crates that only these modules may use.
const CRATES: &[(&str, &[&str])] = &[
    ("kube", &["cluster", "csi", "fleet", "webhook"]),
    ("k8s_openapi", &["cluster", "csi", "fleet", "webhook"]),
    ("tonic", &["csi"]),
    ("axum", &["demo", "serve", "webhook"]),
    ("json_patch", &["demo", "webhook"]),
    ("hyper_rustls", &["provider"]),
];

/// The files of each room, from the top down: each may use those behind it. An empty name is the room's own file.
#[rustfmt::skip]
const ORDERS: &[(&str, &[&str])] = &[
    ("agent", &[
        "cli", "", "sync/deny", "sync/restart", "sync/waiting", "sync", "gated_volume", "install", "termination", "error",
        "restart_all", "metrics", "controls", "gate", "notify", "settings", "swap", "usage",
    ]),
    ("annotations", &["", "values", "keys"]),
    ("audit", &["", "log", "line"]),
    ("bundle", &[
        "", "item", "template", "template/tokens", "template/checker/expressions", "template/checker", "template/go",
        "template/problem", "template/names", "file_mode", "volume_path", "yaml",
    ]),
    ("cli", &["", "man", "demo", "test", "webhook"]),
    ("cluster", &["", "events", "namespaces", "watch"]),
    ("config", &[
        "reload", "metrics", "written", "fields", "unlock", "", "csi", "deny", "allow", "labels", "identity", "ca_bundle",
        "injected", "places", "proxy", "shape", "error",
    ]),
    ("csi", &[
        "cli", "", "calls", "node", "driver/left", "driver/unclaimed", "driver/surroundings", "driver", "feed/attach", "feed/deny", "feed/heard", "feed",
        "known", "names", "attached", "surroundings", "state", "sole", "logins", "events", "attributes", "record", "tokens", "volume",
        "registration", "metrics", "failure", "budget", "program", "mounts", "object", "pods", "taint", "proto",
    ]),
    ("deliver", &[
        "controls", "reporting", "delivery/pin", "delivery", "delivery/retry", "delivery/volume", "shown", "render",
        "render/parts", "render/template", "render/template/filters", "render/template/node", "volume", "volume/error",
        "render/format", "volume/tree", "", "render/buffer",
    ]),
    ("demo", &["", "pages", "pod", "watcher", "stage", "application", "exchange", "report", "claim", "error"]),
    ("exec", &["", "status", "supervise", "notify", "post", "failure", "read", "arguments"]),
    ("local", &[
        "", "check", "check/manifests", "check/projects", "check/live", "check/files", "check/operator", "check/tell",
        "check/findings", "export", "get", "login", "render", "run", "parent", "masked", "github", "mask", "mask/finder", "terminal",
        "signals", "template", "followed", "export/quoted", "files", "wanted", "copies", "fetch", "id_token", "manifest", "project", "project/paths",
        "trust", "arguments", "check/arguments", "private_dir", "output", "private_file", "source_file", "error",
    ]),
    ("plan", &["planner", "", "policy"]),
    ("process", &[
        "telemetry", "", "chance", "harden", "reap", "shutdown", "tell", "telemetry/lines", "telemetry/queue", "watch",
    ]),
    ("explain", &["", "page"]),
    ("fleet", &[
        "", "deny", "control", "history", "waves", "who", "next_pods", "order", "table", "live", "inventory", "select", "logs",
        "our_pod", "completion", "denial", "audit_file", "connect", "arguments", "out", "error", "progress", "safe",
    ]),
    ("provider", &[
        "", "aws", "azure", "gcp", "infisical", "vault", "aws/parameters", "aws/secrets", "azure/store", "file",
        "gcp/store", "infisical/store", "vault/store", "aws/api", "aws/name", "azure/api_types", "azure/login",
        "file/read", "gcp/login", "infisical/events", "infisical/lease", "infisical/login", "infisical/projects",
        "infisical/secrets", "vault/kv", "vault/login", "aws/credentials", "aws/errors", "azure/errors",
        "file/content", "gcp/adc", "gcp/gcloud", "gcp/api_types", "gcp/assertion", "gcp/errors", "infisical/api", "infisical/cli",
        "infisical/api_types", "infisical/asked", "infisical/events/frames", "session", "session/store", "vault/api", "vault/settings",
        "auth/oauth", "auth/tool", "auth/tool/interrupts", "aws/sso", "aws/profile", "aws/settings", "aws/sts", "azure/settings", "file/sops", "gcp/settings",
        "infisical/errors", "vault/api_types", "vault/errors", "aws/keys", "file/keys", "file/sops/value", "http",
        "infisical/limits", "infisical/settings", "auth", "file/sops/node", "http/date", "http/failure", "http/proxy",
        "http/reach", "names", "session/token", "file/sops/form", "http/client", "http/call",
        "http/response", "http/meter", "http/pool", "http/authorities", "http/connect", "interface", "http/address", "arrivals",
        "faults",
    ]),
    ("metrics", &["", "board", "catalogue"]),
    ("report", &["", "line"]),
    ("secret", &["", "document", "sealed", "document/json", "document/yaml", "tree", "document/node", "value"]),
    ("serve", &[
        "", "listener", "body", "peers", "admin", "clients", "exchange", "opening", "limits", "readiness", "tls",
    ]),
    ("source", &[
        "worker/apply", "read_again", "status", "bounds", "", "connect", "resume", "worker/answer", "worker", "earlier", "metrics", "login_state",
        "request_state", "persisted", "persisted/document", "handover", "backoff", "clock", "failure", "history",
        "key_dependency", "retired_lease", "told",
    ]),
    ("webhook", &[
        "server", "reload", "review", "trial", "lint", "mutate", "cache", "mounts", "placement", "containers", "csi_volume",
        "env_wrapper", "idle", "kubelet_env", "registration", "trust", "metrics", "pod_view", "pod_volumes",
        "registration/rotation", "registration/merge", "replace", "resources", "selection", "", "answer",
        "certificate", "patch", "permissions", "pod", "refusal",
    ]),
];

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

/// Arrows inside a room that [`ORDERS`] does not allow.
fn upward(arrows: &BTreeSet<Arrow>) -> Vec<&Arrow> {
    let is_fine = |arrow: &&Arrow| {
        let Some((room, order)) = ORDERS.iter().find(|(name, _)| *name == room(&arrow.from)) else { return true };
        let place = |file: &str| {
            let file = file.strip_prefix(room).unwrap_or(file).trim_start_matches('/');
            order.iter().position(|name| *name == file).unwrap_or_else(|| panic!("{file}: not in the order of {room}"))
        };
        self::room(&arrow.to) != *room || place(&arrow.from) < place(&arrow.to)
    };
    arrows.iter().filter(|arrow| !is_fine(arrow)).collect()
}

#[test]
fn files_import_in_the_order_of_their_room() {
    let sources = sources();
    assert_eq!(upward(&arrows(&sources)), Vec::<&Arrow>::new());
    let rooms: BTreeSet<_> = sources.iter().filter(|source| source.file.contains('/')).map(Source::room).collect();
    for room in rooms.into_iter().filter(|room| *room != "bin") {
        assert!(ORDERS.iter().any(|(name, _)| *name == room), "{room}: no order");
    }
    let files: BTreeSet<_> = sources.iter().map(|source| source.file.as_str()).collect();
    for (room, order) in ORDERS {
        for name in *order {
            let file = if name.is_empty() { format!("{room}.rs") } else { format!("{room}/{name}.rs") };
            assert!(files.contains(file.as_str()), "the order of {room} names {name:?}: there is no {file}");
        }
    }
}

#[test]
fn an_arrow_up_is_found() {
    let arrow = |from: &str, to: &str| Arrow {
        from: from.to_owned(),
        to: to.to_owned(),
        room: room(to).to_owned(),
        name: "X".to_owned(),
    };
    let all = BTreeSet::from([
        arrow("webhook/pod", "webhook/mutate"),
        arrow("webhook/mutate", "webhook/pod"),
        arrow("plan", "webhook/review"),
        arrow("webhook/mutate", "plan"),
    ]);
    assert_eq!(upward(&all), [&arrow("webhook/pod", "webhook/mutate")]);
    assert_eq!(forbidden(&all), [&arrow("plan", "webhook/review")]);
    assert_eq!(circles(&all).len(), 1);
}

#[test]
fn no_two_files_use_each_other() {
    let sources = sources();
    let arrows = arrows(&sources);
    assert_eq!(circles(&arrows), Vec::<BTreeSet<&str>>::new());
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

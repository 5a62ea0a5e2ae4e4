//! What injection adds to a pod: the agent's containers, and the volumes between it and the application.

use serde_json::{Value, json};

use super::access::Access;
use super::sources;
use crate::annotations::{Mode, Options, Resources, parse_bytes, parse_cpu};
use crate::bundle::Target;
use crate::config::Config;
use crate::plan::{GENERATIONS_PATH, Plan};

/// The native sidecar, and the ordinary one on clusters without.
pub const SIDECAR: &str = "hushpod";
/// The init container.
pub const INIT: &str = "hushpod-init";
/// Volumes of this prefix are ours.
pub const VOLUME_PREFIX: &str = "hushpod-";
/// The files, in memory.
pub const SECRETS_VOLUME: &str = "hushpod-secrets";
/// What the agents hand over, in memory; never mounted by others.
const STATE_VOLUME: &str = "hushpod-state";
/// One projected token per provider; never mounted by others.
const TOKENS_VOLUME: &str = "hushpod-tokens";
/// The pod's annotations, for the live controls.
const CONTROLS_VOLUME: &str = "hushpod-controls";
/// The program that applications with environment variables are started through; on disk, since it is no secret.
pub const BIN_VOLUME: &str = "hushpod-bin";
/// Where they mount it …
pub const BIN_PATH: &str = "/hushpod-bin";
/// … and what it is called there.
pub const PROGRAM: &str = "/hushpod-bin/hushpod-agent";
/// Room for the program twice: a restarted agent copies it anew.
const BIN_LIMIT: &str = "8Mi";
/// What applications mount of [`SECRETS_VOLUME`]: kubelet cannot prepare it before the gate is open.
pub const LIVE: &str = "live";
/// Where the ServiceAccount admission plugin, which runs after us, would else mount the pod's API token.
const TOKENS_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What monitors call the port of [`Plan::metrics_port`].
const METRICS_PORT: &str = "hushpod-metrics";
/// The agent in the image.
const AGENT: &str = "/hushpod-agent";
/// The variable that carries the plan.
pub const PLAN_VARIABLE: &str = "HUSHPOD_PLAN";

/// The agent's own need, measured with room to spare: see the README's performance section.
const AGENT_REQUEST: u64 = 8 << 20;
const AGENT_LIMIT: u64 = 32 << 20;
/// tmpfs gives each file whole pages.
const PAGE: u64 = 4096;
/// Files that a directory is reckoned to have: the plan cannot know.
const FILES_PER_DIR: u64 = 32;

/// An injected container and where it goes.
#[derive(Debug)]
pub struct Injected {
    /// Its name.
    pub name: &'static str,
    /// Whether it stands among `initContainers`.
    pub is_init: bool,
    /// What must hold of it.
    pub container: Value,
}

/// Everything that the containers and volumes are made from.
#[derive(Debug)]
pub struct Blueprint<'a> {
    /// The operator's configuration.
    pub config: &'a Config,
    /// The pod's options, complete.
    pub options: &'a Options,
    /// The pod's mode, decided.
    pub mode: Mode,
    /// What the agent is told.
    pub plan: &'a Plan,
    /// The same, in the form that it reads.
    pub plan_json: &'a str,
    /// As whom it runs.
    pub access: Access,
    /// Whether all other containers are Guaranteed, so that ours must be.
    pub guaranteed: bool,
}

// === impl Blueprint ===

impl Blueprint<'_> {
    /// The containers, in the order in which they start.
    ///
    /// # Errors
    /// One sentence, if resources contradict each other.
    pub fn containers(&self) -> Result<Vec<Injected>, String> {
        let resources = self.resources()?;
        let mut mounts = vec![
            json!({"name": SECRETS_VOLUME, "mountPath": "/run/hushpod/volume"}),
            json!({"name": STATE_VOLUME, "mountPath": "/run/hushpod/state"}),
            json!({"name": CONTROLS_VOLUME, "mountPath": "/run/hushpod/controls", "readOnly": true}),
            json!({"name": TOKENS_VOLUME, "mountPath": TOKENS_PATH, "readOnly": true}),
        ];
        mounts.extend(sources::mounts(self.plan));
        if self.has_variables() && !self.config.image_volumes {
            mounts.push(json!({"name": BIN_VOLUME, "mountPath": "/run/hushpod/bin"}));
        }
        let container = |name: &'static str, subcommand: &str| {
            let mut container = json!({
                "name": name,
                "image": self.config.image,
                "command": [AGENT],
                "args": [subcommand],
                "env": [
                    {"name": PLAN_VARIABLE, "value": self.plan_json},
                    // One arena: a second one would hold memory for a thread that is gone.
                    {"name": "MALLOC_ARENA_MAX", "value": "1"},
                ],
            });
            // Set, since the macro would serialize again what are values already.
            set(&mut container, "resources", resources.clone());
            set(&mut container, "securityContext", self.security_context());
            set(&mut container, "volumeMounts", Value::Array(mounts.clone()));
            container
        };
        let native = self.config.native_sidecars;
        let mut injected = Vec::with_capacity(2);
        if self.mode != Mode::Sidecar || !native {
            injected.push(Injected { name: INIT, is_init: true, container: container(INIT, "init") });
        }
        if self.mode != Mode::Init {
            let mut sidecar = container(SIDECAR, "sidecar");
            if native {
                set(&mut sidecar, "restartPolicy", json!("Always"));
            }
            if let Some(port) = self.plan.metrics_port {
                set(&mut sidecar, "ports", json!([{"name": METRICS_PORT, "containerPort": port}]));
                set(&mut sidecar, "livenessProbe", generations_probe(port));
            }
            if self.mode == Mode::Sidecar && native {
                let command = [AGENT, "ready", "--wait", "2s"];
                set(&mut sidecar, "lifecycle", json!({"postStart": {"exec": {"command": command}}}));
            }
            injected.push(Injected { name: SIDECAR, is_init: native, container: sidecar });
        }
        if let Some(policy) = &self.config.image_pull_policy {
            for injected in &mut injected {
                set(&mut injected.container, "imagePullPolicy", json!(policy));
            }
        }
        Ok(injected)
    }

    /// The volumes.
    #[must_use]
    pub fn volumes(&self) -> Vec<Value> {
        let annotations = json!({"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}});
        let mut volumes = vec![
            json!({"name": SECRETS_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": kibibytes(self.volume_bytes())}}),
            json!({"name": STATE_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
            json!({"name": TOKENS_VOLUME, "projected": {"sources": self.token_sources()}}),
            json!({"name": CONTROLS_VOLUME, "downwardAPI": {"items": [annotations]}}),
        ];
        if self.has_variables() {
            volumes.push(self.bin_volume());
        }
        volumes
    }

    fn has_variables(&self) -> bool {
        !self.options.environment.is_empty()
    }

    /// Our image itself where the runtime can mount one, and executes from it; else room for a copy.
    fn bin_volume(&self) -> Value {
        if !self.config.image_volumes {
            return json!({"name": BIN_VOLUME, "emptyDir": {"sizeLimit": BIN_LIMIT}});
        }
        let mut image = json!({"reference": self.config.image});
        if let Some(policy) = &self.config.image_pull_policy {
            set(&mut image, "pullPolicy", json!(policy));
        }
        json!({"name": BIN_VOLUME, "image": image})
    }

    /// One token per provider that takes one, each with that provider's audience: no store can replay it at another.
    fn token_sources(&self) -> Vec<Value> {
        let tokens: Vec<_> = self
            .plan
            .providers
            .iter()
            .filter_map(|(name, provider)| {
                let audience = provider.audience.as_ref()?;
                let seconds = self.config.providers.get(name).map_or(600, |provider| provider.token_seconds);
                let token = json!({"path": name, "audience": audience, "expirationSeconds": seconds});
                Some(json!({"serviceAccountToken": token}))
            })
            .collect();
        if !tokens.is_empty() {
            return tokens;
        }
        // The mount must exist all the same, to keep the API token out; an empty projection is refused by some versions.
        vec![
            json!({"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}),
        ]
    }

    fn security_context(&self) -> Value {
        let mut context = json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        if let Some(user) = self.access.user {
            set(&mut context, "runAsUser", json!(user));
        }
        if let Some(group) = self.access.group {
            set(&mut context, "runAsGroup", json!(group));
        }
        context
    }

    /// Bytes of one generation, in whole pages.
    fn generation_bytes(&self) -> u64 {
        let count = |target: &Target| if matches!(target, Target::Dir(_)) { FILES_PER_DIR } else { 1 };
        let files: u64 = self.plan.items.iter().map(|item| count(&item.target)).sum();
        self.plan.size_limit.saturating_add(files.saturating_mul(PAGE))
    }

    /// Three generations: present, kept for readers, and being written.
    fn volume_bytes(&self) -> u64 {
        self.generation_bytes().saturating_mul(3)
    }

    /// tmpfs pages are charged to whoever wrote them: the agent.
    fn resources(&self) -> Result<Value, String> {
        let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = &self.options.resources;
        let memory_limit =
            memory_limit.clone().unwrap_or_else(|| kibibytes(AGENT_LIMIT.saturating_add(self.volume_bytes())));
        if self.guaranteed {
            let cpu = cpu_limit.as_ref().or(cpu_request.as_ref()).map_or("50m", String::as_str);
            return Ok(json!({
                "requests": {"cpu": cpu, "memory": memory_limit},
                "limits": {"cpu": cpu, "memory": memory_limit},
            }));
        }
        let default_request = AGENT_REQUEST.saturating_add(self.generation_bytes());
        let limit_bytes = parse_bytes(&memory_limit)?;
        let memory_request = match memory_request {
            Some(request) if parse_bytes(request)? > limit_bytes => {
                return Err(format!("memory request {request} is above the memory limit {memory_limit}"));
            }
            Some(request) => request.clone(),
            None if default_request > limit_bytes => memory_limit.clone(),
            None => kibibytes(default_request),
        };
        let cpu_request = match (cpu_request, cpu_limit) {
            (Some(request), Some(limit)) if parse_cpu(request)? > parse_cpu(limit)? => {
                return Err(format!("CPU request {request} is above the CPU limit {limit}"));
            }
            (Some(request), _) => request.clone(),
            (None, Some(limit)) if parse_cpu(limit)? < 5 => limit.clone(),
            (None, _) => "5m".to_owned(),
        };
        let mut limits = json!({"memory": memory_limit});
        if let Some(cpu) = cpu_limit {
            set(&mut limits, "cpu", json!(cpu));
        }
        Ok(json!({"requests": {"cpu": cpu_request, "memory": memory_request}, "limits": limits}))
    }
}

/// Asks which generations run, for the events that kubelet makes of the answers. It never ends the agent: a port that
/// cannot be reached is no reason to.
fn generations_probe(port: u16) -> Value {
    json!({
        "httpGet": {"path": GENERATIONS_PATH, "port": port},
        "periodSeconds": 30,
        "timeoutSeconds": 5,
        "failureThreshold": i32::MAX,
    })
}

fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

/// A Kubernetes quantity, rounded up, in the form that the API server would give it: comparing must not see a change.
fn kibibytes(bytes: u64) -> String {
    let kibibytes = bytes.div_ceil(1024);
    if kibibytes.is_multiple_of(1024) { format!("{}Mi", kibibytes / 1024) } else { format!("{kibibytes}Ki") }
}

/// Whether a container is one that we made: one of ours by its name alone could be anything.
#[must_use]
pub fn is_ours(container: &Value) -> bool {
    let named = |name: &str| container.get("name").and_then(Value::as_str) == Some(name);
    let env = container.get("env").and_then(Value::as_array);
    (named(SIDECAR) || named(INIT))
        && container.get("command").and_then(|command| command.get(0)).and_then(Value::as_str) == Some(AGENT)
        && env.is_some_and(|env| env.iter().any(|variable| variable.get("name") == Some(&json!(PLAN_VARIABLE))))
}

/// Whether every container's requests equal its limits, for CPU and memory.
/// (<https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>)
#[must_use]
pub fn is_guaranteed<'a>(mut containers: impl Iterator<Item = &'a Value>) -> bool {
    containers.all(|container| {
        ["cpu", "memory"].iter().all(|resource| {
            let quantity = |kind: &str| container.get("resources")?.get(kind)?.get(resource);
            // The API server fills a missing request with the limit.
            quantity("limits").is_some_and(|limit| quantity("requests").is_none_or(|request| request == limit))
        })
    })
}

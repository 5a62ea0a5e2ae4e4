//! What our containers may take of a node, in a pod that has its own say about that.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use serde_json::Value;

use super::patch::{Patched, Step};
use crate::annotations::{CPU_LIMIT, CPU_REQUEST, MEMORY_LIMIT, MEMORY_REQUEST};
use crate::contract::PREFIX;
use crate::options::Resources;
use crate::quantity::{Amount, Quantity};

/// What a pod says of resources, as far as it decides on ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Standing {
    /// Whether all its other containers are Guaranteed, so ours must be.
    pub is_guaranteed: bool,
    /// Whether it has CPU as a whole (`spec.resources`), of which ours take theirs.
    pub has_cpu: bool,
    /// The same, of memory.
    pub has_memory: bool,
}

/// What the agent needs, in bytes of memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// Usually.
    pub request: u64,
    /// At most.
    pub limit: u64,
}

const CPU: &str = "cpu";
const MEMORY: &str = "memory";

/// CPU that is usually enough …
const CPU_SHARE: &str = "5m";
/// … and what is left free where no more may be taken.
const CPU_GUARANTEED: &str = "50m";

// === impl Standing ===

impl Standing {
    /// Of a pod's `spec`, where `others` are the containers that are not ours.
    #[must_use]
    pub(super) fn of<'a>(spec: &Value, others: impl Iterator<Item = &'a Value>) -> Self {
        let Some(whole) = spec.get("resources").filter(|resources| resources.is_object()) else {
            return Self { is_guaranteed: is_guaranteed(others), ..Self::default() };
        };
        let has = |resource: &str| ["requests", "limits"].iter().any(|kind| quantity(whole, kind, resource).is_some());
        // By what it has as a whole the pod's class is judged, which ours do not change.
        Self { is_guaranteed: false, has_cpu: has(CPU), has_memory: has(MEMORY) }
    }

    /// Resources that the pod has as a whole.
    fn whole(self) -> impl Iterator<Item = &'static str> {
        [(self.has_cpu, CPU), (self.has_memory, MEMORY)].into_iter().filter_map(|(has, name)| has.then_some(name))
    }

    /// Says which of the pod's own annotations come to nothing.
    pub(super) fn warn(self, annotations: &BTreeMap<String, String>, warnings: &mut Vec<String>) {
        for (key, resource, has) in [
            (CPU_REQUEST, CPU, self.has_cpu),
            (CPU_LIMIT, CPU, self.has_cpu),
            (MEMORY_REQUEST, MEMORY, self.has_memory),
            (MEMORY_LIMIT, MEMORY, self.has_memory),
        ] {
            let Some(value) = annotations.get(&format!("{PREFIX}{key}")) else { continue };
            if has {
                warnings.push(format!(
                    "{PREFIX}{key}: comes to nothing, since spec.resources gives {resource} to the pod as a whole, \
                     hushpod's containers included"
                ));
            } else if self.is_guaranteed && value == "none" {
                warnings.push(format!("{PREFIX}{key}: none comes to nothing in a Guaranteed pod, which stays one"));
            }
        }
    }

    /// Takes from a container of ours what another webhook has given to the pod as a whole since it was made: the sum
    /// would not hold.
    pub(super) fn release(self, patched: &mut Patched, container: &[Step<'_>]) {
        for resource in self.whole() {
            for kind in ["requests", "limits"] {
                let mut path = container.to_vec();
                path.extend([Step::Field("resources"), Step::Field(kind), Step::Field(resource)]);
                patched.remove(&path);
            }
        }
    }
}

/// What each of our containers has.
///
/// # Errors
/// One sentence, if what is asked for contradicts itself.
pub(super) fn requirements(asked: &Resources, standing: Standing, need: Need) -> Result<ResourceRequirements, String> {
    let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = asked;
    let memory = WantedResources {
        name: MEMORY,
        request: memory_request.as_ref(),
        limit: memory_limit.as_ref(),
        usual: Some(of_bytes(need.request)),
        most: Some(of_bytes(need.limit)),
    };
    let usual_cpu = if standing.is_guaranteed { CPU_GUARANTEED } else { CPU_SHARE };
    let cpu = WantedResources {
        name: "CPU",
        request: cpu_request.as_ref(),
        limit: cpu_limit.as_ref(),
        usual: usual_cpu.parse().ok(),
        most: None,
    };
    let mut requests = BTreeMap::new();
    let mut limits = BTreeMap::new();
    for (resource, wanted, is_left_out) in [(CPU, cpu, standing.has_cpu), (MEMORY, memory, standing.has_memory)] {
        if is_left_out {
            continue;
        }
        let (request, limit) = if standing.is_guaranteed { wanted.equal()? } else { wanted.settled()? };
        requests.extend(request.map(|written| (resource.to_owned(), Written(written))));
        limits.extend(limit.map(|written| (resource.to_owned(), Written(written))));
    }
    let filled = |list: BTreeMap<_, _>| (!list.is_empty()).then_some(list);
    Ok(ResourceRequirements { requests: filled(requests), limits: filled(limits), claims: None })
}

/// One resource: what is asked for, and what is taken if nothing is.
struct WantedResources<'a> {
    name: &'static str,
    request: Option<&'a Amount>,
    limit: Option<&'a Amount>,
    usual: Option<Amount>,
    most: Option<Amount>,
}

/// A quantity, and how it is written.
type Settled = Option<(Quantity, String)>;

// === impl WantedResources ===

impl WantedResources<'_> {
    /// Request and limit, as they are written.
    fn settled(self) -> Result<(Option<String>, Option<String>), String> {
        let limit = match (self.limit, self.request) {
            (Some(limit), _) => settle(Some(limit)),
            // Kubernetes would take a limit for the request that is not there.
            (None, Some(Amount::None)) => None,
            (None, _) => settle(self.most.as_ref()),
        };
        let request = match (self.request, &limit) {
            (Some(Amount::None), Some((_, limit))) => {
                return Err(format!(
                    "with the {} limit {limit}, Kubernetes makes none a request of {limit}: write none for the limit, too",
                    self.name
                ));
            }
            (Some(request), _) => settle(Some(request)),
            (None, Some(limit)) => settle(self.usual.as_ref()).map(|usual| usual.min(limit.clone())),
            (None, None) => settle(self.usual.as_ref()),
        };
        self.check(request.as_ref(), limit.as_ref())?;
        let written = |settled: Settled| settled.map(|(_, text)| text);
        Ok((written(request), written(limit)))
    }

    /// One amount for both, that the pod stays Guaranteed: here `none` is as good as nothing.
    fn equal(self) -> Result<(Option<String>, Option<String>), String> {
        let (request, limit) = (settle(self.request), settle(self.limit));
        self.check(request.as_ref(), limit.as_ref())?;
        let least = settle(self.most.as_ref());
        let both = limit.or_else(|| request.max(least)).or_else(|| settle(self.usual.as_ref())).map(|(_, text)| text);
        Ok((both.clone(), both))
    }

    fn check(&self, request: Option<&(Quantity, String)>, limit: Option<&(Quantity, String)>) -> Result<(), String> {
        match (request, limit) {
            (Some((request, written)), Some((limit, most))) if request > limit => {
                Err(format!("{} request {written} is above the {} limit {most}", self.name, self.name))
            }
            _ => Ok(()),
        }
    }
}

fn settle(amount: Option<&Amount>) -> Settled {
    match amount? {
        Amount::None => None,
        Amount::Of(quantity, written) => Some((*quantity, written.clone())),
    }
}

fn of_bytes(bytes: u64) -> Amount {
    Amount::Of(Quantity::bytes(bytes.div_ceil(1024).saturating_mul(1024)), kibibytes(bytes))
}

/// A Kubernetes quantity, rounded up, in the form that the API server would give it: comparing must not see a change.
pub(super) fn kibibytes(bytes: u64) -> String {
    match bytes.div_ceil(1024) {
        kibibytes if kibibytes.is_multiple_of(1 << 20) => format!("{}Gi", kibibytes >> 20),
        kibibytes if kibibytes.is_multiple_of(1 << 10) => format!("{}Mi", kibibytes >> 10),
        kibibytes => format!("{kibibytes}Ki"),
    }
}

/// Whether every container's requests equal its limits, for CPU and memory.
/// (<https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>)
fn is_guaranteed<'a>(mut containers: impl Iterator<Item = &'a Value>) -> bool {
    containers.all(|container| {
        let resources = container.get("resources").unwrap_or(&Value::Null);
        [CPU, MEMORY].iter().all(|resource| {
            let limit = quantity(resources, "limits", resource).filter(|limit| *limit > Quantity::ZERO);
            // The API server fills a missing request with the limit.
            limit.is_some_and(|limit| quantity(resources, "requests", resource).is_none_or(|request| request == limit))
        })
    })
}

/// API servers write text; others may write numbers.
fn quantity(resources: &Value, kind: &str, resource: &str) -> Option<Quantity> {
    match resources.get(kind)?.get(resource)? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NEED: Need = Need { request: 9 << 20, limit: 35 << 20 };
    const GUARANTEED: Standing = Standing { is_guaranteed: true, has_cpu: false, has_memory: false };

    fn asked(pairs: &[(&str, &str)]) -> Resources {
        let mut options = crate::options::Options::default();
        for (name, value) in pairs {
            crate::annotations::set(&mut options, &format!("resources.{name}"), value).unwrap();
        }
        options.resources
    }

    #[test]
    fn requests_and_limits_by_what_is_asked() {
        let burstable = Standing::default();
        let whole = Standing { is_guaranteed: false, has_cpu: true, has_memory: true };
        let memory = Standing { has_cpu: false, ..whole };
        let usual = json!({"requests": {"cpu": "5m", "memory": "9Mi"}, "limits": {"memory": "35Mi"}});
        let both = |cpu: &str, memory: &str| {
            let list = json!({"cpu": cpu, "memory": memory});
            json!({"requests": list, "limits": list})
        };
        for (standing, pairs, expected) in [
            (burstable, &[][..], usual),
            (
                burstable,
                &[("cpu-limit", "2m")],
                json!({"requests": {"cpu": "2m", "memory": "9Mi"}, "limits": {"cpu": "2m", "memory": "35Mi"}}),
            ),
            (
                burstable,
                &[("memory-limit", "8192Ki")],
                json!({"requests": {"cpu": "5m", "memory": "8192Ki"}, "limits": {"memory": "8192Ki"}}),
            ),
            (
                burstable,
                &[("memory-limit", "0.5Gi")],
                json!({"requests": {"cpu": "5m", "memory": "9Mi"}, "limits": {"memory": "0.5Gi"}}),
            ),
            (burstable, &[("memory-limit", "none")], json!({"requests": {"cpu": "5m", "memory": "9Mi"}})),
            (
                burstable,
                &[("cpu-request", "none")],
                json!({"requests": {"memory": "9Mi"}, "limits": {"memory": "35Mi"}}),
            ),
            (burstable, &[("memory-request", "none")], json!({"requests": {"cpu": "5m"}})),
            (burstable, &[("cpu-request", "none"), ("memory-request", "none")], json!({})),
            (GUARANTEED, &[], both("50m", "35Mi")),
            (GUARANTEED, &[("cpu-request", "none"), ("memory-limit", "none")], both("50m", "35Mi")),
            (GUARANTEED, &[("cpu-request", "70m"), ("memory-limit", "64Mi")], both("70m", "64Mi")),
            (GUARANTEED, &[("cpu-request", "70m"), ("cpu-limit", "1")], both("1", "35Mi")),
            (GUARANTEED, &[("memory-request", "1Gi")], both("50m", "1Gi")),
            (GUARANTEED, &[("memory-request", "1Mi")], both("50m", "35Mi")),
            (whole, &[], json!({})),
            (whole, &[("memory-limit", "1Gi"), ("cpu-request", "1")], json!({})),
            (memory, &[], json!({"requests": {"cpu": "5m"}})),
        ] {
            let made = requirements(&asked(pairs), standing, NEED).unwrap();
            assert_eq!(serde_json::to_value(made).unwrap(), expected, "{standing:?} {pairs:?}");
        }
        for (standing, pairs, part) in [
            (burstable, &[("memory-request", "1Gi")][..], "memory request 1Gi is above the memory limit 35Mi"),
            (burstable, &[("cpu-request", "1"), ("cpu-limit", "999m")], "CPU request 1 is above the CPU limit 999m"),
            (burstable, &[("cpu-request", "none"), ("cpu-limit", "1")], "write none for the limit, too"),
            (GUARANTEED, &[("memory-request", "2Mi"), ("memory-limit", "1Mi")], "is above"),
        ] {
            let problem = requirements(&asked(pairs), standing, NEED).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn a_pod_is_guaranteed_by_what_its_quantities_come_to() {
        let container = |requests: Value, limits: Value| json!({"resources": {"requests": requests, "limits": limits}});
        let both = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
        for (requests, limits, expected) in [
            (both("1", "1Gi"), both("1", "1Gi"), true),
            (both("1", "1073741824"), both("1000m", "1Gi"), true),
            (both("1e3", "1024Mi"), both("1k", "1.0Gi"), true),
            (both("0.5", "1e9"), both("500m", "1G"), true),
            (json!({"cpu": 1, "memory": "1Gi"}), both("1", "1Gi"), true),
            (Value::Null, both("1", "1Gi"), true),
            (json!({"cpu": "1"}), both("1", "1Gi"), true),
            (both("1", "1Gi"), both("1", "1G"), false),
            (both("1", "1Gi"), json!({"cpu": "1"}), false),
            (both("1", "1Gi"), Value::Null, false),
            (both("0", "0"), both("0", "0"), false),
            (both("0", "1Gi"), both("1", "1Gi"), false),
            (both("x", "y"), both("x", "y"), false),
        ] {
            let one = container(requests.clone(), limits.clone());
            let other = container(both("1", "1Gi"), both("1", "1Gi"));
            let standing = Standing::of(&json!({}), [&other, &one].into_iter());
            assert_eq!(standing.is_guaranteed, expected, "{requests} {limits}");
            let whole = Standing::of(&json!({"resources": one["resources"]}), [&other].into_iter());
            assert!(!whole.is_guaranteed, "nothing that ours have counts there");
        }
    }
}

//! What our containers may take of a node, in a pod that has its own say about that.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use serde_json::Value;

use super::patch::{Patched, Step};
use super::pod::{LISTS, containers, is_ours};
use crate::annotations::{CPU_LIMIT, CPU_REQUEST, MEMORY_LIMIT, MEMORY_REQUEST};
use crate::contract::PREFIX;
use crate::options::Resources;
use crate::parse_error::{ParseError, rule};
use crate::quantity::{Amount, Quantity};

/// What a pod says of resources, as far as it decides on ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Standing {
    cpu: ResourceShare,
    memory: ResourceShare,
}

/// How our containers come to a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum ResourceShare {
    /// By a request and a limit of their own.
    #[default]
    Own,
    /// By a request that equals the limit: the pod is Guaranteed, and stays so.
    Equal,
    /// They have none, and draw on what the pod has as a whole (`spec.resources`).
    Drawn,
    /// The same, but in words: the pod is Guaranteed by a limit that it gets if each of its containers has one.
    Zero,
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
const KINDS: [&str; 2] = ["requests", "limits"];

/// A limit that adds nothing to the pod's, and that kubelet takes for none.
const NOTHING: &str = "0";

/// CPU that is usually enough …
const CPU_SHARE: &str = "5m";
/// … and what is left free where no more may be taken.
const CPU_GUARANTEED: &str = "50m";

// === impl Standing ===

impl Standing {
    /// Of a pod's `spec`.
    #[must_use]
    pub(super) fn of(spec: &Value) -> Self {
        let whole = spec.get("resources").unwrap_or(&Value::Null);
        // The API server leaves out empty ones, and of a pod that has only huge pages we are shown nothing more.
        if !KINDS.iter().any(|kind| whole.get(kind).is_some_and(Value::is_object)) {
            let share = if is_guaranteed(spec) { ResourceShare::Equal } else { ResourceShare::Own };
            return Self { cpu: share, memory: share };
        }
        let is_guaranteed = [CPU, MEMORY].iter().all(|resource| is_guaranteed_as_a_whole(spec, whole, resource));
        let share = |resource: &str| {
            let [request, limit] = KINDS.map(|kind| quantity(whole, kind, resource));
            match (request, limit) {
                (Some(_), None) if is_guaranteed => ResourceShare::Zero,
                (None, None) if is_guaranteed => ResourceShare::Equal,
                (None, None) => ResourceShare::Own,
                _ => ResourceShare::Drawn,
            }
        };
        Self { cpu: share(CPU), memory: share(MEMORY) }
    }

    /// Says which of the pod's own annotations come to nothing.
    pub(super) fn warn(self, annotations: &BTreeMap<String, String>, warnings: &mut Vec<String>) {
        for (key, resource, share) in [
            (CPU_REQUEST, CPU, self.cpu),
            (CPU_LIMIT, CPU, self.cpu),
            (MEMORY_REQUEST, MEMORY, self.memory),
            (MEMORY_LIMIT, MEMORY, self.memory),
        ] {
            let Some(value) = annotations.get(&format!("{PREFIX}{key}")) else { continue };
            match share {
                ResourceShare::Drawn | ResourceShare::Zero => warnings.push(format!(
                    "{PREFIX}{key}: comes to nothing, since spec.resources gives {resource} to the pod as a whole, \
                     hushpod's containers included"
                )),
                ResourceShare::Equal if value == "none" => {
                    warnings.push(format!("{PREFIX}{key}: none comes to nothing in a Guaranteed pod, which stays one"));
                }
                ResourceShare::Equal | ResourceShare::Own => {}
            }
        }
    }

    /// Takes from a container of ours what another webhook has given to the pod as a whole since it was made: the sum
    /// would not hold.
    pub(super) fn release(self, patched: &mut Patched, container: &[Step<'_>]) {
        for (share, resource) in [(self.cpu, CPU), (self.memory, MEMORY)] {
            for kind in KINDS {
                let mut path = container.to_vec();
                path.extend([Step::Field("resources"), Step::Field(kind), Step::Field(resource)]);
                match share {
                    ResourceShare::Drawn => patched.remove(&path),
                    ResourceShare::Zero => patched.set(&path, Value::from(NOTHING)),
                    ResourceShare::Equal | ResourceShare::Own => {}
                }
            }
        }
    }
}

/// What each of our containers has.
///
/// # Errors
/// [`ParseError`], if what is asked for contradicts itself.
pub(super) fn requirements(
    asked: &Resources,
    standing: Standing,
    need: Need,
) -> Result<ResourceRequirements, ParseError> {
    let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = asked;
    let memory = WantedResources {
        name: MEMORY,
        request: memory_request.as_ref(),
        limit: memory_limit.as_ref(),
        usual: Some(of_bytes(need.request)),
        most: Some(of_bytes(need.limit)),
    };
    let usual_cpu = if standing.cpu == ResourceShare::Equal { CPU_GUARANTEED } else { CPU_SHARE };
    let cpu = WantedResources {
        name: "CPU",
        request: cpu_request.as_ref(),
        limit: cpu_limit.as_ref(),
        usual: usual_cpu.parse().ok(),
        most: None,
    };
    let mut requests = BTreeMap::new();
    let mut limits = BTreeMap::new();
    for (resource, wanted, share) in [(CPU, cpu, standing.cpu), (MEMORY, memory, standing.memory)] {
        let (request, limit) = match share {
            ResourceShare::Own => wanted.settled()?,
            ResourceShare::Equal => wanted.equal()?,
            ResourceShare::Drawn => (None, None),
            ResourceShare::Zero => (Some(NOTHING.to_owned()), Some(NOTHING.to_owned())),
        };
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
    fn settled(self) -> Result<(Option<String>, Option<String>), ParseError> {
        let limit = match (self.limit, self.request) {
            (Some(limit), _) => settle(Some(limit)),
            // Kubernetes would take a limit for the request that is not there.
            (None, Some(Amount::None)) => None,
            (None, _) => settle(self.most.as_ref()),
        };
        let request = match (self.request, &limit) {
            (Some(Amount::None), Some((_, limit))) => {
                return Err(rule(format!(
                    "with the {} limit {limit}, Kubernetes makes none a request of {limit}: write none for the limit, too",
                    self.name
                )));
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
    fn equal(self) -> Result<(Option<String>, Option<String>), ParseError> {
        let (request, limit) = (settle(self.request), settle(self.limit));
        self.check(request.as_ref(), limit.as_ref())?;
        let least = settle(self.most.as_ref());
        let both = limit.or_else(|| request.max(least)).or_else(|| settle(self.usual.as_ref())).map(|(_, text)| text);
        Ok((both.clone(), both))
    }

    fn check(
        &self,
        request: Option<&(Quantity, String)>,
        limit: Option<&(Quantity, String)>,
    ) -> Result<(), ParseError> {
        match (request, limit) {
            (Some((request, written)), Some((limit, most))) if request > limit => {
                Err(rule(format!("{} request {written} is above the {} limit {most}", self.name, self.name)))
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

/// The containers of one list that are not ours.
fn others<'a>(spec: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    containers(spec, list).iter().filter(|container| !is_ours(container))
}

/// What one container has of a resource. The API server fills a missing request with the limit.
fn amount(container: &Value, kind: &str, resource: &str) -> Option<Quantity> {
    let resources = container.get("resources")?;
    let limit = || quantity(resources, "limits", resource);
    if kind == "limits" { limit() } else { quantity(resources, kind, resource).or_else(limit) }
}

/// Whether every container's requests equal its limits, for CPU and memory.
/// (<https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>)
fn is_guaranteed(spec: &Value) -> bool {
    LISTS.iter().flat_map(|list| others(spec, list)).all(|container| {
        [CPU, MEMORY].iter().all(|resource| {
            let [request, limit] = KINDS.map(|kind| amount(container, kind, resource));
            limit.is_some_and(|limit| limit > Quantity::ZERO) && request == limit
        })
    })
}

/// Whether what the pod has of a resource as a whole is Guaranteed, once the API server (1.37 or later) has filled what
/// `spec.resources` leaves open: requests from the containers' or from the limit, limits from the containers' if all of
/// them have one. (`DefaultPodLevelResources` in `pkg/api/pod/util.go` of Kubernetes)
fn is_guaranteed_as_a_whole(spec: &Value, whole: &Value, resource: &str) -> bool {
    let [request, limit] = KINDS.map(|kind| quantity(whole, kind, resource));
    let request = request.or_else(|| sum(spec, "requests", resource)).or(limit);
    let limit = limit.or_else(|| {
        let mut all = LISTS.iter().flat_map(|list| others(spec, list));
        let have_limits = all.all(|container| amount(container, "limits", resource).is_some());
        have_limits.then(|| sum(spec, "limits", resource).max(request)).flatten()
    });
    request == limit && request > Some(Quantity::ZERO)
}

/// The most that containers have at one time, as schedulers reckon it; `None` if none of them has any.
/// (<https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers>)
fn sum(spec: &Value, kind: &str, resource: &str) -> Option<Quantity> {
    let of = |list| others(spec, list).filter_map(|one| Some((one, amount(one, kind, resource)?)));
    let in_the_end = of("containers").map(|(_, amount)| amount).reduce(Quantity::plus);
    let (mut sidecars, mut most) = (Quantity::ZERO, None);
    for (container, amount) in of("initContainers") {
        let now = sidecars.plus(amount);
        if container.get("restartPolicy").is_some_and(|policy| policy == "Always") {
            sidecars = now;
        }
        most = most.max(Some(now));
    }
    most.max(in_the_end.map(|amount| amount.plus(sidecars)))
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
    const GUARANTEED: Standing = Standing { cpu: ResourceShare::Equal, memory: ResourceShare::Equal };

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
        let whole = Standing { cpu: ResourceShare::Drawn, memory: ResourceShare::Drawn };
        let memory = Standing { memory: ResourceShare::Drawn, ..burstable };
        let zero = Standing { cpu: ResourceShare::Zero, ..GUARANTEED };
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
            (zero, &[], both("0", "35Mi")),
            (zero, &[("cpu-limit", "1"), ("memory-limit", "64Mi")], both("0", "64Mi")),
            (Standing { memory: ResourceShare::Zero, ..GUARANTEED }, &[], both("50m", "0")),
            (
                Standing { memory: ResourceShare::Zero, ..whole },
                &[],
                json!({"requests": {"memory": "0"}, "limits": {"memory": "0"}}),
            ),
        ] {
            let made = requirements(&asked(pairs), standing, NEED).unwrap();
            assert_eq!(serde_json::to_value(made).unwrap(), expected, "{standing:?} {pairs:?}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let burstable = Standing::default();
        for (standing, pairs, part) in [
            (burstable, &[("memory-request", "1Gi")][..], "memory request 1Gi is above the memory limit 35Mi"),
            (burstable, &[("cpu-request", "1"), ("cpu-limit", "999m")], "CPU request 1 is above the CPU limit 999m"),
            (burstable, &[("cpu-request", "none"), ("cpu-limit", "1")], "write none for the limit, too"),
            (GUARANTEED, &[("memory-request", "2Mi"), ("memory-limit", "1Mi")], "is above"),
        ] {
            let problem = requirements(&asked(pairs), standing, NEED).unwrap_err().to_string();
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
            for whole in [Value::Null, json!({}), json!({"requests": null})] {
                let standing = Standing::of(&json!({"resources": whole, "containers": [other, one]}));
                let expected = if expected { GUARANTEED } else { Standing::default() };
                assert_eq!(standing, expected, "{requests} {limits}");
            }
        }
    }

    #[test]
    fn a_whole_pod_is_guaranteed_by_what_kubernetes_fills_in() {
        use ResourceShare::{Drawn, Equal, Own, Zero};
        let container = |requests: Value, limits: Value| json!({"resources": {"requests": requests, "limits": limits}});
        let both = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
        let equal = |cpu: &str, memory: &str| container(both(cpu, memory), both(cpu, memory));
        let requests = |list: Value| json!({"requests": list});
        let limits = |list: Value| json!({"limits": list});
        let with = |mut container: Value, field: &str, value: &str| {
            container[field] = json!(value);
            container
        };
        let one = &equal("1", "1Gi");
        let above = &container(both("1", "1Gi"), both("2", "1Gi"));
        let unlimited = &container(both("1", "1Gi"), json!({"memory": "1Gi"}));
        let initial = &equal("2", "4Gi");
        let sidecar = &with(one.clone(), "restartPolicy", "Always");
        let ours = &with(equal("5", "5Gi"), "name", "hushpod");
        for (whole, init, containers, expected) in [
            // A limit is there, so ours need none.
            (limits(both("2", "2Gi")), &[][..], &[one][..], (Drawn, Drawn)),
            (equal("2", "2Gi")["resources"].clone(), &[], &[unlimited], (Drawn, Drawn)),
            (json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}), &[], &[one], (Drawn, Equal)),
            (json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}), &[], &[one], (Drawn, Own)),
            // Kubernetes takes the containers' requests before the limit.
            (limits(json!({"cpu": "1"})), &[], &[one], (Drawn, Equal)),
            (limits(json!({"cpu": "2"})), &[], &[one], (Drawn, Own)),
            (limits(json!({"cpu": "2"})), &[], &[one, one], (Drawn, Equal)),
            (limits(json!({"cpu": "1"})), &[], &[&container(json!({}), json!({"memory": "1Gi"}))], (Drawn, Equal)),
            // A request: the limit comes from the containers', but is no less.
            (requests(json!({"cpu": "2"})), &[], &[one], (Zero, Equal)),
            (requests(json!({"memory": "2Gi"})), &[], &[one], (Equal, Zero)),
            (requests(both("2", "2Gi")), &[], &[one, one], (Zero, Zero)),
            (requests(both("2", "2Gi")), &[], &[one, one, ours], (Zero, Zero)),
            (requests(both("2", "2Gi")), &[ours], &[one, one], (Zero, Zero)),
            (requests(both("2", "2Gi")), &[], &[above], (Zero, Zero)),
            (requests(both("1", "2Gi")), &[], &[above], (Drawn, Drawn)),
            (requests(both("2", "2Gi")), &[], &[unlimited], (Drawn, Drawn)),
            (requests(both("2", "2Gi")), &[unlimited], &[one], (Drawn, Drawn)),
            (requests(both("2", "2Gi")), &[sidecar], &[one], (Zero, Zero)),
            (requests(both("2", "2Gi")), &[sidecar], &[one, one], (Drawn, Drawn)),
            (requests(both("2", "4Gi")), &[initial], &[one], (Zero, Zero)),
            (requests(both("2", "4Gi")), &[sidecar, initial], &[one], (Drawn, Drawn)),
            (requests(both("2", "4Gi")), &[initial, sidecar], &[one], (Zero, Zero)),
            // Zero is a limit, too.
            (requests(json!({"cpu": "2"})), &[], &[one, &equal("0", "1Gi")], (Zero, Equal)),
            (requests(json!({"cpu": "0"})), &[], &[&equal("0", "1Gi")], (Drawn, Own)),
            // Not said at all: by the sums.
            (limits(json!({})), &[], &[one], (Equal, Equal)),
            (limits(json!({})), &[], &[above], (Own, Own)),
            (limits(json!({})), &[initial], &[above], (Equal, Equal)),
            (requests(json!({"memory": "2Gi"})), &[], &[above], (Own, Drawn)),
            (requests(json!({"memory": "2Gi"})), &[], &[unlimited], (Own, Drawn)),
        ] {
            let standing = Standing::of(&json!({"resources": whole, "initContainers": init, "containers": containers}));
            assert_eq!((standing.cpu, standing.memory), expected, "{whole} {init:?} {containers:?}");
        }
    }
}

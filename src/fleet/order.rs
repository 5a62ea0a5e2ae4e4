//! What a person wishes, as annotations to write and reports to wait for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::error::FleetError;
use super::inventory::PodStatus;
use super::our_pod::OurPod;
use super::progress::ProgressLine;
use super::safe::shown;
use super::table::seconds;
use crate::annotations::{ADVANCE, DENY, HOLD, PIN, REFRESH_NOW};
use crate::contract::PREFIX;
use crate::deliver::controls::{is_wave, parse_generation};
use crate::generation::GenerationId;
use crate::options::Mode;
use crate::parse_error::invalid;
use crate::report::line::{Asked, ReportLine};
use crate::report::rfc3339;
use crate::sentence::{counted, counted_with};

/// What a person wishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Hold,
    Release,
    Pin(GenerationId),
    Refresh(String),
    /// In a wave of this name, if it has one.
    Advance(Option<String>),
}

/// The same, and no question left: annotations, and what a report says once it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Hold,
    Release,
    Pin(GenerationId),
    Refresh(String),
    Advance(String),
    /// The rules that refuse what a pod holds, by its UID; the others are let go of.
    Deny(BTreeMap<String, String>),
}

/// A name that no earlier command had, and that says when it was made.
pub(super) fn fresh_name() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = rfc3339(SystemTime::now()).replace(['-', ':'], "");
    format!("{time}-{:05x}", since.subsec_nanos() >> 10 & 0xf_ffff)
}

/// When a name of [`fresh_name`] was made: seconds since 1970.
fn made_at(name: &str) -> Option<i64> {
    let part = |from: usize, to: usize| name.get(from..to);
    let (date, time) = ((part(0, 4)?, part(4, 6)?, part(6, 8)?), (part(9, 11)?, part(11, 13)?, part(13, 15)?));
    let is_ours = name.get(8..9) == Some("T") && name.get(15..17) == Some("Z-");
    let text = format!("{}-{}-{}T{}:{}:{}Z", date.0, date.1, date.2, time.0, time.1, time.2);
    is_ours.then(|| seconds(&text)).flatten()
}

// === impl Wish ===

impl Wish {
    /// To pin a generation.
    pub(super) fn pin(text: &str) -> Result<Self, FleetError> {
        match parse_generation(text) {
            Some(id) => Ok(Self::Pin(id)),
            None => Err(FleetError::Usage(
                invalid(
                    "generation",
                    &shown(text, 128),
                    "an id such as 4f1c0a9e2b7d5566: status and history show them",
                )
                .to_string(),
            )),
        }
    }

    pub(super) fn order(self, pods: &[PodStatus], progress: &mut ProgressLine) -> Result<Order, FleetError> {
        Ok(match self {
            Self::Hold => Order::Hold,
            Self::Release => Order::Release,
            Self::Pin(id) => Order::Pin(id),
            Self::Refresh(name) => Order::Refresh(name),
            Self::Advance(Some(wave)) if is_wave(&wave) => Order::Advance(wave),
            Self::Advance(Some(wave)) => {
                let expected = "1 to 63 letters, digits, '.', '_' and '-'";
                return Err(FleetError::Usage(invalid("wave", &shown(&wave, 128), expected).to_string()));
            }
            Self::Advance(None) => Order::Advance(match unfinished(pods) {
                Some(wave) => {
                    progress.say(&format!("wave {wave} has yet to end, and goes on (--wave NAME begins another)"));
                    wave
                }
                None => fresh_name(),
            }),
        })
    }
}

/// The last wave of ours that some pod, of those that were there when it began, has not gone along with.
fn unfinished(pods: &[PodStatus]) -> Option<String> {
    let annotation = format!("{PREFIX}{ADVANCE}");
    let begun = pods.iter().filter_map(|status| status.pod.annotations.get(&annotation));
    let last = begun.filter(|wave| is_wave(wave) && made_at(wave).is_some()).max()?.clone();
    let began = made_at(&last)?;
    let order = Order::Advance(last.clone());
    let is_left = |status: &&PodStatus| status.pod.created <= began && !order.is_done(status);
    pods.iter().find(is_left).map(|_| last)
}

// === impl Order ===

impl Order {
    /// What a pod's annotations are to be; `null` takes one away.
    fn annotations(&self, pod: &OurPod) -> Vec<(String, Option<String>)> {
        let all: &[(&str, Option<&str>)] = match self {
            Self::Hold => &[(HOLD, Some("true"))],
            Self::Release => &[(HOLD, None), (PIN, None), (ADVANCE, None)],
            Self::Pin(GenerationId(id)) => &[(PIN, Some(id))],
            Self::Refresh(name) => &[(REFRESH_NOW, Some(name))],
            Self::Advance(wave) => &[(ADVANCE, Some(wave))],
            // The driver has the configuration itself.
            Self::Deny(_) if pod.mode == Mode::Csi => &[],
            Self::Deny(rules) => &[(DENY, rules.get(&pod.uid).map(String::as_str))],
        };
        all.iter().map(|(name, value)| (format!("{PREFIX}{name}"), value.map(str::to_owned))).collect()
    }

    /// The patch that says so to this pod: another one of the same name is another pod.
    pub(super) fn patch(&self, pod: &OurPod) -> Value {
        let annotations: BTreeMap<_, _> = self.annotations(pod).into_iter().collect();
        json!({"metadata": {"uid": pod.uid, "annotations": annotations}})
    }

    /// Whether the pod was told already.
    pub(super) fn is_asked(&self, pod: &OurPod) -> bool {
        self.annotations(pod).iter().all(|(name, value)| pod.annotations.get(name) == value.as_ref())
    }

    /// Whether all volumes of a pod report that it is done.
    pub(super) fn is_done(&self, status: &PodStatus) -> bool {
        let PodStatus { pod, reports, .. } = status;
        let is_done = |asked: &Option<Asked>, id: &str| asked.as_ref().is_some_and(|it| it.id == id && it.done);
        !reports.is_empty()
            && reports.iter().all(|report| match self {
                Self::Hold => report.held,
                Self::Release => {
                    !report.held
                        && report.pinned.is_none()
                        && report.newest.is_some()
                        && report.newest == report.generation
                }
                Self::Pin(id) => report.pinned.as_ref() == Some(id),
                Self::Refresh(name) => is_done(&report.refresh, name),
                Self::Advance(wave) => is_done(&report.advance, wave),
                // Which rule it is, the driver knows better.
                Self::Deny(rules) if pod.mode == Mode::Csi => report.denied.is_some() == rules.contains_key(&pod.uid),
                Self::Deny(rules) => report.denied.as_ref() == rules.get(&pod.uid),
            })
    }

    /// Whether some volume reports that it never will be.
    pub(super) fn is_refused(&self, reports: &[ReportLine]) -> bool {
        matches!(self, Self::Pin(id) if reports.iter().any(|report| report.pin_refused.as_ref() == Some(id)))
    }

    /// Whether files may be others afterwards.
    pub(super) fn changes_files(&self) -> bool {
        !matches!(self, Self::Hold)
    }

    /// What is about to be done, for people.
    pub(super) fn summary(&self, done: &[PodStatus], todo: &[PodStatus], at_a_time: usize) -> String {
        let what = match self {
            Self::Hold => "hold".to_owned(),
            Self::Release => "release".to_owned(),
            Self::Pin(GenerationId(id)) => format!("pin {id}"),
            Self::Refresh(_) => "refresh".to_owned(),
            Self::Advance(wave) => format!("advance, wave {wave}"),
            Self::Deny(_) => "deny".to_owned(),
        };
        let all = done.len() + todo.len();
        let before = if done.is_empty() { String::new() } else { format!(", {} done before", done.len()) };
        let each = if at_a_time >= todo.len() { String::new() } else { format!(", {at_a_time} at a time") };
        let mut text = format!("{what}: {}{before}{each}", counted(all, "pod"));
        let is_free = |status: &&PodStatus| status.reports.iter().any(|report| !report.held);
        let free = todo.iter().filter(is_free).count();
        if matches!(self, Self::Advance(_)) && free > 0 {
            let (are, follow) = if free == 1 { ("is", "follows") } else { ("are", "follow") };
            let _ = write!(text, "; {free} of them {are} not held, and {follow} the newest anyway");
        }
        if let Self::Deny(rules) = self
            && rules.len() < all
        {
            let _ = write!(text, "; {} denied no more", counted_with(all - rules.len(), "pod", "is", "are"));
        }
        text
    }

    /// A pod that is to be told, for people: with what is different from pod to pod.
    pub(super) fn shown(&self, pod: &OurPod, namespace: &str) -> String {
        let name = pod.shown_from(namespace);
        match self {
            Self::Deny(rules) => {
                format!("{name} ({})", rules.get(&pod.uid).map_or("denied no more", String::as_str))
            }
            _ => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> GenerationId {
        GenerationId(text.to_owned())
    }

    fn status(created: i64, wave: Option<&str>, done: Option<&str>) -> PodStatus {
        let annotations = wave.map(|wave| (format!("{PREFIX}{ADVANCE}"), wave.to_owned())).into_iter().collect();
        let pod = OurPod {
            namespace: "a".into(),
            name: "web".into(),
            uid: "u".into(),
            node: None,
            mode: Mode::Sidecar,
            phase: "Running".into(),
            is_ready: true,
            is_deleting: false,
            created,
            annotations,
        };
        let advance = done.map(|wave| Asked { id: wave.to_owned(), done: true });
        PodStatus { pod, reports: vec![ReportLine { advance, ..ReportLine::default() }], problem: None }
    }

    #[test]
    fn names_of_waves_are_in_the_order_of_time_and_say_when() {
        let name = fresh_name();
        assert!(is_wave(&name), "{name}");
        let made = made_at(&name).unwrap();
        assert!((made - super::super::table::now()).abs() < 5, "{name}");
        assert_eq!(made_at("20260101T000000Z-00000"), seconds("2026-01-01T00:00:00Z"));
        for other in ["w1", "", "20260101T000000Z", "20261301T000000Z-00000", "é0260101T000000Z-00000"] {
            assert_eq!(made_at(other), None, "{other}");
        }
    }

    #[test]
    fn a_wave_goes_on_until_all_pods_that_were_there_have_gone_along() {
        let (old, wave) = ("20260101T000000Z-00000", "20260102T000000Z-00000");
        let began = made_at(wave).unwrap();
        for (pods, expected) in [
            (vec![status(0, None, None)], None),
            (vec![status(0, Some(wave), Some(wave)), status(0, None, None)], Some(wave)),
            (vec![status(0, Some(wave), None)], Some(wave)),
            (vec![status(0, Some(wave), Some(wave)), status(0, Some(old), Some(old))], Some(wave)),
            (vec![status(0, Some(wave), Some(wave)), status(began + 1, None, None)], None),
            (vec![status(0, Some(wave), Some(wave))], None),
            (vec![status(0, Some("mine"), None)], None),
        ] {
            assert_eq!(unfinished(&pods).as_deref(), expected, "{pods:?}");
        }
    }

    #[test]
    fn an_order_is_done_when_every_volume_reports_it() {
        let line = ReportLine { generation: Some(id("g1")), newest: Some(id("g1")), ..ReportLine::default() };
        let denied = |by: &str| ReportLine { denied: Some(by.to_owned()), ..line.clone() };
        let deny = |by: &str| Order::Deny(BTreeMap::from([("u".to_owned(), by.to_owned())]));
        let asked = |id: &str, done| Some(Asked { id: id.to_owned(), done });
        let held = ReportLine { held: true, ..line.clone() };
        for (order, report, expected) in [
            (Order::Hold, held.clone(), true),
            (Order::Hold, line.clone(), false),
            (Order::Release, line.clone(), true),
            (Order::Release, held.clone(), false),
            (Order::Release, ReportLine { newest: Some(id("g2")), ..line.clone() }, false),
            (Order::Release, ReportLine { newest: None, ..line.clone() }, false),
            (Order::Release, ReportLine { pinned: Some(id("g1")), ..line.clone() }, false),
            (Order::Pin(id("g1")), ReportLine { pinned: Some(id("g1")), ..line.clone() }, true),
            (Order::Pin(id("g1")), line.clone(), false),
            (Order::Refresh("r".into()), ReportLine { refresh: asked("r", true), ..line.clone() }, true),
            (Order::Refresh("r".into()), ReportLine { refresh: asked("r", false), ..line.clone() }, false),
            (Order::Advance("w".into()), ReportLine { advance: asked("w", true), ..held.clone() }, true),
            (Order::Advance("w".into()), ReportLine { advance: asked("v", true), ..held }, false),
            (deny("deny[0]"), denied("deny[0]"), true),
            (deny("deny[0]"), denied("deny[1]"), false),
            (deny("deny[0]"), line.clone(), false),
            (Order::Deny(BTreeMap::new()), denied("deny[0]"), false),
        ] {
            let of = |reports| PodStatus { reports, ..status(0, None, None) };
            assert_eq!(order.is_done(&of(vec![report.clone()])), expected, "{order:?} {report:?}");
            if expected {
                assert!(!order.is_done(&of(vec![report, ReportLine::default()])), "{order:?}: another volume");
            }
        }
        let none = PodStatus { reports: Vec::new(), ..status(0, None, None) };
        assert!(!Order::Release.is_done(&none), "no report says nothing");
        let mut of_driver = PodStatus { reports: vec![denied("deny[4]")], ..status(0, None, None) };
        of_driver.pod.mode = Mode::Csi;
        let order = deny("deny[0]");
        assert!(order.is_done(&of_driver) && order.is_asked(&of_driver.pod), "the driver has the configuration itself");
    }

    #[test]
    fn a_patch_touches_no_more_than_its_annotations() {
        let pod = status(0, None, None).pod;
        assert_eq!(
            Order::Release.patch(&pod),
            json!({"metadata": {"uid": "u", "annotations":
                {"hushpod.dev/hold": null, "hushpod.dev/pin": null, "hushpod.dev/advance": null}}})
        );
        assert_eq!(
            Order::Advance("w".into()).patch(&pod),
            json!({"metadata": {"uid": "u", "annotations": {"hushpod.dev/advance": "w"}}})
        );
    }
}

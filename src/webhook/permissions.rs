//! Who can read the files, and as whom the agent runs: decided from the containers that get the mount.

use serde_json::Value;

use crate::bundle::FileMode;
use crate::options::{Mode, Notify, Options};
use crate::parse_error::{ParseError, rule};

/// Uid and gid of the image's own user; containers that agree on nothing run as it.
pub(super) const IMAGE_USER: i64 = 65532;

/// The agent's identity in the kernel, and the files' permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Permissions {
    /// `runAsUser` of the agent; `None` leaves it to the image, or to the range that OpenShift assigns.
    pub user: Option<i64>,
    /// `runAsGroup` of the agent.
    pub group: Option<i64>,
    /// Permission bits of files that have none of their own.
    pub file_mode: FileMode,
}

// === impl Permissions ===

impl Permissions {
    /// Decides for a pod's `spec`, of whose containers `selected` get the mount.
    ///
    /// One agreed non-root uid: the agent runs as it, and only it can read. Else `fsGroup`: its group can. Else everyone
    /// who has the volume mounted can, which only the selected containers have.
    ///
    /// # Errors
    /// [`ParseError`], if a signal could not be delivered.
    pub(super) fn decide(spec: &Value, selected: &[&Value], options: &Options) -> Result<Self, ParseError> {
        let pod = spec.get("securityContext");
        let agreed_user = agreed(pod, selected, "runAsUser").filter(|uid| *uid != 0);
        let agreed_group = agreed(pod, selected, "runAsGroup").filter(|gid| *gid != 0);
        let pod_says_root = pod.and_then(|context| context.get("runAsUser")).and_then(Value::as_i64) == Some(0);
        let user = options.run_as_user.or(agreed_user).or(pod_says_root.then_some(IMAGE_USER));
        // Left to itself the runtime takes gid 0, for a uid that no image knows and for the image's own alike.
        let group = options.run_as_group.or(agreed_group).or(Some(IMAGE_USER));
        let has_fs_group = pod.and_then(|context| context.get("fsGroup")).is_some_and(Value::is_number);
        let file_mode = match options.file_mode {
            Some(mode) => mode,
            None if agreed_user.is_some() && user == agreed_user => FileMode::OWNER,
            None if has_fs_group => FileMode::GROUP,
            None => FileMode::ALL,
        };
        let signal = options.notify.iter().find(|notify| matches!(notify, Notify::Signal { .. }));
        // In mode csi it is sent from inside the process's own container.
        if let Some(Notify::Signal { process, .. }) = signal.filter(|_| options.mode != Some(Mode::Csi)) {
            check_signal(spec, agreed_user, user, process)?;
        }
        Ok(Self { user, group, file_mode })
    }
}

/// The value that all containers have, if they do and it is known.
fn agreed(pod: Option<&Value>, selected: &[&Value], field: &str) -> Option<i64> {
    let of = |context: Option<&Value>| context.and_then(|context| context.get(field)).and_then(Value::as_i64);
    let mut values = selected.iter().map(|container| of(container.get("securityContext")).or_else(|| of(pod)));
    let first = values.next()??;
    values.all(|value| value == Some(first)).then_some(first)
}

fn check_signal(spec: &Value, agreed: Option<i64>, user: Option<i64>, process: &str) -> Result<(), ParseError> {
    let is = |field: &str, flag: bool| spec.get(field).and_then(Value::as_bool) == Some(flag);
    if is("shareProcessNamespace", false) {
        return Err(rule("a signal needs a shared process namespace, but the pod sets shareProcessNamespace: false"));
    }
    if is("hostPID", true) {
        return Err(rule("with hostPID a signal would reach processes of other pods: use http: instead"));
    }
    match agreed {
        None => Err(rule(format!(
            "to signal {process:?} the agent must run as its uid, but the containers' runAsUser is unknown, root or not \
             the same: set one non-root securityContext.runAsUser, or use http: instead"
        ))),
        Some(uid) if user != Some(uid) => {
            Err(rule(format!("to signal {process:?} the agent must run as its uid {uid}: leave run-as-user out")))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_readable_by_as_few_as_possible() {
        let none = Value::Null;
        let uid = |uid: i64| json!({"securityContext": {"runAsUser": uid}});
        let both = json!({"securityContext": {"runAsUser": 1000, "runAsGroup": 3000}});
        for (name, pod, containers, expected) in [
            ("one agreed uid", none.clone(), vec![uid(1000), uid(1000)], (Some(1000), Some(65532), "0400")),
            ("uid and gid", none.clone(), vec![both], (Some(1000), Some(3000), "0400")),
            ("pod's uid", json!({"runAsUser": 7}), vec![json!({}), uid(7)], (Some(7), Some(65532), "0400")),
            ("two uids", none.clone(), vec![uid(1), uid(2)], (None, Some(65532), "0444")),
            ("two uids, fsGroup", json!({"fsGroup": 9}), vec![uid(1), uid(2)], (None, Some(65532), "0440")),
            ("unknown", none.clone(), vec![json!({})], (None, Some(65532), "0444")),
            ("root", none.clone(), vec![uid(0)], (None, Some(65532), "0444")),
            ("pod says root", json!({"runAsUser": 0}), vec![json!({})], (Some(65532), Some(65532), "0444")),
        ] {
            let spec = json!({"securityContext": pod});
            let selected: Vec<_> = containers.iter().collect();
            let access = Permissions::decide(&spec, &selected, &Options::default()).unwrap();
            assert_eq!((access.user, access.group, access.file_mode.to_string().as_str()), expected, "{name}");
        }
    }

    #[test]
    fn a_signal_from_inside_a_container_needs_nothing_of_the_pod() {
        let notify = vec!["signal:HUP:nginx".parse().unwrap()];
        let options = Options { notify, mode: Some(Mode::Csi), ..Options::default() };
        let container = json!({"securityContext": {"runAsUser": 0}});
        let spec = json!({"shareProcessNamespace": false});
        assert_eq!(Permissions::decide(&spec, &[&container], &options).unwrap().user, None);
    }

    #[test]
    fn a_signal_needs_one_known_uid_that_is_not_root() {
        let options = Options { notify: vec!["signal:HUP:nginx".parse().unwrap()], ..Options::default() };
        for (spec, uid, part) in [
            (json!({}), Some(1000), None),
            (json!({}), Some(0), Some("non-root")),
            (json!({}), None, Some("unknown")),
            (json!({"shareProcessNamespace": false}), Some(1000), Some("shareProcessNamespace")),
            (json!({"hostPID": true}), Some(1000), Some("other pods")),
        ] {
            let container = json!({"securityContext": {"runAsUser": uid}});
            let outcome = Permissions::decide(&spec, &[&container], &options);
            match part {
                None => assert_eq!(outcome.unwrap().user, uid),
                Some(part) => assert!(outcome.as_ref().is_err_and(|e| e.to_string().contains(part)), "{outcome:?}"),
            }
        }
    }
}

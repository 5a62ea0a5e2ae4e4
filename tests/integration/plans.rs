//! Plans that the release before this one wrote, which its webhook's pods still have: today's agent reads them.

use std::fs;

use hushpod::plan::{PLAN_VERSION, Plan, PlanReadError};
use serde_json::{Value, json};

use crate::pages::{files, root};

/// Whether all that `old` says is said by `new` too, which may say more: fields that are new have defaults.
fn lost(place: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in old {
                lost(&format!("{place}.{name}"), value, new.get(name).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                lost(&format!("{place}[{index}]"), old, new, found);
            }
        }
        (old, new) if old == new => {}
        (old, new) => found.push(format!("{place}: {new} in place of {old}")),
    }
}

#[test]
fn an_agent_reads_the_plans_of_the_release_before() {
    let plans = files("tests/data/plans", ".json");
    assert!(plans.len() >= 5, "{plans:?}");
    for file in plans {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let plan = Plan::from_json(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let old: Value = serde_json::from_str(&text).unwrap();
        let new: Value = serde_json::from_str(&plan.to_json().unwrap()).unwrap();
        let mut found = Vec::new();
        lost("", &old, &new, &mut found);
        assert_eq!(found, [""; 0], "{file}: what the agent makes of it lacks something");
    }
}

#[test]
fn what_is_lost_is_seen_and_another_format_is_refused() {
    let mut found = Vec::new();
    lost("", &json!({"a": [1, {"b": 2}], "c": 3}), &json!({"a": [1, {"b": 4, "d": 5}]}), &mut found);
    assert_eq!(found, [".a[1].b: 4 in place of 2", ".c: null in place of 3"]);
    let text = fs::read_to_string(root().join("tests/data/plans/0.1.0/init.json")).unwrap();
    let mut plan: Value = serde_json::from_str(&text).unwrap();
    plan["version"] = json!(PLAN_VERSION + 1);
    let told = Plan::from_json(&plan.to_string()).unwrap_err();
    assert!(matches!(told, PlanReadError::Version(_)) && told.to_string().contains("of different versions"), "{told}");
}

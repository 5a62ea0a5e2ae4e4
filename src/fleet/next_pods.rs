//! What a workload's *next* pods will do: they follow the template, whatever running pods were told.

use std::collections::BTreeMap;

use super::order::Order;
use super::safe::shown;
use crate::annotations::{HOLD, PIN};
use crate::contract::PREFIX;

/// One sentence about those of pods that are denied: no template decides on them.
pub(super) const OF_DENIED: &str =
    "the next pods that ask for it are refused by the webhook, once it has this configuration";

/// One sentence about them, for what is done to the running ones.
pub(super) fn sentence(order: &Order, workload: &str, template: &BTreeMap<String, String>) -> String {
    let annotation = |name: &str| template.get(&format!("{PREFIX}{name}")).map(|value| shown(value, 128));
    let is_held = annotation(HOLD).as_deref() == Some("true");
    let next = match (annotation(PIN), is_held) {
        (Some(pin), _) => format!("start with the newest, and go to generation {pin} if their stores still have it"),
        (None, true) => "start with the newest, and are held there".to_owned(),
        (None, false) => "start with the newest, and follow it".to_owned(),
    };
    let differs = match order {
        Order::Hold => !is_held,
        Order::Release => is_held || annotation(PIN).is_some(),
        Order::Pin(id) => annotation(PIN).as_deref() != Some(id.0.as_str()),
        Order::Refresh(_) | Order::Advance(_) | Order::Deny(_) => false,
    };
    let cure = if differs { ": annotate the template for others" } else { "" };
    format!("the next pods of {workload} {next}{cure}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::GenerationId;

    #[test]
    fn next_pods_do_as_their_template_says() {
        let template = |all: &[(&str, &str)]| {
            all.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let pin = Order::Pin(GenerationId("4f1c".into()));
        for (order, annotations, expected) in [
            (&Order::Hold, &[][..], "start with the newest, and follow it: annotate the template for others"),
            (&Order::Hold, &[("hold", "true")], "start with the newest, and are held there"),
            (
                &Order::Release,
                &[("hold", "true")],
                "start with the newest, and are held there: annotate the template for others",
            ),
            (&Order::Release, &[], "start with the newest, and follow it"),
            (
                &pin,
                &[("pin", "4f1c")],
                "start with the newest, and go to generation 4f1c if their stores still have it",
            ),
            (&Order::Advance("w".into()), &[("hold", "true")], "start with the newest, and are held there"),
        ] {
            let expected = format!("the next pods of deploy/web {expected}");
            assert_eq!(sentence(order, "deploy/web", &template(annotations)), expected);
        }
    }
}

//! Restarts of all containers for changed variables: announced, put off, or called off.

use std::time::SystemTime;

use super::SyncLoop;
use crate::agent::restart_all::{Outlook, Restarts};
use crate::contract::RESTART_ALL_CODE;
use crate::generation::GenerationId;
use crate::source::persisted::Saved;

// === impl SyncLoop ===

impl SyncLoop {
    pub(super) fn look_at_variables(&mut self, look: impl FnOnce(&mut Restarts) -> Outlook) {
        let Some(restarts) = &mut self.restarts else { return };
        let outlook = look(restarts);
        let report = self.delivery.report_mut();
        report.restarts = Some(restarts.count());
        match outlook {
            Outlook::Same => {}
            Outlook::In(pause) => {
                report.restart_due = Some(SystemTime::now() + pause);
                let sentence = format!("variables changed: all containers restart in {} s", pause.as_secs());
                report.info("restart_planned", &sentence);
            }
            Outlook::CalledOff => {
                report.restart_due = None;
                report.info("restart_called_off", "the variables are those that containers run with: they run on");
            }
            Outlook::Unreadable(problem) => {
                report.restart_due = None;
                report.warn("no_variables", &problem, "the files make no variables: containers run on");
            }
        }
    }

    /// Whether this process is to end for it. Only with all that it has written down: a next one that had to take new
    /// leases would find other variables, and restart again.
    pub(super) fn restart_all(&mut self) -> bool {
        let Some(restarts) = &mut self.restarts else { return false };
        let before = restarts.begin();
        self.delivery.report_mut().restart_due = None;
        let told = self.notified.clone();
        // An application that starts anew need not be told.
        self.notified.clone_from(&self.visible);
        let problem = match self.hand_over.save(self.state()) {
            Ok(Saved::Whole) => return self.announce_restart(before.as_ref().map(|started| &started.generation)),
            Ok(Saved::WithoutValues) => "the leased values do not fit into the hand-over".to_owned(),
            Ok(Saved::Nothing) => "there is no state volume".to_owned(),
            Err(error) => error.to_string(),
        };
        self.notified = told;
        if let Some(restarts) = &mut self.restarts {
            let pause = restarts.put_off(before);
            let report = self.delivery.report_mut();
            report.restart_due = Some(SystemTime::now() + pause);
            let sentence = format!("containers run on with their old variables; trying again in {pause:?}");
            report.warn("restart_put_off", &problem, &sentence);
        }
        self.save();
        false
    }

    fn announce_restart(&mut self, before: Option<&GenerationId>) -> bool {
        let Some(restarts) = &self.restarts else { return false };
        let id = |id: Option<&GenerationId>| id.map_or_else(|| "none".to_owned(), |id| id.0.clone());
        let (now, before) = (id(restarts.generation()), id(before));
        self.last_words.are(format!("all containers restart for generation {now} (ran with {before})"));
        let report = self.delivery.report_mut();
        report.restarts = Some(restarts.count());
        let sentence = format!(
            "the agent ends with code {RESTART_ALL_CODE}, and kubelet restarts all containers: their variables changed"
        );
        report.info("restart_all", &sentence);
        true
    }
}

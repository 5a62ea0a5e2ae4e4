//! A feed takes on a volume, and hands the tokens of its pod on.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument as _, info_span};

use super::Feed;
use crate::audit::Who;
use crate::csi::attached::{Attached, denial};
use crate::csi::record::PodRef;
use crate::csi::surroundings::{First, NewVolume};
use crate::csi::tokens::{PodToken, Tokens};
use crate::deliver::controls::{LiveControls, Wanted};
use crate::deliver::delivery::Delivery;
use crate::deliver::reporting::Reporting;
use crate::report::line::{ReportedPod, Writer};
use crate::source::Obstacles;

// === impl Feed ===

impl Feed {
    pub(super) async fn attach(&mut self, new: NewVolume) {
        let NewVolume { record, tokens, volume, reservation, first } = new;
        if let Some((_, failure)) = self.refused.as_ref().filter(|(until, _)| *until > Instant::now()) {
            self.around.forget(&record.volume);
            first.send_replace(First::Refused(failure.clone()));
            return;
        }
        // One plan for all of the feed.
        let denied = record.plan.denied(&self.config.borrow());
        self.set_denied(denied);
        if let Some(denied) = self.denied.as_ref().filter(|_| volume.is_empty()) {
            self.around.forget(&record.volume);
            first.send_replace(First::Refused(denial(denied)));
            return;
        }
        // Its namespace is the feed's.
        let span = info_span!("volume", pod = record.pod.name, volume = record.volume);
        let PodRef { namespace, name, uid } = record.pod.clone();
        let who = Who { pod: Some(name.clone()), uid: Some(uid.clone()), ..self.audit.who().clone() };
        let delivery = Delivery::new(record.plan.items.clone(), record.plan.size_limit, volume);
        let delivery = delivery.audited(self.audit.about(who));
        let advanced = record.advanced.clone().or_else(|| record.wanted.advance.clone());
        // Volumes without files have gone along with none, and will with their first.
        let advanced = advanced.filter(|_| delivery.is_open());
        let controls = LiveControls::starting_with(record.wanted.clone(), advanced);
        let account = record.plan.identity.service_account.clone();
        let pod = ReportedPod { namespace, name: Some(name), uid: Some(uid), account };
        let reporting = Reporting::new(pod, Writer::Csi, Some(record.volume.clone()));
        let mut attached = Attached {
            record,
            delivery,
            controls,
            reporting,
            tokens,
            first,
            obstacles: Obstacles::default(),
            told_unwritable: false,
            span: span.clone(),
            _reservation: reservation,
        };
        self.begin(&mut attached).instrument(span).await;
        attached.deny(self.denied.clone(), &*self.around);
        self.volumes.push(attached);
        self.hand_tokens_on();
    }

    /// A volume's first state: its controls, and what the feed has.
    pub(super) async fn begin(&mut self, attached: &mut Attached) {
        let Self { source, newest, denied, .. } = self;
        let Wanted { hold, pin, refresh_now, advance: _ } = attached.controls.wanted().clone();
        attached.delivery.resume_advanced(attached.record.advanced.clone());
        if let Some(id) = refresh_now {
            attached.delivery.refreshing(id);
        }
        let report = attached.delivery.report_mut();
        report.held = hold;
        if report.generation.is_some() {
            report.info("adopted", "the files of an earlier process are in place and are kept fresh from now on");
        }
        match pin {
            Some(pin) if denied.is_some() => attached.delivery.pin_later(pin),
            Some(pin) => drop(attached.delivery.pin(Some(pin), source).await),
            None => {}
        }
        if let Some(newest) = newest {
            attached.delivery.offer(Arc::clone(newest));
        }
    }

    pub(super) fn keep_tokens(&mut self, volume: &str, tokens: Tokens) {
        let Some(attached) = self.volumes.iter_mut().find(|attached| attached.record.volume == volume) else { return };
        attached.tokens = tokens;
        // Not for each call: a store that is busy has a pause of its own.
        if self.hand_tokens_on() && self.denied.is_none() && self.source.failing().next().is_some() {
            // It may be what the stores were waiting for.
            self.source.refresh_now();
        }
    }

    /// To the stores goes the token of a pod that lives, and the one that lives longest: the tokens of one that was deleted
    /// by force are refused, though it is still mounted. Whether another one goes there than before.
    pub(super) fn hand_tokens_on(&mut self) -> bool {
        let Self { volumes, tokens, around, .. } = self;
        let mut is_another = false;
        for (audience, sender) in tokens.values() {
            let all = volumes.iter().filter_map(|attached| Some((attached, attached.tokens.get(audience)?)));
            // One that nobody knows yet, or not any more, is better than none.
            let lives = |attached: &Attached| !around.is_going(&attached.record.pod.uid);
            let best = all.max_by_key(|(attached, PodToken { ends, .. })| (lives(attached), *ends));
            let best = best.map(|(_, token)| token.value.clone());
            if *sender.borrow() != best {
                sender.send_replace(best);
                is_another = true;
            }
        }
        is_another
    }
}

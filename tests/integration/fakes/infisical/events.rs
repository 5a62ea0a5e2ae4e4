//! Subscriptions to changes.

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::super::server::Reply;
use super::{Answer, Call, Limited, Server, Year, error};

/// Most streams of one project.
const MOST: usize = 100;

pub(super) struct Subscriber {
    project: String,
    /// Event, environment, and a path that may end in `/**`; without both: everything.
    registered: Vec<(String, Option<(String, String)>)>,
    stream: UnboundedSender<Bytes>,
}

// === impl Server ===

impl Server {
    pub(super) fn subscribe(&mut self, call: &Call<'_>) -> Answer {
        self.as_caller(Limited::Read, call, |this, identity| {
            let entries = call.body["register"].as_array().cloned().unwrap_or_default();
            if !(1..=10).contains(&entries.len()) {
                return Err(this.invalid("register", "Array must contain 1 to 10 elements"));
            }
            let mut registered = Vec::new();
            for entry in &entries {
                let event = entry["event"].as_str().unwrap_or_default();
                if !["secret:create", "secret:update", "secret:delete", "secret:import-mutation"].contains(&event) {
                    return Err(this.invalid("event", "Invalid enum value"));
                }
                let conditions = entry["conditions"].as_object().map(|conditions| {
                    let text = |name: &str| conditions.get(name).and_then(|value| value.as_str());
                    (
                        text("environmentSlug").unwrap_or_default().to_owned(),
                        text("secretPath").unwrap_or("/").to_owned(),
                    )
                });
                registered.push((event.to_owned(), conditions));
            }
            if !this.has_plan {
                let message = "Event subscriptions are not available on your current plan. Please upgrade.";
                return Err(error(400, "BadRequest", message));
            }
            if !this.logins.identities[identity].may_subscribe {
                return Err(error(
                    403,
                    "PermissionDenied",
                    "You are not allowed to subscribe-on-created on secret-events",
                ));
            }
            let project = call.text("projectId").to_owned();
            if !this.projects.contains_key(&project) {
                return Err(error(404, "NotFound", "Project not found"));
            }
            this.streams.retain(|subscriber| !subscriber.stream.is_closed());
            if this.streams.iter().filter(|subscriber| subscriber.project == project).count() >= MOST {
                return Err(error(429, "RateLimitExceeded", "Too many active connections"));
            }
            let (sender, receiver) = unbounded_channel();
            this.streams.push(Subscriber { project, registered, stream: sender });
            let body = stream::unfold(receiver, |mut receiver| async {
                Some((Ok::<_, std::io::Error>(receiver.recv().await?), receiver))
            });
            let headers = vec![
                ("content-type", "text/event-stream".to_owned()),
                ("cache-control", "no-cache".to_owned()),
                ("x-accel-buffering", "no".to_owned()),
            ];
            Ok(Reply { status: 200, headers, body: Body::from_stream(body) })
        })
    }

    /// A project was written to: caches go, and who listens hears of it.
    pub(super) fn changed(&mut self, project: &str, event: &str, environment: &str, path: &str, key: &str) {
        self.etags.clear();
        let at = self.now().as_millis();
        let payload = match event {
            "import-mutation" => json!({"environment": environment, "secretPath": path}),
            _ => json!([{"environment": environment, "secretPath": path, "secretKey": key}]),
        };
        let data = json!({"projectType": "secret-manager", "data": {"eventType": format!("secret:{event}"), "payload": payload}});
        let frame = format!("id: {at}\nevent: secret:{event}\ndata: {data}\n\n");
        for subscriber in self.streams.iter().filter(|subscriber| subscriber.project == project) {
            if subscriber.wants(&format!("secret:{event}"), environment, path) {
                let _ = subscriber.stream.send(Bytes::from(frame.clone()));
            }
        }
    }

    /// How many streams are open.
    pub(crate) fn streams(&mut self) -> usize {
        self.streams.retain(|subscriber| !subscriber.stream.is_closed());
        self.streams.len()
    }

    /// What the server sends each 15 s.
    pub(crate) fn ping(&mut self) {
        let ping = if self.year == Year::Y2025 { "1" } else { "event: ping\n\n" };
        self.send(ping);
    }

    /// What it says when rights are gone, before it closes.
    pub(crate) fn end_streams_in_error(&mut self) {
        self.send("event: error\ndata: {\"message\":\"Permission denied or refresh failed\"}\n\n");
        self.streams.clear();
    }

    /// Cuts every stream, as after an hour.
    pub(crate) fn cut_streams(&mut self) {
        self.streams.clear();
    }

    fn send(&self, text: &str) {
        for subscriber in &self.streams {
            let _ = subscriber.stream.send(Bytes::from(text.to_owned()));
        }
    }
}

// === impl Subscriber ===

impl Subscriber {
    fn wants(&self, event: &str, environment: &str, path: &str) -> bool {
        self.registered.iter().filter(|(name, _)| name == event).any(|(_, conditions)| match conditions {
            None => true,
            Some((env, glob)) => {
                env == environment
                    && match glob.strip_suffix("/**") {
                        Some(prefix) => path == prefix || path.starts_with(&format!("{prefix}/")),
                        None => path == glob,
                    }
            }
        })
    }
}

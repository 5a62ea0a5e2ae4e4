//! Server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), as far as they are of use.

use serde_json::Value;

/// Something that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Secrets changed in these environments and folders; anywhere, if there are none.
    Change(Vec<(String, String)>),
    /// The server is about to close.
    Error,
}

/// Puts lines together from whatever pieces they come in.
#[derive(Debug, Default)]
pub(super) struct Frames {
    line: Vec<u8>,
    /// The line was too long to be kept.
    is_cut: bool,
    is_error: bool,
    /// Places of the data so far; `None` without data.
    places: Option<Vec<(String, String)>>,
}

/// A longer line is not kept: that it was there is enough to look again.
const LONGEST_LINE: usize = 16 * 1024;
/// More places are as good as all.
const MOST_PLACES: usize = 64;

// === impl Frames ===

impl Frames {
    /// What the next piece of the stream completes.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => frames.extend(self.end_line()),
                b'\r' => {}
                _ if self.line.len() < LONGEST_LINE => self.line.push(byte),
                _ => self.is_cut = true,
            }
        }
        frames
    }

    fn end_line(&mut self) -> Option<Frame> {
        let line = std::mem::take(&mut self.line);
        let is_cut = std::mem::take(&mut self.is_cut);
        if line.is_empty() {
            let is_error = std::mem::take(&mut self.is_error);
            let places = self.places.take();
            // Without data it is a ping.
            return if is_error { Some(Frame::Error) } else { places.map(Frame::Change) };
        }
        let text = String::from_utf8_lossy(&line);
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        // Some servers ping with a single byte between events, which then stands before the field.
        match field.trim_start_matches('1') {
            "event" => self.is_error |= value.trim() == "error",
            "data" => self.places = Some(if is_cut { Vec::new() } else { places(value) }),
            _ => {}
        }
        None
    }
}

/// Wherever in the data an environment and a folder stand together. Servers of several years frame them differently.
fn places(data: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = serde_json::from_str::<Value>(data).map(|value| vec![value]).unwrap_or_default();
    while let Some(value) = rest.pop() {
        match value {
            Value::Array(items) => rest.extend(items),
            Value::Object(fields) => {
                let text = |name| fields.get(name).and_then(Value::as_str);
                if let (Some(environment), Some(path)) = (text("environment"), text("secretPath")) {
                    found.push((environment.to_owned(), path.to_owned()));
                } else {
                    rest.extend(fields.into_iter().map(|(_, value)| value));
                }
            }
            _ => {}
        }
    }
    if found.len() > MOST_PLACES { Vec::new() } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(places: &[(&str, &str)]) -> Frame {
        Frame::Change(places.iter().map(|&(env, path)| (env.to_owned(), path.to_owned())).collect())
    }

    #[test]
    fn changes_are_told_from_pings_and_errors_however_they_are_cut() {
        let data = r#"{"projectType":"secret-manager","data":{"eventType":"update-secrets","payload":[{"environment":"prod","secretPath":"/a","secretKey":"K"}]}}"#;
        let mutation = r#"{"data":{"payload":{"environment":"prod","secretPath":"/b"}}}"#;
        let long = format!("data: {}{mutation}\n\n", " ".repeat(LONGEST_LINE));
        let several = |count| {
            let places = vec![r#"{"environment":"prod","secretPath":"/a"}"#; count];
            format!("data: [{}]\n\n", places.join(","))
        };
        for (text, expected) in [
            (format!("id: 1\nevent: secret:update\ndata: {data}\n\n"), vec![change(&[("prod", "/a")])]),
            (format!("event: secret:import-mutation\r\ndata: {mutation}\r\n\r\n"), vec![change(&[("prod", "/b")])]),
            ("event: ping\n\n".to_owned(), vec![]),
            (": comment\n\nevent: ping\n\n\n\n".to_owned(), vec![]),
            (format!("111event: secret:create\ndata: {data}\n\n"), vec![change(&[("prod", "/a")])]),
            (format!("1data: {mutation}\n\n"), vec![change(&[("prod", "/b")])]),
            ("event: error\ndata: {\"message\":\"canary\"}\n\n".to_owned(), vec![Frame::Error]),
            ("data: no JSON\n\n".to_owned(), vec![change(&[])]),
            ("data: {\"secretKeys\":[\"K\"]}\n\n".to_owned(), vec![change(&[])]),
            (long, vec![change(&[])]),
            (several(MOST_PLACES), vec![change(&[("prod", "/a"); MOST_PLACES])]),
            (several(MOST_PLACES + 1), vec![change(&[])]),
            (format!("data: {data}\n"), vec![]),
            (
                format!("data: {data}\n\ndata: {mutation}\n\n"),
                vec![change(&[("prod", "/a")]), change(&[("prod", "/b")])],
            ),
        ] {
            for size in [1, 7, text.len()] {
                let mut frames = Frames::default();
                let found: Vec<_> = text.as_bytes().chunks(size).flat_map(|piece| frames.feed(piece)).collect();
                assert_eq!(found, expected, "{text:.80} by {size}");
            }
        }
    }
}

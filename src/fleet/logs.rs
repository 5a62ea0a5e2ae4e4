//! Reports in the logs of containers, read within bounds: tenants decide what a container's log holds.

use futures_util::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use super::connect::in_time;
use crate::report::line::{MAX_BYTES, ReportLine};

/// Lines and bytes of a log that are read for the last report of a pod …
const LAST_LINES: i64 = 120;
const LAST_BYTES: u64 = 512 * 1024;
const _: () = assert!(LAST_LINES as u64 * (MAX_BYTES as u64 + 1) <= LAST_BYTES);
/// … for all that a driver said within ten minutes, and for a pod's history.
const MANY_BYTES: u64 = 32 << 20;

/// How often a log whose lines are longer than ours is read, each time fewer of them.
const READS: usize = 3;

/// How much of a log is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogPart {
    /// The end, where the last report is.
    End,
    /// More of it.
    LongEnd,
    /// What a container said before it was started anew.
    Previous,
    /// What was said within so many seconds.
    Since(i64),
}

/// The reports in a part of a container's log, in their order.
///
/// # Errors
/// The API server's, or kubelet's.
pub(super) async fn reports(
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    part: LogPart,
) -> kube::Result<Vec<ReportLine>> {
    let (tail_lines, since_seconds, most) = match part {
        LogPart::End => (LAST_LINES, None, LAST_BYTES),
        LogPart::LongEnd | LogPart::Previous => (5000, None, MANY_BYTES),
        LogPart::Since(seconds) => (50_000, Some(seconds), MANY_BYTES),
    };
    let params = LogParams {
        container: Some(container.to_owned()),
        tail_lines: Some(tail_lines),
        since_seconds,
        limit_bytes: i64::try_from(most).ok(),
        previous: part == LogPart::Previous,
        ..LogParams::default()
    };
    in_time(end_of(pods, pod, params, most)).await
}

/// The limit leaves the beginning of what was asked for: fewer lines are asked for until the end, which counts, is there.
async fn end_of(pods: &Api<Pod>, pod: &str, mut params: LogParams, most: u64) -> kube::Result<Vec<ReportLine>> {
    let mut found = Vec::new();
    for _ in 0..READS {
        let stream = pods.log_stream(pod, &params).await?;
        let mut bytes = Vec::new();
        // A server that heeds no limit is not read to its end.
        let mut stream = std::pin::pin!(stream.take(most));
        stream.read_to_end(&mut bytes).await.map_err(|error| kube::Error::Service(error.into()))?;
        let nearer = parse(&bytes);
        if !nearer.is_empty() {
            found = nearer;
        }
        if bytes.len() as u64 != most {
            break;
        }
        params.tail_lines = params.tail_lines.map(|lines| lines / 4);
    }
    Ok(found)
}

fn parse(log: &[u8]) -> Vec<ReportLine> {
    let lines = log.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter_map(ReportLine::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::GenerationId;

    #[test]
    fn reports_are_found_among_whatever_else_a_log_holds() {
        let line =
            |id: &str| ReportLine { generation: Some(GenerationId(id.to_owned())), ..ReportLine::default() }.to_text();
        let mut log = format!("2026 INFO x\n{}\n{{}}\n\u{1b}[2J\n", line("g1")).into_bytes();
        log.extend(b"\xff\xfe\n\n");
        log.extend(line("g2").bytes().chain(*b"\n"));
        // Cut off by the limit.
        log.extend(line("g3").bytes().take(40));
        let found: Vec<_> = parse(&log).into_iter().filter_map(|line| line.generation).collect();
        assert_eq!(found, ["g1", "g2"].map(|id| GenerationId(id.to_owned())));
    }
}

//! One HTTP/1.1 request over any stream.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::DemoError;

/// Sends `body` (POST) or nothing (GET) and gives the answer's body back; any status but 200 is an error.
pub(super) async fn exchange<S>(stream: S, host: &str, path: &str, body: Option<Vec<u8>>) -> Result<Bytes, DemoError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: &dyn std::fmt::Display| DemoError::Broken(format!("http://{host}{path}: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let driver = tokio::spawn(connection);
    let method = if body.is_some() { "POST" } else { "GET" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| broken(&error))?;
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| broken(&error))?.to_bytes();
    driver.abort();
    if status == hyper::StatusCode::OK { Ok(body) } else { Err(broken(&status)) }
}

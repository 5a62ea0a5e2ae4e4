//! The port for kubelet and Prometheus: plain HTTP, no secrets, nothing to change.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;

use super::readiness::Readiness;
use crate::metrics::{CONTENT_TYPE, Registry};

/// Where it listens unless told otherwise: IPv6 and IPv4.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 8081);

/// `/healthz` (the process answers), `/readyz` (it can do its work, or what it waits for) and `/metrics`.
pub fn router(readiness: Readiness, metrics: Registry) -> Router {
    let readyz = move || async move {
        let pending = readiness.pending();
        if pending.is_empty() {
            (StatusCode::OK, "ok\n".to_owned())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", pending.join(", ")))
        }
    };
    let metrics = move || async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.to_string()) };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::metrics::catalogue::CSI_TROUBLES;

    async fn get(router: &Router, path: &str) -> (u16, String) {
        let response = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        (status, String::from_utf8(to_bytes(response.into_body(), 4096).await.unwrap().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn answers() {
        let (readiness, metrics) = (Readiness::default(), Registry::default());
        let router = router(readiness.clone(), metrics.clone());
        metrics.counter(&CSI_TROUBLES, &[]).increment();
        let guard = readiness.block("certificate");

        assert_eq!(get(&router, "/healthz").await, (200, "ok\n".to_owned()));
        assert_eq!(get(&router, "/readyz").await, (503, "waiting for: certificate\n".to_owned()));
        drop(guard);
        assert_eq!(get(&router, "/readyz").await, (200, "ok\n".to_owned()));
        readiness.begin_drain();
        assert_eq!(get(&router, "/readyz").await, (503, "waiting for: draining\n".to_owned()));
        assert_eq!(get(&router, "/healthz").await.0, 200);
        assert!(get(&router, "/metrics").await.1.ends_with("\nhushpod_csi_troubles_total 1\n"));
        assert_eq!(get(&router, "/").await.0, 404);
    }
}

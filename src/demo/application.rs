//! The demo's application: a small server that opens its secret at every request, as a hot-reloading service does.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::error::DemoError;

/// What it answers. The token is the demo's own, made up a moment before.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServedSecret {
    /// The process that answers.
    pub pid: u32,
    /// What stands in the file now.
    pub token: String,
    /// How often it was told of a change.
    pub notified: u64,
}

struct Application {
    file: PathBuf,
    notified: AtomicU64,
}

/// Serves `GET /` and `POST /reload` on 127.0.0.1 until the process ends. The first thing it does is read the file: it
/// fails if that is not there.
///
/// # Errors
/// If the file cannot be read or the port is taken.
pub async fn serve(file: PathBuf, port: u16) -> Result<(), DemoError> {
    std::fs::read(&file)
        .map_err(DemoError::io(format!("the application's first instruction: read {}", file.display())))?;
    let state = Arc::new(Application { file, notified: AtomicU64::new(0) });
    let router = Router::new().route("/", get(answer)).route("/reload", post(reload)).with_state(state);
    let listener =
        TcpListener::bind(("127.0.0.1", port)).await.map_err(DemoError::io(format!("listen on port {port}")))?;
    axum::serve(listener, router).await.map_err(DemoError::io("serve the application"))
}

async fn answer(State(application): State<Arc<Application>>) -> Result<Json<ServedSecret>, StatusCode> {
    let token = std::fs::read_to_string(&application.file).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let notified = application.notified.load(Ordering::Relaxed);
    Ok(Json(ServedSecret { pid: std::process::id(), token, notified }))
}

async fn reload(State(application): State<Arc<Application>>) {
    application.notified.fetch_add(1, Ordering::Relaxed);
}

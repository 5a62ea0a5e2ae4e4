//! `hushpod webhook` as it is started.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::{sleep, timeout};

#[tokio::test]
async fn outside_of_a_cluster_no_other_one_is_taken_for_it() {
    let home = tempfile::tempdir().unwrap();
    let cluster = TcpListener::bind("127.0.0.1:0").unwrap();
    cluster.set_nonblocking(true).unwrap();
    let kubeconfig = home.path().join(".kube/config");
    fs::create_dir(kubeconfig.parent().unwrap()).unwrap();
    let server = cluster.local_addr().unwrap();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: last\nclusters: [{{name: c, cluster: {{server: 'http://{server}'}}}}]\n\
         contexts: [{{name: last, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    );
    fs::write(&kubeconfig, text).unwrap();
    let config = home.path().join("config.yaml");
    fs::write(&config, super::CONFIG).unwrap();
    let mut webhook = Command::new(env!("CARGO_BIN_EXE_hushpod"))
        .args(["webhook", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config"])
        .arg(&config)
        .env("HOME", home.path())
        .env("KUBECONFIG", &kubeconfig)
        .env_remove("KUBERNETES_SERVICE_HOST")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = async {
        loop {
            if let Some(status) = webhook.try_wait().unwrap() {
                break status;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let status = timeout(Duration::from_secs(20), ended).await.ok();
    let _ = webhook.kill();
    let mut said = String::new();
    webhook.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    webhook.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{said}");
    assert!(said.contains("--kubeconfig FILE"), "{said}");
    assert_eq!(cluster.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "it called the cluster of ~/.kube/config");
}

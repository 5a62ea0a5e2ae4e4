//! What is linked into the binaries, as cargo tells it.

use std::collections::BTreeSet;
use std::process::Command;

/// The crates that the package links with these arguments.
fn crates(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn p6_the_agent_has_nothing_to_ask_the_api_server_with() {
    let agent = crates(&["--no-default-features"]);
    assert!(agent.contains("rustls"), "{agent:?}");
    for server in
        ["kube", "kube-client", "k8s-openapi", "axum", "tonic", "json-patch", "rcgen", "h2", "regex", "terminal_size"]
    {
        assert!(!agent.contains(server), "the agent links {server}");
    }
    // The test must see them where they are.
    let all = crates(&["--all-features"]);
    for server in ["kube-client", "axum", "h2", "terminal_size"] {
        assert!(all.contains(server), "{server} is not in {all:?}");
    }
}

#[test]
fn the_driver_has_nothing_of_the_webhook() {
    let driver = crates(&["--no-default-features", "--features", "csi"]);
    for needed in ["kube-client", "tonic"] {
        assert!(driver.contains(needed), "{needed} is not in {driver:?}");
    }
    for other in ["clap_complete", "mimalloc", "quick_cache", "rcgen", "terminal_size"] {
        assert!(!driver.contains(other), "the driver links {other}");
    }
}

#[test]
fn there_is_one_crypto_provider() {
    let all = crates(&["--all-features"]);
    assert!(all.contains("aws-lc-rs"));
    for other in ["ring", "openssl-sys", "native-tls"] {
        assert!(!all.contains(other), "{other} is linked");
    }
}

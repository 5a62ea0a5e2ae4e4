//! What krew is given: archives of the binaries, and a manifest that it can read
//! (<https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/>).

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use crate::pages::root;
use crate::readme::page;

/// Runs deploy/krew/make in a copy of what it reads, beside stand-ins for these architectures' binaries.
fn made(checkout: &Path, architectures: &[&str], words: &[&str]) -> Output {
    for file in
        deploy_files().iter().map(String::as_str).chain(["deploy/version", "LICENSE", "Cargo.toml", "Cargo.lock"])
    {
        let copy = checkout.join(file);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(root().join(file), copy).unwrap();
    }
    for arch in architectures {
        let directory = checkout.join("target/image/bin").join(arch);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("hushpod"), format!("the program for {arch}")).unwrap();
    }
    Command::new(checkout.join("deploy/krew/make")).args(words).output().unwrap()
}

/// Those that deploy/version looks at, too.
fn deploy_files() -> Vec<String> {
    let versions = page("deploy/version");
    let listed = versions.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(" '"));
    let listed = listed.map(|(file, _)| file.to_owned()).filter(|file| root().join(file).is_file());
    listed.chain(["deploy/krew/make".to_owned()]).collect()
}

#[test]
fn krew_is_given_a_manifest_that_it_reads_and_the_archives_that_it_names() {
    let checkout = tempfile::tempdir().unwrap();
    let base = "https://downloads.example/hushpod";
    for (architectures, again) in [(&["amd64", "arm64"][..], false), (&["amd64", "arm64"], true), (&["amd64"], false)] {
        let out = checkout.path().join("target/krew");
        let before = again.then(|| fs::read(out.join("hushpod.yaml")).unwrap());
        if !again {
            let _ = fs::remove_dir_all(checkout.path().join("target"));
        }
        let told = made(checkout.path(), architectures, &[base]);
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let text = fs::read_to_string(out.join("hushpod.yaml")).unwrap();
        assert!(before.is_none_or(|before| before == text.as_bytes()), "the same binaries, other archives");
        let manifest: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!((&manifest["kind"], &manifest["metadata"]["name"]), (&"Plugin".into(), &"hushpod".into()));
        assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
        let spec = &manifest["spec"];
        let version = format!("v{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(spec["version"], version);
        let short = spec["shortDescription"].as_str().unwrap();
        assert!((1..=50).contains(&short.len()) && !short.ends_with('.'), "what krew's index asks for: {short}");
        let platforms = spec["platforms"].as_array().unwrap();
        assert_eq!(platforms.len(), architectures.len());
        for (platform, arch) in platforms.iter().zip(architectures) {
            assert_eq!(platform["selector"]["matchLabels"], serde_json::json!({"os": "linux", "arch": arch}));
            let file = platform["uri"].as_str().unwrap().strip_prefix(&format!("{base}/")).unwrap().to_owned();
            let archive = out.join(&file);
            let bytes = fs::read(&archive).unwrap_or_else(|error| panic!("{}: {error}", archive.display()));
            assert_eq!(platform["sha256"], hex::encode(digest(&SHA256, &bytes)), "{file}");
            let unpacked = checkout.path().join("unpacked");
            fs::create_dir_all(&unpacked).unwrap();
            assert!(Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(&unpacked).status().unwrap().success());
            for wanted in platform["files"].as_array().unwrap() {
                assert_eq!(wanted["to"], ".");
                assert!(unpacked.join(wanted["from"].as_str().unwrap()).is_file(), "{wanted}");
            }
            // kubectl finds plugins by this name.
            assert_eq!(platform["bin"], "kubectl-hushpod");
            let program = fs::read_to_string(unpacked.join("kubectl-hushpod")).unwrap();
            assert_eq!(program, format!("the program for {arch}"));
        }
    }
}

#[test]
fn p9_archives_of_nothing_and_for_nowhere_are_refused() {
    for (architectures, words, part) in [
        (&["amd64"][..], &["http://downloads.example"][..], "invalid BASE"),
        (&["amd64"], &[], "usage: "),
        (&[], &["https://downloads.example"], "run deploy/build first"),
    ] {
        let checkout = tempfile::tempdir().unwrap();
        let told = made(checkout.path(), architectures, words);
        let sentence = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(!told.status.success() && sentence.contains(part), "{words:?}: {sentence}");
        assert!(!checkout.path().join("target/krew/hushpod.yaml").exists());
    }
}

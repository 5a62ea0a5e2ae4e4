//! The generated code of `src/csi/proto` is what its `.proto` files make of it.
//!
//! After a change of those: `HUSHPOD_GENERATE=yes cargo test --test integration generated`.

use std::fs;
use std::path::Path;

const DIRECTORY: &str = "src/csi/proto";
const FILES: [&str; 2] = ["csi.v1.rs", "pluginregistration.rs"];

#[test]
fn the_generated_code_is_that_of_the_protocol() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(DIRECTORY);
    let sources = protox::compile(["csi.proto", "registration.proto"], [&directory]).unwrap();
    let made = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        // It has tokens in it: see src/csi/proto.rs.
        .skip_debug(["csi.v1.NodePublishVolumeRequest"])
        .out_dir(made.path())
        .compile_fds(sources)
        .unwrap();
    for file in FILES {
        let (made, present) = (fs::read_to_string(made.path().join(file)).unwrap(), directory.join(file));
        if std::env::var_os("HUSHPOD_GENERATE").is_some() {
            fs::write(&present, &made).unwrap();
        }
        assert!(fs::read_to_string(&present).unwrap() == made, "{}: make it again", present.display());
    }
}

use super::*;

/// A volume as kubelet makes it: tmpfs where there is one, mode 1777.
fn volume() -> tempfile::TempDir {
    let dir = match Path::new("/dev/shm") {
        shm if shm.is_dir() => tempfile::tempdir_in(shm).unwrap(),
        _ => tempfile::tempdir().unwrap(),
    };
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    dir
}

/// What `AtomicVolume` leaves when a generation is complete.
async fn complete(dir: &Path) {
    use crate::bundle::FileMode;
    use crate::deliver::RenderedFile;
    use crate::generation::GenerationId;
    let file = RenderedFile { path: "token".parse().unwrap(), bytes: "value".into(), mode: FileMode::OWNER };
    let mut volume = AtomicVolume::open(dir, std::time::Duration::from_millis(1)).unwrap();
    volume.write(&GenerationId("0a1b".to_owned()), &[file]).await.unwrap();
}

fn claim(dir: &tempfile::TempDir) -> (Gate, GateState) {
    Gate::claim(dir.path()).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn p7_the_gate_is_a_dangling_link_until_the_first_generation_is_complete() {
    let dir = volume();
    let (gate, state) = claim(&dir);
    assert_eq!(state, GateState::Closed);
    assert!(fs::symlink_metadata(gate.live()).unwrap().is_symlink());
    assert!(fs::metadata(gate.live()).is_err(), "it leads nowhere, so no subPath can be prepared");
    assert!(!is_open(dir.path()));

    complete(gate.stage().unwrap()).await;
    assert!(!is_open(dir.path()), "written, but not opened");
    gate.open().unwrap();
    assert!(is_open(dir.path()));
    assert_eq!(names(dir.path()), [LIVE], "nothing else is left behind");
    assert_eq!(fs::read(gate.live().join("token")).unwrap(), b"value");
    assert_eq!(fs::metadata(gate.live()).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(claim(&dir).1, GateState::Open, "and is adopted after a restart");
}

#[tokio::test]
async fn p7_a_crash_in_any_step_is_recovered() {
    for step in 0..=5 {
        let dir = volume();
        let (gate, _) = claim(&dir);
        if step >= 1 {
            gate.stage().unwrap();
        }
        if step == 2 {
            fs::create_dir(gate.staging.join("..0a1b")).unwrap();
        }
        if step >= 3 {
            complete(&gate.staging).await;
        }
        if step == 4 {
            // The exchange is done, the old link not yet removed.
            renameat_with(CWD, &gate.staging, CWD, &gate.live, RenameFlags::EXCHANGE).unwrap();
            assert!(is_open(dir.path()));
        }
        if step == 5 {
            gate.open().unwrap();
        }
        let (gate, state) = claim(&dir);
        if step >= 4 {
            assert_eq!(state, GateState::Open, "died after step {step}");
        } else {
            assert_eq!(state, GateState::Closed, "died after step {step}");
            complete(gate.stage().unwrap()).await;
            gate.open().unwrap();
        }
        assert!(is_open(dir.path()), "died after step {step}");
        assert_eq!(names(dir.path()), [LIVE], "died after step {step}");
    }
}

#[test]
fn p7_what_the_agent_did_not_make_is_refused() {
    type Make = fn(&Path);
    let cases: [(Make, &str); 4] = [
        // What kubelet makes of a missing subPath when a container before us mounts it.
        (|live| fs::create_dir(live).unwrap(), "is a directory without a complete generation"),
        (|live| fs::write(live, "").unwrap(), "is not a directory"),
        (|live| symlink("/tmp", live).unwrap(), "to /tmp, where ours"),
        (|live| symlink("elsewhere", live).unwrap(), "to elsewhere, where ours"),
    ];
    for (make, says) in cases {
        let dir = volume();
        make(&dir.path().join(LIVE));
        let error = Gate::claim(dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, GateError::Foreign { .. }), "{text}");
        assert!(text.contains(says) && text.contains("before the agent mounted the volume"), "{text}");
        assert!(!is_open(dir.path()));
    }
}

#[tokio::test]
async fn p7_a_complete_directory_of_another_user_is_refused() {
    // Only root can make one; the ordinary user's case is the one above.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = volume();
    let live = dir.path().join(LIVE);
    fs::create_dir(&live).unwrap();
    complete(&live).await;
    std::os::unix::fs::chown(&live, Some(12345), None).unwrap();
    let error = Gate::claim(dir.path()).unwrap_err().to_string();
    assert!(error.contains("is a directory of uid 12345"), "{error}");
}

#[test]
fn an_inherited_setgid_bit_stays() {
    let dir = volume();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o3777)).unwrap();
    let (gate, _) = claim(&dir);
    assert_eq!(fs::metadata(gate.stage().unwrap()).unwrap().mode() & 0o7777, 0o2755);
}

#[test]
fn a_missing_volume_is_said_to_be_missing() {
    let error = Gate::claim(Path::new("/nonexistent-volume")).unwrap_err().to_string();
    assert!(error.starts_with("cannot create the gate /nonexistent-volume/live"), "{error}");
}

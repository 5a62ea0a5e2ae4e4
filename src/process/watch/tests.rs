use std::os::unix::fs::symlink;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Longer than any change takes to be seen, shorter than the look that needs no event.
const SOON: Duration = Duration::from_secs(30);

async fn sees_a_change(watch: &mut Watch) -> bool {
    timeout(SOON, watch.changed()).await.is_ok()
}

/// Whether it stays silent for much longer than a change takes to be seen.
async fn is_silent(watch: &mut Watch) -> bool {
    timeout(LONGEST_BURST * 3, watch.changed()).await.is_err()
}

/// What kubelet does: a new directory, a new link, one rename.
fn swap(dir: &Path, generation: usize) {
    let name = format!("..{generation}");
    fs::create_dir(dir.join(&name)).unwrap();
    fs::write(dir.join(&name).join("key"), generation.to_string()).unwrap();
    symlink(&name, dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    if generation == 0 {
        symlink("..data/key", dir.join("key")).unwrap();
    } else {
        fs::remove_dir_all(dir.join(format!("..{}", generation - 1))).unwrap();
    }
}

#[tokio::test]
async fn every_swap_is_seen_and_reading_is_not() {
    let dir = TempDir::new().unwrap();
    swap(dir.path(), 0);
    let mut watch = Watch::directory(dir.path()).unwrap();
    for generation in 1..=20 {
        swap(dir.path(), generation);
        assert!(sees_a_change(&mut watch).await, "generation {generation}");
        assert_eq!(fs::read_to_string(dir.path().join("key")).unwrap(), generation.to_string());
    }
    assert!(is_silent(&mut watch).await, "a burst counts once, and our own reading is not a change");
}

#[tokio::test]
async fn files_written_in_place_are_seen() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("key");
    let mut watch = Watch::directory(dir.path()).unwrap();
    fs::write(&file, "new").unwrap();
    assert!(sees_a_change(&mut watch).await, "a new file");
    fs::write(&file, "wen").unwrap();
    assert!(sees_a_change(&mut watch).await, "other bytes");
    fs::rename(&file, dir.path().join("other")).unwrap();
    assert!(sees_a_change(&mut watch).await, "another name");
    fs::remove_file(dir.path().join("other")).unwrap();
    assert!(sees_a_change(&mut watch).await, "removed");
}

#[tokio::test]
async fn the_first_wait_begins_the_watch_and_tells_what_was_before_it() {
    let dir = TempDir::new().unwrap();
    swap(dir.path(), 0);
    let mut watch = Watch::from_first_wait(dir.path()).unwrap();
    assert!(watch.watcher.is_none(), "nothing is to be closed where nobody waits");
    swap(dir.path(), 1);
    assert!(sees_a_change(&mut watch).await, "before the first wait");
    assert!(watch.watcher.is_some());
    swap(dir.path(), 2);
    assert!(sees_a_change(&mut watch).await, "after it");
    let mut watch = Watch::from_first_wait(dir.path()).unwrap();
    let _ = fs::read(dir.path().join("key")).unwrap();
    assert!(is_silent(&mut watch).await, "reading is no change");
    swap(dir.path(), 3);
    assert!(sees_a_change(&mut watch).await, "during it");
}

#[tokio::test]
async fn a_replaced_directory_is_watched_on() {
    let parent = TempDir::new().unwrap();
    let (dir, next) = (parent.path().join("dir"), parent.path().join("next"));
    fs::create_dir(&dir).unwrap();
    let mut watch = Watch::directory(&dir).unwrap();
    fs::create_dir(&next).unwrap();
    fs::write(next.join("key"), "1").unwrap();
    fs::rename(&dir, parent.path().join("old")).unwrap();
    fs::rename(&next, &dir).unwrap();
    assert!(sees_a_change(&mut watch).await, "replaced");
    fs::write(dir.join("key"), "2").unwrap();
    assert!(sees_a_change(&mut watch).await, "changed in the new directory");
    fs::write(parent.path().join("old/key"), "3").unwrap();
    assert!(is_silent(&mut watch).await, "the old directory is not ours any more");
}

#[tokio::test]
async fn a_directory_that_is_away_for_a_while_is_watched_on() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("dir");
    fs::create_dir(&dir).unwrap();
    let mut watch = Watch::directory(&dir).unwrap();
    fs::remove_dir(&dir).unwrap();
    assert!(sees_a_change(&mut watch).await, "gone");
    assert!(is_silent(&mut watch).await, "still gone");
    fs::create_dir(&dir).unwrap();
    assert!(sees_a_change(&mut watch).await, "back");
    fs::write(dir.join("key"), "1").unwrap();
    assert!(sees_a_change(&mut watch).await, "and watched");
}

#[tokio::test]
async fn a_cancelled_wait_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let mut watch = Watch::directory(dir.path()).unwrap();
    fs::write(dir.path().join("key"), "1").unwrap();
    let woken = Arc::clone(&watch.woken);
    timeout(SOON, woken.notified()).await.unwrap();
    woken.notify_one();
    // Polled once: the event is taken, the burst is not over.
    tokio::select! {
        biased;
        () = watch.changed() => panic!("the burst cannot be over yet"),
        () = std::future::ready(()) => {}
    }
    assert!(watch.is_pending);
    assert!(sees_a_change(&mut watch).await);
}

#[tokio::test(start_paused = true)]
async fn a_change_without_an_event_is_found_by_looking() {
    let dir = TempDir::new().unwrap();
    swap(dir.path(), 0);
    let mut deaf = Watch { is_asleep: false, ..Watch::from_first_wait(dir.path()).unwrap() };
    deaf.look();
    let start = Instant::now();
    swap(dir.path(), 1);
    // Other work that interrupts the wait must not put the look off for ever.
    while timeout(LOOK_WITHOUT_EVENTS / 3, deaf.changed()).await.is_err() {}
    assert!(start.elapsed() < LOOK_WITHOUT_EVENTS * 2, "{:?}", start.elapsed());
    assert!(timeout(LOOK_ANYWAY * 10, deaf.changed()).await.is_err(), "and then nothing");
}

#[test]
fn the_fingerprint_follows_links_and_ignores_reading() {
    let dir = TempDir::new().unwrap();
    swap(dir.path(), 0);
    let mut seen = vec![fingerprint(dir.path())];
    let _ = fs::read(dir.path().join("key")).unwrap();
    assert_eq!(fingerprint(dir.path()), seen[0]);
    swap(dir.path(), 1);
    seen.push(fingerprint(dir.path()));
    fs::write(dir.path().join("..1/key"), "longer").unwrap();
    seen.push(fingerprint(dir.path()));
    fs::remove_dir_all(dir.path().join("..1")).unwrap();
    seen.push(fingerprint(dir.path()));
    seen.push(fingerprint(&dir.path().join("missing")));
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len());
}

#[tokio::test]
async fn p9_a_missing_directory_is_named() {
    let dir = TempDir::new().unwrap();
    let error = Watch::directory(&dir.path().join("missing")).unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("must be a directory"), "{error}");
}

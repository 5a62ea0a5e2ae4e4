use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::plan::{DEFAULT_SIZE_LIMIT, PAGE};
use crate::process::testing;

const GRACE: Duration = Duration::from_secs(1);

fn id(text: &str) -> GenerationId {
    GenerationId(text.to_owned())
}

fn file(path: &str, text: &str, mode: &str) -> RenderedFile {
    RenderedFile { path: path.parse().unwrap(), bytes: text.into(), mode: mode.parse().unwrap() }
}

/// Files of mode 0400, as `(path, text)`.
fn files(list: &[(&str, &str)]) -> Vec<RenderedFile> {
    list.iter().map(|(path, text)| file(path, text, "0400")).collect()
}

fn volume(dir: &Path) -> AtomicVolume {
    AtomicVolume::open(dir, GRACE).unwrap()
}

fn set(dir: &Path) -> Vec<(String, String)> {
    let text = |value: SecretValue| value.expose_str().unwrap().to_owned();
    read_set(dir).unwrap().into_iter().map(|(path, value)| (path, text(value))).collect()
}

/// Everything in the volume's own directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let names: BTreeSet<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.into_iter().collect()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test(start_paused = true)]
async fn files_directories_modes_and_links() {
    let dir = TempDir::new().unwrap();
    // What kubelet does to a volume with an fsGroup.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2755)).unwrap();
    let mut volume = volume(dir.path());
    assert!(!AtomicVolume::is_complete(dir.path()));
    assert_eq!(volume.current(), None);
    let wanted =
        [file("a", "1", "0440"), file("d/e/b", "2", "0777"), file("d/c", "", "0666"), file(".env", "3", "0400")];
    assert_eq!(volume.write(&id("g1"), &wanted).await, Ok(Written::Swapped));

    assert_eq!(names(dir.path()), ["..data", "..g1", ".env", "a", "d"]);
    for (link, target) in [("..data", "..g1"), ("a", "..data/a"), ("d", "..data/d"), (".env", "..data/.env")] {
        assert_eq!(fs::read_link(dir.path().join(link)).unwrap(), Path::new(target), "{link}");
    }
    for (path, text, bits) in [("a", "1", 0o440), ("d/e/b", "2", 0o777), ("d/c", "", 0o666), (".env", "3", 0o400)] {
        assert_eq!(fs::read_to_string(dir.path().join(path)).unwrap(), text, "{path}");
        assert_eq!(mode(dir.path().join(path)), bits, "{path}: the umask must not matter");
    }
    for path in ["..g1", "d", "d/e"] {
        assert_eq!(mode(dir.path().join(path)), 0o2755, "{path}: the fsGroup's bit must stay");
    }
    assert!(AtomicVolume::is_complete(dir.path()));
    assert_eq!(volume.current(), Some(id("g1")));
}

#[tokio::test(start_paused = true)]
async fn links_come_and_go_with_their_files() {
    let dir = TempDir::new().unwrap();
    let mut volume = volume(dir.path());
    volume.write(&id("g1"), &files(&[("a", "1"), ("b/x", "1")])).await.unwrap();
    volume.write(&id("g2"), &files(&[("a", "2"), ("c", "2")])).await.unwrap();
    assert_eq!(names(dir.path()), ["..data", "..g1", "..g2", "a", "c"]);
    assert!(volume.roll_back(&id("g1")).await.unwrap());
    assert_eq!(names(dir.path()), ["..data", "..g1", "..g2", "a", "b"], "the way back needs its links again");
    assert_eq!(set(dir.path()), [("a".to_owned(), "1".to_owned()), ("b/x".to_owned(), "1".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn unchanged_files_are_not_swapped() {
    let dir = TempDir::new().unwrap();
    let mut volume = volume(dir.path());
    let long = "x".repeat(10_000);
    let first = [file("a", &long, "0400"), file("d/b", "2", "0400")];
    volume.write(&id("g1"), &first).await.unwrap();
    let inode = fs::metadata(dir.path().join("a")).unwrap().ino();
    // A new version with the old values: the same files under a second name.
    assert_eq!(volume.write(&id("g2"), &first).await, Ok(Written::Unchanged));
    assert_eq!(fs::metadata(dir.path().join("a")).unwrap().ino(), inode);
    assert_eq!(volume.current(), Some(id("g2")));
    assert!(volume.holds(&id("g1")) && volume.holds(&id("g2")) && !volume.holds(&id("g3")));
    assert!(volume.roll_back(&id("g1")).await.unwrap());
    assert_eq!((volume.current(), volume.is_settling()), (Some(id("g1")), false));

    let changed = format!("{}y", &long[1..]);
    for (name, next) in [
        ("one byte", vec![file("a", &changed, "0400"), file("d/b", "2", "0400")]),
        ("a mode", vec![file("a", &changed, "0440"), file("d/b", "2", "0400")]),
        ("a file less", vec![file("a", &changed, "0440")]),
        ("a file more", vec![file("a", &changed, "0440"), file("d/b", "2", "0400")]),
        ("another path", vec![file("a", &changed, "0440"), file("d/c", "2", "0400")]),
        ("a file for a directory", vec![file("a", &changed, "0440"), file("d", "2", "0400")]),
    ] {
        assert_eq!(volume.write(&id("g"), &next).await, Ok(Written::Swapped), "{name}");
        assert_eq!(volume.write(&id("g"), &next).await, Ok(Written::Unchanged), "{name}, again");
    }
}

#[tokio::test(start_paused = true)]
async fn p2_the_previous_generation_stays_for_the_grace_period() {
    let dir = TempDir::new().unwrap();
    let mut volume = volume(dir.path());
    let start = Instant::now();
    volume.write(&id("g1"), &files(&[("a", "1")])).await.unwrap();
    volume.write(&id("g2"), &files(&[("a", "2")])).await.unwrap();
    assert_eq!(start.elapsed(), GRACE, "at most one swap per grace period");
    assert!(volume.is_settling() && volume.holds(&id("g1")));
    assert_eq!(fs::read(dir.path().join("..g1/a")).unwrap(), b"1", "a reader may still be here");

    // A settle that is dropped half-way loses nothing.
    assert!(tokio::time::timeout(GRACE / 2, volume.settle()).await.is_err());
    assert!(volume.holds(&id("g1")));
    volume.settle().await.unwrap();
    assert_eq!(start.elapsed(), GRACE * 2);
    assert_eq!(names(dir.path()), ["..data", "..g2", "a"]);
    assert!(!volume.is_settling() && !volume.holds(&id("g1")));
    volume.settle().await.unwrap();
    assert_eq!(start.elapsed(), GRACE * 2, "nothing to wait for");

    volume.write(&id("g3"), &files(&[("a", "3")])).await.unwrap();
    volume.write(&id("g4"), &files(&[("a", "4")])).await.unwrap();
    assert_eq!(names(dir.path()), ["..data", "..g3", "..g4", "a"]);
}

#[tokio::test(start_paused = true)]
async fn rolling_back_is_one_rename_without_waiting() {
    let dir = TempDir::new().unwrap();
    let mut volume = volume(dir.path());
    assert_eq!(volume.roll_back(&id("g1")).await, Ok(false), "nothing there yet");
    volume.write(&id("g1"), &files(&[("a", "1")])).await.unwrap();
    volume.write(&id("g2"), &files(&[("a", "2")])).await.unwrap();
    let start = Instant::now();
    for (to, text) in [("g1", "1"), ("g1", "1"), ("g2", "2"), ("g1", "1")] {
        assert_eq!(volume.roll_back(&id(to)).await, Ok(true));
        assert_eq!(set(dir.path()), [("a".to_owned(), text.to_owned())]);
        assert_eq!(volume.current(), Some(id(to)));
    }
    assert_eq!(volume.roll_back(&id("g9/../x")).await, Ok(false));
    assert_eq!(start.elapsed(), Duration::ZERO);
    volume.settle().await.unwrap();
    assert_eq!(volume.roll_back(&id("g2")).await, Ok(false), "the grace period is over");
}

#[tokio::test(start_paused = true)]
async fn one_id_with_other_bytes_gets_a_directory_of_its_own() {
    let dir = TempDir::new().unwrap();
    let mut volume = volume(dir.path());
    for text in ["1", "2", "3"] {
        assert_eq!(volume.write(&id("c-1"), &files(&[("a", text)])).await, Ok(Written::Swapped));
        assert_eq!(set(dir.path()), [("a".to_owned(), text.to_owned())]);
        assert_eq!(volume.current(), Some(id("c-1")));
        assert_eq!(self::volume(dir.path()).current(), Some(id("c-1")), "after a restart too");
        volume = self::volume(dir.path());
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_adopts_what_is_complete_and_clears_what_is_not() {
    let dir = TempDir::new().unwrap();
    let mut first = volume(dir.path());
    first.write(&id("g1"), &files(&[("a", "1"), ("old", "1")])).await.unwrap();
    first.write(&id("g2"), &files(&[("a", "2")])).await.unwrap();
    drop(first);
    // A crash at every step of the next write and of a removal.
    for half in ["..writing_tmp/d", "..removed_tmp/d"] {
        fs::create_dir_all(dir.path().join(half)).unwrap();
        fs::write(dir.path().join(half).join("a"), "half").unwrap();
    }
    symlink("..writing_tmp", dir.path().join("..link_tmp")).unwrap();
    symlink("..data/new", dir.path().join("new")).unwrap();
    symlink("/elsewhere", dir.path().join("foreign")).unwrap();
    fs::remove_file(dir.path().join("a")).unwrap();

    let mut second = volume(dir.path());
    assert_eq!(second.current(), Some(id("g2")));
    assert_eq!(names(dir.path()), ["..data", "..g1", "..g2", "a", "foreign"], "a reader may still be in g1");
    assert!(second.holds(&id("g1")));
    second.settle().await.unwrap();
    assert_eq!(names(dir.path()), ["..data", "..g2", "a", "foreign"]);
    assert_eq!(second.write(&id("g2"), &files(&[("a", "2")])).await, Ok(Written::Unchanged));
}

#[tokio::test(start_paused = true)]
async fn a_volume_without_a_present_generation_starts_empty() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("..g1")).unwrap();
    symlink("..gone", dir.path().join("..data")).unwrap();
    assert!(!AtomicVolume::is_complete(dir.path()));
    let mut volume = volume(dir.path());
    assert_eq!(volume.current(), None);
    volume.write(&id("g2"), &files(&[("a", "2")])).await.unwrap();
    assert_eq!(names(dir.path()), ["..data", "..g2", "a"]);
    for outside in ["/tmp", "../..", "..", "..a/b", "a"] {
        fs::remove_file(dir.path().join("..data")).unwrap();
        symlink(outside, dir.path().join("..data")).unwrap();
        assert!(!AtomicVolume::is_complete(dir.path()), "{outside}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_can_be_moved_while_it_is_open() {
    let dir = TempDir::new().unwrap();
    let (before, after) = (dir.path().join("before"), dir.path().join("live"));
    fs::create_dir(&before).unwrap();
    let mut volume = volume(&before);
    volume.write(&id("g1"), &files(&[("a", "1")])).await.unwrap();
    fs::rename(&before, &after).unwrap();
    volume.write(&id("g2"), &files(&[("a", "2")])).await.unwrap();
    assert_eq!(set(&after), [("a".to_owned(), "2".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn p3_a_write_that_fails_half_way_leaves_everything_as_it_was() {
    let dir = TempDir::new().unwrap();
    let mut volume = volume(dir.path());
    volume.write(&id("g1"), &files(&[("a", "1")])).await.unwrap();
    volume.settle().await.unwrap();
    let before = names(dir.path());
    fs::create_dir(dir.path().join("theirs")).unwrap();
    for (next, part) in [
        (files(&[("a", "canary"), ("b", "canary"), ("b", "canary")]), r#"cannot write "b" in the volume: File exists"#),
        (files(&[("b", "canary"), ("theirs", "canary")]), r#""theirs" in the volume is in the way of a file"#),
        (files(&[("b", "canary"), ("b/c", "canary")]), r#"cannot make directory "b" in the volume"#),
    ] {
        let error = volume.write(&id("g2"), &next).await.unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("canary"), "{error}");
        assert_eq!(names(dir.path()).into_iter().filter(|name| name != "theirs").collect::<Vec<_>>(), before);
        assert_eq!((set(dir.path()), volume.current()), (vec![("a".to_owned(), "1".to_owned())], Some(id("g1"))));
    }
    assert_eq!(volume.write(&id("g2"), &files(&[("b", "2")])).await, Ok(Written::Swapped), "and it goes on");
}

#[tokio::test(start_paused = true)]
async fn p9_errors_say_what_to_do() {
    let dir = TempDir::new().unwrap();
    let missing = AtomicVolume::open(&dir.path().join("missing"), GRACE).unwrap_err().to_string();
    assert!(missing.contains("it must be a directory that the agent's user may write"), "{missing}");
    for bad in ["", "a/b", "data", "a_b", "a~1"] {
        let error = volume(dir.path()).write(&id(bad), &[]).await.unwrap_err();
        assert_eq!(error, VolumeError::BadId(bad.to_owned()));
    }
}

/// Needs a tmpfs of its own; `p3_a_full_volume_keeps_its_files` makes one and runs this in it.
#[tokio::test(start_paused = true)]
#[ignore = "run by p3_a_full_volume_keeps_its_files"]
async fn in_a_small_tmpfs() {
    let dir = PathBuf::from(std::env::var_os("HUSHPOD_TEST_TMPFS").unwrap());
    let mut volume = volume(&dir);
    volume.write(&id("g1"), &files(&[("a", "1")])).await.unwrap();
    volume.settle().await.unwrap();
    let before = names(&dir);
    let free = || {
        let space = rustix::fs::statvfs(&dir).unwrap();
        (space.f_bavail, space.f_favail)
    };
    let free_before = free();

    // Too many bytes: found out before anything is written.
    let error = volume.write(&id("g2"), &files(&[("a", &"canary".repeat(60_000))])).await.unwrap_err();
    assert_eq!(error, VolumeError::NoSpace { needed: 360_448, free: Some(258_048) });
    let shown = error.to_string();
    assert!(shown.contains("360448") && shown.contains("hushpod.dev/size-limit"), "{shown}");
    // Too many files: found out in the middle.
    let many: Vec<_> = (0..20).map(|n| file(&format!("f{n}"), "canary", "0400")).collect();
    assert_eq!(volume.write(&id("g2"), &many).await, Err(VolumeError::NoSpace { needed: 120, free: None }));

    assert_eq!((names(&dir), free()), (before, free_before), "nothing of the failed set is left");
    assert_eq!(set(&dir), [("a".to_owned(), "1".to_owned())]);
    assert_eq!(volume.write(&id("g2"), &files(&[("a", "2")])).await, Ok(Written::Swapped), "and it goes on");
}

/// Needs a tmpfs of its own; `p3_a_volume_has_room_for_three_generations_of_whatever_render_lets_pass` makes one.
#[tokio::test(start_paused = true)]
#[ignore = "run by p3_a_volume_has_room_for_three_generations_of_whatever_render_lets_pass"]
async fn in_a_tmpfs_for_three_generations() {
    let dir = PathBuf::from(std::env::var_os("HUSHPOD_TEST_TMPFS").unwrap());
    // Names too long for a link beside its inode take a page more: half as many fit, and at the root of the volume.
    for (count, name_bytes) in [(144, 121), (288, 120)] {
        for generation in 0..5 {
            let file = |number: usize| file(&format!("{number:0name_bytes$}"), &generation.to_string(), "0400");
            let files: Vec<_> = (0..count).map(file).collect();
            let mut volume = volume(&dir);
            let written = volume.write(&id(&format!("g{name_bytes}-{generation}")), &files).await;
            assert_eq!(written, Ok(Written::Swapped), "generation {generation} of {count} files");
        }
        let space = rustix::fs::statvfs(&dir).unwrap();
        assert!(space.f_bavail * 2 <= space.f_blocks, "two of three are there: {} blocks", space.f_bavail);
    }
}

#[test]
fn p3_a_full_volume_keeps_its_files() {
    in_a_tmpfs("size=256k,nr_inodes=12", "in_a_small_tmpfs");
}

/// As the webhook sizes it for one directory (`Plan::room`), and at the edge of what rendering lets pass: 288 files of a
/// page. Directories take nothing of it.
#[test]
fn p3_a_volume_has_room_for_three_generations_of_whatever_render_lets_pass() {
    in_a_tmpfs(&format!("size={}", 3 * (DEFAULT_SIZE_LIMIT + 32 * PAGE)), "in_a_tmpfs_for_three_generations");
}

/// Runs that test of this file with a tmpfs of its own.
fn in_a_tmpfs(options: &str, test: &str) {
    let dir = TempDir::new().unwrap();
    let script = format!(r#"mount -t tmpfs -o {options} hushpod "$HUSHPOD_TEST_TMPFS" && exec "$@""#);
    let Some(mut namespace) = testing::mount_namespace() else { return };
    let inner = testing::rerun(&format!("deliver::volume::tests::{test}"));
    let run = namespace.args(["sh", "-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    testing::passes(run.env("HUSHPOD_TEST_TMPFS", dir.path()));
}

// --- the hammer ---

const READERS: usize = 4;
const FILES: usize = 20;
const HAMMER_GRACE: Duration = Duration::from_millis(1);

/// What the readers saw.
#[derive(Debug, Default)]
struct Observed {
    /// Sets read within the grace period.
    sets: AtomicUsize,
    /// Sets whose reading took too long to mean anything: the reader was not running all the time.
    late: AtomicUsize,
    torn: AtomicUsize,
    missing: AtomicUsize,
}

impl Observed {
    fn get(counter: &AtomicUsize) -> usize {
        counter.load(Ordering::Relaxed)
    }

    /// Reads one set through `..data`, and one file by its own name.
    fn look(&self, dir: &Path) {
        let start = std::time::Instant::now();
        let (set, one) = (read_set(dir), fs::read(dir.join("f07")));
        if start.elapsed() >= HAMMER_GRACE {
            self.late.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (set, is_missing) = match set {
            Ok(set) => (set, one.is_err()),
            Err(_) => (Vec::new(), true),
        };
        let first = set.first().map(|(_, value)| value);
        let is_whole = set.len() == FILES && set.iter().all(|(_, value)| Some(value) == first);
        self.sets.fetch_add(1, Ordering::Relaxed);
        self.torn.fetch_add(usize::from(!is_missing && !is_whole), Ordering::Relaxed);
        self.missing.fetch_add(usize::from(is_missing), Ordering::Relaxed);
    }
}

/// Readers read without pause while `write` makes generation after generation, until `is_enough`.
fn hammer(dir: &Path, mut write: impl FnMut(usize), is_enough: impl Fn(usize, &Observed) -> bool) -> Observed {
    let (observed, stop) = (Observed::default(), AtomicBool::new(false));
    write(0);
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    observed.look(dir);
                }
            });
        }
        for generation in 1.. {
            write(generation);
            if is_enough(generation, &observed) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    observed
}

/// On tmpfs, as in pods, where there is one.
fn memory_dir() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// Twenty files whose contents all say the generation's number.
fn numbered(generation: usize) -> Vec<RenderedFile> {
    (0..FILES).map(|n| file(&format!("f{n:02}"), &format!("generation {generation:08}"), "0400")).collect()
}

#[test]
fn p2_no_reader_sees_a_torn_set_or_misses_a_file() {
    let dir = memory_dir();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut volume = AtomicVolume::open(dir.path(), HAMMER_GRACE).unwrap();
    let write = |generation: usize| {
        runtime.block_on(async {
            let name = |generation: usize| id(&format!("g{generation}"));
            assert_eq!(volume.write(&name(generation), &numbered(generation)).await, Ok(Written::Swapped));
            if generation % 16 == 15 {
                assert!(volume.roll_back(&name(generation - 1)).await.unwrap());
            }
        });
        let generations = names(dir.path()).iter().filter(|name| name.starts_with("..g")).count();
        assert!(generations <= 2, "{generations} generations at rest");
    };
    let observed = hammer(dir.path(), write, |generation, observed| {
        (generation >= 2_000 && Observed::get(&observed.sets) >= 2_000) || generation >= 30_000
    });
    assert!(Observed::get(&observed.sets) >= 1_000, "too few sets read in time to mean anything: {observed:?}");
    assert_eq!((Observed::get(&observed.torn), Observed::get(&observed.missing)), (0, 0), "{observed:?}");
}

/// Makes the links of [`numbered`] files.
fn link_naively(dir: &Path) {
    (0..FILES).for_each(|n| symlink(format!("..data/f{n:02}"), dir.join(format!("f{n:02}"))).unwrap());
}

/// Writes [`numbered`] files over what is there.
fn write_naively(set: &Path, generation: usize) {
    for file in numbered(generation) {
        fs::write(set.join(file.path.as_str()), file.bytes.expose()).unwrap();
    }
}

#[test]
fn p2_the_hammer_catches_a_writer_that_writes_files_in_place() {
    let dir = memory_dir();
    let set = dir.path().join("..naive");
    fs::create_dir(&set).unwrap();
    symlink("..naive", dir.path().join("..data")).unwrap();
    link_naively(dir.path());
    let observed = hammer(
        dir.path(),
        |generation| write_naively(&set, generation),
        |generation, observed| Observed::get(&observed.torn) > 0 || generation >= 100_000,
    );
    assert!(Observed::get(&observed.torn) > 0, "{observed:?}");
}

#[test]
fn p2_the_hammer_catches_a_writer_that_removes_the_old_set_at_once() {
    let dir = memory_dir();
    link_naively(dir.path());
    let set = |generation: usize| dir.path().join(format!("..naive{generation}"));
    let write = |generation: usize| {
        fs::create_dir(set(generation)).unwrap();
        write_naively(&set(generation), generation);
        symlink(set(generation), dir.path().join("..next")).unwrap();
        fs::rename(dir.path().join("..next"), dir.path().join("..data")).unwrap();
        if let Some(old) = generation.checked_sub(1) {
            fs::remove_dir_all(set(old)).unwrap();
        }
    };
    let observed =
        hammer(dir.path(), write, |generation, observed| Observed::get(&observed.missing) > 0 || generation >= 20_000);
    assert!(Observed::get(&observed.missing) > 0, "{observed:?}");
}

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::deliver::volume::AtomicVolume;
use crate::source::tests::fake::{Store, generation, plan, source};

/// Three volumes of one plan, and what feeds them all.
struct World {
    dirs: Vec<tempfile::TempDir>,
    store: Store,
    source: Source,
    deliveries: Vec<Delivery<AtomicVolume>>,
}

impl World {
    fn new() -> Self {
        let store = Store::default();
        let (plan, source) = (plan(&["a:x"]), source(&["a:x"], &[("a", &store)]));
        let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let open = |dir: &tempfile::TempDir| {
            let volume = AtomicVolume::open(dir.path(), Duration::from_millis(1)).unwrap();
            Delivery::new(plan.items.clone(), plan.size_limit, volume)
        };
        let deliveries = dirs.iter().map(open).collect();
        Self { dirs, store, source, deliveries }
    }

    /// A new version reaches the source, and all deliveries are offered what it makes of it.
    async fn rotate(&mut self, version: &str) -> (GenerationId, Vec<Changed>) {
        self.store.put("x", version, &format!("{{\"k\":\"x{version}\"}}"));
        self.store.push.notify_one();
        let generation = generation(&mut self.source, 1).await;
        for delivery in &mut self.deliveries {
            delivery.offer(generation.clone());
        }
        (generation.id, self.catch_up().await)
    }

    async fn catch_up(&mut self) -> Vec<Changed> {
        let mut changed = Vec::new();
        for delivery in &mut self.deliveries {
            changed.push(delivery.catch_up(&mut self.source).await.unwrap());
        }
        changed
    }

    async fn pin(&mut self, number: usize, id: Option<&GenerationId>) -> Changed {
        let delivery = &mut self.deliveries[number];
        let changed = delivery.pin(id.cloned(), &mut self.source).await;
        if !delivery.is_reading() {
            return changed;
        }
        self.source.next().await;
        delivery.catch_up(&mut self.source).await.unwrap()
    }

    /// The version that each volume shows.
    fn shown(&self) -> Vec<String> {
        let text = |path: PathBuf| fs::read_to_string(path).unwrap().trim().to_owned();
        self.dirs.iter().map(|dir| text(dir.path().join("f0"))).map(|json| json[6..json.len() - 2].to_owned()).collect()
    }

    fn calls(&self) -> usize {
        self.store.state().calls.iter().filter(|call| call.starts_with("read")).count()
    }
}

fn delivered(changed: &[Changed]) -> Vec<bool> {
    changed.iter().map(|changed| changed.delivered.is_some()).collect()
}

#[tokio::test(start_paused = true)]
async fn one_source_feeds_three_volumes_that_are_held_and_pinned_apart() {
    let mut world = World::new();
    let (first, changed) = world.rotate("1").await;
    assert_eq!(world.shown(), ["x1", "x1", "x1"]);
    assert!(changed.iter().all(|changed| changed.swapped.is_none()), "nobody reads yet: {changed:?}");

    let (second, changed) = world.rotate("2").await;
    assert_eq!(world.shown(), ["x2", "x2", "x2"]);
    assert!(changed.iter().all(|changed| changed.swapped.as_ref() == Some(&second)), "{changed:?}");

    world.deliveries[0].hold(true);
    assert_eq!(world.pin(1, Some(&first)).await.swapped, Some(first.clone()));
    let (third, changed) = world.rotate("3").await;
    assert_eq!(world.shown(), ["x2", "x1", "x3"]);
    assert_eq!(delivered(&changed), [false, false, true]);
    let reports = world.deliveries.iter().map(Delivery::report);
    let (generations, newest): (Vec<_>, Vec<_>) =
        reports.map(|report| (report.generation.clone().unwrap(), report.newest.clone())).unzip();
    assert_eq!(generations, [second, first.clone(), third.clone()]);
    assert_eq!(newest, [Some(third.clone()), Some(third.clone()), None]);

    // Each is let go by itself.
    world.deliveries[0].hold(false);
    assert_eq!(delivered(&world.catch_up().await), [true, false, false]);
    assert_eq!(world.shown(), ["x3", "x1", "x3"]);
    world.pin(1, None).await;
    assert_eq!(delivered(&world.catch_up().await), [false, true, false]);
    assert_eq!(world.shown(), ["x3", "x3", "x3"]);
    assert_eq!(world.deliveries[1].report().pinned, None);
    // The store is read once for each rotation, however many volumes there are.
    assert_eq!(world.calls(), 3);

    // What is no longer in the volume is read again, for the one that wants it.
    assert_eq!(world.pin(2, Some(&first)).await.swapped, Some(first));
    assert_eq!(world.shown(), ["x3", "x3", "x1"]);
    assert_eq!(world.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_wave_takes_the_newest_once_and_the_hold_stays() {
    let mut world = World::new();
    world.rotate("1").await;
    for delivery in &mut world.deliveries {
        delivery.hold(true);
    }
    world.rotate("2").await;
    let wave = |name: &str| Some(name.to_owned());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(world.deliveries[0].advance(wave("w1")));
    assert_eq!(world.catch_up().await[0], Changed::default(), "not before the store was asked once more");
    let (third, changed) = world.rotate("3").await;
    assert_eq!(changed[0].swapped.as_ref(), Some(&third), "{changed:?}");
    assert_eq!(
        (world.shown(), world.deliveries[0].advanced()),
        (vec!["x3".into(), "x1".into(), "x1".into()], Some("w1"))
    );
    assert!(world.deliveries[0].report().held);
    world.rotate("4").await;
    assert!(!world.deliveries[0].advance(wave("w1")), "the same wave again asks nobody");
    world.rotate("5").await;
    assert_eq!(world.shown(), ["x3", "x1", "x1"]);

    // One that is called off before its turn changes nothing.
    assert!(world.deliveries[1].advance(wave("w2")));
    assert!(!world.deliveries[1].advance(None));
    world.rotate("6").await;
    assert_eq!((world.shown()[1].as_str(), world.deliveries[1].advanced()), ("x1", None));

    // A pin wins until it is over.
    let (seventh, _) = world.rotate("7").await;
    world.pin(2, Some(&seventh)).await;
    assert!(world.deliveries[2].advance(wave("w1")));
    world.rotate("8").await;
    assert_eq!((world.shown()[2].as_str(), world.deliveries[2].advanced()), ("x7", None));
    world.pin(2, None).await;
    world.catch_up().await;
    assert_eq!((world.shown()[2].as_str(), world.deliveries[2].advanced()), ("x8", Some("w1")));
    assert!(world.deliveries[2].report().held);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_written_holds_no_other_back() {
    let mut world = World::new();
    world.rotate("1").await;
    // A file that is not ours has the name.
    let link = world.dirs[1].path().join("f0");
    fs::remove_file(&link).unwrap();
    fs::write(&link, "").unwrap();
    let (second, changed) = world.rotate("2").await;
    assert_eq!(delivered(&changed), [true, false, true]);
    assert!(world.deliveries[1].unwritable().is_some_and(|problem| problem.contains("\"f0\"")));

    fs::remove_file(&link).unwrap();
    assert_eq!(world.deliveries[1].wait().await, Due::Retry);
    world.deliveries[1].retry(&mut world.source).await;
    let changed = world.catch_up().await;
    assert_eq!(changed[1].swapped, Some(second));
    assert_eq!(world.shown(), ["x2", "x2", "x2"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_pin_needs_is_read_once_for_all_who_ask_and_beside_everything_else() {
    let mut world = World::new();
    let (first, _) = world.rotate("1").await;
    world.rotate("2").await;
    world.rotate("3").await;
    world.store.state().slow = Duration::from_mins(1);
    let (calls, start) = (world.calls(), Instant::now());
    for number in [0, 1] {
        assert_eq!(world.deliveries[number].pin(Some(first.clone()), &mut world.source).await, Changed::default());
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody waits for a store here");
    // One changes its mind meanwhile.
    world.deliveries[1].pin(None, &mut world.source).await;
    world.deliveries[2].pin(Some(first.clone()), &mut world.source).await;
    while world.deliveries[0].is_reading() {
        world.source.next().await;
        world.catch_up().await;
    }
    assert_eq!(world.shown(), ["x1", "x3", "x1"]);
    assert_eq!((world.calls() - calls, start.elapsed().as_secs()), (1, 60));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_refused_and_the_earlier_pin_stays() {
    let mut world = World::new();
    let (first, _) = world.rotate("1").await;
    world.rotate("2").await;
    world.pin(0, Some(&first)).await;
    let unknown = GenerationId("unknown".to_owned());
    assert_eq!(world.pin(0, Some(&unknown)).await, Changed::default());
    assert_eq!(world.deliveries[0].report().pinned, Some(first.clone()));
    assert_eq!(world.deliveries[0].report().pin_refused, Some(unknown));
    world.rotate("3").await;
    assert_eq!(world.shown(), ["x1", "x3", "x3"]);
    world.pin(0, Some(&first)).await;
    assert_eq!(world.deliveries[0].report().pin_refused, None);
}

#[tokio::test(start_paused = true)]
async fn first_variables_stay_until_kubelet_has_read_them() {
    let mut world = World::new();
    let variable = |item: &PlannedItem| PlannedItem {
        target: crate::bundle::Target::File("v/A".parse().unwrap()),
        from: crate::plan::PlannedFrom::One(crate::plan::PlannedReference::try_from("a:x#k".to_owned()).unwrap()),
        format: Format::Kubelet,
        ..item.clone()
    };
    let delivery = &mut world.deliveries[1];
    delivery.items.push(variable(&delivery.items[0]));
    let (first, _) = world.rotate("1").await;
    let start = Instant::now();
    let (second, changed) = world.rotate("2").await;
    assert_eq!(delivered(&changed), [true, false, true]);
    assert_eq!(world.shown(), ["x2", "x1", "x2"]);
    assert_eq!(world.deliveries[1].wait().await, Due::Retry);
    assert!(start.elapsed() >= KUBELET_READS);
    world.deliveries[1].retry(&mut world.source).await;
    assert_eq!(world.catch_up().await[1].swapped, Some(second));
    assert_eq!(fs::read_to_string(world.dirs[1].path().join("v/A")).unwrap(), "A='x2'\n");
    // Later ones are as quick as elsewhere, the way back too.
    world.pin(1, Some(&first)).await;
    assert_eq!(world.shown(), ["x2", "x1", "x2"]);
}

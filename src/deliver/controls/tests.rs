use super::*;

fn id(text: &str) -> GenerationId {
    GenerationId(text.to_owned())
}

fn wanted(hold: bool, pin: Option<&str>, refresh_now: Option<&str>) -> Wanted {
    Wanted { hold, pin: pin.map(id), refresh_now: refresh_now.map(str::to_owned), advance: None }
}

fn refresh(text: &str) -> Control {
    Control::RefreshNow(text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_wave_is_told_of_unless_an_earlier_process_went_along_with_it() {
    let asks = |wave: &str| Wanted { hold: true, advance: Some(wave.to_owned()), ..Wanted::default() };
    let advance = |wave: &str| Control::Advance(Some(wave.to_owned()));
    let now = Instant::now();
    for (advanced, told) in [(None, vec![advance("w1")]), (Some("w1"), vec![]), (Some("w0"), vec![advance("w1")])] {
        let mut controls = LiveControls::starting_with(asks("w1"), advanced.map(str::to_owned));
        assert_eq!(controls.due(now), told, "after {advanced:?}");
        controls.wanted = asks("w2");
        let waits = !told.is_empty();
        assert_eq!(controls.due(now), if waits { vec![] } else { vec![advance("w2")] }, "after {advanced:?}");
        assert_eq!(controls.next(now).is_some(), waits);
        controls.due(now + PATIENCE);
        controls.wanted = Wanted { hold: true, ..Wanted::default() };
        assert_eq!(controls.due(now + PATIENCE), [Control::Advance(None)], "letting go waits for nothing");
    }
}

#[test]
fn a_wave_has_a_name_that_reports_can_repeat() {
    for (text, wave) in [
        ("w1", Some("w1")),
        (" 20260101T000000Z-a_b.c ", Some("20260101T000000Z-a_b.c")),
        ("", None),
        ("a b", Some("before")),
        ("\u{1b}[2J", Some("before")),
        (&*"x".repeat(64), Some("before")),
    ] {
        let before = Wanted { advance: Some("before".to_owned()), ..Wanted::default() };
        let after = before.updated([(ADVANCE, Cow::Borrowed(text))].into_iter());
        assert_eq!(after.advance.as_deref(), wave, "{text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_once() {
    let none = Wanted::default();
    for (before, after, changes) in [
        (wanted(true, None, None), wanted(true, None, None), vec![]),
        (none.clone(), wanted(true, None, None), vec![Control::Hold(true)]),
        (wanted(true, None, None), none.clone(), vec![Control::Hold(false)]),
        (none.clone(), wanted(true, Some("a"), None), vec![Control::Pin(Some(id("a"))), Control::Hold(true)]),
        (wanted(false, Some("a"), None), none.clone(), vec![Control::Pin(None)]),
        (none.clone(), wanted(false, None, Some("1")), vec![refresh("1")]),
        (wanted(false, None, Some("1")), wanted(false, None, Some("2")), vec![refresh("2")]),
        (wanted(false, None, Some("1")), none.clone(), vec![]),
    ] {
        let mut controls = LiveControls {
            wanted: after.clone(),
            ..LiveControls::starting_with(before.clone(), before.advance.clone())
        };
        assert_eq!(controls.due(Instant::now()), changes, "{before:?} then {after:?}");
        assert_eq!(controls.due(Instant::now() + 2 * PATIENCE), [], "{before:?} then {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_asks_stores_is_told_once_in_five_seconds_and_the_last_one_counts() {
    let start = Instant::now();
    let mut controls = LiveControls::default();
    let (mut asked, mut held) = (Vec::new(), 0);
    // A script that changes all three, twenty times a second for a minute.
    for tick in 0..=1200_u32 {
        let now = start + tick * Duration::from_millis(50);
        controls.wanted = wanted(tick % 2 == 0, Some(if tick % 2 == 0 { "a" } else { "b" }), Some(&tick.to_string()));
        for change in controls.due(now) {
            match change {
                Control::Hold(_) => held += 1,
                other => asked.push((now, other)),
            }
        }
    }
    let times = |of: fn(&Control) -> bool| asked.iter().filter(move |(_, control)| of(control)).map(|(at, _)| *at);
    for of in [
        |control: &Control| matches!(control, Control::RefreshNow(_)),
        |control: &Control| matches!(control, Control::Pin(_)),
    ] {
        let times: Vec<_> = times(of).collect();
        assert!((11..=13).contains(&times.len()), "{times:?}");
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= PATIENCE), "{times:?}");
    }
    assert_eq!(held, 1201, "a hold asks no store, and is told at once");
    let later = start + Duration::from_secs(70);
    controls.wanted = wanted(true, None, Some("1200"));
    let told = controls.due(later);
    assert!(told.contains(&Control::Pin(None)), "letting go waits for nothing: {told:?}");
    controls.wanted.pin = Some(id("c"));
    assert_eq!(controls.due(later), [Control::Pin(Some(id("c")))]);
    controls.wanted.pin = Some(id("d"));
    assert_eq!(controls.due(later + PATIENCE / 2), []);
    controls.wanted.pin = Some(id("e"));
    assert_eq!(controls.due(later + PATIENCE), [Control::Pin(Some(id("e")))]);
}

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::event::{Timespec, poll};

use super::*;

/// Lets sockets go on until none is waited for; time stands still.
fn settle(notifications: &mut Notifications<'_>, now: Instant) -> Vec<String> {
    let mut lines = notifications.go_on(now);
    loop {
        let mut sockets: Vec<_> = notifications.sockets().collect();
        if sockets.is_empty() {
            return lines;
        }
        let timeout = Timespec { tv_sec: 20, tv_nsec: 0 };
        assert!(poll(&mut sockets, Some(&timeout)).unwrap() > 0, "nothing came");
        drop(sockets);
        lines.extend(notifications.go_on(now));
    }
}

/// Answers each connection with the next of `statuses`, and gives the bodies that it was sent.
fn server(statuses: &'static [&'static str]) -> (Notify, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http:http://127.0.0.1:{}/", listener.local_addr().unwrap().port()).parse().unwrap();
    let (sender, bodies) = channel();
    std::thread::spawn(move || {
        for status in statuses {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            while !text.ends_with('}') {
                let mut buffer = [0; 1024];
                let read = stream.read(&mut buffer).unwrap();
                text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            }
            drop(stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()));
            sender.send(text.rsplit_once("\r\n\r\n").unwrap().1.to_owned()).unwrap();
        }
    });
    (target, bodies)
}

fn nowhere() -> Notify {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http:http://127.0.0.1:{port}/").parse().unwrap()
}

/// All that is said of one generation, with the second at which it is said.
fn said(target: Notify) -> Vec<(u64, String)> {
    let targets = [target];
    let mut notifications = Notifications::new(&targets);
    let start = Instant::now();
    assert_eq!(notifications.next(), None);
    notifications.announce("g2", start);
    let mut said = Vec::new();
    while let Some(now) = notifications.next() {
        let second = (now - start).as_secs();
        said.extend(settle(&mut notifications, now).into_iter().map(|line| (second, line)));
    }
    said
}

#[test]
fn attempts_are_bounded_and_so_are_the_lines_about_them() {
    let found = said(nowhere());
    let [(0, first), (60, last)] = &found[..] else { panic!("1 + 2 + 4 + 8 + 15 + 30 s: {found:?}") };
    assert!(first.starts_with("generation g2: \"http:http://127.0.0.1:"), "{first}");
    assert!(first.contains("was not told yet, and it is tried again for a minute: cannot connect"), "{first}");
    assert!(last.contains("could not be told, and will hear of the next change: cannot connect"), "{last}");

    // Once: it may be in another container.
    let found = said("signal:HUP:hp-nobody".parse().unwrap());
    let [(0, line)] = &found[..] else { panic!("{found:?}") };
    assert!(line.contains("\"signal:HUP:hp-nobody\" was not told yet") && line.contains("no process named"), "{line}");
}

#[test]
fn an_answer_has_its_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let targets = [format!("http:http://127.0.0.1:{}/", silent.local_addr().unwrap().port()).parse().unwrap()];
    let mut notifications = Notifications::new(&targets);
    let start = Instant::now();
    notifications.announce("g2", start);
    assert!(notifications.go_on(start).is_empty());
    assert_eq!(notifications.next(), Some(start + HTTP_TIMEOUT));
    assert!(notifications.go_on(start + Duration::from_millis(4999)).is_empty());
    let lines = notifications.go_on(start + HTTP_TIMEOUT);
    assert!(lines[0].ends_with("no answer within 5 s"), "{lines:?}");
    assert_eq!(notifications.next(), Some(start + HTTP_TIMEOUT + PAUSES[0]), "and then it is tried again");
}

#[test]
fn what_failed_is_tried_again_and_each_target_is_on_its_own() {
    let (flaky, flaky_bodies) = server(&["500 Oops", "200 OK"]);
    let (good, good_bodies) = server(&["200 OK"]);
    let targets = [flaky, nowhere(), good];
    let mut notifications = Notifications::new(&targets);
    let start = Instant::now();
    notifications.announce("g2", start);
    let lines = settle(&mut notifications, start);
    assert_eq!(good_bodies.recv().unwrap(), "{\"generation\":\"g2\"}");
    assert!(lines.iter().any(|line| line.contains("the application answered 500")), "{lines:?}");
    assert!(lines.contains(&format!("generation g2: {:?} was told", targets[2].to_string())), "{lines:?}");
    let lines = settle(&mut notifications, start + PAUSES[0]);
    assert_eq!(lines, [format!("generation g2: {:?} was told", targets[0].to_string())]);
    assert_eq!(flaky_bodies.iter().count(), 2);
}

#[test]
fn a_newer_generation_replaces_what_is_still_tried() {
    let (target, bodies) = server(&["500 Oops", "200 OK"]);
    let targets = [target];
    let mut notifications = Notifications::new(&targets);
    let start = Instant::now();
    notifications.announce("g2", start);
    settle(&mut notifications, start);
    notifications.announce("g3", start);
    settle(&mut notifications, start);
    assert_eq!(bodies.iter().collect::<Vec<_>>(), ["{\"generation\":\"g2\"}", "{\"generation\":\"g3\"}"]);
    assert_eq!(notifications.next(), None, "the old one is not tried again");

    notifications.announce("g4", start);
    notifications.give_up();
    assert_eq!((notifications.next(), notifications.go_on(start)), (None, Vec::new()));
}

use std::net::TcpListener;
use std::thread::JoinHandle;

use rustix::event::{Timespec, poll};

use super::*;

/// Lets a request go on until it is done.
fn finish(mut post: Post) -> Result<(), PostError> {
    loop {
        if let Poll::Ready(result) = post.go_on() {
            return result;
        }
        let timeout = Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(poll(&mut [post.socket()], Some(&timeout)).unwrap(), 1, "nothing came");
    }
}

/// Takes one request whole, answers it with these bytes and hangs up.
fn server(answer: impl Into<Vec<u8>>) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, answer) = (listener.local_addr().unwrap().port(), answer.into());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = String::new();
        while !text.ends_with('}') {
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the request ended early: {text:?}");
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        // Who has what it wanted hangs up, maybe before all of this is there.
        drop(stream.write_all(&answer));
        text
    });
    (port, thread)
}

fn answered(answer: impl Into<Vec<u8>>) -> Option<String> {
    let (port, server) = server(answer);
    let result = finish(Post::start(&format!("http://127.0.0.1:{port}/"), "0a1b").unwrap());
    server.join().unwrap();
    result.err().map(|error| error.to_string())
}

#[test]
fn only_2xx_is_an_arrival() {
    for (answer, error) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", None),
        ("HTTP/1.1 204\r\n\r\n", None),
        ("HTTP/1.0 299 \n", None),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", None),
        ("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\n\r\n", Some("the application answered 302")),
        ("HTTP/1.1 503 canary\r\n\r\n", Some("the application answered 503")),
        ("HTTP/1.1 101 Switching\r\n\r\n", Some("the application answered 101")),
        ("HTTP/1.1 2000 OK\r\n\r\n", Some("what answered does not speak HTTP/1.1")),
        ("HTTP/1.1 +20 OK\r\n\r\n", Some("what answered does not speak HTTP/1.1")),
        ("HTTP/1.1 099 OK\r\n\r\n", Some("what answered does not speak HTTP/1.1")),
        ("HTTP/2 200\r\n\r\n", Some("what answered does not speak HTTP/1.1")),
        ("SSH-2.0-canary\r\n", Some("what answered does not speak HTTP/1.1")),
        ("HTTP/1.1 200", Some("the connection broke before an answer: unexpected end of file")),
        ("HTTP/1.1 100 Continue\r\n\r\n", Some("the connection broke before an answer: unexpected end of file")),
        ("", Some("the connection broke before an answer: unexpected end of file")),
    ] {
        assert_eq!(answered(answer).as_deref(), error, "{answer:?}");
    }
}

#[test]
fn an_answer_is_read_up_to_its_limit() {
    let line = |length: usize| format!("{:a<length$}\n", "HTTP/1.1 200 ", length = length - 1);
    assert_eq!(answered(line(MAX_ANSWER)), None);
    let error = "there was no status within 8192 bytes of the answer";
    assert_eq!(answered(line(MAX_ANSWER + 1)).as_deref(), Some(error));
    assert_eq!(answered("HTTP/1.1 100 x\r\n\r\n".repeat(1000)).as_deref(), Some(error));
}

#[test]
fn what_is_sent_is_what_the_agent_sends() {
    for (path, target) in [("/reload?x=1#f", "/reload?x=1"), ("", "/"), ("?x=1", "/?x=1"), ("#f", "/")] {
        let (port, server) = server("HTTP/1.1 204 No Content\r\n\r\n");
        // Over both addresses: nobody listens on the first.
        finish(Post::start(&format!("http://localhost:{port}{path}"), "0a\"1b").unwrap()).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "POST {target} HTTP/1.1\r\nhost: localhost:{port}\r\ncontent-type: application/json\r\nuser-agent: \
             hushpod-agent/{version}\r\nconnection: close\r\ncontent-length: 22\r\n\r\n{{\"generation\":\"0a?1b\"}}"
        );
        assert_eq!(server.join().unwrap(), expected);
    }
}

#[test]
fn a_refused_connection_names_the_port() {
    for host in ["127.0.0.1", "[::1]", "localhost"] {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = Post::start(&format!("http://{host}:{port}/"), "0a1b").and_then(finish).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot connect to port {port} on localhost")), "{host}: {error}");
    }
}

#[test]
fn nobody_is_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}/", silent.local_addr().unwrap().port());
    let mut post = Post::start(&url, "0a1b").unwrap();
    // More than once, since the connection may not be there yet.
    for _ in 0..3 {
        assert!(post.go_on().is_pending());
    }
}

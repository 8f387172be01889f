//! A Stripe that answers what it is told to, in order, and remembers what it was asked.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::VecDeque, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

use super::{OperationKey, Stripe, StripeSettings};

pub(super) const KEY: &str = "sk_test_0123456789abcdef";

/// What is done with a request.
pub(super) enum Reply {
    /// A status, more header lines, and a body.
    Answer(u16, &'static str, String),
    /// Nothing: the connection is closed.
    Break,
    /// Nothing: the connection stays open.
    Hang,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// `POST /v1/customers`
    pub(super) line: String,
    /// The lines of the head after the first.
    pub(super) head: Vec<String>,
    pub(super) body: String,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.iter().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub(super) type Log = Arc<Mutex<Vec<Asked>>>;

pub(super) fn answer(status: u16, body: &Value) -> Reply {
    Reply::Answer(status, "", body.to_string())
}

/// A client of a server with this script. A request after its end fails the test, by getting no answer.
pub(super) async fn scripted(script: impl IntoIterator<Item = Reply>) -> (Stripe, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = StripeSettings::new(KEY, vec!["whsec_one".to_owned()]);
    settings.base_url = format!("http://{}", listener.local_addr().unwrap());
    settings.retry_pause = Duration::ZERO;
    let log = Log::default();
    let mut script: VecDeque<_> = script.into_iter().collect();
    let asked = Arc::clone(&log);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Some(reply) = script.pop_front() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read(&mut stream).await;
            asked.lock().await.push(request);
            match reply {
                Reply::Break => {}
                Reply::Hang => open.push(stream),
                Reply::Answer(status, more, body) => {
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status} X\r\n{more}connection: close\r\ncontent-length: {length}");
                    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
                }
            }
        }
        // Nobody is served after the end; those who hang stay. The port is kept, or another's server might answer there.
        while listener.accept().await.is_ok() {}
        drop(open);
    });
    (Stripe::new(settings).unwrap(), log)
}

async fn read(stream: &mut TcpStream) -> Asked {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the request broke off");
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let mut lines = head.lines();
        let line = lines.next().unwrap().strip_suffix(" HTTP/1.1").unwrap().to_owned();
        let asked = Asked { line, head: lines.map(str::to_owned).collect(), body: body.to_owned() };
        let length = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
        if asked.body.len() == length {
            return asked;
        }
    }
}

/// Stripe's example of an object.
pub(super) fn example(object: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../../data/stripe-objects.json")).unwrap();
    all[object].clone()
}

pub(super) fn key() -> OperationKey {
    OperationKey::new("test", &["one"])
}

/// The body's pairs, decoded.
pub(super) fn form(body: &str) -> Vec<String> {
    let decoded = |text: &str| {
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let [first, more @ ..] = rest {
            rest = more;
            if *first == b'%' {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&more[..2]).unwrap(), 16).unwrap());
                rest = &more[2..];
            } else {
                bytes.push(if *first == b'+' { b' ' } else { *first });
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    body.split('&').filter(|pair| !pair.is_empty()).map(decoded).collect()
}

/// A page with the example alone.
pub(super) fn list(object: &str) -> Value {
    json!({"object": "list", "url": "/", "has_more": false, "data": [example(object)]})
}

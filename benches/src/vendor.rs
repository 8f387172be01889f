//! The mock vendor: answers each chat call at once, in OpenAI's format and with usage, from fixed bytes.

use std::{
    io::{BufRead as _, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    Failure,
    client::{find, length},
    process::Child,
};

/// Pieces of text in a streamed answer.
const PIECES: usize = 20;
const TEXT: &str = " the sea";
const USAGE: &str = r#"{"prompt_tokens":24,"completion_tokens":40,"total_tokens":64,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}"#;

/// A vendor in a process of its own.
pub(crate) struct Vendor {
    child: Child,
    address: SocketAddr,
}

impl Vendor {
    pub(crate) async fn start() -> Result<Self, Failure> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg("vendor").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Child::spawn(&mut command)?;
        let output = child.take_stdout().ok_or("the vendor has no output")?;
        // One short line, written as soon as the vendor listens.
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            std::io::BufReader::new(output).read_line(&mut line).map(|_| line)
        });
        let address = line.await??.trim().parse().map_err(|_| "the vendor did not start")?;
        Ok(Self { child, address })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }
}

/// Serves until standard input ends, which it does when the benchmark is gone, however it went.
pub(crate) async fn serve() -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let (over, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut vec![]);
        let _ = over.send(());
    });
    let answers = Arc::new(Answers::new());
    let accept = async {
        loop {
            let (socket, _) = listener.accept().await?;
            // A client that leaves ends its connection, not the vendor.
            tokio::spawn(converse(socket, answers.clone()));
        }
    };
    tokio::select! {
        failed = accept => failed,
        _ = ended => Ok(()),
    }
}

struct Answers {
    whole: Vec<u8>,
    streamed: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let text = TEXT.repeat(PIECES);
        let body = format!(
            r#"{{"id":"chatcmpl-0123456789","object":"chat.completion","created":1793491200,"model":"gpt-5-mini","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{USAGE},"system_fingerprint":"fp_0123456789"}}"#
        );
        let whole = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut events =
            vec![chunk(r#"[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]"#, "null")];
        let piece = format!(r#"[{{"index":0,"delta":{{"content":"{TEXT}"}},"finish_reason":null}}]"#);
        events.extend(std::iter::repeat_n(chunk(&piece, "null"), PIECES));
        events.push(chunk(r#"[{"index":0,"delta":{},"finish_reason":"stop"}]"#, "null"));
        events.push(chunk("[]", USAGE));
        events.push("data: [DONE]\n\n".to_owned());
        let mut streamed =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
        for event in events {
            streamed.push_str(&format!("{:x}\r\n{event}\r\n", event.len()));
        }
        streamed.push_str("0\r\n\r\n");
        Self { whole: whole.into_bytes(), streamed: streamed.into_bytes() }
    }
}

fn chunk(choices: &str, usage: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion.chunk\",\"created\":1793491200,\"model\":\"gpt-5-mini\",\"choices\":{choices},\"usage\":{usage}}}\n\n"
    )
}

/// Answers one request after the other. Clients here do not pipeline.
async fn converse(mut socket: TcpStream, answers: Arc<Answers>) -> Result<(), Failure> {
    socket.set_nodelay(true)?;
    let mut request = Vec::with_capacity(4 * 1024);
    loop {
        request.clear();
        loop {
            if socket.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
            let whole = find(&request, b"\r\n\r\n")
                .is_some_and(|at| request.len() >= at + 4 + length(&request[..at]).unwrap_or(0));
            if whole {
                break;
            }
        }
        let streamed = find(&request, br#""stream":true"#).is_some();
        socket.write_all(if streamed { &answers.streamed } else { &answers.whole }).await?;
    }
}

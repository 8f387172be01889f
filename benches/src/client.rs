//! The least HTTP/1.1 client that can measure: one connection, one request at a time, fixed request bytes.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::Failure;

/// Where to send what.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    request: Arc<[u8]>,
}

impl Target {
    pub(crate) fn new(address: SocketAddr, request: Vec<u8>) -> Self {
        Self { address, request: request.into() }
    }

    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        Ok(Connection { socket, request: self.request.clone(), answer: Vec::with_capacity(16 * 1024) })
    }
}

/// A kept-alive connection to a target.
pub(crate) struct Connection {
    socket: TcpStream,
    request: Arc<[u8]>,
    answer: Vec<u8>,
}

impl Connection {
    /// One call. Returns the body as it came, with its chunk sizes when it was chunked.
    pub(crate) async fn call(&mut self) -> Result<&[u8], Failure> {
        self.socket.write_all(&self.request).await?;
        self.answer.clear();
        let mut head = None;
        loop {
            if self.socket.read_buf(&mut self.answer).await? == 0 {
                return Err(format!("the connection was closed in an answer: {}", self.text()).into());
            }
            if head.is_none() {
                head = find(&self.answer, b"\r\n\r\n").map(|at| (at + 4, length(&self.answer[..at])));
            }
            let Some((body, length)) = head else { continue };
            let whole = match length {
                Some(length) => self.answer.len() >= body + length,
                // The bodies of this benchmark hold nothing that looks like the last chunk.
                None => self.answer.ends_with(b"\r\n0\r\n\r\n"),
            };
            if whole {
                return if self.answer.starts_with(b"HTTP/1.1 200") {
                    Ok(&self.answer[body..])
                } else {
                    Err(format!("not an answer of status 200: {}", self.text()).into())
                };
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.answer).into_owned()
    }
}

/// Where `needle` begins in `bytes`.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// The `content-length` of a head whose names are in lower case, as hyper and we write them.
pub(crate) fn length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
}

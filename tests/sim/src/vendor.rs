//! The vendor: it does what the call's script says, remembers who asked and what it reported, and complains of calls that come
//! without a reservation.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use serde_json::{Value, json};
use tenantry_providers::{
    ChatCall, ChatReply, ChatStream, CompleteReply, EmbeddingsCall, ErrorBody, Provider, StatusError, UpstreamError,
    Usage,
    openai::{Produced, RelayOptions},
    provider::BoxFuture,
};
use tokio::time::timeout_at;

use crate::{
    scenario::{Break, Call, Reported, Script},
    world::{Fate, Process, World, lock},
};

/// A gateway's account with the vendor.
pub(crate) struct Vendor(pub(crate) Arc<Process>);

/// Calls that are at the vendor, by tenant, each with the process that waits for it.
#[derive(Default)]
pub(crate) struct AtVendor(Mutex<BTreeMap<usize, Vec<Arc<Process>>>>);

/// A call while it is at the vendor.
struct Visit {
    world: Arc<World>,
    process: Arc<Process>,
    tenant: usize,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let seen = lock(&self.world.seen);
        let mut at = lock(&seen.at_vendor.0);
        let waiting = at.entry(self.tenant).or_default();
        if let Some(index) = waiting.iter().position(|process| Arc::ptr_eq(process, &self.process)) {
            waiting.swap_remove(index);
        }
    }
}

/// What the vendor reported of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) prompt: u64,
    pub(crate) completion: u64,
    /// It is no more than it was allowed.
    pub(crate) within: bool,
}

/// The number of the call that a prompt or an input is of.
fn number(text: &str) -> usize {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a prompt of ours")
}

/// The prompt of a call.
pub(crate) fn prompt(number: usize, call: &Call) -> String {
    std::iter::once(number.to_string()).chain((0..call.words).map(|_| "word".to_owned())).collect::<Vec<_>>().join(" ")
}

impl Vendor {
    /// Notes that a call arrived, and looks whether its tenant has as many holds as calls here.
    fn arrive(&self, number: usize) -> (Call, Visit) {
        let (process, world) = (&self.0, &self.0.world);
        let call = world.scenario.calls[number].clone();
        let holds = holds(world, call.tenant);
        let mut seen = lock(&world.seen);
        *seen.asked.entry(number).or_default() += 1;
        let here = {
            let mut at = lock(&seen.at_vendor.0);
            let waiting = at.entry(call.tenant).or_default();
            waiting.push(process.clone());
            waiting.iter().filter(|process| !process.is_dead()).count()
        };
        if holds < here {
            seen.violations
                .push(format!("call {number} is at the vendor without a reservation: {here} calls, {holds} holds"));
        }
        world.note(|| format!("{} vendor: call {number}, {:?}", process.name, call.script));
        (call.clone(), Visit { world: world.clone(), process: process.clone(), tenant: call.tenant })
    }

    /// What the vendor says of its usage, and remembers to have said.
    fn report(&self, number: usize, call: &Call, usage: Reported, cap: u64) -> Option<Value> {
        let world = &self.0.world;
        let used = Report { prompt: call.words + 5, completion: call.answer.min(cap), within: true };
        let reported = match usage {
            Reported::Right => used,
            Reported::TooMuch => Report { prompt: used.prompt, completion: cap + 50, within: false },
            Reported::Absurd => {
                return Some(json!({"prompt_tokens": -1, "completion_tokens": 9_000_000_000_i64, "total_tokens": 3}));
            }
            Reported::Missing => return None,
        };
        lock(&world.seen).reported.insert(number, reported);
        let Report { prompt, completion, .. } = reported;
        Some(json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}))
    }

    /// What happens before the first byte of an answer.
    async fn begin(&self, script: &Script) -> Result<(), UpstreamError> {
        match script {
            Script::Refuse { status } => {
                let status = StatusCode::from_u16(*status).expect("a status");
                let body =
                    ErrorBody { message: "simulated".into(), kind: "server_error".into(), param: None, code: None };
                let refusal =
                    StatusError { upstream_status: status, status, retry_after: None, body, detail: String::new() };
                Err(UpstreamError::Status(Box::new(refusal)))
            }
            Script::Unreachable => Err(UpstreamError::Connect("simulated".into())),
            Script::Stall => pending().await,
            Script::Answer { after, .. } => {
                tokio::time::sleep(*after).await;
                Ok(())
            }
            Script::Break { pieces: 0, how: Break::Error } => Err(UpstreamError::Protocol("simulated".into())),
            Script::Break { pieces: 0, how: Break::Cut } => Err(UpstreamError::Protocol("cut".into())),
            Script::Break { .. } => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(())
            }
        }
    }

    async fn whole(&self, number: usize, call: &Call, cap: u64) -> Result<(Value, Usage), UpstreamError> {
        self.begin(&call.script).await?;
        let usage = match &call.script {
            Script::Answer { usage, .. } => *usage,
            Script::Break { how: Break::Silence, .. } => return pending().await,
            _ => return Err(UpstreamError::Protocol("the connection broke".into())),
        };
        let usage = self.report(number, call, usage, cap);
        let read = usage.as_ref().map_or(Usage::Missing, |usage| match call.model {
            "vectors" => Usage::of_embeddings(&usage.to_string()),
            _ => Usage::of_chat(&usage.to_string()),
        });
        Ok((usage.unwrap_or(Value::Null), read))
    }

    fn stream(&self, number: usize, call: &Call, cap: u64, visit: Visit, upstream: &ChatCall) -> ChatStream {
        let words = call.answer.min(cap);
        let event = |value: Value| Bytes::from(format!("data: {value}\n\n"));
        let chunk = |delta: Value, finish: Value| {
            event(json!({
                "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            }))
        };
        let mut pieces: Vec<Piece> =
            (0..words).map(|_| Piece::Bytes(chunk(json!({"content": "word "}), Value::Null))).collect();
        match &call.script {
            Script::Break { pieces: most, how } => {
                pieces.truncate(usize::try_from(*most).expect("few"));
                match how {
                    Break::Error => pieces
                        .push(Piece::Bytes(event(json!({"error": {"message": "simulated", "type": "server_error"}})))),
                    Break::Cut => {}
                    Break::Silence => pieces.push(Piece::Silence),
                }
            }
            Script::Answer { usage, .. } => {
                pieces.push(Piece::Bytes(chunk(json!({}), json!("stop"))));
                if let Some(usage) = self.report(number, call, *usage, cap) {
                    pieces.push(Piece::Bytes(event(json!({
                        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage,
                    }))));
                }
                pieces.push(Piece::Bytes(Bytes::from_static(b"data: [DONE]\n\n")));
            }
            _ => {}
        }
        let process = self.0.clone();
        let source = stream::unfold((pieces.into_iter(), Some(visit)), move |(mut pieces, visit)| {
            let process = process.clone();
            async move {
                let piece = pieces.next()?;
                let pause =
                    process.world.dice(|dice| if dice.u32(..10) == 0 { dice.u64(..900) } else { dice.u64(..20) });
                tokio::time::sleep(Duration::from_millis(pause)).await;
                process.alive().await;
                // With its last word the call is over, though the connection is read to its end.
                let visit = visit.filter(|_| pieces.len() > 0);
                match piece {
                    Piece::Bytes(bytes) => Some((Ok(bytes), (pieces, visit))),
                    Piece::Silence => pending().await,
                }
            }
        });
        ChatStream::new(
            source,
            RelayOptions { client_model: Some(upstream.client_model.clone()), ..RelayOptions::default() },
            upstream.timing,
        )
    }

    async fn reach(&self) {
        if self.0.fate() != Fate::Goes {
            self.0.alive().await;
        }
    }
}

enum Piece {
    Bytes(Bytes),
    Silence,
}

/// How many requests of a tenant are held, counted in what is stored.
fn holds(world: &World, tenant: usize) -> usize {
    let org = lock(&world.tenants)[tenant].org.to_string();
    let holds = |item: &Value| item["holds"]["M"].as_object().map_or(0, serde_json::Map::len);
    world.items().iter().filter(|item| item["org"]["S"] == *org).map(holds).sum()
}

impl Provider for Vendor {
    fn chat(&self, call: ChatCall) -> BoxFuture<'_, Result<ChatReply, UpstreamError>> {
        Box::pin(async move {
            self.reach().await;
            let number = number(call.request["messages"][0]["content"].as_str().expect("a prompt"));
            let (scripted, visit) = self.arrive(number);
            let cap = call.max_completion_tokens;
            if call.stream {
                // As the real client: the head has a deadline of its own.
                let begun = timeout_at(call.timing.deadline, self.begin(&scripted.script)).await;
                begun.unwrap_or(Err(UpstreamError::Timeout(tenantry_providers::TimeoutPhase::Deadline)))?;
                self.0.alive().await;
                return Ok(ChatReply::Stream(self.stream(number, &scripted, cap, visit, &call)));
            }
            let whole = timeout_at(call.timing.deadline, self.whole(number, &scripted, cap)).await;
            let (usage, read) =
                whole.unwrap_or(Err(UpstreamError::Timeout(tenantry_providers::TimeoutPhase::Deadline)))?;
            self.0.alive().await;
            let text = vec!["word"; usize::try_from(scripted.answer.min(cap)).expect("few")].join(" ");
            let mut body = json!({
                "id": "c", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            });
            if !usage.is_null() {
                body["usage"] = usage;
            }
            drop(visit);
            Ok(ChatReply::Complete(CompleteReply {
                body: Bytes::from(body.to_string()),
                usage: read,
                produced: Produced::default(),
            }))
        })
    }

    fn embeddings(&self, call: EmbeddingsCall) -> BoxFuture<'_, Result<CompleteReply, UpstreamError>> {
        Box::pin(async move {
            self.reach().await;
            let number = number(call.request["input"].as_str().expect("an input"));
            let (scripted, _visit) = self.arrive(number);
            let whole = timeout_at(call.timing.deadline, self.whole(number, &scripted, 0)).await;
            let (usage, read) =
                whole.unwrap_or(Err(UpstreamError::Timeout(tenantry_providers::TimeoutPhase::Deadline)))?;
            self.0.alive().await;
            let mut body = json!({"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]});
            if !usage.is_null() {
                body["usage"] = usage;
            }
            Ok(CompleteReply { body: Bytes::from(body.to_string()), usage: read, produced: Produced::default() })
        })
    }
}

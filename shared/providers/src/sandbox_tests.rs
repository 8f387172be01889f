#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::openai::StreamEnd;
use crate::provider::{CapField, StreamPart, Timing};
use crate::tokens::{count_prompt, count_text};

fn timing() -> Timing {
    Timing {
        first_byte: Duration::from_secs(1),
        idle: Duration::from_secs(1),
        deadline: Instant::now() + Duration::from_secs(9),
    }
}

fn call(request: Value, cap: u64, stream: bool) -> ChatCall {
    let Value::Object(request) = request else { panic!("an object") };
    ChatCall {
        request: Arc::new(request),
        client_model: "sandbox/echo".to_owned(),
        upstream_model: "echo".to_owned(),
        max_completion_tokens: cap,
        cap_field: CapField::MaxTokens,
        stream,
        timing: timing(),
    }
}

async fn complete(request: Value, cap: u64) -> (Value, CompleteReply) {
    let ChatReply::Complete(reply) = SandboxProvider::new().chat(call(request, cap, false)).await.unwrap() else {
        panic!("streams")
    };
    (serde_json::from_slice(&reply.body).unwrap(), reply)
}

fn request(content: Value) -> Value {
    json!({"messages": [{"role": "user", "content": "before"}, {"role": "user", "content": content}, {"role": "assistant", "content": "x"}]})
}

#[tokio::test]
async fn it_says_the_last_user_message_back() {
    let request = request(json!("Hello there,\n 天气 👩‍👩‍👧!"));
    let (answer, reply) = complete(request.clone(), 100).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello there,\n 天气 👩‍👩‍👧!");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["system_fingerprint"], "sandbox");
    let usage = reply.usage.reported().unwrap();
    assert_eq!(usage.prompt_tokens, count_prompt(&request, IMAGE_TOKENS));
    assert_eq!(usage.completion_tokens, count_text("Hello there,\n 天气 👩‍👩‍👧!"));
    assert_eq!(complete(request, 100).await.1.body, reply.body, "the same question gives the same bytes");
}

#[tokio::test]
async fn parts_and_nothing() {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "b"}]);
    assert_eq!(complete(request(parts), 100).await.0["choices"][0]["message"]["content"], "a\nb");
    assert_eq!(complete(json!({}), 100).await.0["choices"][0]["message"]["content"], "(nothing to echo)");
}

#[tokio::test]
async fn the_cap_is_kept() {
    let text = "one two three, 天气很好 👩‍👩‍👧 internationalization";
    for cap in 0..=count_text(text) {
        let (answer, reply) = complete(request(json!(text)), cap).await;
        let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let usage = reply.usage.reported().unwrap();
        assert!(usage.completion_tokens <= cap && text.starts_with(content));
        assert_eq!(usage.completion_tokens, count_text(content));
        let whole = content.len() == text.len();
        assert_eq!(answer["choices"][0]["finish_reason"], if whole { "stop" } else { "length" }, "{cap}");
    }
}

#[tokio::test]
async fn it_streams_word_by_word() {
    for asked in [false, true] {
        let mut request = request(json!("one two three"));
        request["stream_options"] = json!({"include_usage": asked});
        let ChatReply::Stream(mut stream) = SandboxProvider::new().chat(call(request, 100, true)).await.unwrap() else {
            panic!("whole")
        };
        let mut events = Vec::new();
        let last = loop {
            match stream.next().await.unwrap() {
                StreamPart::More(event) => events.push(event),
                StreamPart::Last(last) => break last,
            }
        };
        assert_eq!(last, "data: [DONE]\n\n");
        assert!(stream.next().await.is_none());
        let chunks: Vec<Value> = events
            .iter()
            .map(|event| serde_json::from_slice(event.strip_prefix(b"data: ").unwrap()).unwrap())
            .collect();
        let words: Vec<&str> =
            chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(words, ["", "one ", "two ", "three"]);
        assert!(
            chunks.iter().all(|chunk| chunk["system_fingerprint"] == "sandbox" && chunk["model"] == "sandbox/echo")
        );
        assert_eq!(chunks.iter().any(|chunk| chunk["usage"].is_object()), asked);
        let outcome = stream.into_outcome();
        assert_eq!(outcome.ended, StreamEnd::Done);
        assert_eq!(outcome.usage.reported().unwrap().completion_tokens, 3);
    }
}

async fn embed(request: Value) -> Result<(Value, CompleteReply), UpstreamError> {
    let Value::Object(request) = request else { panic!("an object") };
    let call = EmbeddingsCall {
        request: Arc::new(request),
        client_model: "sandbox/echo".to_owned(),
        upstream_model: "echo".to_owned(),
        timing: timing(),
    };
    let reply = SandboxProvider::new().embeddings(call).await?;
    Ok((serde_json::from_slice(&reply.body).unwrap(), reply))
}

#[tokio::test]
async fn embeddings_are_deterministic_unit_vectors() {
    let (answer, reply) =
        embed(json!({"input": ["hello world", "other", "hello world"], "dimensions": 8})).await.unwrap();
    let vectors: Vec<Vec<f64>> = answer["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| serde_json::from_value(item["embedding"].clone()).unwrap())
        .collect();
    assert!(vectors[0] == vectors[2] && vectors[0] != vectors[1] && vectors[0].len() == 8);
    assert!((vectors[0].iter().map(|value| value * value).sum::<f64>() - 1.0).abs() < 1e-6);
    assert_eq!(reply.usage.reported().unwrap().prompt_tokens, 5);

    let (answer, _) =
        embed(json!({"input": "hello world", "dimensions": 8, "encoding_format": "base64"})).await.unwrap();
    let bytes = BASE64.decode(answer["data"][0]["embedding"].as_str().unwrap().as_bytes()).unwrap();
    let decoded: Vec<f64> =
        bytes.chunks(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()))).collect();
    assert!(decoded.iter().zip(&vectors[0]).all(|(one, other)| (one - other).abs() < 1e-6));

    assert_eq!(embed(json!({"input": [1, 2, 3]})).await.unwrap().0["data"].as_array().unwrap().len(), 1);
    assert_eq!(embed(json!({"input": [[1], [2]]})).await.unwrap().0["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn embeddings_refuse_what_they_cannot_do() {
    for request in [
        json!({}),
        json!({"input": []}),
        json!({"input": 5}),
        json!({"input": "x", "dimensions": 7}),
        json!({"input": "x", "dimensions": 1e9}),
    ] {
        assert_eq!(embed(request).await.unwrap_err().status(), 400);
    }
}

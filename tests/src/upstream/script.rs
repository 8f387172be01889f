//! Turns a request into the script of its answer: a status, headers and the steps in which the body is written. Nothing
//! here does I/O or waits.

use std::collections::VecDeque;

use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{ABSURD_TOKENS, DEFAULT_WORDS, Directive, Usage};

/// Words of text in one chunk of a stream.
const WORDS_IN_A_CHUNK: usize = 10;
/// Common words, each of them one token of OpenAI's vocabularies when a space goes before it: a local count and the
/// usage reported agree.
const PLAIN: [&str; 12] =
    ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "while", "we", "watch"];
/// Words of two, three and four bytes a character.
const UNICODE: [&str; 6] = ["naïve", "Größe", "你好", "Привет", "🦀🎈", "日本語"];
const CREATED: u64 = 1_760_000_000;

/// What to do next with the body.
#[derive(Debug)]
pub(super) enum Step {
    /// Write these bytes and flush.
    Write {
        bytes: Bytes,
        /// The usage that these bytes report.
        usage: Option<Usage>,
        /// The words of answer that these bytes complete.
        words: u64,
    },
    /// Wait until the test says `release`.
    Hold,
    /// Break the connection.
    Cut,
}

/// The script of one answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) steps: VecDeque<Step>,
    /// Wait for `release` before the status line.
    pub(super) hold_headers: bool,
    /// Close the connection instead of answering.
    pub(super) drop: bool,
}

impl Reply {
    fn new(status: u16, content_type: &str, steps: impl Into<VecDeque<Step>>) -> Self {
        Self {
            status,
            headers: vec![("content-type", content_type.to_owned())],
            steps: steps.into(),
            hold_headers: false,
            drop: false,
        }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", [write(body.to_string())])
    }

    /// An error in OpenAI's shape.
    pub(super) fn error(status: u16, message: &str) -> Self {
        Self::json(status, &error_body(status, message))
    }

    fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

fn write(bytes: impl Into<Bytes>) -> Step {
    Step::Write { bytes: bytes.into(), usage: None, words: 0 }
}

fn error_body(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", json!("invalid_api_key")),
        404 => ("invalid_request_error", json!("model_not_found")),
        429 => ("requests", json!("rate_limit_exceeded")),
        400..=499 => ("invalid_request_error", Value::Null),
        _ => ("server_error", Value::Null),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

/// The text whose directives count: of the last user message, or of the first embedding input.
pub(super) fn prompt(body: &Value) -> String {
    if let Some(messages) = body["messages"].as_array() {
        let last = messages.iter().rfind(|message| message["role"] == "user");
        return last.map(|message| text_of(&message["content"])).unwrap_or_default();
    }
    match &body["input"] {
        Value::Array(inputs) => inputs.first().map(text_of).unwrap_or_default(),
        input => text_of(input),
    }
}

/// Text that is given as a string or as a list of typed parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

/// The answer that a directive puts in place of the endpoint's own, if any. `earlier` is how many requests with the same
/// prompt came before.
pub(super) fn failure(directives: &[Directive], earlier: usize, authorization: &str) -> Option<Reply> {
    directives.iter().find_map(|directive| match directive {
        Directive::Error(status) => Some(Reply::error(*status, &format!("upstream answers {status} as it was told"))),
        Directive::ErrorHtml(status) => {
            let page = format!("<html><body><h1>{status}</h1><p>vendor-internal-7 says no</p></body></html>");
            Some(Reply::new(*status, "text/html", [write(page)]))
        }
        Directive::RetryAfter(status, value) => {
            let reply = Reply::error(*status, "upstream has too much to do");
            Some(reply.with_header("retry-after", value.clone()))
        }
        Directive::Flaky(status, times) if earlier < *times => {
            Some(Reply::error(*status, &format!("upstream fails {times} times, this is number {}", earlier + 1)))
        }
        Directive::Leak(status) => Some(Reply::error(*status, &format!("Incorrect API key provided: {authorization}"))),
        Directive::Drop => Some(Reply { drop: true, ..Reply::new(500, "text/plain", []) }),
        _ => None,
    })
}

/// The list of models, as a vendor would give it.
pub(super) fn models() -> Reply {
    let model = |id: &str| json!({"id": id, "object": "model", "created": CREATED, "owned_by": "upstream"});
    Reply::json(200, &json!({"object": "list", "data": [model("mock-chat"), model("mock-embedding")]}))
}

/// `POST /v1/embeddings`: vectors that depend only on the position of the input.
pub(super) fn embeddings(body: &Value, directives: &[Directive]) -> Reply {
    let inputs = match &body["input"] {
        Value::Array(inputs) if inputs.first().is_some_and(|first| !first.is_number()) => inputs.clone(),
        Value::Null => return Reply::error(400, "upstream needs an input"),
        input => vec![input.clone()],
    };
    let size = body["dimensions"].as_u64().unwrap_or(8);
    let base64 = body["encoding_format"] == "base64";
    let vector = |position: usize| {
        // Eighths are exact in every float format, so that a test can compare for equality.
        let values =
            (0..size).map(move |index| (position as f32 + 1.0) / 8.0 * if index % 2 == 0 { 1.0 } else { -1.0 });
        if base64 {
            json!(BASE64.encode(&values.flat_map(f32::to_le_bytes).collect::<Vec<_>>()))
        } else {
            json!(values.collect::<Vec<_>>())
        }
    };
    let data: Vec<_> = (0..inputs.len())
        .map(|index| json!({"object": "embedding", "index": index, "embedding": vector(index)}))
        .collect();
    let tokens =
        inputs.iter().map(|input| input.as_array().map_or_else(|| words(&text_of(input)), |ids| ids.len() as i64));
    let usage = shape_usage(Usage { prompt_tokens: tokens.sum(), ..Usage::default() }, directives);
    let mut answer = json!({"object": "list", "model": body["model"], "data": data});
    if let Some(usage) = usage {
        answer["usage"] = json!({"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens});
    }
    finish(vec![Step::Write { bytes: answer.to_string().into(), usage, words: 0 }], directives, "application/json")
}

/// `POST /v1/chat/completions`, streamed or not.
pub(super) fn chat(body: &Value, directives: &[Directive], sequence: usize) -> Reply {
    let chat = Chat::new(body, directives, sequence);
    if body["stream"] == true {
        finish(chat.stream(), directives, "text/event-stream")
    } else {
        finish(chat.whole(), directives, "application/json")
    }
}

fn words(text: &str) -> i64 {
    text.split_whitespace().count() as i64
}

/// The usage as the directives want it reported; none when it is to be missing.
fn shape_usage(exact: Usage, directives: &[Directive]) -> Option<Usage> {
    let mut usage = exact;
    for directive in directives {
        match directive {
            Directive::NoUsage => return None,
            Directive::NegativeUsage => {
                usage.prompt_tokens = -5;
                usage.completion_tokens = -7;
            }
            Directive::AbsurdUsage => {
                usage.prompt_tokens = ABSURD_TOKENS;
                usage.completion_tokens = ABSURD_TOKENS;
            }
            Directive::Cached(tokens) => usage.cached_tokens = *tokens as i64,
            _ => {}
        }
    }
    Some(usage)
}

/// What holds for any body: splitting and the hold before the first byte.
fn finish(steps: Vec<Step>, directives: &[Directive], content_type: &str) -> Reply {
    let steps = if directives.contains(&Directive::Split) { split(steps) } else { steps.into() };
    let hold_headers = directives.contains(&Directive::HoldHeaders);
    Reply { hold_headers, ..Reply::new(200, content_type, steps) }
}

/// Every byte a step of its own; what a piece reports goes with its last byte.
fn split(steps: Vec<Step>) -> VecDeque<Step> {
    let mut split = VecDeque::new();
    for step in steps {
        let Step::Write { bytes, usage, words } = step else {
            split.push_back(step);
            continue;
        };
        let last = bytes.len().saturating_sub(1);
        for index in 0..bytes.len() {
            let (usage, words) = if index == last { (usage, words) } else { (None, 0) };
            split.push_back(Step::Write { bytes: bytes.slice(index..=index), usage, words });
        }
    }
    split
}

/// One chat completion on its way to becoming steps.
struct Chat<'a> {
    body: &'a Value,
    directives: &'a [Directive],
    id: String,
    /// The words of one choice.
    words: Vec<&'static str>,
    reasoning: Vec<&'static str>,
    choices: usize,
    tool: Option<String>,
    finish_reason: &'static str,
    usage: Usage,
}

impl<'a> Chat<'a> {
    fn new(body: &'a Value, directives: &'a [Directive], sequence: usize) -> Self {
        let has = |directive| directives.contains(&directive);
        let number = directives.iter().find_map(|directive| match directive {
            Directive::Words(number) => Some(*number),
            _ => None,
        });
        let wanted = number.unwrap_or(DEFAULT_WORDS);
        let limit = [&body["max_completion_tokens"], &body["max_tokens"]].into_iter().find_map(Value::as_u64);
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));

        let vocabulary: &[&str] = if has(Directive::Unicode) || has(Directive::Split) { &UNICODE } else { &PLAIN };
        let reasoning: Vec<_> =
            if has(Directive::Reasoning) { PLAIN.iter().copied().take(5.min(limit)).collect() } else { Vec::new() };
        let left = limit - reasoning.len().min(limit);
        let opening = ["Hello", "from", "upstream"].into_iter();
        let words: Vec<_> = opening.chain(vocabulary.iter().copied().cycle()).take(wanted.min(left)).collect();
        let cut_short = wanted > left;

        let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let has_tools = body["tools"].as_array().is_some_and(|tools| !tools.is_empty());
        let asks = has_tools
            && body["tool_choice"] != "none"
            && messages.last().is_none_or(|message| message["role"] != "tool");
        let tool = (asks || has(Directive::Tools))
            .then(|| body["tools"][0]["function"]["name"].as_str().unwrap_or("lookup").to_owned());
        let choices = body["n"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(1).max(1);
        // A tool call costs what its arguments have in words.
        let answer = if tool.is_some() { TOOL_ARGUMENTS.len() } else { words.len() };
        let prompt: i64 = messages.iter().map(words_of_message).sum();
        Self {
            body,
            directives,
            id: format!("chatcmpl-upstream-{sequence}"),
            finish_reason: if tool.is_some() {
                "tool_calls"
            } else if cut_short {
                "length"
            } else {
                "stop"
            },
            usage: Usage {
                prompt_tokens: prompt.max(1),
                completion_tokens: ((answer + reasoning.len()) * choices) as i64,
                cached_tokens: 0,
                reasoning_tokens: (reasoning.len() * choices) as i64,
            },
            words,
            reasoning,
            choices,
            tool,
        }
    }

    fn has(&self, directive: &Directive) -> bool {
        self.directives.contains(directive)
    }

    fn text(&self) -> String {
        match self.huge() {
            Some(size) => "x".repeat(size),
            None => self.words.join(" "),
        }
    }

    fn huge(&self) -> Option<usize> {
        self.directives.iter().find_map(|directive| match directive {
            Directive::Huge(size) => Some(*size),
            _ => None,
        })
    }

    /// The answer to a request that is not streamed.
    fn whole(&self) -> Vec<Step> {
        if self.has(&Directive::MidstreamError) {
            return vec![write(error_body(500, "upstream failed in the middle").to_string())];
        }
        let mut message = json!({"role": "assistant", "content": self.text(), "refusal": null});
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = json!(self.reasoning.join(" "));
        }
        if let Some(name) = &self.tool {
            message["content"] = Value::Null;
            message["tool_calls"] = json!([{
                "id": "call_upstream_1",
                "type": "function",
                "function": {"name": name, "arguments": TOOL_ARGUMENTS.concat()},
            }]);
        }
        let choice =
            |index| json!({"index": index, "message": message, "logprobs": null, "finish_reason": self.finish_reason});
        let choices: Vec<_> = (0..self.choices).map(choice).collect();
        let mut answer = self.frame("chat.completion", choices);
        let usage = shape_usage(self.usage, self.directives);
        if let Some(usage) = usage {
            answer["usage"] = usage_json(usage);
        }
        let mut text = answer.to_string();
        let mut steps = Vec::new();
        if self.has(&Directive::Hold) {
            steps.push(Step::Hold);
        }
        if self.has(&Directive::BadJson) || self.has(&Directive::MidstreamCut) {
            text.truncate(text.floor_char_boundary(text.len() / 2));
            steps.push(write(text));
        } else {
            let words = (self.words.len() * self.choices) as u64;
            steps.push(Step::Write { bytes: text.into(), usage, words });
        }
        if self.has(&Directive::MidstreamCut) {
            steps.push(Step::Cut);
        }
        steps
    }

    /// The answer to a request that is streamed.
    fn stream(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.push_choices(&mut steps, &json!({"role": "assistant", "content": "", "refusal": null}), None, 0);
        if !self.reasoning.is_empty() {
            let delta = json!({"reasoning_content": self.reasoning.join(" ")});
            self.push_choices(&mut steps, &delta, None, self.reasoning.len());
        }
        for (index, (delta, words)) in self.deltas().into_iter().enumerate() {
            self.push_choices(&mut steps, &delta, None, words);
            if index == 0 && self.has(&Directive::Hold) {
                steps.push(Step::Hold);
            }
            if index == 0 && self.has(&Directive::BadJson) {
                steps.push(write(self.event("{\"id\": \"chatcmpl-")));
            }
            if index == 1 && self.has(&Directive::MidstreamError) {
                let error = error_body(500, "upstream failed in the middle");
                steps.push(write(self.event(&error.to_string())));
                return steps;
            }
            if index == 1 && self.has(&Directive::MidstreamCut) {
                steps.push(Step::Cut);
                return steps;
            }
        }
        self.push_choices(&mut steps, &json!({}), Some(self.finish_reason), 0);
        let asked = self.body["stream_options"]["include_usage"] == true || self.has(&Directive::UsageEveryChunk);
        if let Some(usage) = shape_usage(self.usage, self.directives).filter(|_| asked) {
            let mut chunk = self.frame("chat.completion.chunk", Vec::new());
            chunk["usage"] = usage_json(usage);
            steps.push(Step::Write { bytes: self.event(&chunk.to_string()).into(), usage: Some(usage), words: 0 });
        }
        if !self.has(&Directive::NoDone) {
            steps.push(write(self.event("[DONE]")));
        }
        steps
    }

    /// The deltas of one choice, each with the words it completes.
    fn deltas(&self) -> Vec<(Value, usize)> {
        if let Some(name) = &self.tool {
            let open = json!({"index": 0, "id": "call_upstream_1", "type": "function",
                              "function": {"name": name, "arguments": ""}});
            let more = TOOL_ARGUMENTS.iter().map(|part| (json!({"index": 0, "function": {"arguments": part}}), 1));
            return std::iter::once((open, 0))
                .chain(more)
                .map(|(call, words)| (json!({"tool_calls": [call]}), words))
                .collect();
        }
        let mut deltas: Vec<_> =
            self.huge().map(|size| (json!({"content": "x".repeat(size)}), 0)).into_iter().collect();
        for (index, words) in self.words.chunks(WORDS_IN_A_CHUNK).enumerate() {
            let space = if index == 0 { "" } else { " " };
            deltas.push((json!({"content": format!("{space}{}", words.join(" "))}), words.len()));
        }
        deltas
    }

    /// One chunk for each choice with the same delta.
    fn push_choices(&self, steps: &mut Vec<Step>, delta: &Value, finish_reason: Option<&str>, words: usize) {
        for index in 0..self.choices {
            let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
            let mut chunk = self.frame("chat.completion.chunk", vec![choice]);
            let mut usage = None;
            if self.has(&Directive::UsageEveryChunk) {
                let completion_tokens = delivered(steps) as i64 + words as i64;
                usage = shape_usage(Usage { completion_tokens, ..self.usage }, self.directives);
            }
            if let Some(usage) = usage {
                chunk["usage"] = usage_json(usage);
            } else if self.body["stream_options"]["include_usage"] == true {
                chunk["usage"] = Value::Null;
            }
            let bytes = self.event(&chunk.to_string()).into();
            steps.push(Step::Write { bytes, usage, words: words as u64 });
        }
    }

    /// What a completion and a chunk have in common, with a field that no client knows.
    fn frame(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": CREATED,
            "model": self.body["model"],
            "system_fingerprint": "fp_upstream",
            "x_unknown": "kept",
            "choices": choices,
        })
    }

    /// One event of the stream.
    fn event(&self, data: &str) -> String {
        let end = if self.has(&Directive::Crlf) { "\r\n" } else { "\n" };
        let space = if self.has(&Directive::NoSpace) { "" } else { " " };
        if self.has(&Directive::Comments) {
            return format!(": keep-alive{end}{end}: upstream is busy{end}data:{space}{data}{end}:{end}{end}");
        }
        format!("data:{space}{data}{end}{end}")
    }
}

/// A tool call's arguments in the pieces in which they are streamed.
const TOOL_ARGUMENTS: [&str; 4] = ["{\"city\"", ":\"Paris\"", ",\"unit\"", ":\"celsius\"}"];

fn words_of_message(message: &Value) -> i64 {
    words(&text_of(&message["content"]))
}

fn delivered(steps: &[Step]) -> u64 {
    let words = |step: &Step| if let Step::Write { words, .. } = step { *words } else { 0 };
    steps.iter().map(words).sum()
}

fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    })
}

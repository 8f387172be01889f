//! What a test may ask of the mock upstream, written in the prompt itself.

/// One instruction to the upstream. A prompt (the text of the last user message, or the first embedding input) that
/// starts with `/` is a list of them: `/words 40 /crlf /no-usage and any words after`. Words that no directive takes
/// are ordinary prompt. An unknown directive is answered with 400, so that a typing mistake fails the test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// `/words N`: the answer has `N` words instead of [`super::DEFAULT_WORDS`].
    Words(usize),
    /// `/unicode`: the words are of two to four bytes a character.
    Unicode,
    /// `/no-usage`: no usage is reported, even when it was asked for.
    NoUsage,
    /// `/usage-every-chunk`: every chunk carries the usage so far, asked for or not, and the last one the whole.
    UsageEveryChunk,
    /// `/negative-usage`: the usage reported is below zero.
    NegativeUsage,
    /// `/absurd-usage`: the usage reported is [`super::ABSURD_TOKENS`] of each kind.
    AbsurdUsage,
    /// `/cached N`: `N` of the prompt's tokens are reported as cached.
    Cached(u64),
    /// `/no-done`: the stream ends without `[DONE]`.
    NoDone,
    /// `/crlf`: lines of the stream end in CR LF.
    Crlf,
    /// `/no-space`: `data:` without the space after it.
    NoSpace,
    /// `/comments`: comment lines between the events and inside them.
    Comments,
    /// `/split`: the answer is written byte by byte, with characters of several bytes in it.
    Split,
    /// `/hold` or `/slow`: the first chunk of text goes out, the others wait for `release`. An answer that is not
    /// streamed waits before its first byte.
    Hold,
    /// `/hold-headers`: nothing is answered, not even the status, before `release`.
    HoldHeaders,
    /// `/error STATUS`: an error in OpenAI's shape.
    Error(u16),
    /// `/error-html STATUS`: an error page in HTML, as a proxy in front of a vendor makes them.
    ErrorHtml(u16),
    /// `/retry-after STATUS VALUE`: an error with `Retry-After: VALUE`. Underscores in `VALUE` stand for spaces, so
    /// that a date fits in.
    RetryAfter(u16, String),
    /// `/flaky STATUS TIMES`: the first `TIMES` requests with this very prompt fail, later ones are answered.
    Flaky(u16, usize),
    /// `/leak STATUS`: an error whose message repeats the vendor key, as vendors do.
    Leak(u16),
    /// `/drop`: the connection is closed instead of an answer.
    Drop,
    /// `/midstream-error`: two chunks of text, then an error event and the end. Not streamed: status 200 with an error
    /// for a body.
    MidstreamError,
    /// `/midstream-cut`: two chunks of text, then the connection breaks. Not streamed: half of the body.
    MidstreamCut,
    /// `/tools`: the answer is a tool call, as it also is when the request has `tools` and the last message is not a
    /// tool's result.
    Tools,
    /// `/reasoning`: five words of `reasoning_content` go before the answer and count as completion tokens.
    Reasoning,
    /// `/huge N`: before the words comes a chunk, in one line, with a text of `N` bytes.
    Huge(usize),
    /// `/bad-json`: an event in the middle of the stream is not JSON. Not streamed: the body is not.
    BadJson,
}

impl Directive {
    /// The directives at the start of a prompt; none when it does not start with `/`.
    ///
    /// # Errors
    /// A sentence that names the word it could not understand.
    pub fn parse(prompt: &str) -> Result<Vec<Self>, String> {
        if !prompt.starts_with('/') {
            return Ok(Vec::new());
        }
        let mut words = prompt.split_whitespace();
        let mut found = Vec::new();
        while let Some(word) = words.next() {
            if !word.starts_with('/') {
                continue;
            }
            let mut take = || words.next().unwrap_or_default();
            found.push(match word {
                "/words" => Self::Words(number(word, take())?),
                "/unicode" => Self::Unicode,
                "/no-usage" => Self::NoUsage,
                "/usage-every-chunk" => Self::UsageEveryChunk,
                "/negative-usage" => Self::NegativeUsage,
                "/absurd-usage" => Self::AbsurdUsage,
                "/cached" => Self::Cached(number(word, take())?),
                "/no-done" => Self::NoDone,
                "/crlf" => Self::Crlf,
                "/no-space" => Self::NoSpace,
                "/comments" => Self::Comments,
                "/split" => Self::Split,
                "/hold" | "/slow" => Self::Hold,
                "/hold-headers" => Self::HoldHeaders,
                "/error" => Self::Error(number(word, take())?),
                "/error-html" => Self::ErrorHtml(number(word, take())?),
                "/retry-after" => Self::RetryAfter(number(word, take())?, take().replace('_', " ")),
                "/flaky" => Self::Flaky(number(word, take())?, number(word, take())?),
                "/leak" => Self::Leak(number(word, take())?),
                "/drop" => Self::Drop,
                "/midstream-error" => Self::MidstreamError,
                "/midstream-cut" => Self::MidstreamCut,
                "/tools" => Self::Tools,
                "/reasoning" => Self::Reasoning,
                "/huge" => Self::Huge(number(word, take())?),
                "/bad-json" => Self::BadJson,
                unknown => return Err(format!("the mock upstream knows no directive `{unknown}`")),
            });
        }
        Ok(found)
    }
}

fn number<T: std::str::FromStr>(directive: &str, word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("the directive `{directive}` takes a number, not `{word}`"))
}

#[cfg(test)]
mod tests {
    use super::Directive;

    #[test]
    fn a_prompt_is_a_list_of_directives_only_when_it_starts_with_a_slash() {
        assert_eq!(Directive::parse("what does /words mean?"), Ok(vec![]));
        assert_eq!(
            Directive::parse("/words 40 /retry-after 429 Wed,_21_Oct_2026 and more words"),
            Ok(vec![Directive::Words(40), Directive::RetryAfter(429, "Wed, 21 Oct 2026".to_owned())])
        );
        assert!(Directive::parse("/wrods 40").is_err());
        assert!(Directive::parse("/words many").is_err());
    }
}

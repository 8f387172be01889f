//! Structured logs: one JSON object per line, on standard error, or text where a person reads along.

use tracing_subscriber::EnvFilter;

use crate::config::Env;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Starts logging at the levels in `RUST_LOG` (default `info`). Calling it again does nothing.
pub fn init(env: &Env, format: Format) {
    let filter =
        EnvFilter::try_new(env.optional("RUST_LOG").unwrap_or("info")).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second call finds a subscriber in place, which is as good.
    let _ = match format {
        Format::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
        Format::Text => builder.compact().with_ansi(false).try_init(),
    };
}

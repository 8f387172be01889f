//! Structured logs: one JSON object per line, on standard error, or text where a person reads along.
//! Metrics: one line each, on standard output.

use std::sync::OnceLock;

use tenantry_domain::Millis;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::config::Env;

/// CloudWatch namespace of every metric.
const NAMESPACE: &str = "Tenantry";

/// Dimension of every metric: two stacks in one account have the same metrics, and functions of other names.
const DIMENSION: &str = "FunctionName";

/// The function's name, from `AWS_LAMBDA_FUNCTION_NAME`, which Lambda sets.
static FUNCTION: OnceLock<String> = OnceLock::new();

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Starts logging at the levels in `RUST_LOG` (default `info`): one for all, or some by module, as in
/// `info,tenantry_store=debug`. Calling it again does nothing.
pub fn init(env: &Env, format: Format) {
    let _ = FUNCTION.set(env.optional("AWS_LAMBDA_FUNCTION_NAME").unwrap_or("tenantry").to_owned());
    let filter = levels(env.optional("RUST_LOG"));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    // A second call finds a subscriber in place, which is as good.
    let _ = match format {
        Format::Json => {
            let layer = layer.json().flatten_event(true).with_current_span(true).with_span_list(false);
            tracing_subscriber::registry().with(filter).with(layer).try_init()
        }
        Format::Text => tracing_subscriber::registry().with(filter).with(layer.compact().with_ansi(false)).try_init(),
    };
}

/// The levels, `info` when nothing or nonsense is asked for. `EnvFilter` could choose by spans and fields too, with
/// regular expressions, which would be a twentieth of a function's code.
fn levels(text: Option<&str>) -> Targets {
    let info = || Targets::new().with_default(LevelFilter::INFO);
    text.and_then(|text| text.parse().ok()).unwrap_or_else(info)
}

/// Counts `value` of `name` in CloudWatch: a line in the embedded metric format on standard output, which
/// Lambda passes to its log and CloudWatch reads out of it.
#[allow(clippy::print_stdout, reason = "the format is read from standard output")]
pub fn metric(now: Millis, name: &str, value: u64) {
    println!("{}", embedded_metric(now, FUNCTION.get().map_or("tenantry", String::as_str), name, value));
}

fn embedded_metric(now: Millis, function: &str, name: &str, value: u64) -> String {
    let mut line = serde_json::json!({
        "_aws": {
            "Timestamp": now,
            "CloudWatchMetrics": [{
                "Namespace": NAMESPACE,
                "Dimensions": [[DIMENSION]],
                "Metrics": [{"Name": name, "Unit": "Count"}],
            }],
        },
    });
    line[DIMENSION] = function.into();
    line[name] = value.into();
    line.to_string()
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::{embedded_metric, levels};

    #[test]
    fn levels_are_for_all_or_by_module() {
        for (text, [module, other]) in [
            (None, [Level::INFO, Level::INFO]),
            (Some("debug"), [Level::DEBUG, Level::DEBUG]),
            (Some("WARN"), [Level::WARN, Level::WARN]),
            (Some("info,tenantry_store=debug"), [Level::DEBUG, Level::INFO]),
            (Some("error, tenantry_store::keys=trace"), [Level::ERROR, Level::ERROR]),
            (Some("tenantry_store=nonsense"), [Level::INFO, Level::INFO]),
        ] {
            let levels = levels(text);
            for (target, level) in [("tenantry_store::usage", module), ("hyper", other)] {
                assert!(levels.would_enable(target, &level), "{text:?} {target}");
                let next = match level {
                    Level::ERROR => Level::WARN,
                    Level::WARN => Level::INFO,
                    Level::INFO => Level::DEBUG,
                    _ => Level::TRACE,
                };
                assert!(!levels.would_enable(target, &next), "{text:?} {target}");
            }
        }
    }

    #[test]
    fn a_metric_is_one_line_that_cloudwatch_reads() {
        let line = embedded_metric(1_795_176_000_000, "quota-reset", "ReconciliationDifferences", 3);
        assert!(!line.contains('\n'));
        let expected = serde_json::json!({
            "_aws": {
                "Timestamp": 1_795_176_000_000_i64,
                "CloudWatchMetrics": [{
                    "Namespace": "Tenantry",
                    "Dimensions": [["FunctionName"]],
                    "Metrics": [{"Name": "ReconciliationDifferences", "Unit": "Count"}],
                }],
            },
            "FunctionName": "quota-reset",
            "ReconciliationDifferences": 3,
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), expected);
    }
}

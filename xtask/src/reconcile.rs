//! `cargo xtask reconcile`: has the platform of `cargo run` check its books, and says what it found.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::steps::{Result, read, root};

/// How long the platform has. It reads every record of two months.
const PATIENCE: Duration = Duration::from_secs(600);

/// Asks the platform whose data are in `folder`, or the one at `url`, and prints what it answers.
pub(crate) fn reconcile(folder: &Path, url: Option<&str>) -> Result {
    let url = match url {
        Some(url) => url.to_owned(),
        None => address(&root().join(folder))?,
    };
    let (text, verdict) = ask(&url)?;
    print!("{text}");
    verdict
}

/// Where the platform says that it answers.
fn address(folder: &Path) -> Result<String> {
    let file = folder.join("dev.json");
    let start = "Start it with `cargo run`, leave it running, and come again.";
    let text = read(&file).map_err(|_| {
        let file = file.display();
        format!("no platform has run here: there is no {file}. {start} With --data-dir it may lie elsewhere.")
    })?;
    let known: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let base = known["base_url"].as_str().ok_or_else(|| format!("{} has no base_url", file.display()))?;
    Ok(base.trim_end_matches("/api/v1").to_owned())
}

/// The report of the platform at `url`, and whether all is well.
fn ask(url: &str) -> Result<(String, Result)> {
    let (status, body) = post(url, "/_dev/reconcile")?;
    if status != 200 {
        return Err(format!("{url} answered {status}, so it is no platform of this version: {}", body.trim_end()));
    }
    let report: Value = serde_json::from_str(&body).map_err(|error| format!("{url} answered no report: {error}"))?;
    Ok((told(url, &report), verdict(&report)))
}

/// HTTP/1.0, to which nothing is answered in chunks, and after which the connection is closed.
fn post(url: &str, path: &str) -> Result<(u16, String)> {
    let host = url.strip_prefix("http://").map(|host| host.trim_end_matches('/'));
    let host = host.ok_or_else(|| format!("{url}: must be like http://127.0.0.1:8787"))?;
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            format!("nothing answers at {url}. Start the platform with `cargo run`, leave it running, and come again.")
        }
        _ => format!("{url}: {error}"),
    };
    let mut stream = connect(host.to_socket_addrs().map_err(failed)?).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = format!("POST {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| format!("{url} speaks no HTTP"))
}

/// To the first of `addresses` where somebody answers: `localhost` may be `::1` before it is 127.0.0.1.
fn connect(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut failed = io::Error::other("there is no such address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn list<'a>(report: &'a Value, name: &str) -> &'a [Value] {
    report[name].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("?")
}

fn number(value: &Value, name: &str) -> usize {
    value[name].as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or_default()
}

/// `1 difference`, `2 differences`.
fn some(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What a person reads.
fn told(url: &str, report: &Value) -> String {
    let mut told = format!("Books of {} at {url}\n", some(number(report, "organizations"), "organization"));
    // Writing to a string cannot fail.
    for difference in list(report, "differences") {
        let _ = match text(difference, "kind") {
            "meter" => writeln!(
                told,
                "\n  {}, {}, {}\n    the meter charged {}, the records say {}\n    not repaired: it is money",
                text(difference, "organization"),
                text(difference, "period"),
                text(difference, "resource"),
                difference["charged"],
                difference["recorded"],
            ),
            "credits" => writeln!(
                told,
                "\n  {}, credits\n    {} were charged by the ledger and the balance, the records say {}\n    not repaired: it is money",
                text(difference, "organization"),
                difference["charged"],
                difference["recorded"],
            ),
            _ => {
                let changes = list(difference, "changes").iter();
                let changes = changes.map(|c| format!("{} {} → {}", text(c, "name"), c["stored"], c["recorded"]));
                writeln!(
                    told,
                    "\n  {}, {}, roll-up of {} ({})\n    {}\n    {}",
                    text(difference, "organization"),
                    text(difference, "day"),
                    text(difference, "of"),
                    text(difference, "operation"),
                    changes.collect::<Vec<_>>().join(", "),
                    if is_repaired(difference) { "repaired" } else { "not repaired" },
                )
            }
        };
    }
    for failed in list(report, "failed") {
        let _ =
            writeln!(told, "\n  {}\n    could not be checked: {}", text(failed, "organization"), text(failed, "error"));
    }
    let differences = list(report, "differences");
    let repaired = differences.iter().filter(|difference| is_repaired(difference)).count();
    let (found, unchecked) = (some(differences.len(), "difference"), list(report, "failed").len());
    let _ = writeln!(told, "\n{found}, {repaired} repaired; {unchecked} not checked");
    told
}

fn is_repaired(difference: &Value) -> bool {
    difference["repaired"] == true
}

/// An error when something is left that somebody has to look at.
fn verdict(report: &Value) -> Result {
    let left = list(report, "differences").iter().filter(|difference| !is_repaired(difference)).count();
    let failed = list(report, "failed").len();
    let mut troubles = vec![];
    if left > 0 {
        troubles.push(format!("{} not repaired", some(left, "difference")));
    }
    if failed > 0 {
        troubles.push(format!("{} could not be checked", some(failed, "organization")));
    }
    let (unwritten, dead) = (number(report, "unwritten"), number(report, "dead_letters"));
    if unwritten > 0 {
        troubles.push(format!("{} could not be written, so nothing was judged", some(unwritten, "usage event")));
    }
    if dead > 0 {
        troubles.push(format!("{}: usage without a record", some(dead, "dead letter")));
    }
    if troubles.is_empty() { Ok(()) } else { Err(format!("{}; see docs/operations.md", troubles.join("; "))) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;

    /// A platform that answers once; returns its address.
    fn platform(answer: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = vec![];
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") {
                assert_eq!(stream.read(&mut byte).unwrap(), 1);
                asked.extend(byte);
            }
            let asked = String::from_utf8(asked).unwrap();
            assert!(asked.starts_with("POST /_dev/reconcile HTTP/1.0\r\nHost: 127.0.0.1:"), "{asked}");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        url
    }

    fn ok(report: &Value) -> String {
        format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{report}")
    }

    #[test]
    fn what_agrees_or_was_repaired_is_well_and_all_else_is_not() {
        let mut report =
            json!({"organizations": 3, "differences": [], "failed": [], "unwritten": 0, "dead_letters": 0});
        let (text, verdict) = ask(&platform(ok(&report))).unwrap();
        assert!(text.starts_with("Books of 3 organizations at http://127.0.0.1:"), "{text}");
        assert!(text.ends_with("0 differences, 0 repaired; 0 not checked\n"), "{text}");
        assert_eq!(verdict, Ok(()));

        let roll_up = json!({
            "kind": "roll_up", "organization": "org_a", "day": "2026-11-20", "of": "gpt-4.1-mini", "operation": "chat",
            "changes": [{"name": "requests", "stored": 99, "recorded": 6}], "repaired": true,
        });
        report["differences"] = json!([roll_up]);
        let (text, verdict) = ask(&platform(ok(&report))).unwrap();
        assert!(
            text.contains("org_a, 2026-11-20, roll-up of gpt-4.1-mini (chat)\n    requests 99 → 6\n    repaired\n")
        );
        assert_eq!(verdict, Ok(()));

        let meter = json!({
            "kind": "meter", "organization": "org_a", "period": "2026-11", "resource": "messages", "charged": 5,
            "recorded": 4, "repaired": false,
        });
        report["differences"] = json!([meter, report["differences"][0]]);
        let (text, verdict) = ask(&platform(ok(&report))).unwrap();
        assert!(
            text.contains("org_a, 2026-11, messages\n    the meter charged 5, the records say 4\n    not repaired")
        );
        assert!(text.ends_with("2 differences, 1 repaired; 0 not checked\n"), "{text}");
        assert_eq!(verdict, Err("1 difference not repaired; see docs/operations.md".to_owned()));

        for trouble in [
            json!({"failed": [{"organization": "org_b", "error": "no meter"}]}),
            json!({"unwritten": 2}),
            json!({"dead_letters": 1}),
        ] {
            assert!(super::verdict(&trouble).is_err(), "{trouble}");
        }
        assert!(told("u", &json!({"failed": [{"organization": "org_b", "error": "no meter"}]})).contains("no meter"));
    }

    #[test]
    fn every_address_of_a_name_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (nobody, somebody) = (SocketAddr::from(([127, 0, 0, 1], 1)), listener.local_addr().unwrap());
        for addresses in [vec![nobody, somebody], vec![somebody, nobody]] {
            assert_eq!(connect(addresses.into_iter()).unwrap().peer_addr().unwrap(), somebody);
        }
        assert_eq!(connect([nobody].into_iter()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(connect([].into_iter()).unwrap_err().to_string().contains("no such address"));
    }

    #[test]
    fn where_nothing_runs_it_says_what_to_do() {
        // Nobody listens on port 1, and no system gives it away.
        let error = ask("http://127.0.0.1:1").unwrap_err();
        assert!(error.contains("nothing answers") && error.contains("cargo run"), "{error}");
        let error = reconcile(Path::new("no/such/folder"), None).unwrap_err();
        assert!(error.contains("dev.json") && error.contains("cargo run"), "{error}");
        assert!(ask("ftp://x").unwrap_err().contains("http://127.0.0.1:8787"));
        let other = platform("HTTP/1.0 404 Not Found\r\n\r\n{}".to_owned());
        assert!(ask(&other).unwrap_err().contains("answered 404"));
    }
}

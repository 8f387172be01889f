//! What reading usage asks of the database: an export of whatever length is read page by page as its client takes it, and
//! history never looks at a record.

use std::{net::Ipv4Addr, sync::Arc};

use axum::{Router, body::Body};
use futures_util::FutureExt as _;
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tenantry_domain::{
    Amounts, KeyId, Millis, Period, RequestId, Resource,
    time::parse_moment,
    usage::{Operation, Status, Tokens, UsageEvent},
};
use tenantry_host::dynamodb::Capacity;
use tenantry_tests::{
    http::{problem, text},
    platform::{Platform, Reply, Setup, Tenant, chat_body},
    queries::Queries,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::ServiceExt as _;

const EXPORT: &str = "/api/v1/usage/records/export";
const RECORDS: &str = "/api/v1/usage/records";
const PAGE: usize = 500;

fn event(tenant: &Tenant, at: Millis) -> UsageEvent {
    UsageEvent {
        id: RequestId::at(at),
        org: tenant.org.clone(),
        at,
        period: Period::of(at).index(),
        key: Some(tenant.key.clone()),
        member: Some(tenant.user.clone()),
        operation: Operation::Chat,
        model: "gpt-4.1-mini".to_owned(),
        status: Status::Ok,
        tokens: Tokens { prompt: 3, cached: 0, completion: 4, reasoning: 0 },
        charged: Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, 7),
        credits: 0,
        cost: 1,
        price_version: 1,
        estimated: false,
        overrun: 0,
        streamed: true,
        latency_ms: 1,
        first_byte_ms: Some(1),
        request_id: "of-the-client".to_owned(),
        shard: 0,
        own: None,
    }
}

fn moment(text: &str) -> Millis {
    parse_moment(text).unwrap()
}

fn export(range: &str, accept: &str, tenant: &Tenant) -> Request<Body> {
    let request = Request::get(format!("{EXPORT}?{range}")).header(header::ACCEPT, accept);
    request.header(header::AUTHORIZATION, format!("Bearer {}", tenant.api_key)).body(Body::empty()).unwrap()
}

/// The objects of JSON lines.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The rows of a table as RFC 4180 has it.
fn table(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (vec![], vec![], String::new(), false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (quoted, c) {
            (true, '"') if rest.peek() == Some(&'"') => cell.extend(rest.next()),
            (_, '"') => quoted = !quoted,
            (false, ',') => row.push(std::mem::take(&mut cell)),
            (false, '\r') => {
                assert_eq!(rest.next(), Some('\n'));
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            (_, other) => cell.push(other),
        }
    }
    assert!(row.is_empty() && cell.is_empty() && !quoted, "the table ends in the middle of a row");
    rows
}

/// Records of three months, and their ids in order.
async fn many(platform: &Platform, tenant: &Tenant, count: i64) -> Vec<String> {
    let (start, end) = (moment("2026-09-10T00:00:00Z"), moment("2026-11-20T00:00:00Z"));
    let events: Vec<_> = (0..count).map(|n| event(tenant, start + (end - start) / count * n)).collect();
    let report = platform.store().write_usage(&tenant.scope, &events).await.unwrap();
    assert_eq!(report.written, events.len());
    events.iter().map(|event| event.id.to_string()).collect()
}

#[tokio::test]
async fn an_export_holds_one_page_whatever_its_length_and_reads_on_when_it_is_read() {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("team").await;
    let expected = many(&platform, &tenant, 8_000).await;
    let queries = Queries::default();
    let usage = queries.usage(&platform);
    let response = usage.oneshot(export("from=2026-09-01&to=2026-11-20", "*/*", &tenant)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/jsonl");
    assert_eq!(response.headers()["content-disposition"], "attachment; filename=\"usage-2026-09-01-2026-11-20.jsonl\"");
    let (mut body, mut ids, mut pieces) = (response.into_body(), vec![], 0);
    assert_eq!(queries.count(), 1, "the first page, whose failure would have a status");
    loop {
        // Nothing is read ahead, however long the client takes.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(queries.count(), pieces.max(1), "a page for a piece");
        let Some(frame) = body.frame().await else { break };
        let piece = frame.unwrap().into_data().unwrap();
        let records = lines(std::str::from_utf8(&piece).unwrap());
        assert!((1..=PAGE).contains(&records.len()) && piece.len() < 1_000 * PAGE, "{} bytes", piece.len());
        ids.extend(records.iter().map(|record| text(record, "/id").to_owned()));
        pieces += 1;
    }
    assert_eq!(ids.len(), expected.len());
    assert!(ids == expected, "all of them, once, in order");
    assert_eq!(pieces, 16);
    for asked in queries.asked() {
        assert_eq!(asked.limit, PAGE as u64);
        assert!(asked.from.starts_with("REC#2026-08#") && asked.to.starts_with("REC#2026-11#"), "{asked:?}");
    }
    // A client that leaves is not read for.
    let response = queries.usage(&platform).oneshot(export("from=2026-09-01", "*/*", &tenant)).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    let before = queries.count();
    drop(body);
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(queries.count(), before);
}

#[tokio::test]
async fn both_formats_are_what_the_pages_say_and_no_cell_is_a_formula() {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("team").await;
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    for (n, metadata) in
        [json!({"note": "=1+1, \"quoted\"\r\nand more"}), json!({}), json!({"a": "ü", "b": ""})].iter().enumerate()
    {
        let at = format!("2026-10-{:02}T10:00:00Z", n + 1);
        let record = json!({"resource": "pages", "amount": n + 1, "metadata": metadata, "at": at});
        platform.post("/api/v1/usage/record", &token, record).await.expect(201);
    }
    let call = Request::post("/api/v1/chat/completions")
        .header(header::AUTHORIZATION, format!("Bearer {}", tenant.api_key))
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-request-id", "-2-3-cmd-calc");
    let mut body = chat_body("hello", false);
    body["model"] = json!("sandbox/echo");
    platform.send(call.body(body.to_string().into()).unwrap()).await.expect(200);
    platform.quiesce().await;

    let mut paged = vec![];
    for period in ["2026-11", "2026-10"] {
        let page = platform.get(&format!("{RECORDS}?period={period}"), &token).await.expect(200).json();
        paged.extend(page["data"].as_array().unwrap().clone());
    }
    paged.reverse();
    assert_eq!(paged.len(), 4);
    let whole = platform.send(export("from=2026-10-01", "application/jsonl", &tenant)).await.expect(200);
    assert_eq!(lines(&whole.text()), paged);

    let csv = platform.send(export("from=2026-10-01&to=2026-11-20", "text/csv", &tenant)).await.expect(200);
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8; header=present");
    assert_eq!(csv.header("content-disposition"), "attachment; filename=\"usage-2026-10-01-2026-11-20.csv\"");
    let rows = table(&csv.text());
    assert_eq!(rows.len(), 5);
    for (row, record) in rows[1..].iter().zip(&paged) {
        let cell = |name: &str| &row[rows[0].iter().position(|column| column == name).unwrap()];
        for name in ["id", "at", "period", "operation", "model", "api_key_id", "member_id", "resource"] {
            assert_eq!(cell(name), record[name].as_str().unwrap_or_default(), "{name}");
        }
        for name in ["prompt_tokens", "completion_tokens", "latency_ms"] {
            assert_eq!(*cell(name), record[name].to_string(), "{name}");
        }
        assert_eq!(*cell("charged_llm_tokens"), record["charged"]["llm_tokens"].to_string());
        assert_eq!(*cell("amount"), record["amount"].as_u64().map(|n| n.to_string()).unwrap_or_default());
        let metadata = cell("metadata");
        let metadata = if metadata.is_empty() { Value::Null } else { serde_json::from_str(metadata).unwrap() };
        assert_eq!(metadata, record["metadata"]);
        assert!(row.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])), "{row:?}");
    }
    assert_eq!(rows[4][rows[0].iter().position(|column| column == "request_id").unwrap()], "'-2-3-cmd-calc");
    // The same table as the paged one, but for the order.
    let page = Request::get(format!("{RECORDS}?period=2026-11")).header(header::ACCEPT, "text/csv");
    let page = page.header(header::AUTHORIZATION, format!("Bearer {token}")).body(Body::empty()).unwrap();
    let page = table(&platform.send(page).await.expect(200).text());
    assert_eq!((&page[0], &page[1]), (&rows[0], &rows[4]));

    // Of days without any there is nothing, or a head alone.
    let nothing = |accept| platform.send(export("from=2025-01-01&to=2025-12-31", accept, &tenant));
    assert_eq!(nothing("*/*").await.expect(200).text(), "");
    assert_eq!(table(&nothing("text/csv").await.expect(200).text()), [rows[0].clone()]);
    for (range, status) in
        [("from=2026-11-21", 422), ("to=9999-12-31", 400), ("from=2026-1-1", 400), ("period=2026-11", 400)]
    {
        platform.send(export(range, "*/*", &tenant)).await.expect(status);
    }
    for range in ["from=1970-01-01&to=9999-12-30", "from=9999-12-01&to=9999-12-30", "to=1970-01-01"] {
        let all = platform.send(export(range, "*/*", &tenant)).await.expect(200).text();
        assert_eq!(lines(&all).len(), if range.starts_with("from=1970") { 4 } else { 0 }, "{range}");
    }
}

/// The end of a month, by clocks that differ: a record may belong to the period before or after its own moment.
#[tokio::test]
async fn a_record_is_in_the_export_of_its_day_and_of_no_other() {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("team").await;
    let midnight = moment("2026-11-01T00:00:00Z");
    let (october, november) = (Period::of(midnight - 1).index(), Period::of(midnight).index());
    let mut events = vec![];
    for at in [midnight - 86_400_000, midnight - 1, midnight, midnight + 86_399_999, midnight + 86_400_000] {
        for period in [october, november] {
            for made in [at - 60_000, at, at + 60_000] {
                events.push(UsageEvent { id: RequestId::at(made), period, ..event(&tenant, at) });
            }
        }
    }
    // As far from a month's end as this no clocks differ.
    events.retain(|event| Period::of(event.at).index() == event.period || (event.at - midnight).abs() < 3_000_000);
    platform.store().write_usage(&tenant.scope, &events).await.unwrap();
    let mut found = vec![];
    for day in ["2026-10-30", "2026-10-31", "2026-11-01", "2026-11-02", "2026-11-03"] {
        let export = platform.send(export(&format!("from={day}&to={day}"), "*/*", &tenant)).await.expect(200);
        for record in lines(&export.text()) {
            assert_eq!(&text(&record, "/at")[..10], day);
            found.push(text(&record, "/id").to_owned());
        }
    }
    let mut expected: Vec<_> = events.iter().map(|event| event.id.to_string()).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

/// The text of a body, and whether it is whole.
async fn pieces(response: Response<Body>) -> (String, bool) {
    let (mut body, mut text) = (response.into_body(), String::new());
    loop {
        let ready = body.frame().now_or_never();
        let is_late = ready.is_none();
        let next = if let Some(next) = ready { next } else { body.frame().await };
        match next {
            Some(Ok(frame)) => text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap()),
            Some(Err(_)) => {
                assert!(is_late, "a server passes on what it has only while it has to wait for more");
                return (text, false);
            }
            None => return (text, true),
        }
    }
}

/// What a client over HTTP/1.1 gets, to the last byte.
async fn raw(router: Router, path: &str, accept: &str, tenant: &Tenant) -> String {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let key = &tenant.api_key;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: {accept}\r\nauthorization: Bearer {key}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![];
    stream.read_to_end(&mut answer).await.unwrap();
    server.abort();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn what_fails_on_the_way_is_no_whole_export() {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("team").await;
    many(&platform, &tenant, 1_700).await;
    let path = format!("{EXPORT}?from=2026-09-01&to=2026-11-20");
    let whole = raw(Queries::default().usage(&platform), &path, "*/*", &tenant).await;
    assert!(whole.ends_with("\r\n0\r\n\r\n"), "the end of a body in chunks");

    for (accept, told) in [("*/*", true), ("text/csv", false)] {
        let queries = Queries::default();
        queries.fail_after(2);
        let request = export("from=2026-09-01&to=2026-11-20", accept, &tenant);
        let (text, ended) = pieces(queries.usage(&platform).oneshot(request).await.unwrap()).await;
        assert!(!ended, "broken off");
        if told {
            let lines = lines(&text);
            let (last, records) = lines.split_last().unwrap();
            assert_eq!(records.len(), 2 * PAGE);
            assert_eq!((&last["error"]["code"], &last["error"]["status"]), (&json!("unavailable"), &json!(503)));
        } else {
            assert_eq!(table(&text).len(), 1 + 2 * PAGE);
        }
        let queries = Queries::default();
        queries.fail_after(2);
        let broken = raw(queries.usage(&platform), &path, accept, &tenant).await;
        assert!(broken.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(!broken.ends_with("\r\n0\r\n\r\n"), "{}", &broken[broken.len() - 100..]);
    }
    // Before the first byte there still is a status.
    let queries = Queries::default();
    queries.fail_after(0);
    let response = queries.usage(&platform).oneshot(export("", "*/*", &tenant)).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes().to_vec();
    let reply = Reply { status: head.status, headers: head.headers, bytes };
    problem(&reply, 503, "unavailable");
    assert_eq!(reply.header("retry-after"), "1");
}

#[tokio::test]
async fn history_reads_sums_alone_and_costs_the_same_for_any_number_of_records() {
    let capacity = Arc::new(Capacity::default());
    let platform = Platform::start(Setup::default().capacity(&capacity)).await;
    let tenant = platform.tenant("team").await;
    let queries = Queries::default();
    let usage = queries.usage(&platform);
    let paths: Vec<_> = ["day", "model", "key", "member", "resource"]
        .map(|by| format!("/api/v1/usage/history?from=2026-09-01&to=2026-11-20&group_by={by}"))
        .into_iter()
        .chain(["/api/v1/usage/stats".to_owned()])
        .collect();
    // What each costs, and how many requests it says there were.
    let read = async || {
        let mut read = vec![];
        for path in &paths {
            let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {}", tenant.api_key));
            let before = capacity.read_units();
            let response = usage.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            let units = capacity.read_units() - before;
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            let rows = answer["data"].as_array().cloned().unwrap_or_else(|| vec![answer["totals"].clone()]);
            read.push((units, rows.iter().map(|row| row["requests"].as_u64().unwrap()).max().unwrap()));
        }
        read
    };
    let days = ["2026-10-05T08:00:00Z", "2026-11-20T08:00:00Z"].map(moment);
    let write = async |count: usize| {
        let events: Vec<_> = (0..count).map(|n| event(&tenant, days[n % 2])).collect();
        assert_eq!(platform.store().write_usage(&tenant.scope, &events).await.unwrap().written, count);
    };
    write(2).await;
    read().await; // The key is in memory from here on.
    let few = read().await;
    write(3_000).await;
    let many = read().await;
    for (((path, (before, _)), (after, requests)), at_first) in
        paths.iter().zip(&few).zip(&many).zip(few.iter().map(|f| f.1))
    {
        assert!(
            (before - after).abs() < f64::EPSILON,
            "{path}: {before} read units, and {after} of 1,500 times the records"
        );
        assert!(*requests >= 1_501 && at_first <= 2, "{path}: {at_first} requests, then {requests}");
    }
    let asked = queries.asked();
    assert_eq!(asked.len(), 3 * paths.len(), "one query each");
    for asked in asked {
        assert!(asked.from.starts_with("ROLL#2026-") && asked.to.starts_with("ROLL#2026-11-"), "{asked:?}");
    }
}

/// A tenant with many keys and models has more sums than a function has memory.
#[tokio::test]
async fn sums_are_added_up_page_by_page() {
    const KEYS: usize = 1_200;
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("team").await;
    let at = moment("2026-11-05T08:00:00Z");
    let events: Vec<_> = (0..KEYS).map(|_| UsageEvent { key: Some(KeyId::new()), ..event(&tenant, at) }).collect();
    assert_eq!(platform.store().write_usage(&tenant.scope, &events).await.unwrap().written, KEYS);

    let (queries, mut asked) = (Queries::default(), vec![]);
    let each = |_| asked.push(queries.count());
    queries.store(&platform).each_roll_up(&tenant.scope, "2026-11-01", "2026-11-30", each).await.unwrap();
    let page = |number: usize| asked.iter().filter(|asked| **asked == number).count();
    assert_eq!((asked.len(), queries.count()), (KEYS, 2));
    assert_eq!([page(1), page(2)], [1_000, 200], "a page is done with before the next one is read");

    let stats = platform.get("/api/v1/usage/stats", &tenant.api_key).await.expect(200).json();
    assert_eq!(stats["totals"]["requests"], KEYS);
    let history = platform.get("/api/v1/usage/history?group_by=key", &tenant.api_key).await.expect(200).json();
    let rows = history["data"].as_array().unwrap();
    assert!(rows.len() == KEYS && rows.iter().all(|row| row["requests"] == 1), "each in a row of its own");
}

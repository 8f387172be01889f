//! What tenants are told of their usage: the meter, sums, series, records and CSV tell one story.

use http::{Request, header};
use serde_json::{Value, json};
use tenantry_tests::{
    http::{no_formulas, problem, seen, text},
    platform::{Platform, Reply, Setup, Tenant, chat_body},
    upstream::Upstream,
};

const STATS: &str = "/api/v1/usage/stats";
const HISTORY: &str = "/api/v1/usage/history";
const RECORDS: &str = "/api/v1/usage/records";
const DAY: i64 = 24 * 60 * 60 * 1000;

/// A platform with a vendor.
async fn platform() -> (Platform, Upstream) {
    let upstream = Upstream::start().await;
    (Platform::start(Setup::default().upstream(&upstream)).await, upstream)
}

async fn get(platform: &Platform, path: &str, credential: &str) -> Value {
    platform.get(path, credential).await.expect(200).json()
}

fn resource<'a>(stats: &'a Value, name: &str) -> &'a Value {
    let resources = stats["resources"].as_array().unwrap();
    resources.iter().find(|row| row["resource"] == name).unwrap_or_else(|| panic!("no {name}: {stats}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no whole number: {value}"))
}

async fn csv(platform: &Platform, path: &str, credential: &str) -> Reply {
    let request = Request::get(path).header(header::ACCEPT, "text/csv");
    let request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
    platform.send(request.body(axum::body::Body::empty()).unwrap()).await
}

/// Seven calls: three that went well by key, one by the owner, one stream, one that failed before the
/// first token and one refused before it was admitted.
async fn seven_calls(platform: &Platform, tenant: &Tenant) {
    let token = text(&platform.login(tenant).await, "/access_token").to_owned();
    for prompt in ["/words 5 one", "/words 6 two", "/words 7 three"] {
        platform.chat(&tenant.api_key, prompt).await.expect(200);
    }
    platform.chat(&token, "/words 8 four").await.expect(200);
    platform.chat_stream(&tenant.api_key, "/words 9 five").await.expect(200);
    assert!(platform.chat(&tenant.api_key, "/error 400 six").await.status.is_client_error());
    let mut unknown = chat_body("seven", false);
    unknown["model"] = json!("none");
    platform.post("/api/v1/chat/completions", &tenant.api_key, unknown).await.expect(404);
    platform.quiesce().await;
}

#[tokio::test]
async fn all_answers_agree_with_the_vendor_to_the_token() {
    let (platform, upstream) = platform().await;
    let tenant = platform.tenant("free").await;
    seven_calls(&platform, &tenant).await;
    let reported = upstream.reported();
    let (prompt, completion) = (reported.prompt_tokens.unsigned_abs(), reported.completion_tokens.unsigned_abs());
    assert_eq!(completion, 5 + 6 + 7 + 8 + 9);
    let tokens = prompt + completion;

    let stats = get(&platform, STATS, &tenant.api_key).await;
    let charged = json!({"messages": 5, "llm_tokens": tokens, "images": 0, "api_calls": 5});
    let totals = json!({
        "requests": 6, "errors": 1,
        "prompt_tokens": prompt, "cached_tokens": 0, "completion_tokens": completion, "reasoning_tokens": 0,
        "charged": charged, "credits": 0, "recorded": {},
    });
    let percent = |used: u64, limit: u64| (used as f64 * 1000.0 / limit as f64).round() / 10.0;
    let row = |name: &str, used: u64, limit: u64| {
        json!({
            "resource": name, "used": used, "held": 0, "limit": limit, "left": limit - used, "percent": percent(used, limit),
        })
    };
    let zero = json!({
        "requests": 0, "errors": 0,
        "prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0, "reasoning_tokens": 0,
        "charged": {"messages": 0, "llm_tokens": 0, "images": 0, "api_calls": 0}, "credits": 0, "recorded": {},
    });
    let day = |number: usize| {
        let mut entry = if number == 20 { totals.clone() } else { zero.clone() };
        entry["day"] = json!(format!("2026-11-{number:02}"));
        entry
    };
    let expected = json!({
        "period": {"id": "2026-11", "start": "2026-11-01T00:00:00.000Z", "end": "2026-12-01T00:00:00.000Z"},
        "plan": "free",
        "resources": [
            row("messages", 5, 1_000),
            row("llm_tokens", tokens, 200_000),
            row("images", 0, 10),
            row("api_calls", 5, 10_000),
        ],
        "credits": {"left": 0, "held": 0, "used": 0},
        "totals": totals,
        "series": (1..=20).map(day).collect::<Vec<_>>(),
    });
    assert_eq!(stats, expected);

    let history = get(&platform, HISTORY, &tenant.api_key).await;
    assert_eq!((&history["from"], &history["to"]), (&json!("2026-10-22"), &json!("2026-11-20")));
    assert_eq!(history["group_by"], "day");
    let days = history["data"].as_array().unwrap();
    assert_eq!((days.len(), &days[29]), (30, &day(20)));
    for (group_by, field, names) in [
        ("model", "model", vec![json!("gpt-4.1-mini")]),
        ("key", "api_key_id", vec![json!(tenant.key), Value::Null]),
        ("member", "member_id", vec![json!(tenant.user)]),
        ("resource", "resource", vec![json!("messages"), json!("llm_tokens"), json!("images"), json!("api_calls")]),
    ] {
        let history = get(&platform, &format!("{HISTORY}?group_by={group_by}"), &tenant.api_key).await;
        let rows = history["data"].as_array().unwrap();
        assert_eq!(rows.iter().map(|row| row[field].clone()).collect::<Vec<_>>(), names);
        let sum = rows.iter().map(|row| number(&row["charged"]["llm_tokens"])).sum::<u64>();
        assert_eq!(sum, tokens, "{group_by}: {history}");
    }

    let records = get(&platform, RECORDS, &tenant.api_key).await;
    let rows = records["data"].as_array().unwrap();
    assert_eq!((rows.len(), &records["next_cursor"]), (6, &Value::Null));
    let sum = |field: &str| rows.iter().map(|row| number(&row[field])).sum::<u64>();
    assert_eq!((sum("prompt_tokens"), sum("completion_tokens")), (prompt, completion));
    assert_eq!(rows.iter().map(|row| number(&row["charged"]["llm_tokens"])).sum::<u64>(), tokens);
    platform.books(&tenant).await;
}

#[tokio::test]
async fn a_record_has_this_shape() {
    let (platform, _upstream) = platform().await;
    let tenant = platform.tenant("free").await;
    let reply = platform.chat_stream(&tenant.api_key, "/words 9 hello").await.expect(200);
    platform.quiesce().await;
    let records = get(&platform, RECORDS, &tenant.api_key).await;
    let row = &records["data"][0];
    let (prompt, total) = (number(&row["prompt_tokens"]), number(&row["prompt_tokens"]) + 9);
    let expected = json!({
        "id": text(row, "/id").parse::<tenantry_domain::RequestId>().unwrap(),
        "at": "2026-11-20T12:00:00.000Z",
        "period": "2026-11",
        "operation": "chat",
        "model": "gpt-4.1-mini",
        "status": "ok",
        "api_key_id": tenant.key,
        "member_id": tenant.user,
        "prompt_tokens": prompt,
        "cached_tokens": 0,
        "completion_tokens": 9,
        "reasoning_tokens": 0,
        "charged": {"messages": 1, "llm_tokens": total, "images": 0, "api_calls": 1},
        "credits": 0,
        "estimated": false,
        "overrun": 0,
        "streamed": true,
        "latency_ms": row["latency_ms"],
        "first_byte_ms": row["first_byte_ms"],
        "request_id": reply.header("x-request-id"),
        "resource": null,
        "amount": null,
        "metadata": null,
    });
    assert_eq!(row, &expected, "and what the vendor charges is not in it");
    assert!(row["latency_ms"].is_u64() && row["first_byte_ms"].is_u64());
}

#[tokio::test]
async fn what_a_request_in_flight_holds_is_neither_used_nor_left() {
    let (platform, upstream) = platform().await;
    let tenant = platform.tenant("free").await;
    let held = async {
        upstream.wait_holding(1).await;
        let stats = get(&platform, STATS, &tenant.api_key).await;
        upstream.release();
        stats
    };
    let (reply, during) = tokio::join!(platform.chat(&tenant.api_key, "/hold /words 5 hello"), held);
    reply.expect(200);
    platform.quiesce().await;
    let tokens = resource(&during, "llm_tokens");
    assert!(number(&tokens["held"]) >= 64, "{tokens}");
    assert_eq!(number(&tokens["used"]), 0);
    assert_eq!(number(&tokens["left"]) + number(&tokens["held"]), 200_000);
    assert_eq!(
        (resource(&during, "messages")["held"].clone(), during["totals"]["requests"].clone()),
        (json!(1), json!(0))
    );
    let after = get(&platform, STATS, &tenant.api_key).await;
    let tokens = resource(&after, "llm_tokens");
    assert_eq!(number(&tokens["held"]), 0);
    assert_eq!(number(&tokens["left"]) + number(&tokens["used"]), 200_000);
}

#[tokio::test]
async fn an_unlimited_resource_has_no_limit_but_a_use() {
    let (platform, _upstream) = platform().await;
    let tenant = platform.tenant("team").await;
    platform.chat(&tenant.api_key, "/words 5 hello").await.expect(200);
    platform.quiesce().await;
    let stats = get(&platform, STATS, &tenant.api_key).await;
    let unlimited =
        |name: &str| json!({"resource": name, "used": 1, "held": 0, "limit": null, "left": null, "percent": null});
    assert_eq!(resource(&stats, "messages"), &unlimited("messages"));
    assert_eq!(resource(&stats, "api_calls"), &unlimited("api_calls"));
    assert_eq!(resource(&stats, "llm_tokens")["limit"], 100_000_000);
}

#[tokio::test]
async fn a_month_that_is_over_is_shown_as_it_ended() {
    let (platform, _upstream) = platform().await;
    let tenant = platform.tenant("free").await;
    seven_calls(&platform, &tenant).await;
    let november = get(&platform, STATS, &tenant.api_key).await;
    platform.clock().advance(11 * DAY);

    let december = get(&platform, STATS, &tenant.api_key).await;
    assert_eq!(december["period"]["id"], "2026-12");
    assert_eq!(december["series"].as_array().unwrap().len(), 1);
    assert_eq!(resource(&december, "messages")["left"], 1_000);
    assert_eq!(december["totals"]["requests"], 0);

    let closed = get(&platform, &format!("{STATS}?period=2026-11"), &tenant.api_key).await;
    for part in ["period", "plan", "resources", "credits", "totals"] {
        assert_eq!(closed[part], november[part], "{part}");
    }
    assert_eq!(closed["series"].as_array().unwrap().len(), 30, "the whole month now");
    assert_eq!(get(&platform, RECORDS, &tenant.api_key).await["data"], json!([]));
    let records = get(&platform, &format!("{RECORDS}?period=2026-11"), &tenant.api_key).await;
    assert_eq!(records["data"].as_array().unwrap().len(), 6);

    // Months without a word of this tenant: before it existed, and skipped.
    platform.clock().advance(70 * DAY);
    get(&platform, STATS, &tenant.api_key).await;
    for period in ["2026-10", "2027-01", "1999-12"] {
        let stats = get(&platform, &format!("{STATS}?period={period}"), &tenant.api_key).await;
        assert_eq!((&stats["plan"], &stats["credits"]["left"]), (&Value::Null, &Value::Null), "{period}");
        assert_eq!(resource(&stats, "messages")["limit"], Value::Null);
        assert_eq!(stats["totals"]["requests"], 0);
    }
    let ahead = platform.get(&format!("{STATS}?period=2027-03"), &tenant.api_key).await;
    assert_eq!(problem(&ahead, 422, "invalid_value")["detail"], "period: has not begun yet");
    assert_eq!(get(&platform, &format!("{RECORDS}?period=2027-03"), &tenant.api_key).await["data"], json!([]));
}

#[tokio::test]
async fn records_are_paged_newest_first_in_both_formats() {
    let (platform, _upstream) = platform().await;
    let tenant = platform.tenant("team").await;
    for number in 0..5 {
        platform.clock().advance(1000);
        platform.chat(&tenant.api_key, &format!("/words {} hello", number + 1)).await.expect(200);
    }
    platform.quiesce().await;
    let all = get(&platform, RECORDS, &tenant.api_key).await["data"].clone();
    let words: Vec<_> = all.as_array().unwrap().iter().map(|row| number(&row["completion_tokens"])).collect();
    assert_eq!(words, [5, 4, 3, 2, 1]);

    let (mut path, mut rows, mut lines) = (format!("{RECORDS}?limit=2"), vec![], vec![]);
    loop {
        let page = platform.get(&path, &tenant.api_key).await.expect(200);
        assert_eq!((page.header("vary"), page.header("content-type")), ("accept", "application/json"));
        let page = page.json();
        rows.extend(page["data"].as_array().unwrap().clone());
        let table = csv(&platform, &path, &tenant.api_key).await.expect(200);
        assert_eq!(table.header("content-type"), "text/csv; charset=utf-8; header=present");
        assert_eq!(table.header("content-disposition"), "attachment; filename=\"usage-2026-11.csv\"");
        assert_eq!(table.header("x-next-cursor"), page["next_cursor"].as_str().unwrap_or_default());
        lines.extend(table.text().split("\r\n").skip(1).filter(|line| !line.is_empty()).map(ToOwned::to_owned));
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert_eq!(table.header("link"), "");
            break;
        };
        path = format!("{RECORDS}?period=2026-11&limit=2&cursor={cursor}");
        assert_eq!(table.header("link"), format!("<{path}>; rel=\"next\""));
    }
    assert_eq!(json!(rows), all);
    assert_eq!(lines.len(), 5);
    for (line, row) in lines.iter().zip(&rows) {
        let cells: Vec<_> = line.split(',').collect();
        assert_eq!((cells[0], cells[1]), (text(row, "/id"), text(row, "/at")));
        assert_eq!(cells[10], row["completion_tokens"].to_string());
        assert_eq!(cells[13], row["charged"]["llm_tokens"].to_string());
        assert_eq!(cells.len(), 26);
    }

    // A cursor of one month opens no other.
    let cursor = text(&get(&platform, &format!("{RECORDS}?limit=2"), &tenant.api_key).await, "/next_cursor").to_owned();
    let other = platform.get(&format!("{RECORDS}?period=2026-10&cursor={cursor}"), &tenant.api_key).await;
    problem(&other, 400, "invalid_parameter");
}

#[tokio::test]
async fn a_cell_is_never_a_formula() {
    let (platform, _upstream) = platform().await;
    let tenant = platform.tenant("free").await;
    let request = Request::post("/api/v1/chat/completions")
        .header(header::AUTHORIZATION, format!("Bearer {}", tenant.api_key))
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-request-id", "-2-3-cmd-calc");
    platform.send(request.body(chat_body("/words 5 hello", false).to_string().into()).unwrap()).await.expect(200);
    platform.quiesce().await;
    let table = csv(&platform, RECORDS, &tenant.api_key).await.expect(200).text();
    assert!(table.ends_with(",'-2-3-cmd-calc,,,\r\n"), "{table}");
    assert_eq!(get(&platform, RECORDS, &tenant.api_key).await["data"][0]["request_id"], "-2-3-cmd-calc");
    // What an organization records has room for more.
    let own = json!({"resource": "pages", "amount": 1, "metadata": {"a": ";=1+1;", "b": ";  @x"}});
    let owner = text(&platform.login(&tenant).await, "/access_token").to_owned();
    platform.post("/api/v1/usage/record", &owner, own).await.expect(201);
    for path in [RECORDS, &format!("{RECORDS}/export")] {
        let table = csv(&platform, path, &tenant.api_key).await.expect(200).text();
        assert!(table.contains(r#""{""a"":"";'=1+1;"",""b"":"";'  @x""}"#), "{table}");
        no_formulas(&table);
    }
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let (platform, _upstream) = platform().await;
    let (busy, other) = (platform.tenant("free").await, platform.tenant("free").await);
    let nothing = [STATS, HISTORY, RECORDS].map(|path| platform.get(path, &other.api_key));
    let nothing = futures_util::future::join_all(nothing).await;
    seven_calls(&platform, &busy).await;
    for (path, before) in [STATS, HISTORY, RECORDS].into_iter().zip(&nothing) {
        assert_eq!(seen(&platform.get(path, &other.api_key).await), seen(before), "{path}");
    }
    let page = get(&platform, &format!("{RECORDS}?limit=1"), &busy.api_key).await;
    let foreign = platform.get(&format!("{RECORDS}?cursor={}", text(&page, "/next_cursor")), &other.api_key).await;
    assert_eq!(seen(&foreign), seen(&platform.get(&format!("{RECORDS}?cursor=AAAA"), &other.api_key).await));
    problem(&foreign, 400, "invalid_parameter");
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let platform = Platform::start(Setup::default()).await;
    let key = platform.api_key("free").await;
    for (path, status, says) in [
        (format!("{STATS}?period=2026-13"), 400, "query: period: must be a month, like 2026-11"),
        (format!("{STATS}?period="), 400, "query: period: must be a month"),
        (format!("{STATS}?month=2026-11"), 400, "unknown field `month`"),
        (format!("{RECORDS}?period=november"), 400, "query: period: must be a month"),
        (format!("{RECORDS}?limit=1000"), 400, "query: limit: must be a whole number from 1 to 100"),
        (format!("{HISTORY}?from=2026-11-31"), 400, "query: from: must be a day, like 2026-11-20"),
        (format!("{HISTORY}?to=9999-12-31"), 400, "query: to: must be a day, like 2026-11-20"),
        (format!("{HISTORY}?to=1969-12-31"), 400, "query: to: must be a day, like 2026-11-20"),
        (format!("{HISTORY}?to=20261120"), 400, "query: to: must be a day, like 2026-11-20"),
        (format!("{HISTORY}?group_by=colour"), 400, "query: group_by: unknown variant `colour`"),
        (format!("{HISTORY}?from=2026-11-20&to=2026-11-19"), 422, "from: lies behind `to`"),
        (format!("{HISTORY}?from=2026-11-21"), 422, "from: lies behind `to`"),
        (format!("{HISTORY}?from=2025-11-19"), 422, "from: at most 366 days"),
    ] {
        let reply = platform.get(&path, &key).await;
        let error = problem(&reply, status, if status == 422 { "invalid_value" } else { "invalid_parameter" });
        assert!(text(&error, "/detail").contains(says), "{path}: {error}");
    }
    for range in ["from=2025-11-20", "to=1970-01-01", "from=9999-12-01&to=9999-12-30"] {
        get(&platform, &format!("{HISTORY}?{range}"), &key).await;
    }
}

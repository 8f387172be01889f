//! The process is killed in the middle of calls and started again: nothing is lost, nothing counts twice.

use futures_util::future::join_all;
use serde_json::Value;
use tenantry_domain::{Clock as _, SystemClock, usage::Status};
use tenantry_tests::{
    network::{chat, http},
    platform::{Platform, Setup, Tenant},
    process::{Folder, Process},
    upstream::{Upstream, VENDOR_KEY},
};

/// Opens the folder of a dead process, with the clock at the present.
async fn reopen(folder: &Folder) -> Platform {
    let platform = Platform::start(Setup::default().data_dir(folder.path())).await;
    platform.clock().set(SystemClock.now());
    platform
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_calls_it_loses_nothing_and_counts_nothing_twice() {
    let (upstream, folder) = (Upstream::start().await, Folder::new());
    let base = upstream.base_url();
    let variables =
        [("OPENAI_BASE_URL", base.as_str()), ("OPENAI_API_KEY", VENDOR_KEY), ("UPSTREAM_TIMEOUT_SECONDS", "60")];
    let process = Process::start(folder.path(), &variables, &[]).await;
    let (url, key) = (process.demo("base_url").to_owned(), process.demo("api_key").to_owned());
    let org = process.demo("organization_id").to_owned();

    let http = http();
    // Some calls have ended, some are in the middle, and a burst is under way when the process dies.
    for n in 0..6 {
        let (status, _) = chat(&http, &url, &key, "hello", n % 2 == 0).await.unwrap();
        assert_eq!(status, 200);
    }
    let in_flight: Vec<_> = (0..6)
        .map(|n| {
            let (http, url, key) = (http.clone(), url.clone(), key.clone());
            tokio::spawn(async move { chat(&http, &url, &key, "/hold hello", n % 2 == 0).await })
        })
        .collect();
    upstream.wait_holding(6).await;
    let burst: Vec<_> = (0..40)
        .map(|n| {
            let (http, url, key) = (http.clone(), url.clone(), key.clone());
            tokio::spawn(async move { chat(&http, &url, &key, "hello", n % 2 == 0).await })
        })
        .collect();
    upstream.wait_requests(6 + 6 + 15).await;
    process.kill().await;
    let burst = join_all(burst).await;
    let answered = burst.iter().filter(|call| {
        matches!(call.as_ref().unwrap(), Some((200, body)) if body.contains("[DONE]") || body.contains("\"usage\""))
    });
    let answered = 6 + answered.count();
    assert!(
        join_all(in_flight)
            .await
            .iter()
            .all(|call| !matches!(call.as_ref().unwrap(), Some((200, body)) if body.contains("[DONE]")))
    );

    let platform = reopen(&folder).await;
    platform.quiesce().await;
    let tenant = tenant(&platform, &org).await;
    let before = platform.records(&tenant).await;
    assert!(before.iter().all(|record| record.status != Status::Expired));
    assert!(before.len() >= answered, "{} records of {answered} answered calls", before.len());
    let held = platform.meter(&tenant).await.holds.len();
    assert!(held >= 6, "the calls in flight still hold");

    // No hold outlives its expiry: 60 s for the call, 30 s to settle.
    platform.clock().advance(92_000);
    platform.host().sweep().await;
    platform.host().sweep().await;
    let records = platform.books(&tenant).await;
    let admitted = records.len();
    assert!(admitted >= upstream.counts().requests, "a record for each call that reached the vendor");
    assert!(admitted <= 6 + 6 + 40);
    let ok = records.iter().filter(|record| record.status == Status::Ok).count();
    assert!(ok >= answered, "{ok} of {answered}");
    assert!(records.iter().any(|record| record.status == Status::Expired));

    // The queue's messages once more, as SQS may deliver them: nothing changes.
    for record in &records {
        platform.host().queue().push(&serde_json::to_string(record).unwrap()).unwrap();
    }
    platform.quiesce().await;
    assert_eq!(platform.books(&tenant).await.len(), admitted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_to_stop_it_finishes_what_is_in_flight() {
    let (upstream, folder) = (Upstream::start().await, Folder::new());
    let base = upstream.base_url();
    let variables = [("OPENAI_BASE_URL", base.as_str()), ("OPENAI_API_KEY", VENDOR_KEY)];
    let process = Process::start(folder.path(), &variables, &[]).await;
    let (url, key) = (process.demo("base_url").to_owned(), process.demo("api_key").to_owned());
    let org = process.demo("organization_id").to_owned();
    let call = tokio::spawn(async move { chat(&http(), &url, &key, "/hold hello", true).await });
    upstream.wait_holding(1).await;
    let ending = tokio::spawn(process.terminate());
    upstream.release();
    let (status, body) = call.await.unwrap().unwrap();
    assert!(status == 200 && body.ends_with("data: [DONE]\n\n"));
    assert!(ending.await.unwrap());

    // All usage was written before it ended, and the keys and the demo are still good.
    let platform = reopen(&folder).await;
    let tenant = tenant(&platform, &org).await;
    assert_eq!(platform.books(&tenant).await.len(), 1);
}

#[tokio::test]
async fn the_first_start_writes_dev_json_and_the_second_keeps_it() {
    let folder = Folder::new();
    let first = Process::start(folder.path(), &[], &[]).await;
    let api_key = first.demo("api_key").to_owned();
    let (email, password) = (first.demo("email").to_owned(), first.demo("password").to_owned());
    assert!(first.demo("base_url").ends_with("/api/v1"));
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.path().join("dev.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    first.kill().await;
    let second = Process::start(folder.path(), &[], &[]).await;
    assert_eq!(second.demo("api_key"), api_key);
    second.kill().await;
    let platform = reopen(&folder).await;
    let body: Value = serde_json::json!({"email": email, "password": password});
    platform.post("/api/v1/auth/login", "", body).await.expect(200);
    let stats = platform.get("/api/v1/usage/stats", &api_key).await.expect(200).json();
    assert_eq!(stats["plan"], "team");
}

/// The demo organization as seen from inside.
async fn tenant(platform: &Platform, org: &str) -> Tenant {
    platform.existing_tenant(org.parse().unwrap()).await
}

//! How often anybody may try, and that it says nothing about who exists.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_store::{Admitted, WindowRule};
use tenantry_tests::{
    accounts::token_in,
    http::{PASSWORD, Rows, problem, seen},
    log::Log,
    platform::{Platform, Reply, Setup},
};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";
const VERIFY: &str = "/api/v1/auth/verify-email";
const RESEND: &str = "/api/v1/auth/verify-email/resend";
const FORGOT: &str = "/api/v1/auth/password/forgot";
const RESET: &str = "/api/v1/auth/password/reset";

const ADA: &str = "ada@example.com";
const NOBODY: &str = "nobody@example.com";

async fn platform() -> Platform {
    let platform = Platform::start(Setup::default()).await;
    platform.register(ADA).await;
    platform
}

/// A wrong password.
async fn guess(platform: &Platform, email: &str) -> Reply {
    platform.try_password(email, "not the password", None).await
}

fn wait(reply: &Reply) -> i64 {
    problem(reply, 429, "rate_limited");
    reply.header("retry-after").parse().unwrap()
}

#[tokio::test]
async fn waits_grow_and_are_the_same_for_who_does_not_exist() {
    let platform = platform().await;
    let mut waits = vec![];
    for _ in 0..12 {
        let hashes = platform.host().hasher().done();
        let (known, unknown) = (guess(&platform, ADA).await, guess(&platform, NOBODY).await);
        assert_eq!(seen(&known), seen(&unknown));
        let hashed = platform.host().hasher().done() - hashes;
        if known.status.as_u16() == 401 {
            assert_eq!(hashed, 2, "one each");
            continue;
        }
        assert_eq!(hashed, 0, "nothing is looked at");
        // Not a moment early, for the right password either.
        platform.clock().advance(wait(&known) * SECOND - 1);
        assert_eq!(seen(&platform.sign_in(ADA, None).await), seen(&platform.sign_in(NOBODY, None).await));
        assert_eq!(wait(&platform.sign_in(ADA, None).await), 1);
        platform.clock().advance(1);
        waits.push(wait(&known));
        problem(&guess(&platform, ADA).await, 401, "invalid_credentials");
        problem(&guess(&platform, NOBODY).await, 401, "invalid_credentials");
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900]);
}

#[tokio::test]
async fn twenty_guesses_at_once_are_five() {
    let platform = platform().await;
    for email in [ADA, NOBODY] {
        let hashes = platform.host().hasher().done();
        let replies = join_all((0..20).map(|_| guess(&platform, email))).await;
        let looked_at = replies.iter().filter(|reply| reply.status.as_u16() == 401).count();
        assert_eq!((looked_at, platform.host().hasher().done() - hashes), (5, 5), "{email}");
        for refused in replies.iter().filter(|reply| reply.status.as_u16() != 401) {
            assert_eq!(wait(refused), 30);
        }
    }
}

#[tokio::test]
async fn the_right_password_forgets_the_wrong_ones() {
    let platform = platform().await;
    for _ in 0..3 {
        for _ in 0..4 {
            guess(&platform, ADA).await.expect(401);
        }
        platform.sign_in(ADA, None).await.expect(200);
    }
    for _ in 0..5 {
        guess(&platform, ADA).await.expect(401);
    }
    guess(&platform, ADA).await.expect(429);
    // A day without any, and they are forgotten.
    platform.clock().advance(24 * HOUR + 30 * SECOND);
    for _ in 0..5 {
        guess(&platform, ADA).await.expect(401);
    }
    guess(&platform, ADA).await.expect(429);
}

#[tokio::test]
async fn a_known_device_of_the_owner_still_gets_in() {
    let platform = platform().await;
    platform.sign_in(ADA, Some("ada's phone")).await.expect(200);
    for _ in 0..5 {
        platform.try_password(ADA, "not the password", Some("somebody's laptop")).await.expect(401);
    }
    wait(&platform.sign_in(ADA, Some("somebody's laptop")).await);
    wait(&platform.sign_in(ADA, None).await);
    platform.sign_in(ADA, Some("ada's phone")).await.expect(200);
    wait(&platform.sign_in(ADA, None).await);

    // It has guesses of its own, no more than anybody.
    for _ in 0..5 {
        platform.try_password(ADA, "not the password", Some("ada's phone")).await.expect(401);
    }
    wait(&platform.sign_in(ADA, Some("ada's phone")).await);
}

#[tokio::test]
async fn a_new_password_by_mail_ends_the_wait() {
    let platform = platform().await;
    for _ in 0..5 {
        guess(&platform, ADA).await.expect(401);
    }
    wait(&platform.sign_in(ADA, None).await);
    platform.post(FORGOT, "", json!({"email": ADA})).await.expect(202);
    let token = token_in(&platform.last_letter_to(ADA).await);
    platform.post(RESET, "", json!({"token": token, "password": "staple battery horse"})).await.expect(204);
    platform.try_password(ADA, "staple battery horse", None).await.expect(200);
}

#[tokio::test]
async fn one_source_fails_a_hundred_times() {
    let platform = platform().await;
    let login = |ip: &'static str, email: String, password: &str| {
        let body = json!({"email": email, "password": password});
        let platform = &platform;
        async move { platform.post_from(ip, LOGIN, &[], body).await }
    };
    // Whoever signs in has not failed, however often.
    for _ in 0..3 {
        login("192.0.2.7", ADA.into(), PASSWORD).await.expect(200);
    }
    let mut looked_at = 0;
    // Ten at a time, or there would be no room for all their hashes.
    for round in 0..11 {
        let email = |number| format!("user{round}.{number}@example.com");
        let replies = join_all((0..10).map(|number| login("192.0.2.7", email(number), "password"))).await;
        looked_at += replies.iter().filter(|reply| reply.status.as_u16() == 401).count();
    }
    assert_eq!(looked_at, 100);
    wait(&login("192.0.2.7", ADA.into(), PASSWORD).await);
    login("192.0.2.8", ADA.into(), PASSWORD).await.expect(200);
    platform.clock().advance(10 * MINUTE);
    login("192.0.2.7", ADA.into(), PASSWORD).await.expect(200);
}

#[tokio::test]
async fn a_network_of_one_subscriber_is_one_source() {
    let platform = platform().await;
    let order = |number: u32| {
        let ip = format!("2001:db8:1:2::{number:x}");
        let platform = &platform;
        async move { platform.post_from(&ip, FORGOT, &[], json!({"email": format!("u{number}@example.com")})).await }
    };
    for number in 0..60 {
        order(number).await.expect(202);
    }
    wait(&order(60).await);
    let elsewhere = json!({"email": "u61@example.com"});
    platform.post_from("2001:db8:1:3::1", FORGOT, &[], elsewhere).await.expect(202);
}

#[tokio::test]
async fn mails_to_one_address_are_few_whoever_lives_there() {
    for path in [FORGOT, RESEND] {
        let platform = platform().await;
        let order = |email: &'static str| platform.post(path, "", json!({"email": email}));
        for _ in 0..5 {
            assert_eq!(seen(&order(ADA).await.expect(202)), seen(&order(NOBODY).await));
        }
        let refused = order(ADA).await;
        assert_eq!(seen(&refused), seen(&order(NOBODY).await), "{path}");
        platform.clock().advance(wait(&refused) * SECOND);
        order(ADA).await.expect(202);
    }
}

#[tokio::test]
async fn registrations_and_tokens_from_one_source_are_counted() {
    let platform = platform().await;
    let weak = |number: u32| json!({"email": format!("u{number}@example.com"), "password": "password"});
    for number in 0..120 {
        platform.post_from("192.0.2.7", REGISTER, &[], weak(number)).await.expect(422);
    }
    wait(&platform.post_from("192.0.2.7", REGISTER, &[], weak(120)).await);
    platform.post_from("192.0.2.8", REGISTER, &[], weak(120)).await.expect(422);

    for (path, body) in [(VERIFY, json!({"token": "x"})), (RESET, json!({"token": "x", "password": PASSWORD}))] {
        for _ in 0..30 {
            platform.post_from("192.0.2.7", path, &[], body.clone()).await.expect(422);
        }
    }
    wait(&platform.post_from("192.0.2.7", VERIFY, &[], json!({"token": "x"})).await);
}

#[tokio::test]
async fn a_login_nobody_had_time_for_is_no_guess() {
    let rows = Rows::with_hasher(tenantry_auth::Hasher::new(1, 0)).await;
    rows.register(ADA).await;
    let body = |password: &str| json!({"email": ADA, "password": password});
    let mut busy = 0;
    for _ in 0..10 {
        let replies = join_all([rows.post(LOGIN, body(PASSWORD)), rows.post(LOGIN, body(PASSWORD))]).await;
        assert!(replies.iter().all(|reply| [200, 503].contains(&reply.status.as_u16())), "{replies:?}");
        busy += replies.iter().filter(|reply| reply.status.as_u16() == 503).count();
    }
    assert!(busy > 0, "two at once, and room for one");
    rows.post(LOGIN, body(PASSWORD)).await.expect(200);
}

#[tokio::test]
async fn the_log_tells_accounts_and_sources_apart_and_not_whose_they_are() {
    let platform = platform().await;
    let log = Log::capture();
    for email in [ADA, NOBODY, ADA] {
        guess(&platform, email).await.expect(401);
    }
    let text = log.text();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let wrong: Vec<Value> = lines.filter(|line| line["message"] == "a password was wrong").collect();
    let [first, second, third] = wrong.as_slice() else { panic!("{text}") };
    assert_eq!(first["account"].as_str().unwrap().len(), 16);
    assert_eq!(first["account"], third["account"]);
    assert_ne!(first["account"], second["account"]);
    assert_eq!(first["source"], second["source"]);
    assert!(!text.contains("example.com"), "{text}");
}

#[tokio::test]
async fn right_passwords_are_work_too() {
    let platform = platform().await;
    let subject = format!("password\naddress\n{ADA}");
    let rule = WindowRule { most: 300, window: HOUR };
    for _ in 0..299 {
        assert_eq!(platform.store().count_try(&subject, &rule).await.unwrap(), Admitted::Now);
    }
    platform.sign_in(ADA, None).await.expect(200);
    let hashes = platform.host().hasher().done();
    assert_eq!(wait(&platform.sign_in(ADA, None).await), 3600);
    assert_eq!(platform.host().hasher().done(), hashes, "nothing is looked at");
    // It was no guess: after the hour the five are there.
    platform.clock().advance(HOUR);
    for _ in 0..5 {
        problem(&guess(&platform, ADA).await, 401, "invalid_credentials");
    }
    wait(&guess(&platform, ADA).await);
}

#[tokio::test]
async fn a_tenant_gives_a_thousand_passwords_in_ten_minutes() {
    let platform = platform().await;
    let tenant = platform.tenant("team").await;
    let owner = platform.login(&tenant).await["access_token"].as_str().unwrap().to_owned();
    let rule = WindowRule { most: 1000, window: 10 * MINUTE };
    for _ in 0..999 {
        let counted = platform.store().count_try(&format!("password\ntenant\n{}", tenant.org), &rule).await.unwrap();
        assert_eq!(counted, Admitted::Now);
    }
    let create = |name: &str| {
        let body = json!({"username": name, "password": "zq7-xkmp-vw"});
        platform.post("/api/v1/tenant-users", &owner, body)
    };
    create("mike").await.expect(201);
    let hashes = platform.host().hasher().done();
    assert_eq!(wait(&create("anna").await), 600);
    assert_eq!(platform.host().hasher().done(), hashes);
    platform.post("/api/v1/tenant-users", &owner, json!({"username": "anna"})).await.expect(201);
    platform.clock().advance(10 * MINUTE - 1);
    wait(&create("otto").await);
}

//! Passwords and addresses: confirming, forgetting, resetting, changing, and what nobody may learn by it.

use std::sync::Arc;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tenantry_auth::EmailVerification;
use tenantry_domain::{OrgId, UserId};
use tenantry_host::dynamodb::Capacity;
use tenantry_tests::{
    accounts::token_in,
    http::{PASSWORD, Rows, Stage, problem, seen, text},
    platform::{Platform, Setup},
    process::Folder,
};
use tenantry_web::{
    mail::{Mail, MailQueue},
    queue::{BoxFuture, QueueError},
};

const MINUTE: i64 = 60_000;
const NEW_PASSWORD: &str = "staple battery horse";

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";
const ME: &str = "/api/v1/auth/me";
const VERIFY: &str = "/api/v1/auth/verify-email";
const RESEND: &str = "/api/v1/auth/verify-email/resend";
const FORGOT: &str = "/api/v1/auth/password/forgot";
const RESET: &str = "/api/v1/auth/password/reset";
const CHANGE: &str = "/api/v1/auth/password/change";

async fn platform() -> Platform {
    Platform::start(Setup::default()).await
}

async fn strict() -> Platform {
    Platform::start(Setup::default().variable("EMAIL_VERIFICATION", "required")).await
}

fn access(tokens: &Value) -> &str {
    text(tokens, "/access_token")
}

fn refresh_token(tokens: &Value) -> &str {
    text(tokens, "/refresh_token")
}

fn address(email: &str) -> Value {
    json!({"email": email})
}

async fn reset_token(platform: &Platform, email: &str) -> String {
    platform.post(FORGOT, "", address(email)).await.expect(202);
    token_in(&platform.last_letter_to(email).await)
}

#[tokio::test]
async fn an_address_is_confirmed_by_the_mail_that_it_gets() {
    let platform = platform().await;
    let tokens = platform.register("ada@example.com").await;
    let letter = platform.last_letter_to("ada@example.com").await;
    assert!(letter.subject.starts_with("Confirm your e-mail address"), "{}", letter.subject);
    let token = token_in(&letter);
    platform.post(VERIFY, "", json!({"token": token})).await.expect(204);
    let me = platform.get(ME, access(&tokens)).await.expect(200).json();
    assert_eq!(me["user"]["email_verified_at"], "2026-11-20T12:00:00.000Z");
    let used = platform.post(VERIFY, "", json!({"token": token})).await;
    assert_eq!(problem(&used, 422, "invalid_token")["errors"][0]["pointer"], "/token");
    for nonsense in ["", "v", &token[1..], &format!("r{}", &token[1..]), &token.to_uppercase(), &"x".repeat(5000)] {
        assert_eq!(seen(&platform.post(VERIFY, "", json!({"token": nonsense})).await), seen(&used));
    }
}

#[tokio::test]
async fn a_newer_token_replaces_the_older_and_each_has_its_time() {
    let platform = platform().await;
    platform.register("ada@example.com").await;
    let first = token_in(&platform.last_letter_to("ada@example.com").await);
    platform.post(RESEND, "", address("ada@example.com")).await.expect(202);
    let second = token_in(&platform.last_letter_to("ada@example.com").await);
    assert_ne!(first, second);
    platform.post(VERIFY, "", json!({"token": first})).await.expect(422);
    platform.clock().advance(24 * 60 * MINUTE);
    platform.post(VERIFY, "", json!({"token": second})).await.expect(422);
    platform.post(RESEND, "", address("ada@example.com")).await.expect(202);
    let third = token_in(&platform.last_letter_to("ada@example.com").await);
    platform.clock().advance(24 * 60 * MINUTE - 1);
    platform.post(VERIFY, "", json!({"token": third})).await.expect(204);
    // Nothing is left to confirm, and nobody is told that.
    platform.post(RESEND, "", address("ada@example.com")).await.expect(202);
    assert_eq!(platform.letters_to("ada@example.com").await.len(), 3);
}

#[tokio::test]
async fn where_addresses_must_be_confirmed_nobody_gets_in_before() {
    let platform = strict().await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let reply = platform.post(REGISTER, "", body).await.expect(202);
    assert!(reply.bytes.is_empty());
    problem(&platform.sign_in("ada@example.com", None).await, 403, "email_not_verified");
    let wrong = platform.try_password("ada@example.com", "not her password", None).await;
    let nobody = platform.try_password("nobody@example.com", PASSWORD, None).await;
    problem(&wrong, 401, "invalid_credentials");
    assert_eq!(seen(&wrong), seen(&nobody), "only the right password learns more");
    let token = token_in(&platform.last_letter_to("ada@example.com").await);
    platform.post(VERIFY, "", json!({"token": token})).await.expect(204);
    platform.sign_in("ada@example.com", None).await.expect(200);
}

/// What an answer cost: reads and writes in units, and hashes.
async fn cost(platform: &Platform, capacity: &Capacity, path: &str, body: Value) -> (Seen, f64, f64, u64, usize) {
    let before = (capacity.read_units(), capacity.write_units(), platform.host().hasher().done());
    let reply = platform.post(path, "", body).await;
    let after = (capacity.read_units(), capacity.write_units(), platform.host().hasher().done());
    let mails = usize::try_from(platform.host().mail_queue().depth().unwrap().0).unwrap();
    platform.quiesce().await;
    (seen(&reply), after.0 - before.0, after.1 - before.1, after.2 - before.2, mails)
}

type Seen = (u16, Vec<(String, String)>, String);

#[tokio::test]
async fn registering_tells_nobody_that_an_address_is_taken() {
    let capacity = Arc::new(Capacity::default());
    let platform =
        Platform::start(Setup::default().variable("EMAIL_VERIFICATION", "required").capacity(&capacity)).await;
    let body = |email: &str| json!({"email": email, "password": PASSWORD, "full_name": "Ada"});
    let new = cost(&platform, &capacity, REGISTER, body("ada@example.com")).await;
    let taken = cost(&platform, &capacity, REGISTER, body("ada@example.com")).await;
    assert_eq!(new.0.0, 202);
    assert_eq!(taken.0, new.0, "status, headers, body");
    assert_eq!((taken.3, taken.4), (new.3, new.4), "hashes and mails");
    assert_eq!((taken.3, taken.4), (1, 1));
    let letter = platform.last_letter_to("ada@example.com").await;
    assert!(letter.subject.starts_with("You already have an account"), "{}", letter.subject);
    assert!(!letter.text.contains("#token="), "whoever registers gets no way in");
    // The account is as it was: the second registration's password is none.
    let tokens = platform.letters_to("ada@example.com").await;
    platform.post(VERIFY, "", json!({"token": token_in(&tokens[0])})).await.expect(204);
    platform.sign_in("ada@example.com", None).await.expect(200);
}

#[tokio::test]
async fn forgetting_tells_nobody_whether_there_is_an_account() {
    let capacity = Arc::new(Capacity::default());
    let platform = Platform::start(Setup::default().capacity(&capacity)).await;
    platform.register("ada@example.com").await;
    platform.quiesce().await;
    for path in [FORGOT, RESEND] {
        let known = cost(&platform, &capacity, path, address("ada@example.com")).await;
        let unknown = cost(&platform, &capacity, path, address("bob@example.com")).await;
        assert_eq!(known.0.0, 202);
        assert_eq!(known, unknown, "{path}: answer, reads, writes, hashes, mails ordered");
        assert_eq!(known.4, 1, "{path}");
    }
    assert!(platform.letters_to("bob@example.com").await.is_empty());
}

struct Down;

impl MailQueue for Down {
    fn send<'a>(&'a self, _: &'a Mail) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async { Err(QueueError("down".into())) })
    }
}

#[tokio::test]
async fn without_mail_nobody_learns_more() {
    let rows = Rows::on(Stage { mails: Some(Arc::new(Down)), ..Stage::default() }).await;
    let tokens = rows.register("ada@example.com").await;
    for path in [FORGOT, RESEND] {
        let known = rows.post(path, address("ada@example.com")).await;
        problem(&known, 503, "unavailable");
        assert_eq!(known.header("retry-after"), "5");
        assert_eq!(seen(&known), seen(&rows.post(path, address("bob@example.com")).await));
    }
    // What is done is done, whether or not a mail can tell of it.
    let body = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    rows.call(Method::POST, CHANGE, access(&tokens), body).await.expect(204);
    for device in ["phone", "laptop"] {
        let body = json!({"email": "ada@example.com", "password": NEW_PASSWORD, "device": {"id": device}});
        rows.post(LOGIN, body).await.expect(200);
    }

    let strict = Stage { mails: Some(Arc::new(Down)), verification: EmailVerification::Required, ..Stage::default() };
    let rows = Rows::on(strict).await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let new = rows.post(REGISTER, body.clone()).await;
    problem(&new, 503, "unavailable");
    assert_eq!(seen(&rows.post(REGISTER, body).await), seen(&new), "taken by now");
}

#[tokio::test]
async fn a_reset_sets_the_password_once_and_ends_every_session() {
    let platform = platform().await;
    let registered = platform.register("ada@example.com").await;
    let phone = platform.sign_in("ada@example.com", Some("phone")).await.expect(200).json();
    let token = reset_token(&platform, "ada@example.com").await;

    let weak = json!({"token": token, "password": "password1"});
    assert_eq!(
        problem(&platform.post(RESET, "", weak).await, 422, "invalid_value")["errors"][0]["pointer"],
        "/password"
    );
    let body = json!({"token": token, "password": NEW_PASSWORD});
    let replies = join_all((0..10).map(|_| platform.post(RESET, "", body.clone()))).await;
    let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![204], vec![422; 9]].concat(), "a token is good once");

    for tokens in [&registered, &phone] {
        platform.refresh(refresh_token(tokens)).await.expect(401);
    }
    platform.sign_in("ada@example.com", None).await.expect(401);
    let tokens = platform.try_password("ada@example.com", NEW_PASSWORD, None).await.expect(200).json();
    assert!(tokens["user"]["email_verified_at"].is_string(), "the mail came, so the address is theirs");
    let letters = platform.letters_to("ada@example.com").await;
    let told = letters.iter().filter(|letter| letter.subject.contains("password was changed")).count();
    assert_eq!(told, 1, "{:?}", letters.iter().map(|letter| &letter.subject).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reset_is_good_for_thirty_minutes_and_for_nothing_else() {
    let platform = platform().await;
    platform.register("ada@example.com").await;
    let verify = token_in(&platform.last_letter_to("ada@example.com").await);
    let reset = |token: String| platform.post(RESET, "", json!({"token": token, "password": NEW_PASSWORD}));
    let first = reset_token(&platform, "ada@example.com").await;
    let second = reset_token(&platform, "ada@example.com").await;
    problem(&platform.post(VERIFY, "", json!({"token": second})).await, 422, "invalid_token");
    problem(&reset(verify.clone()).await, 422, "invalid_token");
    problem(&reset(format!("r{}", &verify[1..])).await, 422, "invalid_token");
    problem(&reset(first).await, 422, "invalid_token");
    platform.clock().advance(30 * MINUTE);
    let hashes = platform.host().hasher().done();
    problem(&reset(second).await, 422, "invalid_token");
    assert_eq!(platform.host().hasher().done(), hashes, "nothing is hashed for a bad token");
    let third = reset_token(&platform, "ada@example.com").await;
    platform.clock().advance(30 * MINUTE - 1);
    reset(third).await.expect(204);
}

#[tokio::test]
async fn tokens_are_stored_hashed_and_audited() {
    let rows = Rows::start().await;
    let tokens = rows.register("ada@example.com").await;
    let (user, org): (UserId, OrgId) =
        (text(&tokens, "/user/id").parse().unwrap(), text(&tokens, "/organization/id").parse().unwrap());
    rows.post(FORGOT, address("ada@example.com")).await.expect(202);
    let stored = rows.stored_of(&user).await;
    assert!(stored.contains("ONCE#RESET") && stored.contains("ONCE#VERIFY"), "{stored}");
    let mails = rows.mails().await;
    assert_eq!(mails.len(), 2);
    for token in mails.iter().map(|mail| text(mail, "/data/token")) {
        assert_eq!(token.len(), 1 + 26 + 22);
        assert!(!stored.contains(&token[27..]), "the secret itself");
    }
    rows.post(VERIFY, json!({"token": mails[0]["data"]["token"]})).await.expect(204);
    rows.post(RESET, json!({"token": mails[1]["data"]["token"], "password": NEW_PASSWORD})).await.expect(204);
    let body = json!({"email": "ada@example.com", "password": NEW_PASSWORD});
    let tokens = rows.post(LOGIN, body).await.expect(200).json();
    let body = json!({"current_password": NEW_PASSWORD, "new_password": PASSWORD});
    rows.call(Method::POST, CHANGE, access(&tokens), body).await.expect(204);
    let actions = rows.tenant_rows(&org, "AUDIT#", "action").await;
    assert_eq!(actions, ["email.verified", "password.reset", "password.changed"]);
    let log = rows.stored_of_tenant(&org).await;
    assert!(!log.contains("argon2") && !log.contains("ada@example.com"), "{log}");
}

#[tokio::test]
async fn a_disabled_account_gets_no_way_back() {
    let rows = Rows::start().await;
    let ada = rows.register("ada@example.com").await;
    rows.post(FORGOT, address("ada@example.com")).await.expect(202);
    let token = rows.mails().await[1]["data"]["token"].clone();
    rows.disable(&text(&ada, "/user/id").parse().unwrap()).await;
    rows.post(FORGOT, address("ada@example.com")).await.expect(202);
    rows.post(RESEND, address("ada@example.com")).await.expect(202);
    assert!(rows.mails().await[2..].iter().all(|mail| mail["template"] == "nothing"));
    problem(&rows.post(RESET, json!({"token": token, "password": NEW_PASSWORD})).await, 422, "invalid_token");
    let body = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    problem(&rows.call(Method::POST, CHANGE, access(&ada), body).await, 401, "unauthenticated");
}

#[tokio::test]
async fn changing_the_password_ends_the_other_sessions() {
    let platform = platform().await;
    let other = platform.register("ada@example.com").await;
    let own = platform.sign_in("ada@example.com", None).await.expect(200).json();
    let change = |current: &str, new: &str| {
        platform.post(CHANGE, access(&own), json!({"current_password": current, "new_password": new}))
    };
    let wrong = problem(&change("not her password", NEW_PASSWORD).await, 422, "invalid_value");
    assert_eq!(wrong["errors"][0]["pointer"], "/current_password");
    let weak = problem(&change(PASSWORD, "ada@example.com").await, 422, "invalid_value");
    assert_eq!(weak["errors"][0]["pointer"], "/new_password");
    platform.refresh(refresh_token(&other)).await.expect(200);

    change(PASSWORD, NEW_PASSWORD).await.expect(204);
    platform.refresh(refresh_token(&other)).await.expect(401);
    platform.refresh(refresh_token(&own)).await.expect(200);
    platform.sign_in("ada@example.com", None).await.expect(401);
    platform.try_password("ada@example.com", NEW_PASSWORD, None).await.expect(200);
    let letter = platform.last_letter_to("ada@example.com").await;
    assert!(letter.subject.contains("password was changed"), "{}", letter.subject);
    // The access token of a session that has ended lives on for minutes, and changes no password.
    let gone = json!({"current_password": NEW_PASSWORD, "new_password": PASSWORD});
    problem(&platform.post(CHANGE, access(&other), gone).await, 401, "unauthenticated");
}

#[tokio::test]
async fn of_two_changes_at_once_one_counts() {
    let platform = platform().await;
    let tokens = platform.register("ada@example.com").await;
    let changes = (0..4).map(|number| {
        let body = json!({"current_password": PASSWORD, "new_password": format!("{NEW_PASSWORD} {number}")});
        platform.post(CHANGE, access(&tokens), body)
    });
    let replies = join_all(changes).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == StatusCode::NO_CONTENT).count(), 1);
    assert!(replies.iter().all(|reply| [204, 401, 422].contains(&reply.status.as_u16())));
    platform.refresh(refresh_token(&tokens)).await.expect(200);
}

#[tokio::test]
async fn whoever_found_an_unlocked_machine_cannot_guess_on() {
    let platform = platform().await;
    let tokens = platform.register("ada@example.com").await;
    let guess = |number: u32| {
        let body = json!({"current_password": format!("guess {number}"), "new_password": NEW_PASSWORD});
        platform.post(CHANGE, access(&tokens), body)
    };
    for number in 0..5 {
        guess(number).await.expect(422);
    }
    assert_eq!(guess(5).await.expect(429).header("retry-after"), "30");
    platform.sign_in("ada@example.com", None).await.expect(200);
}

#[tokio::test]
async fn sessions_from_before_addresses_had_to_be_confirmed_wait_for_that_too() {
    let folder = Folder::new();
    let before = Platform::start(Setup::default().data_dir(folder.path())).await;
    let tokens = before.register("ada@example.com").await;
    drop(before);
    let strict = Setup::default().data_dir(folder.path()).variable("EMAIL_VERIFICATION", "required");
    let platform = Platform::start(strict).await;
    for _ in 0..3 {
        problem(&platform.refresh(refresh_token(&tokens)).await, 403, "email_not_verified");
    }
    let own = json!({"organization_id": tokens["organization"]["id"], "refresh_token": refresh_token(&tokens)});
    let switched = platform.post("/api/v1/auth/switch", access(&tokens), own).await;
    problem(&switched, 403, "email_not_verified");
    // With the address confirmed it goes on, from the very token that was refused.
    platform.post(RESEND, "", address("ada@example.com")).await.expect(202);
    let token = token_in(&platform.last_letter_to("ada@example.com").await);
    platform.post(VERIFY, "", json!({"token": token})).await.expect(204);
    let next = platform.refresh(refresh_token(&tokens)).await.expect(200).json();
    platform.refresh(refresh_token(&next)).await.expect(200);
}

#[tokio::test]
async fn passwords_of_leaked_lists_are_refused() {
    let platform = platform().await;
    for common in ["1qaz2wsx", "Corvette", "Samantha2024!", "zaq12wsx", "STARWARS"] {
        let body = json!({"email": "ada@example.com", "password": common});
        let refused = platform.post(REGISTER, "", body).await;
        assert_eq!(problem(&refused, 422, "invalid_value")["errors"][0]["pointer"], "/password", "{common}");
    }
}

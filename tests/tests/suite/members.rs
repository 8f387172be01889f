//! Members, roles and invitations.

use std::sync::Arc;

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tenantry_domain::{
    InviteId, KeyId, OrgId, UserId, budget::Budgets, plans::Limit, roles::KeyScopes, secret::ApiKeySecret,
};
use tenantry_host::dynamodb::Capacity;
use tenantry_store::{
    Admitted, AuditActor, NewApiKey, NewAudit, OrganizationChange, Origin, Precondition, StoreError, WindowRule,
};
use tenantry_tests::{
    accounts::token_in,
    http::{Rows, Stage, problem, seen, text},
    platform::{NOON, Platform, Reply, Setup, request},
};
use tenantry_web::{
    mail::{Mail, MailQueue},
    queue::{BoxFuture, QueueError},
};

const ORGANIZATIONS: &str = "/api/v1/organizations";
const ACCEPT: &str = "/api/v1/invites/accept";
const DAY: i64 = 24 * 60 * 60 * 1000;

/// Somebody with an organization of their own.
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) org: String,
    pub(crate) email: String,
    pub(crate) token: String,
    pub(crate) refresh: String,
}

pub(crate) async fn person(platform: &Platform, name: &str) -> Person {
    let email = format!("{name}@example.com");
    let tokens = platform.register(&email).await;
    Person {
        id: text(&tokens, "/user/id").to_owned(),
        org: text(&tokens, "/organization/id").to_owned(),
        email,
        token: text(&tokens, "/access_token").to_owned(),
        refresh: text(&tokens, "/refresh_token").to_owned(),
    }
}

/// New organizations have room for many.
async fn platform() -> Platform {
    Platform::start(Setup::default().plan_change("members = 1", "members = 50")).await
}

fn members(org: &str) -> String {
    format!("{ORGANIZATIONS}/{org}/members")
}

fn member(org: &str, user: &str) -> String {
    format!("{ORGANIZATIONS}/{org}/members/{user}")
}

async fn invite(platform: &Platform, by: &Person, org: &str, email: &str, role: &str) -> Reply {
    platform.post(&members(org), &by.token, json!({"email": email, "role": role})).await
}

/// Invites somebody; returns the token of the mail.
async fn invited(platform: &Platform, by: &Person, email: &str, role: &str) -> String {
    invite(platform, by, &by.org, email, role).await.expect(201);
    token_in(&platform.last_letter_to(email).await)
}

async fn accept(platform: &Platform, who: &Person, token: &str) -> Reply {
    platform.post(ACCEPT, &who.token, json!({"token": token})).await
}

/// Somebody who joined the organization of `by`.
pub(crate) async fn joined(platform: &Platform, by: &Person, name: &str, role: &str) -> Person {
    let who = person(platform, name).await;
    let token = invited(platform, by, &who.email, role).await;
    accept(platform, &who, &token).await.expect(200);
    who
}

async fn set_role(platform: &Platform, by: &Person, org: &str, user: &str, role: &str) -> Reply {
    platform.call(Method::PATCH, &member(org, user), &by.token, json!({"role": role})).await
}

async fn roles(platform: &Platform, by: &Person, org: &str) -> Vec<(String, String)> {
    let listed = platform.get(&members(org), &by.token).await.expect(200).json();
    let row = |row: &Value| (text(row, "/email").to_owned(), text(row, "/role").to_owned());
    listed["data"].as_array().unwrap().iter().map(row).collect()
}

async fn counts(platform: &Platform, org: &str) -> (String, String) {
    let scope = platform.store().tenant(&org.parse().unwrap()).await.unwrap().unwrap();
    let rows = platform.rows(&scope, "ORG").await;
    let number = |name: &str| rows[0][name].as_n().unwrap().clone();
    (number("members"), number("owners"))
}

#[tokio::test]
async fn an_invited_person_joins_with_the_role_they_were_given() {
    let platform = platform().await;
    let (ada, grace) = (person(&platform, "ada").await, person(&platform, "grace").await);
    let mut made = invite(&platform, &ada, &ada.org, " Grace@Example.com ", "admin").await.expect(201).json();
    assert_eq!(made.as_object_mut().unwrap().remove("mailed"), Some(json!(true)));
    let letter = platform.last_letter_to(&grace.email).await;
    assert!(letter.text.contains("ada") && !letter.text.contains("ada@example.com"), "{}", letter.text);
    let token = token_in(&letter);
    let invites = platform.get(&format!("{ORGANIZATIONS}/{}/invites", ada.org), &ada.token).await.expect(200);
    assert_eq!(invites.json(), json!({"data": [made], "next_cursor": null}));
    assert!(!invites.text().contains(&token) && !invites.text().contains("hash"));
    assert_eq!(text(&made, "/expires_at"), "2026-11-27T12:00:00.000Z");

    let organization = accept(&platform, &grace, &token).await.expect(200).json();
    assert_eq!((text(&organization, "/id"), text(&organization, "/role")), (ada.org.as_str(), "admin"));
    let expected = [("ada@example.com", "owner"), ("grace@example.com", "admin")].map(|(a, b)| (a.into(), b.into()));
    assert_eq!(roles(&platform, &grace, &ada.org).await, expected);
    assert_eq!(counts(&platform, &ada.org).await, ("2".into(), "1".into()));
    let switch = json!({"organization_id": ada.org});
    platform.post("/api/v1/auth/switch", &grace.token, switch).await.expect(200);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_the_answer_is_the_same() {
    let platform = platform().await;
    let (ada, grace, eve) =
        (person(&platform, "ada").await, person(&platform, "grace").await, person(&platform, "eve").await);
    let unknown = seen(&accept(&platform, &grace, "nonsense").await);
    assert_eq!(unknown.0, 404);
    let refused = async |who: &Person, token: &str| assert_eq!(seen(&accept(&platform, who, token).await), unknown);

    let first = invited(&platform, &ada, &grace.email, "member").await;
    refused(&eve, &first).await;
    let flipped = format!("{}{}", &first[..first.len() - 1], if first.ends_with('A') { 'Q' } else { 'A' });
    refused(&grace, &flipped).await;
    // A newer one takes the place of the older one.
    let second = invited(&platform, &ada, &grace.email, "member").await;
    refused(&grace, &first).await;
    // Revoked.
    let invites = format!("{ORGANIZATIONS}/{}/invites", ada.org);
    let listed = platform.get(&invites, &ada.token).await.expect(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    let path = format!("{invites}/{}", text(&listed, "/data/0/id"));
    platform.delete(&path, &ada.token).await.expect(204);
    problem(&platform.delete(&path, &ada.token).await, 404, "not_found");
    refused(&grace, &second).await;
    // Accepted.
    let third = invited(&platform, &ada, &grace.email, "member").await;
    accept(&platform, &grace, &third).await.expect(200);
    refused(&grace, &third).await;
    assert_eq!(counts(&platform, &ada.org).await.0, "2");
}

#[tokio::test]
async fn an_invitation_expires_after_a_week() {
    let platform = platform().await;
    let (ada, grace) = (person(&platform, "ada").await, person(&platform, "grace").await);
    let token = invited(&platform, &ada, &grace.email, "member").await;
    platform.clock().advance(7 * DAY);
    let (ada, grace) = (again(&platform, ada).await, again(&platform, grace).await);
    problem(&accept(&platform, &grace, &token).await, 404, "not_found");
    let listed = platform.get(&format!("{ORGANIZATIONS}/{}/invites", ada.org), &ada.token).await.expect(200).json();
    assert_eq!(listed["data"], json!([]));
    // And it is not in the way of the next.
    let token = invited(&platform, &ada, &grace.email, "member").await;
    accept(&platform, &grace, &token).await.expect(200);
}

/// The same person, signed in at this moment.
pub(crate) async fn again(platform: &Platform, who: Person) -> Person {
    let tokens = platform.sign_in(&who.email, None).await.expect(200).json();
    Person { token: text(&tokens, "/access_token").to_owned(), ..who }
}

#[tokio::test]
async fn of_two_who_accept_at_once_one_joins() {
    let platform = platform().await;
    let ada = person(&platform, "ada").await;
    let grace = person(&platform, "grace").await;
    // More mails within an hour are not sent.
    for round in 0..5 {
        let token = invited(&platform, &ada, &grace.email, "member").await;
        let replies = join_all((0..4).map(|_| accept(&platform, &grace, &token))).await;
        assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1, "round {round}");
        assert_eq!(counts(&platform, &ada.org).await.0, "2");
        platform.delete(&member(&ada.org, &grace.id), &ada.token).await.expect(204);
    }
}

#[tokio::test]
async fn nobody_gives_a_role_above_their_own_and_owners_are_changed_by_owners() {
    let platform = platform().await;
    let ada = person(&platform, "ada").await;
    let admin = joined(&platform, &ada, "admin", "admin").await;
    let plain = joined(&platform, &ada, "plain", "member").await;
    let org = &ada.org;
    problem(&invite(&platform, &admin, org, "x@example.com", "owner").await, 403, "forbidden");
    problem(&invite(&platform, &plain, org, "x@example.com", "member").await, 403, "forbidden");
    problem(&set_role(&platform, &admin, org, &plain.id, "owner").await, 403, "forbidden");
    problem(&set_role(&platform, &admin, org, &admin.id, "owner").await, 403, "forbidden");
    problem(&set_role(&platform, &admin, org, &ada.id, "member").await, 403, "forbidden");
    problem(&platform.delete(&member(org, &ada.id), &admin.token).await, 403, "forbidden");
    problem(&set_role(&platform, &plain, org, &plain.id, "admin").await, 403, "forbidden");
    let refused = platform.delete(&member(org, &ada.id), &plain.token).await;
    problem(&refused, 403, "forbidden");
    assert_eq!(seen(&platform.delete(&member(org, "nonsense"), &plain.token).await), seen(&refused));
    problem(&set_role(&platform, &ada, org, &plain.id, "emperor").await, 422, "invalid_value");
    let transfer = format!("{ORGANIZATIONS}/{org}/transfer");
    problem(&platform.post(&transfer, &admin.token, json!({"user_id": admin.id})).await, 403, "forbidden");

    set_role(&platform, &admin, org, &plain.id, "admin").await.expect(200);
    // The role that counts is the one by now, not the token's.
    invite(&platform, &plain, org, "x@example.com", "member").await.expect(201);
    set_role(&platform, &ada, org, &plain.id, "member").await.expect(200);
    problem(&invite(&platform, &plain, org, "x@example.com", "member").await, 403, "forbidden");
    set_role(&platform, &ada, org, &plain.id, "owner").await.expect(200);
    assert_eq!(counts(&platform, org).await, ("3".into(), "2".into()));
    platform.delete(&member(org, &admin.id), &plain.token).await.expect(204);
    assert_eq!(counts(&platform, org).await, ("2".into(), "2".into()));
}

#[tokio::test]
async fn the_last_owner_stays_one() {
    let platform = platform().await;
    let ada = person(&platform, "ada").await;
    let admin = joined(&platform, &ada, "admin", "admin").await;
    let org = &ada.org;
    problem(&set_role(&platform, &ada, org, &ada.id, "member").await, 409, "conflict");
    problem(&platform.delete(&member(org, &ada.id), &ada.token).await, 409, "conflict");
    let transfer = format!("{ORGANIZATIONS}/{org}/transfer");
    problem(&platform.post(&transfer, &ada.token, json!({"user_id": ada.id})).await, 409, "conflict");
    for nobody in [UserId::new().to_string(), "nonsense".into()] {
        problem(&platform.post(&transfer, &ada.token, json!({"user_id": nobody})).await, 422, "invalid_value");
    }
    platform.post(&transfer, &ada.token, json!({"user_id": admin.id})).await.expect(200);
    let expected = [("ada@example.com", "admin"), ("admin@example.com", "owner")].map(|(a, b)| (a.into(), b.into()));
    assert_eq!(roles(&platform, &ada, org).await, expected);
    assert_eq!(counts(&platform, org).await, ("2".into(), "1".into()));
    problem(&platform.post(&transfer, &ada.token, json!({"user_id": ada.id})).await, 403, "forbidden");
    // Who is no last owner may leave.
    platform.delete(&member(org, &ada.id), &ada.token).await.expect(204);
    problem(&platform.get(&members(org), &ada.token).await, 404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_owners_who_demote_each_other_leave_exactly_one() {
    let platform = platform().await;
    let ada = person(&platform, "ada").await;
    let grace = joined(&platform, &ada, "grace", "owner").await;
    let org = &ada.org;
    for round in 0..25 {
        // Demoted by the other, removed by the other, stepping down both, and one of each.
        let (first, second) = match round % 4 {
            0 => (
                set_role(&platform, &ada, org, &grace.id, "member"),
                set_role(&platform, &grace, org, &ada.id, "member"),
            ),
            1 => {
                (set_role(&platform, &ada, org, &ada.id, "admin"), set_role(&platform, &grace, org, &grace.id, "admin"))
            }
            2 => (
                set_role(&platform, &ada, org, &grace.id, "admin"),
                set_role(&platform, &grace, org, &grace.id, "member"),
            ),
            _ => {
                (set_role(&platform, &ada, org, &ada.id, "member"), set_role(&platform, &grace, org, &ada.id, "admin"))
            }
        };
        let _ = tokio::join!(first, second);
        let roles = roles(&platform, &ada, org).await;
        let owners: Vec<_> = roles.iter().filter(|(_, role)| role == "owner").map(|(email, _)| email.clone()).collect();
        assert!(!owners.is_empty(), "round {round}: {roles:?}");
        assert_eq!(counts(&platform, org).await, ("2".into(), owners.len().to_string()), "round {round}");
        if round % 4 < 2 {
            assert_eq!(owners.len(), 1, "round {round}: {roles:?}");
        }
        let (owner, other) = if owners[0] == ada.email { (&ada, &grace) } else { (&grace, &ada) };
        if owners.len() == 1 {
            set_role(&platform, owner, org, &other.id, "owner").await.expect(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_parallel_acceptances_fill_a_plan_of_five_exactly() {
    let platform = Platform::start(Setup::default().plan_change("members = 1", "members = 5")).await;
    let ada = person(&platform, "ada").await;
    let mut guests = vec![];
    for number in 0..9 {
        let guest = person(&platform, &format!("guest{number}")).await;
        let token = invited(&platform, &ada, &guest.email, "member").await;
        guests.push((guest, token));
    }
    let replies = join_all(guests.iter().map(|(guest, token)| accept(&platform, guest, token))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 4);
    for refused in replies.iter().filter(|reply| reply.status != 200) {
        assert!(text(&problem(refused, 403, "upgrade_required"), "/detail").contains("5 members"));
    }
    assert_eq!(counts(&platform, &ada.org).await.0, "5");
    // Then inviting is refused at once, until there is room; and an invitation that found none is as good as before.
    problem(&invite(&platform, &ada, &ada.org, "x@example.com", "member").await, 403, "upgrade_required");
    let inside = replies.iter().position(|reply| reply.status == 200).unwrap();
    platform.delete(&member(&ada.org, &guests[inside].0.id), &ada.token).await.expect(204);
    let outside = replies.iter().position(|reply| reply.status != 200).unwrap();
    accept(&platform, &guests[outside].0, &guests[outside].1).await.expect(200);
}

#[tokio::test]
async fn who_was_removed_gets_no_more_tokens_for_it() {
    let platform = platform().await;
    // Her own organization is the older one, so it is where she signs in.
    let (grace, ada) = (person(&platform, "grace").await, person(&platform, "ada").await);
    let token = invited(&platform, &ada, &grace.email, "admin").await;
    accept(&platform, &grace, &token).await.expect(200);
    let switch = json!({"organization_id": ada.org});
    let with = json!({"organization_id": ada.org, "refresh_token": grace.refresh});
    let inside = platform.post("/api/v1/auth/switch", &grace.token, with).await.expect(200).json();
    let other = platform.sign_in(&grace.email, None).await.expect(200).json();
    let key = platform.post("/api/v1/api-keys", text(&inside, "/access_token"), json!({"name": "k"})).await.expect(201);
    platform.delete(&member(&ada.org, &grace.id), &ada.token).await.expect(204);
    problem(&platform.refresh(text(&inside, "/refresh_token")).await, 401, "unauthenticated");
    problem(&platform.refresh(&grace.refresh).await, 401, "unauthenticated");
    problem(&platform.post("/api/v1/auth/switch", text(&other, "/access_token"), switch).await, 404, "not_found");
    problem(&platform.get(&members(&ada.org), text(&inside, "/access_token")).await, 404, "not_found");
    // Their sessions elsewhere go on, and what they made is the organization's.
    platform.refresh(text(&other, "/refresh_token")).await.expect(200);
    platform.get(ORGANIZATIONS, text(&key.json(), "/secret")).await.expect(200);
}

#[tokio::test]
async fn members_and_invitations_are_listed_page_by_page() {
    let platform = platform().await;
    let ada = person(&platform, "ada").await;
    for number in 0..4 {
        joined(&platform, &ada, &format!("guest{number}"), "member").await;
        invite(&platform, &ada, &ada.org, &format!("open{number}@example.com"), "member").await.expect(201);
    }
    for (list, count) in [("members", 5), ("invites", 4)] {
        let path = format!("{ORGANIZATIONS}/{}/{list}", ada.org);
        let whole = platform.get(&path, &ada.token).await.expect(200).json();
        let (mut rows, mut cursor) = (vec![], String::new());
        for _ in 0..3 {
            let page = platform.get(&format!("{path}?limit=2{cursor}"), &ada.token).await.expect(200).json();
            rows.extend(page["data"].as_array().unwrap().clone());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!((rows.len(), json!(rows)), (count, whole["data"].clone()), "{list}");
        let eve = person(&platform, &format!("eve-{list}")).await;
        let foreign = format!("{ORGANIZATIONS}/{}/{list}?limit=2{cursor}", eve.org);
        problem(&platform.get(&foreign, &eve.token).await, 400, "invalid_parameter");
    }
}

#[tokio::test]
async fn a_foreign_organization_is_one_that_never_existed() {
    let platform = platform().await;
    let (ada, eve) = (person(&platform, "ada").await, person(&platform, "eve").await);
    let token = invited(&platform, &ada, "grace@example.com", "member").await;
    let invites = format!("{ORGANIZATIONS}/{}/invites", ada.org);
    let id = text(&platform.get(&invites, &ada.token).await.json(), "/data/0/id").to_owned();
    let body = json!({"email": "x@example.com", "role": "member"});
    let mut answers = vec![];
    for org in [ada.org.clone(), OrgId::new().to_string(), "nonsense".into(), "%ff".into()] {
        let base = format!("{ORGANIZATIONS}/{org}");
        answers.push(
            join_all([
                platform.call(Method::GET, &format!("{base}/members"), &eve.token, Value::Null),
                platform.call(Method::POST, &format!("{base}/members"), &eve.token, body.clone()),
                platform.call(
                    Method::PATCH,
                    &format!("{base}/members/{}", ada.id),
                    &eve.token,
                    json!({"role": "member"}),
                ),
                platform.call(Method::DELETE, &format!("{base}/members/{}", ada.id), &eve.token, Value::Null),
                platform.call(Method::DELETE, &format!("{base}/members/{}", eve.id), &eve.token, Value::Null),
                platform.call(Method::GET, &format!("{base}/invites"), &eve.token, Value::Null),
                platform.call(Method::DELETE, &format!("{base}/invites/{id}"), &eve.token, Value::Null),
                platform.call(Method::POST, &format!("{base}/transfer"), &eve.token, json!({"user_id": eve.id})),
                platform.call(Method::PATCH, &base, &eve.token, json!({"name": "mine"})),
                platform.call(Method::DELETE, &base, &eve.token, Value::Null),
                platform.call(Method::POST, &format!("{base}/restore"), &eve.token, Value::Null),
                platform.call(Method::GET, &format!("{base}/export"), &eve.token, Value::Null),
            ])
            .await,
        );
    }
    for (route, reply) in answers[0].iter().enumerate() {
        problem(reply, 404, "not_found");
        for other in &answers[1..] {
            assert_eq!(seen(&other[route]), seen(reply), "route {route}");
        }
    }
    // Ids of members and invitations inside one's own organization.
    for (one, other) in [
        (member(&eve.org, &ada.id), member(&eve.org, UserId::new().as_str())),
        (member(&eve.org, &ada.id), member(&eve.org, "nonsense")),
        (
            format!("{ORGANIZATIONS}/{}/invites/{id}", eve.org),
            format!("{ORGANIZATIONS}/{}/invites/{}", eve.org, InviteId::new()),
        ),
        (format!("{ORGANIZATIONS}/{}/invites/{id}", eve.org), format!("{ORGANIZATIONS}/{}/invites/%ff", eve.org)),
    ] {
        let reply = platform.delete(&one, &eve.token).await;
        problem(&reply, 404, "not_found");
        assert_eq!(seen(&reply), seen(&platform.delete(&other, &eve.token).await));
    }
    assert_eq!(roles(&platform, &ada, &ada.org).await.len(), 1);
    let grace = person(&platform, "grace").await;
    accept(&platform, &grace, &token).await.expect(200);
}

#[tokio::test]
async fn an_api_key_manages_no_people() {
    let platform = platform().await;
    let tenant = platform.tenant("team").await;
    let base = format!("{ORGANIZATIONS}/{}", tenant.org);
    for (method, path) in [
        (Method::GET, format!("{base}/members")),
        (Method::GET, format!("{base}/invites")),
        (Method::DELETE, format!("{base}/members/{}", tenant.user)),
        (Method::DELETE, base.clone()),
        (Method::GET, format!("{base}/export")),
        (Method::GET, "/api/v1/audit-log".into()),
        (Method::GET, "/api/v1/tenant-users".into()),
    ] {
        problem(&platform.call(method, &path, &tenant.api_key, Value::Null).await, 403, "forbidden");
    }
    problem(&platform.post(ACCEPT, &tenant.api_key, json!({"token": "x"})).await, 403, "forbidden");
}

#[tokio::test]
async fn addresses_are_shown_to_those_who_manage_members() {
    let platform = platform().await;
    let ada = person(&platform, "ada").await;
    let admin = joined(&platform, &ada, "admin", "admin").await;
    let plain = joined(&platform, &ada, "plain", "member").await;
    let emails = async |by: &Person| {
        let listed = roles(&platform, by, &ada.org).await;
        listed.into_iter().map(|(email, _)| email).collect::<Vec<_>>()
    };
    let whole = ["ada@example.com", "admin@example.com", "plain@example.com"];
    assert_eq!(emails(&ada).await, whole);
    assert_eq!(emails(&admin).await, whole);
    assert_eq!(emails(&plain).await, ["a***@example.com", "a***@example.com", "plain@example.com"], "her own is hers");
    // By the role as it is now, whatever the token says.
    set_role(&platform, &ada, &ada.org, &admin.id, "member").await.expect(200);
    assert_eq!(emails(&admin).await[0], "a***@example.com");
}

#[tokio::test]
async fn who_was_removed_or_demoted_leaves_no_open_door() {
    let platform = platform().await;
    let ada = person(&platform, "ada").await;
    let mallory = joined(&platform, &ada, "mallory", "owner").await;
    let (second, third) = (person(&platform, "second").await, person(&platform, "third").await);
    let token = async |who: &Person, role: &str| {
        invite(&platform, &mallory, &ada.org, &who.email, role).await.expect(201);
        token_in(&platform.last_letter_to(&who.email).await)
    };
    let unknown = seen(&accept(&platform, &second, "nonsense").await);
    let (as_owner, as_member) = (token(&second, "owner").await, token(&third, "member").await);
    // Demoted: what goes beyond an admin is void, the rest is not.
    set_role(&platform, &ada, &ada.org, &mallory.id, "admin").await.expect(200);
    assert_eq!(seen(&accept(&platform, &second, &as_owner).await), unknown);
    accept(&platform, &third, &as_member).await.expect(200);
    platform.delete(&member(&ada.org, &third.id), &ada.token).await.expect(204);
    // Removed: all of it is.
    let as_admin = token(&second, "admin").await;
    platform.delete(&member(&ada.org, &mallory.id), &ada.token).await.expect(204);
    assert_eq!(seen(&accept(&platform, &second, &as_admin).await), unknown);
    assert_eq!(counts(&platform, &ada.org).await, ("1".into(), "1".into()));
}

struct Down;

impl MailQueue for Down {
    fn send<'a>(&'a self, _: &'a Mail) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async { Err(QueueError("down".into())) })
    }
}

#[tokio::test]
async fn an_invitation_whose_mail_was_not_taken_is_made_and_says_so() {
    let rows = Rows::on(Stage { mails: Some(Arc::new(Down)), ..Stage::default() }).await;
    let ada = rows.register("ada@example.com").await;
    let org = text(&ada, "/organization/id");
    // The free plan has room for one; this one has left the count behind.
    rows.set_members(&org.parse().unwrap(), 0).await;
    let send = async || {
        let body = json!({"email": "grace@example.com", "role": "member"});
        let mut request = request(Method::POST, &members(org), text(&ada, "/access_token"), &body);
        request.headers_mut().insert("idempotency-key", "once".parse().unwrap());
        rows.send(request).await
    };
    let first = send().await.expect(201);
    assert_eq!(first.json()["mailed"], false);
    let again = send().await.expect(201);
    assert_eq!((again.header("idempotent-replayed"), again.json()), ("true", first.json()));
    let invites = format!("{ORGANIZATIONS}/{org}/invites");
    let listed = rows.call(Method::GET, &invites, text(&ada, "/access_token"), Value::Null).await.expect(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    // Inviting once more, without the key or with another, takes its place.
    let body = json!({"email": "grace@example.com", "role": "member"});
    let second = rows.call(Method::POST, &members(org), text(&ada, "/access_token"), body).await.expect(201).json();
    let listed = rows.call(Method::GET, &invites, text(&ada, "/access_token"), Value::Null).await.expect(200).json();
    assert_eq!((listed["data"].as_array().unwrap().len(), &listed["data"][0]["id"]), (1, &second["id"]));
}

#[tokio::test]
async fn an_organization_invites_two_hundred_a_day() {
    let platform = platform().await;
    let ada = person(&platform, "ada").await;
    let rule = WindowRule { most: 200, window: DAY };
    for _ in 0..199 {
        let counted = platform.store().count_try(&format!("invite\norganization\n{}", ada.org), &rule).await.unwrap();
        assert_eq!(counted, Admitted::Now);
    }
    invite(&platform, &ada, &ada.org, "first@example.com", "member").await.expect(201);
    let refused = invite(&platform, &ada, &ada.org, "second@example.com", "member").await;
    problem(&refused, 429, "rate_limited");
    assert_eq!(refused.header("retry-after"), (DAY / 2 / 1000).to_string(), "until midnight");
    assert!(platform.letters_to("second@example.com").await.is_empty());
}

#[tokio::test]
async fn inviting_tells_nobody_whether_there_is_an_account() {
    let capacity = Arc::new(Capacity::default());
    let platform =
        Platform::start(Setup::default().plan_change("members = 1", "members = 50").capacity(&capacity)).await;
    let (ada, _) = (person(&platform, "ada").await, person(&platform, "known").await);
    let mut costs = vec![];
    for email in ["known@example.com", "other@example.com"] {
        let before = (capacity.read_units(), capacity.write_units());
        let reply = invite(&platform, &ada, &ada.org, email, "member").await.expect(201);
        costs.push((capacity.read_units() - before.0, capacity.write_units() - before.1, reply.text().len()));
    }
    assert_eq!(costs[0], costs[1], "reads, writes, bytes");
}

#[tokio::test]
async fn of_two_owners_one_cannot_delete_what_the_other_has_taken() {
    let platform = platform().await;
    let ada = person(&platform, "ada").await;
    let mallory = joined(&platform, &ada, "mallory", "owner").await;
    let scope = platform.store().tenant(&ada.org.parse().unwrap()).await.unwrap().unwrap();
    // What Mallory's request saw a moment ago is over when it comes to write.
    set_role(&platform, &ada, &ada.org, &mallory.id, "admin").await.expect(200);
    let origin = Origin::default();
    let audit = NewAudit {
        action: "organization.deleted",
        actor: AuditActor::User(mallory.id.parse().unwrap()),
        target: Some(&ada.org),
        changes: vec![],
        origin: &origin,
    };
    let store = platform.store();
    let late = store.delete_organization(&scope, NOON + DAY, &Precondition::Any, &audit).await;
    assert!(matches!(late, Err(StoreError::ActorChanged)), "{late:?}");
    // An admin's rights are still there, and gone with the membership.
    let change = OrganizationChange { name: Some("Renamed".into()), ..OrganizationChange::default() };
    store.change_organization(&scope, &change, &Precondition::Any, &audit).await.unwrap();
    let (key, secret) = (KeyId::new(), ApiKeySecret::generate().unwrap());
    let actor = mallory.id.parse().unwrap();
    let (scopes, expires_at) = (KeyScopes::default(), None);
    let budgets = Budgets::default();
    let new = NewApiKey { id: &key, name: "late", secret: &secret, scopes, expires_at, budgets, created_by: &actor };
    platform.delete(&member(&ada.org, &mallory.id), &ada.token).await.expect(204);
    let late = store.create_api_key(&scope, &new, Limit::Unlimited, Some(&audit)).await;
    assert!(matches!(late, Err(StoreError::ActorChanged)), "{late:?}");
    let late = store.change_organization(&scope, &change, &Precondition::Any, &audit).await;
    assert!(matches!(late, Err(StoreError::ActorChanged)), "{late:?}");
    assert!(platform.rows(&scope, "KEY#").await.is_empty());
}

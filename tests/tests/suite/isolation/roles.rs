//! Who may do what: every operation of the API document, asked by every role and by keys of every scope, against the
//! matrix of `domain::roles`. A route that is not in the table fails here until somebody says what it asks for; a check
//! that is taken out of a handler does too.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};
use tenantry_domain::{
    OrderId,
    roles::{Actor, KeyScope, Permission, Role},
};
use tenantry_tests::http::text;

use super::{
    slots::{body_schema, document, example, ids_in_path, operations, with_query},
    stage::{Stage, Whose},
};

/// What an operation asks of its caller.
#[derive(Debug, Clone, Copy)]
enum Asks {
    /// Nothing: who calls stands in the body, or is of no interest.
    Nothing,
    /// A person, whatever their role.
    Person,
    /// This.
    For(Permission),
}

use Asks::{For, Nothing, Person};

const TABLE: [(&str, Asks); 73] = [
    ("jwks", Nothing),
    ("register", Nothing),
    ("login", Nothing),
    ("refresh", Nothing),
    ("forgot_password", Nothing),
    ("reset_password", Nothing),
    ("verify_email", Nothing),
    ("resend_verification", Nothing),
    // Vendors sign what they say.
    ("stripe_webhook", Nothing),
    ("wechat_webhook", Nothing),
    ("alipay_webhook", Nothing),
    ("me", Person),
    ("update_me", Person),
    ("change_password", Person),
    ("list_sessions", Person),
    ("revoke_session", Person),
    ("switch_organization", Person),
    ("logout", Person),
    ("accept_invite", Person),
    ("create_organization", Person),
    ("list_organizations", For(Permission::ReadOrganization)),
    ("get_organization", For(Permission::ReadOrganization)),
    ("update_organization", For(Permission::ManageOrganization)),
    ("delete_organization", For(Permission::OwnOrganization)),
    ("restore_organization", For(Permission::OwnOrganization)),
    ("transfer_organization", For(Permission::OwnOrganization)),
    ("export_organization", For(Permission::ExportData)),
    ("list_members", For(Permission::ReadMembers)),
    ("invite_member", For(Permission::ManageMembers)),
    ("update_member", For(Permission::ManageMembers)),
    // Somebody else; everybody may leave.
    ("remove_member", For(Permission::ManageMembers)),
    ("list_invites", For(Permission::ManageMembers)),
    ("revoke_invite", For(Permission::ManageMembers)),
    ("list_api_keys", For(Permission::ManageKeys)),
    ("create_api_key", For(Permission::ManageKeys)),
    ("update_api_key", For(Permission::ManageKeys)),
    ("rotate_api_key", For(Permission::ManageKeys)),
    ("revoke_api_key", For(Permission::ManageKeys)),
    ("list_tenant_users", For(Permission::ManageTenantUsers)),
    ("create_tenant_user", For(Permission::ManageTenantUsers)),
    ("update_tenant_user", For(Permission::ManageTenantUsers)),
    ("delete_tenant_user", For(Permission::ManageTenantUsers)),
    ("list_audit_log", For(Permission::ReadAudit)),
    ("get_usage_stats", For(Permission::ReadUsage)),
    ("get_usage_history", For(Permission::ReadUsage)),
    ("list_usage_records", For(Permission::ReadUsage)),
    ("export_usage_records", For(Permission::ReadUsage)),
    ("record_usage", For(Permission::RecordUsage)),
    ("get_features", For(Permission::ReadUsage)),
    ("list_plans", Nothing),
    ("list_packages", For(Permission::ReadUsage)),
    ("get_current_subscription", For(Permission::ReadUsage)),
    ("get_credits", For(Permission::ReadUsage)),
    ("create_checkout", For(Permission::ManageBilling)),
    ("create_portal", For(Permission::ManageBilling)),
    ("preview_upgrade", For(Permission::ManageBilling)),
    ("upgrade_subscription", For(Permission::ManageBilling)),
    ("cancel_subscription", For(Permission::ManageBilling)),
    ("resume_subscription", For(Permission::ManageBilling)),
    ("list_subscription_events", For(Permission::ManageBilling)),
    ("list_invoices", For(Permission::ManageBilling)),
    ("buy_package", For(Permission::ManageBilling)),
    ("create_wechat_order", For(Permission::ManageBilling)),
    ("create_alipay_order", For(Permission::ManageBilling)),
    ("list_orders", For(Permission::ManageBilling)),
    ("get_order", For(Permission::ManageBilling)),
    ("list_ledger", For(Permission::ManageBilling)),
    ("get_auto_top_up", For(Permission::ManageBilling)),
    ("set_auto_top_up", For(Permission::ManageBilling)),
    ("list_models", For(Permission::CallModels)),
    ("retrieve_model", For(Permission::CallModels)),
    ("create_chat_completion", For(Permission::CallModels)),
    ("create_embeddings", For(Permission::CallModels)),
];

/// Who asks: `None` is nobody.
type Who = Option<Actor>;

impl Asks {
    /// The code of the refusal, if there has to be one.
    fn refusal(self, who: Who) -> Option<&'static str> {
        match (self, who) {
            (Nothing, _) => None,
            (Person | For(_), None) => Some("unauthenticated"),
            (Person, Some(actor)) => (!matches!(actor, Actor::User(_))).then_some("forbidden"),
            (For(permission), Some(actor)) => (!actor.may(permission)).then_some("forbidden"),
        }
    }
}

/// Calls that end the caller's session, or their organization: nobody can be asked after them.
fn spends(id: &str) -> bool {
    ["logout", "switch_organization", "change_password", "delete_organization", "transfer_organization"].contains(&id)
}

/// Every role, a key of each scope, and nobody, with their credentials.
async fn callers(stage: &Stage) -> Vec<(Who, String)> {
    let people = stage.callers.iter().filter_map(|caller| {
        let role = match caller.name {
            "an owner" => Role::Owner,
            "an admin" => Role::Admin,
            "a member" => Role::Member,
            _ => return None,
        };
        Some((Some(Actor::User(role)), caller.credential.clone()))
    });
    let mut callers: Vec<_> = people.collect();
    assert_eq!(callers.len(), 3);
    for scope in KeyScope::ALL {
        let body = json!({"name": scope.name(), "scopes": [scope.name()]});
        let key = stage.platform.post("/api/v1/api-keys", &stage.callers[0].credential, body).await.expect(201).json();
        callers.push((Some(Actor::Key([scope].into_iter().collect())), text(&key, "/secret").to_owned()));
    }
    callers.push((None, String::new()));
    callers
}

#[tokio::test]
async fn every_operation_asks_for_what_the_matrix_says() {
    let document = document();
    let operations = operations(&document);
    let of = |operation: &Value| text(operation, "/operationId").to_owned();
    let (listed, documented): (BTreeSet<_>, BTreeSet<_>) =
        (TABLE.iter().map(|(id, _)| (*id).to_owned()).collect(), operations.iter().map(|(.., o)| of(o)).collect());
    assert_eq!(listed, documented, "the table (left) and the document (right): what does the new route ask for?");

    let stage = Stage::set().await;
    let callers = callers(&stage).await;
    let (mut refused, mut allowed) = (0, 0);
    for (path, method, operation) in &operations {
        let id = of(operation);
        let asks = TABLE.iter().find(|(name, _)| *name == id).unwrap().1;
        for (who, credential) in &callers {
            let refusal = asks.refusal(*who);
            if refusal.is_none() && spends(&id) {
                continue;
            }
            let (path, body) = request(&stage, &document, path, method, operation).await;
            let before = refusal.map(|_| stage.platform.host().all_items().unwrap());
            let reply = stage.platform.call(method.clone(), &path, credential, body).await;
            let what = format!("{id} as {who:?}: {} {}", reply.status, reply.text());
            match refusal {
                Some(code) => {
                    let status = if code == "forbidden" { 403 } else { 401 };
                    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (status, code), "{what}");
                    assert_eq!(
                        Some(stage.platform.host().all_items().unwrap()),
                        before,
                        "changed all the same: {what}"
                    );
                    refused += 1;
                }
                None => {
                    // A vendor of payments may not be configured, which is 503.
                    assert_ne!(reply.status.as_u16(), 500, "{what}");
                    let let_in = !["401", "403"].contains(&reply.status.as_str());
                    assert!(let_in || matches!(asks, Nothing), "{what}");
                    allowed += 1;
                }
            }
        }
    }
    assert!(refused > 100 && allowed > 50, "{refused} {allowed}");
}

/// Path and body of a request that is in order, with ids of the caller's organization.
async fn request(stage: &Stage, document: &Value, path: &str, method: &Method, operation: &Value) -> (String, Value) {
    // What is everybody's, and what the role is asked for before anything is looked up.
    let mut filled = path
        .replace("{model}", "gpt-4.1-mini")
        .replace("/packages/{id}", "/packages/small")
        .replace("/orders/{id}", &format!("/orders/{}", OrderId::new()));
    for (name, kind) in ids_in_path(&filled.clone(), operation) {
        filled = filled.replace(&format!("{{{name}}}"), &stage.id(kind, Whose::Own).await);
    }
    assert!(!filled.contains('{'), "{method} {filled}");
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    for parameter in parameters.filter(|parameter| parameter["in"] == "query" && parameter["required"] == true) {
        filled = with_query(&filled, &format!("{}=probe", text(parameter, "/name")));
    }
    let schema = body_schema(document, operation);
    let mut body = schema.as_ref().map_or(Value::Null, |schema| example(document, schema));
    match text(operation, "/operationId") {
        // Without the refresh token that would stand for the caller.
        "logout" => body = json!({"scope": "local"}),
        "invite_member" => body["role"] = json!("member"),
        _ => {}
    }
    (filled, body)
}

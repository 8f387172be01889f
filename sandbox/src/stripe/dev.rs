//! `/_dev/stripe`: everything in the account, and the handles that move it. For whoever develops.

use std::fmt::Write as _;

use axum::{
    Router,
    extract::State as Extract,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use http::StatusCode;
use serde_json::Value;

use super::{
    PATH, StripeSandbox,
    calendar::{DAY, HOUR, MINUTE, moment},
    error::{Answer, StripeError},
    object::{Kind, int, text},
    pages::{Click, document, escape, money, refusal},
    settings::Card,
    state::State,
};

/// The newest that are shown of each kind.
const SHOWN: usize = 50;

pub(super) fn router() -> Router<StripeSandbox> {
    Router::new().route(PATH, get(page).post(act))
}

/// A button that does something, to something.
fn act_button(action: &str, id: &str, label: &str) -> String {
    format!(
        "<form method=\"post\"><input type=\"hidden\" name=\"id\" value=\"{}\">\
         <button name=\"action\" value=\"{action}\">{label}</button></form> ",
        escape(id)
    )
}

/// The title of a table, the kind it shows, its columns, and the buttons of a row.
type Section = (&'static str, Kind, &'static [&'static str], fn(&Value) -> String);

const SECTIONS: [Section; 7] = [
    ("Checkout sessions", Kind::Session, &["mode", "status", "payment_status", "customer", "url"], |session| {
        if text(session, "payment_status") == "unpaid" && text(session, "status") == "complete" {
            act_button("settle", text(session, "id"), "Settles") + &act_button("fail", text(session, "id"), "Fails")
        } else {
            String::new()
        }
    }),
    ("Customers", Kind::Customer, &["email", "name", "balance"], |customer| {
        let id = text(customer, "id");
        act_button("cards_pay", id, "Cards pay") + &act_button("cards_decline", id, "Cards decline")
    }),
    ("Subscriptions", Kind::Subscription, &["customer", "status", "trial_end", "cancel_at", "latest_invoice"], |_| {
        String::new()
    }),
    (
        "Invoices",
        Kind::Invoice,
        &["customer", "status", "billing_reason", "amount_due", "next_payment_attempt"],
        |invoice| {
            let id = text(invoice, "id");
            if text(invoice, "status") == "open" { act_button("pay_invoice", id, "Pay") } else { String::new() }
        },
    ),
    ("Payment intents", Kind::PaymentIntent, &["customer", "status", "amount"], |intent| {
        if text(intent, "status") != "requires_action" {
            return String::new();
        }
        act_button("confirm", text(intent, "id"), "Holder confirms")
            + &act_button("deny", text(intent, "id"), "Refuses")
    }),
    ("Charges", Kind::Charge, &["customer", "status", "amount", "amount_refunded", "disputed"], |charge| {
        if charge["disputed"] == true || charge["paid"] != true {
            String::new()
        } else {
            let id = text(charge, "id");
            let refund = if charge["refunded"] == true { String::new() } else { act_button("refund", id, "Refund") };
            refund + &act_button("dispute", id, "Dispute")
        }
    }),
    ("Disputes", Kind::Dispute, &["charge", "status", "amount", "reason"], |dispute| {
        if ["won", "lost"].contains(&text(dispute, "status")) {
            return String::new();
        }
        act_button("win", text(dispute, "id"), "Won") + &act_button("lose", text(dispute, "id"), "Lost")
    }),
];

async fn page(Extract(stripe): Extract<StripeSandbox>) -> Response {
    let s = stripe.lock();
    let mut body = format!("<p>It is {} here.</p><p>", moment(s.now));
    for (action, label) in [("hour", "An hour on"), ("day", "A day on"), ("month", "A month on")] {
        body += &act_button(action, "", label);
    }
    let _ = write!(body, "</p><h2>Webhooks</h2><p>{} wait{}. ", s.queue.len(), if s.held { ", held" } else { "" });
    body += &if s.held { act_button("release", "", "Let them go") } else { act_button("hold", "", "Hold them") };
    body += &act_button("delay", "", "Delay them by a minute");
    body += &act_button("reverse", "", "Turn their order around");
    body += "</p>";
    for section in SECTIONS {
        table(&mut body, &s, section);
    }
    let repeat: Section = ("Events", Kind::Event, &["type", "pending_webhooks"], |event| {
        act_button("repeat", text(event, "id"), "Deliver again")
    });
    table(&mut body, &s, repeat);
    document(StatusCode::OK, "Stripe sandbox", &body)
}

fn table(body: &mut String, s: &State, (title, kind, columns, buttons): Section) {
    let _ = write!(body, "<h2>{title}</h2><table><tr><th>id</th><th>created</th>");
    for column in columns {
        let _ = write!(body, "<th>{column}</th>");
    }
    *body += "<th></th></tr>";
    for object in s.all(kind).rev().filter(|object| object["deleted"] != true).take(SHOWN) {
        let _ = write!(
            body,
            "<tr><td><code>{}</code></td><td>{}</td>",
            escape(text(object, "id")),
            moment(int(object, "created"))
        );
        for column in columns {
            let _ = write!(body, "<td>{}</td>", cell(object, column));
        }
        let _ = write!(body, "<td>{}</td></tr>", buttons(object));
    }
    *body += "</table>";
}

fn cell(object: &Value, column: &str) -> String {
    match (column, &object[column]) {
        (_, Value::Null) => String::new(),
        ("url", Value::String(url)) => format!("<a href=\"{}\">page</a>", escape(url)),
        (_, Value::String(text)) => escape(text),
        (name, Value::Number(number)) => match number.as_i64() {
            Some(at) if ["cancel_at", "trial_end", "next_payment_attempt"].contains(&name) => moment(at),
            Some(amount) if name.starts_with("amount") => money(amount, text(object, "currency")),
            _ => number.to_string(),
        },
        (_, other) => escape(&other.to_string()),
    }
}

async fn act(Extract(stripe): Extract<StripeSandbox>, body: String) -> Response {
    match carry_out(&stripe, &body) {
        Ok(()) => Redirect::to(PATH).into_response(),
        Err(error) => refusal(&error),
    }
}

fn carry_out(stripe: &StripeSandbox, body: &str) -> Answer<()> {
    let mut click = Click::read(body)?;
    let id = click.field("id")?;
    let id = id.as_str();
    match click.field("action")?.as_str() {
        "hour" => stripe.advance(HOUR * 1000),
        "day" => stripe.advance(DAY * 1000),
        "month" => stripe.advance_months(1),
        "hold" => stripe.hold(true),
        "release" => stripe.hold(false),
        "reverse" => stripe.reverse(),
        "repeat" => stripe.repeat(id)?,
        "cards_pay" => stripe.set_cards(id, Card::Pays)?,
        "cards_decline" => stripe.set_cards(id, Card::Declines)?,
        "settle" => stripe.settle(id, true)?,
        "fail" => stripe.settle(id, false)?,
        "delay" => stripe.delay(MINUTE * 1000),
        "confirm" => stripe.authenticate(id, true)?,
        "deny" => stripe.authenticate(id, false)?,
        "pay_invoice" => stripe.pay_invoice(id)?,
        "refund" => drop(stripe.refund(id, None)?),
        "dispute" => drop(stripe.open_dispute(id, None, "fraudulent")?),
        "win" => stripe.close_dispute(id, true)?,
        "lose" => stripe.close_dispute(id, false)?,
        _ => return Err(StripeError::invalid("No such button")),
    }
    Ok(())
}

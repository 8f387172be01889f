//! `/_dev/pay`: orders, notifications and controls of both doubles on one page; `/_dev/pay.json` for programs.

use std::{fmt::Write as _, sync::Arc};

use axum::{Json, Router, extract::State, response::Response, routing::get};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Desk, Outbox,
    page::{escape, frame, page},
};

#[derive(Clone)]
struct Shown {
    desks: [Arc<dyn Desk>; 2],
    outbox: Arc<Outbox>,
}

pub(super) fn router(desks: &[Arc<dyn Desk>; 2], outbox: &Arc<Outbox>) -> Router {
    Router::new()
        .route("/_dev/pay", get(html))
        .route("/_dev/pay.json", get(json))
        .with_state(Shown { desks: desks.clone(), outbox: outbox.clone() })
}

async fn json(State(shown): State<Shown>) -> Json<Value> {
    let orders = shown.desks.iter().map(|desk| (desk.vendor().as_str().to_owned(), json!(desk.bills())));
    Json(json!({"orders": orders.collect::<serde_json::Map<_, _>>(), "notifications": shown.outbox.list()}))
}

/// The faults that a button orders.
const FAULTS: [(&str, &str); 7] = [
    ("error500", "500, nothing done"),
    ("denied", "we are not believed"),
    ("refused", "refused"),
    ("error500_applied", "500, but done"),
    ("break_off", "done, answer lost"),
    ("wrong_key", "answer by a forger"),
    ("probe", "signature probe"),
];
/// The disguises that a button delivers a notification in.
const DISGUISES: [(&str, &str); 5] = [
    ("genuine", "send now"),
    ("probe", "as a probe"),
    ("wrong_key", "forged"),
    ("stale", "stale"),
    ("altered", "altered"),
];

fn button(action: &str, label: &str) -> String {
    format!("<form method=\"post\" action=\"{}\"><button>{}</button></form> ", escape(action), escape(label))
}

async fn html(State(shown): State<Shown>) -> Response {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for desk in &shown.desks {
        let vendor = desk.vendor();
        let _ =
            write!(text, "<h2>{}</h2><table><tr><th>order<th>for<th>amount<th>refunded<th>state</tr>", vendor.name());
        for bill in desk.bills() {
            let _ = write!(
                text,
                "<tr><td><a href=\"/_dev/pay/{}/{1}\">{1}</a></td><td>{2}</td><td>¥{3}.{4:02}</td><td>¥{5}.{6:02}</td>\
                 <td>{7}</td></tr>",
                vendor.as_str(),
                escape(&bill.order),
                escape(&bill.description),
                bill.amount / 100,
                bill.amount % 100,
                bill.refunded / 100,
                bill.refunded % 100,
                bill.state,
            );
        }
        let _ = write!(text, "</table><p>What goes wrong with its next calls: {:?}. Add:</p>", desk.faults().left());
        for (fault, label) in FAULTS {
            text.push_str(&button(&format!("/_dev/pay/faults/{}/next?fault={fault}", vendor.as_str()), label));
        }
    }
    text.push_str("<h2>Notifications</h2>");
    let held = shown.outbox.is_held();
    let _ = write!(text, "<p>They {}.</p>", if held { "wait to be sent by hand" } else { "leave by themselves" });
    let (action, label) = if held { ("false", "Let them leave") } else { ("true", "Hold them back") };
    text.push_str(&button(&format!("/_dev/pay/notifications/hold?held={action}"), label));
    text.push_str("<table><tr><th>event<th>order<th>progress<th>sent<th>last answer<th></tr>");
    for listed in shown.outbox.list() {
        let _ = write!(
            text,
            "<tr><td>{} {}</td><td>{}</td><td>{:?}</td><td>{}</td><td>{}</td><td>",
            listed.vendor.name(),
            listed.event,
            escape(&listed.out_trade_no),
            listed.progress,
            listed.attempts,
            escape(listed.last_answer.as_deref().unwrap_or("")),
        );
        let path = format!("/_dev/pay/notifications/{}", listed.id);
        for (disguise, label) in DISGUISES {
            text.push_str(&button(&format!("{path}/deliver?disguise={disguise}"), label));
        }
        text.push_str(&button(&format!("{path}/delay?seconds=60"), "in a minute"));
        text.push_str("</td></tr>");
    }
    text.push_str("</table>");
    page(StatusCode::OK, &frame("WeChat Pay or Alipay", &text))
}

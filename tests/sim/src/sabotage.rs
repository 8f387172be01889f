//! The protocol, broken on purpose: what goes over the wire is changed so that one of its rules does not hold any more. The code
//! that is tested has no switches for this; each variant is what a plausible mistake in it would send.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tenantry_web::queue::Message;
use tokio::time::Instant;

use crate::world::{Process, World, lock};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// A settlement does not ask whether the hold is still there.
    SettleTwice,
    /// The aggregator knows batches by their hash, and not events by their records.
    DedupByBatchHash,
    /// A settlement does not ask which month it is.
    RefundIntoTheWrongMonth,
    /// Holds do not expire.
    HoldWithoutExpiry,
    /// The event leaves after the settlement, not before.
    EventAfterSettle,
    /// A reservation looks at what was left a moment ago, and then takes: check, then increment.
    CheckThenIncrement,
    /// A reservation that is repeated takes again.
    ReserveTwice,
    /// The month is begun by everybody who sees that it has turned.
    RollOverTwice,
    /// Roll-ups are not written in the transaction of their records.
    RollUpsApart,
    /// What expired is removed, and its record left to somebody else.
    ExpireWithoutRecord,
    /// What expired is charged as held, whether or not there is a record.
    ExpireBlindly,
    /// When the meter says no, the call goes on.
    FailOpen,
    /// A booking does not ask whether it was made.
    BookTwice,
    /// A gateway neither reports what was used nor settles.
    NeverSettle,
    /// A reservation does not ask what is left of budgets.
    IgnoreBudgets,
    /// A change of plan does not ask whether a later one was made.
    OlderPlanWins,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::SettleTwice,
        Self::DedupByBatchHash,
        Self::RefundIntoTheWrongMonth,
        Self::HoldWithoutExpiry,
        Self::EventAfterSettle,
        Self::CheckThenIncrement,
        Self::ReserveTwice,
        Self::RollOverTwice,
        Self::RollUpsApart,
        Self::ExpireWithoutRecord,
        Self::ExpireBlindly,
        Self::FailOpen,
        Self::BookTwice,
        Self::NeverSettle,
        Self::IgnoreBudgets,
        Self::OlderPlanWins,
    ];
}

/// Whoever makes the mistake.
pub(crate) struct Saboteur {
    pub(crate) kind: Sabotage,
    /// How often it was made.
    made: AtomicU64,
    held_back: Mutex<BTreeMap<String, (String, Arc<Process>)>>,
    delivered: Mutex<BTreeSet<String>>,
    /// Meters as they were when somebody looked.
    remembered: Mutex<BTreeMap<String, (Instant, Value)>>,
}

/// How old the look of [`Sabotage::CheckThenIncrement`] may be.
const STALE: Duration = Duration::from_millis(1_500);

const HELD: &str = "attribute_exists(#holds.#request)";
const NOT_HELD: &str = "attribute_not_exists(#holds.#request)";
const ANYTHING: &str = "attribute_exists(#holds)";

impl Saboteur {
    pub(crate) fn new(kind: Sabotage) -> Self {
        let (made, held_back, delivered, remembered) = Default::default();
        Self { kind, made, held_back, delivered, remembered }
    }

    /// How often the mistake was made.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }

    fn make(&self) {
        self.made.fetch_add(1, Ordering::SeqCst);
    }

    /// An event that leaves once its call is settled.
    pub(crate) fn hold_back(&self, request: &str, body: &str, process: &Arc<Process>) {
        lock(&self.held_back).insert(request.to_owned(), (body.to_owned(), process.clone()));
    }

    /// Whether a batch is taken for one that came before.
    pub(crate) fn was_delivered(&self, batch: &[Message]) -> bool {
        if self.kind != Sabotage::DedupByBatchHash {
            return false;
        }
        let hash = batch.iter().map(|message| message.body.as_str()).collect::<Vec<_>>().join("\n");
        !lock(&self.delivered).insert(hash)
    }

    /// Sends a request to the database as the mistake has it.
    pub(crate) fn apply(&self, world: &World, process: &str, operation: &str, body: &[u8]) -> (u16, String) {
        let Ok(mut request) = serde_json::from_slice::<Value>(body) else {
            return world.engine.serve(operation, body);
        };
        if matches!(operation, "GetItem" | "Query" | "TransactGetItems") {
            return self.look(world, process, operation, body, &request);
        }
        if self.kind == Sabotage::NeverSettle && process.starts_with("gateway") && settles(operation, &request) {
            self.make();
            return (200, "{}".to_owned());
        }
        match self.kind {
            Sabotage::RollUpsApart if operation == "TransactWriteItems" => return self.apart(world, request),
            Sabotage::CheckThenIncrement => self.check_first(world, operation, &mut request),
            _ => self.change(operation, &mut request),
        }
        let send = |request: &Value| world.engine.serve(operation, request.to_string().as_bytes());
        let (status, text) = send(&request);
        match self.kind {
            Sabotage::EventAfterSettle if status == 200 => self.let_go(operation, &request),
            // On its way twice.
            Sabotage::ReserveTwice
                if status == 200 && is_reserve(&request) && world.dice(|dice| dice.u32(..20)) == 0 =>
            {
                self.make();
                return send(&request);
            }
            Sabotage::FailOpen if status == 400 && is_reserve(&request) => {
                let refused: Value = serde_json::from_str(&text).unwrap_or_default();
                if !refused["Item"].is_null() {
                    self.make();
                    return (200, json!({"Attributes": refused["Item"]}).to_string());
                }
            }
            _ => {}
        }
        (status, text)
    }

    /// What somebody sees who does not look at what the mistake forgets.
    fn look(&self, world: &World, process: &str, operation: &str, body: &[u8], request: &Value) -> (u16, String) {
        let sk = request["Key"]["sk"]["S"].as_str().unwrap_or_default();
        let is_overlooked = match self.kind {
            Sabotage::ExpireBlindly => sk.starts_with("REC#"),
            Sabotage::IgnoreBudgets => sk.starts_with("BUDGET#") && process.starts_with("gateway"),
            _ => false,
        };
        if is_overlooked {
            return (200, "{}".to_owned());
        }
        let (status, text) = world.engine.serve(operation, body);
        if self.kind == Sabotage::OlderPlanWins && sk == "METER" && process.starts_with("operator") {
            let mut answer: Value = serde_json::from_str(&text).unwrap_or_default();
            answer["Item"].as_object_mut().map(|item| item.remove("plan_version"));
            return (status, answer.to_string());
        }
        (status, text)
    }

    fn change(&self, operation: &str, request: &mut Value) {
        if operation == "TransactWriteItems" {
            let settles = settles(operation, request);
            let items = request["TransactItems"].as_array_mut();
            if self.kind == Sabotage::ExpireWithoutRecord && settles {
                let Some(items) = items else { return };
                if items.iter().any(|item| is_record(&item["Put"])) {
                    items.retain(|item| is_settle(&item["Update"]));
                    self.make();
                }
                return;
            }
            for item in items.into_iter().flatten() {
                for kind in ["Update", "Put"] {
                    if item[kind].is_object() {
                        self.change_one(&mut item[kind], settles);
                    }
                }
            }
            return;
        }
        self.change_one(request, is_settle(request));
    }

    fn change_one(&self, write: &mut Value, settles: bool) {
        let condition = write["ConditionExpression"].as_str().unwrap_or_default().to_owned();
        let changed = match self.kind {
            Sabotage::SettleTwice if is_settle(write) => Some(condition.replace(HELD, ANYTHING)),
            Sabotage::DedupByBatchHash if is_record(write) => Some("attribute_not_exists(nothing)".to_owned()),
            Sabotage::ExpireBlindly if is_record(write) && settles => Some("attribute_not_exists(nothing)".to_owned()),
            Sabotage::BookTwice if is_booking(write) => Some("attribute_not_exists(nothing)".to_owned()),
            Sabotage::RefundIntoTheWrongMonth if is_settle(write) && condition.contains("#period = :period") => {
                Some(condition.replace("#period = :period", "(#period = :period OR #period <> :period)"))
            }
            Sabotage::ReserveTwice if is_reserve(write) => Some(condition.replace(NOT_HELD, ANYTHING)),
            Sabotage::RollOverTwice if condition.contains("#period = :old AND #left = :left") => {
                let anything = "(#period = :old OR #period <> :old) AND (#left = :left OR #left <> :left)";
                Some(condition.replace("#period = :old AND #left = :left", anything))
            }
            Sabotage::RollOverTwice if write["Item"]["closed_at"].is_object() => {
                Some("attribute_not_exists(nothing)".to_owned())
            }
            Sabotage::IgnoreBudgets if condition.contains(" <= :most_") => {
                let part = |part: &str| {
                    if part.contains(" <= :most_") { part.replace(" <= ", " <> ") } else { part.to_owned() }
                };
                Some(condition.split(" AND ").map(part).collect::<Vec<_>>().join(" AND "))
            }
            Sabotage::OlderPlanWins if condition.contains("plan_version <= :version") => {
                Some(condition.replace("plan_version <= :version", "plan_version <> :version"))
            }
            _ => None,
        };
        if let Some(changed) = changed {
            write["ConditionExpression"] = changed.into();
            self.make();
        }
        if self.kind == Sabotage::HoldWithoutExpiry && is_reserve(write) {
            let hold = write["ExpressionAttributeValues"][":hold"]["S"].as_str().unwrap_or_default();
            if let Some((_, rest)) = hold.split_once(',') {
                let endless = format!("9999999999,{rest}");
                write["ExpressionAttributeValues"][":hold"]["S"] = endless.into();
                self.make();
            }
        }
    }

    /// Asks what was left a moment ago; when that was enough, takes without a condition.
    fn check_first(&self, world: &World, operation: &str, request: &mut Value) {
        let writes: Vec<&mut Value> = if operation == "TransactWriteItems" {
            let items = request["TransactItems"].as_array_mut().into_iter().flatten();
            items.map(|item| &mut item["Update"]).collect()
        } else {
            vec![request]
        };
        for write in writes.into_iter().filter(|write| is_reserve(write)) {
            let key = write["Key"].to_string();
            let mut remembered = lock(&self.remembered);
            let known = remembered.get(&key).filter(|(at, _)| at.elapsed() < STALE).map(|(_, item)| item.clone());
            let item = known.unwrap_or_else(|| {
                let get = json!({"TableName": write["TableName"], "Key": write["Key"], "ConsistentRead": true});
                let (_, text) = world.engine.serve("GetItem", get.to_string().as_bytes());
                let item = serde_json::from_str::<Value>(&text).unwrap_or_default()["Item"].take();
                remembered.insert(key, (Instant::now(), item.clone()));
                item
            });
            let condition = write["ConditionExpression"].as_str().unwrap_or_default().to_owned();
            let mut parts: Vec<String> = condition.split(" AND ").map(str::to_owned).collect();
            for part in &mut parts {
                let Some((what, value)) = part.split_once(" >= ") else { continue };
                let number = |value: &Value| value["N"].as_str().and_then(|number| number.parse::<i64>().ok());
                let left = match what.strip_prefix("#left.") {
                    Some(resource) => number(&item["left"]["M"][resource]),
                    None => number(&item[what]),
                };
                if left >= number(&write["ExpressionAttributeValues"][value]) {
                    *part = format!("({part} OR attribute_exists(pk))");
                    self.make();
                }
            }
            write["ConditionExpression"] = parts.join(" AND ").into();
        }
    }

    /// The records first, the roll-ups then, unless nobody is there any more to do it.
    fn apart(&self, world: &World, mut request: Value) -> (u16, String) {
        let send = |request: &Value| world.engine.serve("TransactWriteItems", request.to_string().as_bytes());
        let items = request["TransactItems"].as_array().cloned().unwrap_or_default();
        let (roll_ups, others): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| is_roll_up(&item["Update"]));
        if roll_ups.is_empty() {
            return send(&request);
        }
        self.make();
        request["TransactItems"] = others.into();
        let answer = send(&request);
        if answer.0 == 200 && world.dice(|dice| dice.u32(..10)) > 0 {
            request["TransactItems"] = roll_ups.into();
            request["ClientRequestToken"] = Value::Null;
            if let Some(request) = request.as_object_mut() {
                request.remove("ClientRequestToken");
            }
            send(&request);
        }
        answer
    }

    /// The events of what was settled just now, unless their sender died with the settlement.
    fn let_go(&self, operation: &str, request: &Value) {
        let settled = |write: &Value| {
            let is = is_settle(write);
            is.then(|| write["ExpressionAttributeNames"]["#request"].as_str().unwrap_or_default().to_owned())
        };
        let settled: Vec<String> = if operation == "TransactWriteItems" {
            let items = request["TransactItems"].as_array().into_iter().flatten();
            items.filter_map(|item| settled(&item["Update"])).collect()
        } else {
            settled(request).into_iter().collect()
        };
        for request in settled {
            if let Some((body, process)) = lock(&self.held_back).remove(&request) {
                self.make();
                if !process.is_dead() {
                    process.world.letters.put(&body);
                }
            }
        }
    }
}

fn expression<'a>(write: &'a Value, name: &str) -> &'a str {
    write[name].as_str().unwrap_or_default()
}

/// Whether a request settles a hold.
fn settles(operation: &str, request: &Value) -> bool {
    if operation != "TransactWriteItems" {
        return is_settle(request);
    }
    let items = request["TransactItems"].as_array().into_iter().flatten();
    items.map(|item| &item["Update"]).any(is_settle)
}

fn is_settle(write: &Value) -> bool {
    expression(write, "UpdateExpression").contains("REMOVE #holds.#request")
}

fn is_reserve(write: &Value) -> bool {
    expression(write, "UpdateExpression").contains("#holds.#request = :hold")
}

fn is_record(write: &Value) -> bool {
    write["Item"]["price_version"].is_object()
}

fn is_roll_up(write: &Value) -> bool {
    expression(write, "UpdateExpression").contains("ADD #requests")
}

/// What makes a row of the ledger unique.
fn is_booking(write: &Value) -> bool {
    let sk = write["Item"]["sk"]["S"].as_str().unwrap_or_default();
    sk.starts_with("BOOKED#")
}

"""What a deployed platform has to do, asked of it from outside: HTTP, queues, schedules.

    journeys.py first <stack>      after the first deployment
    journeys.py upgraded <stack>   after a second one
    journeys.py restored <stack>   the drill of docs/operations.md: export, wipe, restore

Nothing here waits for a time to pass, only for something to come true, with a deadline.
"""

import gzip
import json
import pathlib
import subprocess
import sys
import uuid
from datetime import datetime, timedelta, timezone

import payments
from checks import same, say, step, true
from platform_under_test import Failed, Platform, until

# What the other parts need to know of the first.
KEPT = pathlib.Path("target/e2e/kept.json")
# Where the drill puts its copies.
COPIES = pathlib.Path("target/e2e/copies")

PASSWORD = "correct horse battery staple 7"
CALL = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello, cloud."}], "max_tokens": 64}


def first(platform: Platform) -> None:
    # Before the first mail is ordered: one that fails is hidden for minutes, and a queue that is waited for is not empty.
    platform.may_send(platform.parameter("MailFrom"))
    # Before the first request, too: functions read their secrets once.
    doubles = step("the keys of doubles of the payment vendors are put in", lambda: payments.open_doubles(platform))
    step("the plans are put up for sale, and once more", lambda: payments.put_up_for_sale(doubles))
    tenant = step("a person registers and makes an API key", lambda: sign_up(platform))
    step("another origin may call", lambda: refusals(platform))
    usage = step("a chat call is answered whole", lambda: chat(platform, tenant))
    step("its usage comes through the queue, once", lambda: booked(platform, tenant, [usage]))
    usages = step(
        "an outage of the aggregator and a poison message: dead letters, rollback, redrive",
        lambda: outage(platform, tenant, [usage]),
    )
    step("what an organization counts itself is recorded once", lambda: recorded(platform, tenant))
    step("the month turns once, however often the schedule fires", lambda: month_turns(platform, tenant))
    step("a mail leaves in the reader's language", lambda: mail(platform))
    buyer = sell(platform, doubles)
    kept = {"tenant": tenant, "buyer": buyer, "table": platform.outputs["TableName"], "calls": len(usages)}
    KEPT.write_text(json.dumps(kept))


def sell(platform: Platform, doubles: payments.Doubles) -> dict:
    buyer = step("somebody registers who buys", lambda: sign_up(platform))
    buyer["token"] = sign_in(platform, buyer)
    bought = step("subscribes, and has the plan when Stripe tells", lambda: payments.subscribe(platform, doubles, buyer))
    step("of what Stripe does not sign nothing comes", lambda: payments.forged(platform, doubles, buyer, bought))
    for vendor in ("wechat", "alipay"):
        step(f"pays with {vendor}, and has the credits once", lambda: payments.pay(platform, doubles, buyer, vendor))
    step("is looked after by the schedule", lambda: payments.looked_after(platform, doubles, buyer, bought))
    return {"email": buyer["email"], "subscription": bought}


def upgraded(platform: Platform) -> None:
    kept = json.loads(KEPT.read_text())
    tenant = kept["tenant"]
    step("the new configuration is live", lambda: new_configuration(platform))
    step("the data is the same", lambda: same_data(platform, tenant, kept))
    buyer = kept["buyer"]
    step("who bought has what they bought", lambda: payments.has(platform, sign_in(platform, buyer), buyer["subscription"]))
    usage = step("and the key still works", lambda: chat(platform, tenant))
    step("and is metered", lambda: booked(platform, tenant, [usage], before=kept["calls"]))


def restored(platform: Platform) -> None:
    tenant = json.loads(KEPT.read_text())["tenant"]
    step("nothing is on its way", lambda: at_rest(platform))
    # No function has seen this key, so none remembers it: functions believe a key for half a minute.
    unseen = step("a key is made", lambda: new_key(platform, tenant))
    records = all_records(platform, tenant)
    before = step("the table is exported", lambda: exported(platform, "before"))
    step("and wiped: nobody is known any more", lambda: wiped(platform, tenant, unseen))
    step("it is restored", lambda: say(table("restore", platform.stack, before)))
    after = step("and exported again", lambda: exported(platform, "after"))
    step("every item is as it was", lambda: same_items(before, after))
    step("usage is as it was", lambda: same(all_records(platform, {**tenant, "key": unseen["secret"]}), records))
    usage = step("the old key works", lambda: chat(platform, tenant))
    calls = sum(record["operation"] != "record" for record in records)
    step("and is metered", lambda: booked(platform, tenant, [usage], before=calls))
    step("the new one is revoked", lambda: revoke(platform, tenant, unseen))


# ── Accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def sign_up(platform: Platform) -> dict:
    email = f"{uuid.uuid4().hex[:12]}@example.com"
    person = {"email": email, "password": PASSWORD, "organization_name": "Cloud Nine"}
    registered = platform.call("POST", "/api/v1/auth/register", person, expect=201)
    again = platform.call("POST", "/api/v1/auth/register", person, expect=409)
    same(again["code"], "email_taken")
    token = registered["access_token"]
    me = platform.call("GET", "/api/v1/auth/me", token=token)
    key = platform.call("POST", "/api/v1/api-keys", {"name": "e2e"}, token=token, expect=201)
    platform.call("GET", "/api/v1/auth/me", token="nonsense", expect=401)
    keys = platform.call("GET", "/api/v1/api-keys", token=token)
    same([listed["id"] for listed in keys["data"]], [key["id"]])
    # Two days may begin while this runs, one here and one there: clocks differ.
    since = f"{datetime.now(timezone.utc) - timedelta(days=1):%Y-%m-%d}"
    return {"email": email, "org": organization(me), "key": key["secret"], "since": since}


def organization(me: dict) -> str:
    return me["organization"]["id"]


def refusals(platform: Platform) -> None:
    # The emulator may answer a preflight itself, and refusals of API Gateway's own in its own words, so only that a
    # preflight is answered at all is seen here; tests/tests/suite/conventions.rs and template.rs read the words.
    platform.call("OPTIONS", "/api/v1/chat/completions", expect=(200, 204))


def sign_in(platform: Platform, tenant: dict) -> str:
    answer = platform.call("POST", "/api/v1/auth/login", {"email": tenant["email"], "password": PASSWORD})
    return answer["access_token"]


# ── Calls and their usage ────────────────────────────────────────────────────────────────────────────────────────────


def chat(platform: Platform, tenant: dict) -> dict:
    answer = platform.call("POST", "/api/v1/chat/completions", CALL, token=tenant["key"])
    content = answer["choices"][0]["message"]["content"]
    true(content, f"an answer without content: {answer}")
    return answer["usage"]


def booked(platform: Platform, tenant: dict, usages: list[dict], before: int = 0) -> None:
    """Every call has one record, and roll-ups and meter agree with them."""
    records = until(
        f"{before + len(usages)} records",
        lambda: len_is(all_calls(platform, tenant), before + len(usages)),
    )
    tokens = sorted(usage["total_tokens"] for usage in usages)
    newest = sorted(record_tokens(record) for record in records[before:])
    same(newest, tokens)
    answer = platform.call("GET", "/api/v1/usage/stats", token=tenant["key"])
    stats = {resource["resource"]: resource for resource in answer["resources"]}
    # A month may have begun on the way.
    records = [record for record in records if record["period"] == answer["period"]["id"]]
    same(stats["messages"]["used"], len(records))
    same(stats["llm_tokens"]["used"], sum(record_tokens(record) for record in records))
    same(stats["messages"]["left"], stats["messages"]["limit"] - len(records))


def all_records(platform: Platform, tenant: dict) -> list[dict]:
    """Oldest first, of whatever months."""
    return platform.lines(f"/api/v1/usage/records/export?from={tenant['since']}", tenant["key"])


def all_calls(platform: Platform, tenant: dict) -> list[dict]:
    return [record for record in all_records(platform, tenant) if record["operation"] != "record"]


def recorded(platform: Platform, tenant: dict) -> None:
    """By a person: the tenant's key has the scopes that a key has by default, and `record` is none of them."""
    record = {"resource": "pages_scanned", "amount": 12, "metadata": {"job": "7"}}
    platform.call("POST", "/api/v1/usage/record", record, token=tenant["key"], expect=403)
    token, key = sign_in(platform, tenant), uuid.uuid4().hex
    made = platform.call("POST", "/api/v1/usage/record", record, token=token, key=key, expect=201)
    again = platform.call("POST", "/api/v1/usage/record", record, token=token, key=key, expect=201)
    same(again, made)
    same([own for own in all_records(platform, tenant) if own["operation"] == "record"], [made])
    totals = platform.call("GET", f"/api/v1/usage/stats?period={made['period']}", token=tenant["key"])["totals"]
    same(totals["recorded"], {"pages_scanned": {"records": 1, "amount": 12}})


def record_tokens(record: dict) -> int:
    return record["prompt_tokens"] + record["completion_tokens"]


def outage(platform: Platform, tenant: dict, usages: list[dict]) -> list[dict]:
    queue, dead = platform.outputs["UsageQueueUrl"], platform.outputs["UsageDeadLettersUrl"]
    with platform.impatient(queue), platform.broken("UsageAggregatorFunction"):
        usages = [*usages, chat(platform, tenant)]
        platform.sqs.send_message(QueueUrl=queue, MessageBody="no usage event")
        until("both messages in the dead letters", lambda: platform.depth(dead) == 2)
        same(len(all_calls(platform, tenant)), len(usages) - 1)
    # The alias points at the version that works again: that is the rollback.
    with platform.impatient(queue):
        platform.redrive(dead, queue)
        booked(platform, tenant, usages)
        until("the poison message back in the dead letters", lambda: platform.depth(dead) == 1)
    platform.sqs.purge_queue(QueueUrl=dead)
    return usages


# ── The month ────────────────────────────────────────────────────────────────────────────────────────────────────────


def month_turns(platform: Platform, tenant: dict) -> None:
    now = datetime.now(timezone.utc)
    this, last = f"{now:%Y-%m}", f"{now.replace(day=1) - timedelta(days=1):%Y-%m}"
    meter = {"pk": {"S": f"T#{tenant['org']}"}, "sk": {"S": "METER"}}
    closing = {"pk": meter["pk"], "sk": {"S": f"CLOSE#{last}"}}
    left = platform.item(meter)["left"]
    # As if nobody had called since the last month.
    platform.dynamodb.update_item(
        TableName=platform.outputs["TableName"],
        Key=meter,
        UpdateExpression="SET #period = :last",
        ExpressionAttributeNames={"#period": "period"},
        ExpressionAttributeValues={":last": {"S": last}},
    )
    schedules = platform.schedules()
    same(sorted(schedules), ["erase", "payments", "reconcile", "reset", "sweep"])
    platform.fire(schedules["reset"])
    closed = until("the closing row", lambda: platform.item(closing))
    same(closed["left"], left)
    fresh = platform.item(meter)
    same(fresh["period"], {"S": this})
    true(fresh["left"] != left, "the allowances are not fresh")
    platform.fire(schedules["reset"])
    jobs = platform.outputs["JobQueueUrl"]
    until("all shards visited again", lambda: platform.depth(jobs, hidden=True) == 0)
    same(platform.item(closing), closed)
    same(platform.item(meter), fresh)
    same(platform.depth(platform.outputs["JobDeadLettersUrl"]), 0)
    # What follows counts from the old month.
    platform.dynamodb.put_item(TableName=platform.outputs["TableName"], Item={**fresh, "left": left})


# ── Mail ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def mail(platform: Platform) -> None:
    recipient = f"{uuid.uuid4().hex[:12]}@example.com"
    ordered = {
        "id": uuid.uuid4().hex,
        "language": "zh",
        "to": recipient,
        "template": "verification",
        "data": {"name": "小明", "token": "a-token", "valid_minutes": 60},
    }
    queue = platform.outputs["MailQueueUrl"]
    with platform.impatient(queue):
        # Twice, as a queue may deliver it.
        for _ in range(2):
            platform.sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(ordered))
        sent = until("the mail", lambda: platform.mails_to(recipient))
        until("both messages dealt with", lambda: platform.depth(queue, hidden=True) == 0)
    same(len(platform.mails_to(recipient)), 1)
    true(any("\u4e00" <= letter <= "\u9fff" for letter in sent[0]["Subject"]), f"not in Chinese: {sent[0]['Subject']}")
    same(platform.depth(platform.outputs["MailDeadLettersUrl"]), 0)


# ── After the second deployment ──────────────────────────────────────────────────────────────────────────────────────


def new_configuration(platform: Platform) -> None:
    for name in platform.functions():
        variables = platform.live_variables(name)
        same(variables["RUST_LOG"], "debug")


def same_data(platform: Platform, tenant: dict, kept: dict) -> None:
    same(platform.outputs["TableName"], kept["table"])
    token = sign_in(platform, tenant)
    same(organization(platform.call("GET", "/api/v1/auth/me", token=token)), tenant["org"])
    same(len(all_calls(platform, tenant)), kept["calls"])


# ── Backup ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def at_rest(platform: Platform) -> None:
    for queue in ("UsageQueueUrl", "JobQueueUrl", "MailQueueUrl"):
        until(f"{queue} to be empty", lambda: platform.depth(platform.outputs[queue], hidden=True) == 0)


def new_key(platform: Platform, tenant: dict) -> dict:
    return platform.call("POST", "/api/v1/api-keys", {"name": "drill"}, token=sign_in(platform, tenant), expect=201)


def revoke(platform: Platform, tenant: dict, key: dict) -> None:
    platform.call("DELETE", f"/api/v1/api-keys/{key['id']}", token=sign_in(platform, tenant), expect=204)


def exported(platform: Platform, name: str) -> pathlib.Path:
    COPIES.mkdir(parents=True, exist_ok=True)
    copy = COPIES / f"{name}.jsonl.gz"
    copy.unlink(missing_ok=True)
    say(table("export", platform.stack, copy))
    # The file has as many lines as the table has items.
    same(len(lines(copy)), int(table("count", platform.stack)))
    return copy


def wiped(platform: Platform, tenant: dict, unseen: dict) -> None:
    platform.wipe()
    same(table("count", platform.stack), "0")
    person = {"email": tenant["email"], "password": PASSWORD}
    platform.call("POST", "/api/v1/auth/login", person, expect=401)
    platform.call("GET", "/api/v1/usage/records", token=unseen["secret"], expect=401)
    # The login left its count of wrong guesses.
    platform.wipe()


def same_items(before: pathlib.Path, after: pathlib.Path) -> None:
    same(len(lines(after)), len(lines(before)))
    true(lines(after) == lines(before), f"{before} and {after} differ")


def lines(copy: pathlib.Path) -> list[str]:
    with gzip.open(copy, "rt", encoding="utf-8") as text:
        return sorted(text)


def table(*arguments) -> str:
    """infra/table.py, as an operator runs it."""
    done = subprocess.run(
        [sys.executable, "-B", "infra/table.py", *map(str, arguments)], capture_output=True, text=True
    )
    true(done.returncode == 0, f"table.py {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout.strip()


def len_is(found: list, wanted: int) -> list | None:
    true(len(found) <= wanted, f"{len(found)} records where {wanted} are wanted: something was counted twice")
    return found if len(found) == wanted else None


if __name__ == "__main__":
    part, stack = sys.argv[1:]
    try:
        {"first": first, "upgraded": upgraded, "restored": restored}[part](Platform(stack))
    except Failed as failed:
        sys.exit(f"\ne2e, {part}: {failed}")

"""What is sold on the deployed platform: paid for at doubles of the vendors, told by them over HTTP, or found by the
schedule. Time is not turned here: the functions have the machine's, and a signature is good for five minutes."""

import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from checks import same, true
from platform_under_test import Failed, Platform, until

# As `cargo xtask e2e` builds it.
TENANTRY = pathlib.Path("target/debug/tenantry")
# A page that may be come back to: one of CorsOrigins in samconfig.toml.
PAGE = "http://localhost:5173/done"
# The one that the double speaks: API_VERSION of sandbox/src/stripe/settings.rs.
STRIPE_VERSION = "2026-09-30.endive"
# Kinds of disguise that the doubles of WeChat Pay and Alipay know, each of which has to be refused.
FORGERIES = ("wrong_key", "stale", "altered")


class Stay(urllib.request.HTTPRedirectHandler):
    """Payers are led back to a page that nobody serves here."""

    def redirect_request(self, *_):
        return None


class Doubles:
    """`sandbox/examples/doubles.rs`."""

    def __init__(self):
        self.url = os.environ["DOUBLES_URL"]
        self.opener = urllib.request.build_opener(Stay)
        # What the platform is configured with, once they are open.
        self.variables: dict[str, str] = {}

    def post(self, address: str, body: dict | str, expect: int = 303) -> str:
        """A form, when it is a dictionary. `address` is a path, or the whole of one."""
        data = (urllib.parse.urlencode(body) if isinstance(body, dict) else body).encode()
        kind = "application/x-www-form-urlencoded" if isinstance(body, dict) else "text/plain"
        return self.ask(urllib.request.Request(self.at(address), data, {"content-type": kind}), expect)

    def get(self, address: str) -> dict:
        return json.loads(self.ask(urllib.request.Request(self.at(address)), 200))

    def untold(self) -> list[dict]:
        """Stripe's events that the webhook has not taken."""
        address = self.at("/v1/events?delivery_success=false&limit=100")
        headers = {"authorization": f"Bearer {self.variables['STRIPE_SECRET_KEY']}", "stripe-version": STRIPE_VERSION}
        return json.loads(self.ask(urllib.request.Request(address, headers=headers), 200))["data"]

    def at(self, address: str) -> str:
        return address if address.startswith("http") else self.url + address

    def ask(self, request: urllib.request.Request, expect: int) -> str:
        try:
            with self.opener.open(request, timeout=60) as response:
                status, text = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        if status != expect:
            raise Failed(f"{request.full_url} answered {status}, not {expect}: {text[:2000]}")
        return text


def open_doubles(platform: Platform) -> Doubles:
    doubles = Doubles()
    doubles.variables = json.loads(doubles.post("/shop", platform.url, expect=200))
    platform.put_secret("PaymentsSecretId", doubles.variables)
    return doubles


def put_up_for_sale(doubles: Doubles) -> None:
    first, second = offers(doubles), offers(doubles)
    same([line.split(":")[0] for line in first], ["pro by the month", "pro by the year", "team by the month"])
    # The same prices: nothing was made twice.
    same(second, first)


def offers(doubles: Doubles) -> list[str]:
    """As a deployer does it."""
    variables = {"STRIPE_BASE_URL": doubles.url, "STRIPE_SECRET_KEY": doubles.variables["STRIPE_SECRET_KEY"]}
    done = subprocess.run([TENANTRY, "--put-up-for-sale"], env=variables, capture_output=True, text=True)
    true(done.returncode == 0, f"--put-up-for-sale: {done.stderr}")
    return done.stdout.splitlines()


# ── Stripe ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def subscribe(platform: Platform, doubles: Doubles, buyer: dict) -> str:
    plans = {plan["id"]: plan for plan in platform.call("GET", "/api/v1/subscriptions/plans")["data"]}
    [price] = [price["price_id"] for price in plans["pro"]["prices"] if price["interval"] == "month"]
    true(price, "pro is not for sale")
    wanted = {"price_id": price, "success_url": PAGE, "cancel_url": PAGE}
    # A key does not sell.
    platform.call("POST", "/api/v1/subscriptions/checkout", wanted, token=buyer["key"], expect=403)
    page = platform.call("POST", "/api/v1/subscriptions/checkout", wanted, token=buyer["token"])
    true(page["checkout_url"].startswith(doubles.url), f"the page is elsewhere: {page}")
    before = current(platform, buyer["token"])
    same((before["plan"]["id"], before["subscription"]), ("free", None))
    doubles.post(page["checkout_url"], {"action": "pay"})
    after = until("the plan that was paid for", lambda: on_plan(platform, buyer["token"], "pro"))
    same((after["subscription"]["status"], after["subscription"]["price_id"]), ("active", price))
    [invoice] = until("the invoice", lambda: platform.call("GET", "/api/v1/billing/invoices", token=buyer["token"])["data"])
    same(invoice["status"], "paid")
    return after["subscription"]["id"]


def current(platform: Platform, token: str) -> dict:
    return platform.call("GET", "/api/v1/subscriptions/current", token=token)


def on_plan(platform: Platform, token: str, plan: str) -> dict | None:
    found = current(platform, token)
    return found if found["plan"]["id"] == plan and found["subscription"] else None


def has(platform: Platform, token: str, subscription: str) -> None:
    found = current(platform, token)
    same((found["plan"]["id"], found["subscription"]["id"]), ("pro", subscription))


def forged(platform: Platform, doubles: Doubles, buyer: dict, subscription: str) -> None:
    event = {"id": f"evt_{subscription}", "type": "customer.subscription.deleted", "of": "no version that is read – ünreadable"}
    body = json.dumps(event, ensure_ascii=False).encode()
    # As shared/store/src/keys.rs has it.
    partition = f"EVENT#stripe#{hashlib.sha256(event['id'].encode()).hexdigest()}"
    key = {"pk": {"S": partition}, "sk": {"S": "UNREADABLE"}}
    secret, now = doubles.variables["STRIPE_WEBHOOK_SECRETS"], int(time.time())
    for signature in (signed(body, "whsec_other", now), signed(body, secret, now - 600), signed(body + b" ", secret, now), ""):
        platform.tell("/webhooks/stripe", body, {"stripe-signature": signature}, expect=400)
        same(platform.item(key), None)
    has(platform, buyer["token"], subscription)
    # The same with a signature is taken, and kept because nobody can read it: it was the signature that was looked at.
    platform.tell("/webhooks/stripe", body, {"stripe-signature": signed(body, secret, now)}, expect=204)
    true(platform.item(key), "what is signed left no trace")
    has(platform, buyer["token"], subscription)


def signed(body: bytes, secret: str, at: int) -> str:
    """https://docs.stripe.com/webhooks#verify-manually"""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={mac}"


def looked_after(platform: Platform, doubles: Doubles, buyer: dict, subscription: str) -> None:
    """Stripe's webhooks stay away, and the nightly comparison finds out."""
    doubles.post("/_dev/stripe", {"action": "hold"})
    portal = platform.call("POST", "/api/v1/subscriptions/portal", {"return_url": PAGE}, token=buyer["token"])
    doubles.post(portal["portal_url"], {"action": "cancel", "subscription": subscription})
    same(current(platform, buyer["token"])["subscription"]["cancel_at_period_end"], False)
    platform.fire(platform.schedules()["payments"])
    until("the end of the subscription", lambda: current(platform, buyer["token"])["subscription"]["cancel_at_period_end"])
    has(platform, buyer["token"], subscription)
    jobs = platform.outputs["JobQueueUrl"]
    until("all shards visited", lambda: platform.depth(jobs, hidden=True) == 0)
    same(platform.depth(platform.outputs["JobDeadLettersUrl"]), 0)
    # What was held comes late, and changes nothing any more.
    doubles.post("/_dev/stripe", {"action": "release"})
    until("Stripe to have told everything", lambda: not doubles.untold())
    has(platform, buyer["token"], subscription)


# ── WeChat Pay and Alipay ────────────────────────────────────────────────────────────────────────────────────────────


def pay(platform: Platform, doubles: Doubles, buyer: dict, vendor: str) -> None:
    packages = platform.call("GET", "/api/v1/billing/packages", token=buyer["token"])["data"]
    package = next(package for package in packages if package["id"] == "small")
    before = credits(platform, buyer)
    create = f"/api/v1/payments/{vendor}/create"
    order = platform.call("POST", create, {"package_id": "small"}, token=buyer["token"], expect=201)
    same((order["state"], order["pay"]["type"]), ("pending", "qr_code"))
    doubles.post(f"/_dev/pay/{vendor}/{order['id']}", {"action": "pay"}, expect=200)
    # To look at the order would be to ask the vendor; the balance knows only what was told.
    until("the credits", lambda: credits(platform, buyer) != before)
    same(credits(platform, buyer), before + package["credits"])
    [told] = until("the notification taken", lambda: delivered(doubles, order["id"]))
    for forgery in FORGERIES:
        answer = last_answer(doubles, told, forgery)
        true(answer.startswith("400 "), f"{vendor}, {forgery}: {answer}")
    # And once more, as vendors do.
    last_answer(doubles, told, "genuine")
    same(len(delivered(doubles, order["id"])), 1)
    same(credits(platform, buyer), before + package["credits"])
    paid = platform.call("GET", f"/api/v1/payments/orders/{order['id']}", token=buyer["token"])
    same((paid["state"], paid["fulfilled"]), ("paid", True))


def credits(platform: Platform, buyer: dict) -> int:
    return platform.call("GET", "/api/v1/credits", token=buyer["token"])["balance"]


def delivered(doubles: Doubles, order: str) -> list[dict]:
    told = doubles.get("/_dev/pay/notifications")["data"]
    return [one for one in told if one["out_trade_no"] == order and one["progress"] == "delivered"]


def last_answer(doubles: Doubles, told: dict, disguise: str) -> str:
    address = f"/_dev/pay/notifications/{urllib.parse.quote(told['id'])}/deliver?disguise={disguise}"
    return json.loads(doubles.post(address, "", expect=200))["data"]["last_answer"]

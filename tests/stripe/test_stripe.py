"""The official Stripe SDK for Python, unchanged, against the double of Stripe that tests and laptops use.

Environment:
  STRIPE_BASE_URL         the double
  STRIPE_SECRET_KEY       the key it takes
  STRIPE_WEBHOOK_SECRET   what its deliveries are signed with
  STRIPE_DELIVERIES       takes the deliveries that wait: a list of [signature, body]
"""

import json
import os
import unittest
import urllib.error
import urllib.parse
import urllib.request

import stripe

BASE_URL = os.environ["STRIPE_BASE_URL"]
SECRET_KEY = os.environ["STRIPE_SECRET_KEY"]
WEBHOOK_SECRET = os.environ["STRIPE_WEBHOOK_SECRET"]
# An answer that never comes is a failure within seconds, not at the end of the suite's patience.
TIMEOUT_SECONDS = 20
DAY = 86_400


def client(secret_key=SECRET_KEY):
    """A client that does not retry, so that every answer is seen."""
    return stripe.StripeClient(
        secret_key,
        base_addresses={"api": BASE_URL},
        max_network_retries=0,
        http_client=stripe.RequestsClient(timeout=TIMEOUT_SECONDS),
    ).v1


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def click(url, **fields):
    """Clicks a button of a page. Returns where the browser is sent."""
    opener = urllib.request.build_opener(NoRedirect)
    try:
        opener.open(url, urllib.parse.urlencode(fields).encode(), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as answer:
        with answer:
            if answer.status == 303:
                return answer.headers["Location"]
            raise
    return None


def operate(action, subject=""):
    return click(BASE_URL + "/_dev/stripe", action=action, id=subject)


def deliveries():
    with urllib.request.urlopen(os.environ["STRIPE_DELIVERIES"], timeout=TIMEOUT_SECONDS) as response:
        return json.load(response)


def monthly(cents, name):
    product = client().products.create({"name": name})
    return client().prices.create(
        {"product": product.id, "currency": "usd", "unit_amount": cents, "recurring": {"interval": "month"}}
    )


def checkout(customer, price, **params):
    return client().checkout.sessions.create(
        {
            "mode": "subscription",
            "customer": customer.id,
            "line_items": [{"price": price.id, "quantity": 1}],
            "success_url": "https://app.example/done?session={CHECKOUT_SESSION_ID}",
            "cancel_url": "https://app.example/back",
            **params,
        }
    )


def subscribed(cents=2000):
    customer = client().customers.create({"email": "ada@example.com", "metadata": {"org": "org_python"}})
    session = checkout(customer, monthly(cents, "Basic"))
    click(session.url, action="pay")
    session = client().checkout.sessions.retrieve(session.id, {"expand": ["subscription.latest_invoice"]})
    return customer, session.subscription


class Catalogue(unittest.TestCase):
    def test_objects_are_made_changed_found_and_listed(self):
        customers = client().customers
        made = [customers.create({"name": f"Listed {n}", "metadata": {"list": "yes"}}) for n in range(5)]
        changed = customers.update(made[0].id, {"name": "Changed", "metadata": {"list": "", "other": "1"}})
        self.assertEqual((changed.name, changed.metadata.to_dict()), ("Changed", {"other": "1"}))
        found = customers.search({"query": "metadata['list']:'yes'", "limit": 2})
        ids = [customer.id for customer in found.auto_paging_iter()]
        self.assertEqual(sorted(ids), sorted(customer.id for customer in made[1:]))
        listed = [customer.id for customer in customers.list({"limit": 2}).auto_paging_iter()]
        self.assertEqual([id for id in listed if id in ids], [customer.id for customer in reversed(made[1:])])
        self.assertTrue(customers.delete(made[1].id).deleted)
        self.assertTrue(customers.retrieve(made[1].id).deleted)

    def test_prices_are_found_by_their_lookup_key(self):
        product = client().products.create({"name": "Keyed"})
        params = {"product": product.id, "currency": "usd", "unit_amount": 100, "lookup_key": "keyed"}
        first = client().prices.create(params)
        second = client().prices.create({**params, "unit_amount": 200, "transfer_lookup_key": True})
        found = client().prices.list({"lookup_keys": ["keyed"], "expand": ["data.product"]}).data
        self.assertEqual([price.id for price in found], [second.id])
        self.assertEqual(found[0].product.name, "Keyed")
        self.assertIsNone(client().prices.retrieve(first.id).lookup_key)


class Subscriptions(unittest.TestCase):
    def test_from_checkout_to_the_end_of_the_period(self):
        customer, subscription = subscribed()
        self.assertEqual((subscription.status, subscription.customer), ("active", customer.id))
        invoice = subscription.latest_invoice
        self.assertEqual((invoice.status, invoice.amount_paid), ("paid", 2000))
        self.assertEqual(invoice.parent.subscription_details.subscription, subscription.id)
        invoice = client().invoices.retrieve(invoice.id, {"expand": ["payments.data.payment.payment_intent"]})
        self.assertEqual(invoice.payments.data[0].payment.payment_intent.amount_received, 2000)

        item, pro = subscription["items"].data[0], monthly(5000, "Pro")
        self.assertGreaterEqual(item.current_period_end - item.current_period_start, 28 * DAY)
        change = {"items": [{"id": item.id, "price": pro.id}], "proration_behavior": "always_invoice"}
        change["proration_date"] = item.current_period_start + 10 * DAY
        preview = client().invoices.create_preview({"subscription": subscription.id, "subscription_details": change})
        changed = client().subscriptions.update(subscription.id, {**change, "expand": ["latest_invoice"]})
        self.assertEqual(changed["items"].data[0].price.id, pro.id)
        self.assertEqual(changed.latest_invoice.amount_paid, preview.amount_due)
        self.assertGreater(preview.amount_due, 0)

        ending = client().subscriptions.update(subscription.id, {"cancel_at_period_end": True})
        self.assertEqual(ending.cancel_at, ending["items"].data[0].current_period_end)
        operate("month")
        self.assertEqual(client().subscriptions.retrieve(subscription.id).status, "canceled")

    def test_a_month_that_nobody_pays(self):
        customer, subscription = subscribed()
        operate("cards_decline", customer.id)
        operate("month")
        operate("hour")
        late = client().subscriptions.retrieve(subscription.id, {"expand": ["latest_invoice"]})
        self.assertEqual((late.status, late.latest_invoice.status), ("past_due", "open"))
        with self.assertRaises(stripe.CardError):
            client().invoices.pay(late.latest_invoice.id)
        operate("cards_pay", customer.id)
        self.assertEqual(client().invoices.pay(late.latest_invoice.id).status, "paid")
        self.assertEqual(client().subscriptions.retrieve(subscription.id).status, "active")
        self.assertEqual(len(client().invoices.list({"customer": customer.id}).data), 2)

    def test_a_promotion_code_on_the_page(self):
        coupon = client().coupons.create({"percent_off": 25.5, "duration": "forever"})
        client().promotion_codes.create({"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "SPRING"})
        customer = client().customers.create({})
        session = checkout(customer, monthly(1000, "Coded"), allow_promotion_codes=True)
        sent = click(session.url, action="pay", code="spring")
        self.assertEqual(sent, "https://app.example/done?session=" + session.id)
        session = client().checkout.sessions.retrieve(session.id)
        self.assertEqual((session.amount_subtotal, session.amount_total), (1000, 745))

    def test_a_page_that_is_left(self):
        customer = client().customers.create({})
        session = checkout(customer, monthly(1000, "Left"))
        self.assertEqual(click(session.url, action="abandon"), "https://app.example/back")
        self.assertEqual(client().checkout.sessions.expire(session.id).status, "expired")
        with self.assertRaises(urllib.error.HTTPError):
            click(session.url, action="pay")


class Payments(unittest.TestCase):
    def pay(self, method, **options):
        customer = client().customers.create({})
        saved = client().payment_methods.attach(method, {"customer": customer.id})
        params = {"amount": 1000, "currency": "usd", "customer": customer.id, "payment_method": saved.id}
        return client().payment_intents.create({**params, "confirm": True, "off_session": True}, options)

    def test_a_saved_card_pays_and_gets_its_money_back(self):
        paid = self.pay("pm_card_visa")
        self.assertEqual((paid.status, paid.amount_received), ("succeeded", 1000))
        refund = client().refunds.create({"payment_intent": paid.id, "amount": 400})
        self.assertEqual((refund.status, refund.amount), ("succeeded", 400))
        self.assertEqual(client().charges.retrieve(paid.latest_charge).amount_refunded, 400)

    def test_a_card_that_declines(self):
        with self.assertRaises(stripe.CardError) as raised:
            self.pay("pm_card_chargeDeclinedInsufficientFunds")
        error = raised.exception.error
        self.assertEqual((error.code, error.decline_code), ("card_declined", "insufficient_funds"))
        self.assertEqual(error.payment_intent.status, "requires_payment_method")

    def test_a_dispute(self):
        paid = self.pay("pm_card_visa")
        operate("dispute", paid.latest_charge)
        dispute = client().disputes.list({"payment_intent": paid.id}).data[0]
        self.assertEqual((dispute.status, dispute.amount), ("needs_response", 1000))
        operate("lose", dispute.id)
        self.assertEqual(client().disputes.retrieve(dispute.id).status, "lost")


class Refusals(unittest.TestCase):
    def test_errors_are_the_sdks_own(self):
        with self.assertRaises(stripe.AuthenticationError):
            client("sk_test_other").customers.list()
        with self.assertRaises(stripe.InvalidRequestError) as raised:
            client().prices.retrieve("price_none")
        self.assertEqual((raised.exception.http_status, raised.exception.code), (404, "resource_missing"))
        with self.assertRaises(stripe.InvalidRequestError) as raised:
            client().customers.create({"nmae": "Ada"})
        self.assertEqual((raised.exception.param, raised.exception.code), ("nmae", "parameter_unknown"))
        old = {"stripe_version": "2024-06-20"}
        with self.assertRaises(stripe.InvalidRequestError):
            client().customers.list({}, old)

    def test_a_key_does_one_thing(self):
        key = {"idempotency_key": "python-1"}
        first = client().customers.create({"name": "Ada"}, key)
        self.assertEqual(client().customers.create({"name": "Ada"}, key).id, first.id)
        with self.assertRaises(stripe.IdempotencyError):
            client().customers.create({"name": "Bob"}, key)


class Webhooks(unittest.TestCase):
    def test_deliveries_are_signed(self):
        deliveries()
        customer = client().customers.create({"name": "Told"})
        ((signature, body),) = deliveries()
        event = stripe.Webhook.construct_event(body, signature, WEBHOOK_SECRET)
        self.assertEqual((event.type, event.data.object.id), ("customer.created", customer.id))
        self.assertEqual(client().events.retrieve(event.id).data.object.name, "Told")
        with self.assertRaises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body.replace("Told", "Tolt"), signature, WEBHOOK_SECRET)


if __name__ == "__main__":
    unittest.main()

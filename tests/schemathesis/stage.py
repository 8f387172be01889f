"""A platform of a run's own, and the people and things on it whose ids and tokens the requests name."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).parent
START_SECONDS = 60
STOP_SECONDS = 20
PASSWORD = "correct horse battery"
NEXT_PASSWORD = "incorrect horse battery"
# Of each thing that a request may use up.
SPARES = 8
# Who calls. Every role of a person, every kind of API key, and somebody without credentials.
ROLES = ("owner", "admin", "member", "key", "login_key", "nobody")

# What ends the caller's session, or takes it elsewhere, is asked by another person in the same role, or everything that
# comes after it would be answered 401.
ENDING = ("logout", "change_password", "refresh", "revoke_session", "switch_organization")


class Failed(Exception):
    """What the developer reads."""


@contextlib.contextmanager
def platform(binary: pathlib.Path, folder: pathlib.Path):
    """`tenantry` on a free port with everything in memory; yields its address. Its log is <folder>/platform.log."""
    folder.mkdir(parents=True, exist_ok=True)
    # Of an earlier run, at whose address there may be anybody by now.
    (folder / "dev.json").unlink(missing_ok=True)
    # Made, not passed on: with a vendor's key in it, models would be called out there. Without one the only model is
    # the sandbox's, which answers in the process.
    environment = {"RUST_LOG": "warn", "LOG_FORMAT": "json"}
    command = [binary, "--port", "0", "--in-memory", "--data-dir", folder, "--plans", HERE / "plans.toml"]
    with open(folder / "platform.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield address(process, folder)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def address(process: subprocess.Popen, folder: pathlib.Path) -> str:
    """Where it answers. It says so in dev.json, once all of it is there."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            base = json.loads((folder / "dev.json").read_text())["base_url"].removesuffix("/api/v1")
            with urllib.request.urlopen(f"{base}/healthz", timeout=5):
                return base
        time.sleep(0.05)
    raise Failed(f"the platform did not start:\n{(folder / 'platform.log').read_text()}")


class Api:
    def __init__(self, base: str):
        self.base = base
        self.used: set[str] = set()

    def call(self, method: str, path: str, body=None, credential: str = ""):
        """The JSON that is answered; anything but success ends the run."""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {credential}"} if credential else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            raise Failed(f"{method} {path} answered {error.code}: {error.read().decode()[:2000]}") from None
        return json.loads(text) if text else None

    def post(self, path: str, body, credential: str = ""):
        return self.call("POST", f"/api/v1{path}", body, credential)

    def get(self, path: str, credential: str = ""):
        return self.call("GET", f"/api/v1{path}", None, credential)

    def click(self, url: str, action: str) -> None:
        """A button on a page of a double's."""
        page = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(page.netloc, timeout=60)
        connection.request("POST", page.path, f"action={action}", {"content-type": "application/x-www-form-urlencoded"})
        # It leads back to the product's site, which is not there.
        if (status := connection.getresponse().status) != 303:
            raise Failed(f"{action} on {url} answered {status}")
        connection.close()

    def login(self, person: dict) -> dict:
        return self.post("/auth/login", {"email": person["email"], "password": person["password"]})

    def register(self, email: str) -> dict:
        registered = self.post("/auth/register", {"email": email, "password": PASSWORD})
        return {"email": email, "password": PASSWORD, "id": registered["user"]["id"], "token": registered["access_token"]}

    def mailed(self, page: str, emails: list[str]) -> list[str]:
        """The one-time tokens, not asked for before, of the mails to these addresses whose links lead to this page."""
        deadline = time.monotonic() + START_SECONDS
        found: dict[str, str] = {}
        while time.monotonic() < deadline and len(found) < len(set(emails)):
            for mail in self.call("GET", "/_dev/inbox.json")["data"]:
                for link in mail["links"]:
                    if mail["to"] in emails and page in link["url"] and link["token"] not in self.used:
                        found.setdefault(mail["to"], link["token"])
            time.sleep(0.02)
        if len(found) < len(set(emails)):
            raise Failed(f"no mail with a link to {page} came for {set(emails) - set(found)}")
        self.used.update(found.values())
        return [found[email] for email in emails]


def join(api: Api, organization: str, owner: str, person: dict, role: str) -> None:
    """Makes a person a member."""
    api.post(f"/organizations/{organization}/members", {"email": person["email"], "role": role}, owner)
    [token] = api.mailed("accept-invite", [person["email"]])
    api.post("/invites/accept", {"token": token}, person["token"])


def subscribe(api: Api, owner: str, price: str) -> None:
    """Subscribes, pays, and waits for Stripe's double to tell."""
    checkout = api.post("/subscriptions/checkout", {"price_id": price}, owner)
    api.click(checkout["checkout_url"], "pay")
    deadline = time.monotonic() + START_SECONDS
    while api.get("/subscriptions/current", owner)["subscription"] is None:
        if time.monotonic() > deadline:
            raise Failed("nobody told of a subscription that was paid")
        time.sleep(0.02)


def several(make) -> list:
    return [make(number) for number in range(SPARES)]


def set_stage(base: str, demo: dict, role: str) -> dict:
    """Who calls, as what, and what there is for them to name: values by the name of the parameter or field, some of them
    for one operation alone."""
    api = Api(base)
    organization = demo["organization_id"]
    owner = api.login(demo)["access_token"]
    admin, member = api.register("admin@example.com"), api.register("member@example.com")
    for member_of, its_role in ((admin, "admin"), (member, "member")):
        join(api, organization, owner, member_of, its_role)
        switched = api.post("/auth/switch", {"organization_id": organization}, member_of["token"])
        member_of["token"] = switched["access_token"]
    keys = "/api-keys"
    credentials = {
        "owner": owner,
        "admin": admin["token"],
        "member": member["token"],
        "key": api.post(keys, {"name": "all", "scopes": ["models", "usage", "login", "record"]}, owner)["secret"],
        "login_key": api.post(keys, {"name": "login", "scopes": ["login"]}, owner)["secret"],
        "nobody": "",
    }
    person = {"admin": admin, "member": member}.get(role, demo)

    spare = several(lambda n: api.post("/organizations", {"name": f"spare {n}"}, owner)["id"])
    # Half of them are being deleted, and can be restored.
    gone, spare = spare[::2], spare[1::2]
    for id in gone:
        api.call("DELETE", f"/api/v1/organizations/{id}", None, owner)
    given = several(lambda n: api.post("/organizations", {"name": f"given away {n}"}, owner)["id"])
    others = several(lambda n: api.register(f"other{n}@example.com"))
    for other, other_organization in zip(others, given):
        join(api, organization, owner, other, "member")
        join(api, other_organization, owner, other, "member")
    invites = several(
        lambda n: api.post(f"/organizations/{organization}/members", {"email": f"invited{n}@example.com", "role": "member"}, owner)["id"]
    )
    own = api.get("/auth/me", others[0]["token"])["organization"]["id"]
    api.post(f"/organizations/{own}/members", {"email": person["email"], "role": "member"}, others[0]["token"])
    [invitation] = api.mailed("accept-invite", [person["email"]])
    spare_keys = several(lambda n: api.post(keys, {"name": f"spare {n}"}, owner)["id"])
    unconfirmed = several(lambda n: api.register(f"unconfirmed{n}@example.com"))
    for other in others[:4]:
        api.post("/auth/password/forgot", {"email": other["email"]})
    names = several(lambda n: f"customer{n}")
    for name in names:
        api.post("/tenant-users", {"username": name, "password": PASSWORD}, owner)
    doubles = {}
    for operation in ENDING:
        double = api.register(f"{operation.replace('_', '-')}@example.com")
        if role in ("admin", "member"):
            join(api, organization, owner, double, role)
            switched = api.post("/auth/switch", {"organization_id": organization}, double["token"])
            double["token"] = switched["access_token"]
        doubles[operation] = double
    refreshed = doubles["refresh"]
    sessions = several(lambda n: api.login(refreshed))
    revoked = several(lambda n: api.login(doubles["revoke_session"]))
    for n in range(3):
        api.post("/chat/completions", {"model": "sandbox/echo", "messages": [{"role": "user", "content": f"{n}"}]}, demo["api_key"])
    plans = {plan["id"]: [price["price_id"] for price in plan["prices"]] for plan in api.get("/subscriptions/plans")["data"]}
    orders = several(lambda n: api.post("/payments/wechat/create", {"package_id": "small"}, owner)["id"])
    # One caller has a subscription to change, the others may buy one.
    if role == "owner":
        subscribe(api, owner, plans["larger"][0])
    listed = api.get("/auth/sessions?limit=100", revoked[0]["access_token"])["data"]
    return {
        "credential": credentials[role],
        # An API key and nobody have no session that could end.
        "doubles": {name: double["token"] for name, double in doubles.items() if role in ("owner", "admin", "member")},
        "values": {
            "id": [organization],
            "DELETE /organizations/{id} id": spare if role == "owner" else [organization],
            "/organizations/{id}/restore id": gone,
            "/organizations/{id}/transfer id": given if role == "owner" else [organization],
            "organization_id": [organization],
            "user_id": [other["id"] for other in others],
            "invite_id": invites,
            "/api-keys/{id} id": spare_keys,
            "/api-keys/{id}/rotate id": spare_keys,
            "/auth/sessions/{id} id": [session["id"] for session in listed if not session["current"]],
            "username": names,
            "model": ["sandbox/echo"],
            "email": [person["email"], "other7@example.com"],
            "password": [person["password"], PASSWORD],
            # There and back.
            "current_password": [PASSWORD, NEXT_PASSWORD],
            "/auth/password/change new_password": [NEXT_PASSWORD, PASSWORD],
            "/auth/password/reset new_password": [PASSWORD],
            "/auth/register email": several(lambda n: f"new{n}@example.com"),
            "POST /organizations/{id}/members email": several(lambda n: f"new{n}@example.com"),
            "POST /tenant-users username": several(lambda n: f"new{n}"),
            # Somebody else signs in: of one person's many sessions the oldest, which is the caller's, would end.
            "/auth/login email": ["other6@example.com", "other7@example.com"],
            "/auth/login password": [PASSWORD],
            "/auth/switch organization_id": [organization if role != "owner" else api.get("/auth/me", doubles["switch_organization"]["token"])["organization"]["id"]],
            "/auth/login api_key": [credentials["login_key"], credentials["key"]],
            "refresh_token": [session["refresh_token"] for session in sessions],
            "/auth/verify-email token": api.mailed("verify-email", [other["email"] for other in unconfirmed]),
            "/auth/password/reset token": api.mailed("reset-password", [other["email"] for other in others[:4]]),
            "/invites/accept token": [invitation],
            "price_id": plans["largest"] + plans["larger"],
            "/billing/packages/{id}/checkout id": ["small", "medium"],
            "/payments/orders/{id} id": orders,
            "package_id": ["small"],
            "resource": ["pages_scanned", "gpu.seconds"],
            "plan": ["larger"],
            "success_url": ["http://localhost:5173/done"],
            "cancel_url": ["http://localhost:5173/"],
            "return_url": ["http://localhost:5173/"],
        },
    }

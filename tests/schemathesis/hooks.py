"""What schemathesis cannot know of the platform: who calls, which ids, tokens and cursors exist, and which refusals no
schema can announce. It loads this file by the name in schemathesis.toml."""

import atexit
import json
import os
import pathlib
import re
import zlib
from collections import Counter, defaultdict
from urllib.parse import quote

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoveragePhaseData, CoverageScenario
from schemathesis.openapi.checks import RejectedPositiveData

STAGE = json.loads(pathlib.Path(os.environ["FUZZ_STAGE"]).read_text())
# The last cursor that each list answered with.
CURSORS: dict[str, str] = {}
# How often each operation answered what.
STATUSES: defaultdict[str, Counter] = defaultdict(Counter)

# Refusals of requests that fit the document, by what the answer says; each with what a schema cannot say.
BEYOND_SCHEMAS = {
    r"This Idempotency-Key was used": "which requests were sent before",
    r"token: was used or replaced": "which tokens were mailed, and are unused",
    r"cursor: not one that this list handed out": "cursors are authenticated",
    r"Send either email, or api_key and username": "some clients send null for what they leave out, so there is no oneOf",
    r"missing field `(email|api_key|username)`": "the same",
    r"assword: is one of the passwords that are tried first": "a list of thousands",
    r"assword: is too much like": "another field's value",
    r"email: must be an e-mail address": "format email takes more than mail servers deliver to",
    r"expires_at: must be ": "the time; and years before 1970",
    r"period: has not begun yet": "the time",
    r"(from|to): .*(day|moment|behind|days)": "the calendar, and the other bound",
    r"current_password: is not the account's": "which password is right",
    r"user_id: is not a member": "who is a member",
    r"there is no such (price|package|plan)": "what is sold",
    r"_url: must (be an https|lead to a page)": "where the product is",
    r"as_of: must be": "the time",
    r"give either package_id": "some clients send null for what they leave out, so there is no oneOf",
    r"scope: takes an access token, and no refresh token": "another field's presence",
    r"metadata: must be \d+ bytes": "the length of a JSON text",
    r"metadata: (at most|a name has|a value has)": "the same, and lengths in a map",
    r"(^|\s)at: must be ": "the time; and years before 1970",
    r"resource: .*(metered by the platform|one more than)": "names that are taken, and how many there are",
    r"model: is not an? ": "which models there are",
    r"is not taken here: the model alone": "members by which routers are told to answer otherwise",
    r"invalid type: floating point": "1.0 is a whole number to JSON Schema and none to the parser",
    r"max(_completion)?_tokens: must be a whole number": "the same, and numbers beyond 64 bits",
    r"number out of range": "numbers beyond 64 bits",
    r"more values than a request may have|nested deeper": "bounds of the whole body",
}

# Requests that do not fit the document and are taken all the same, by what is wrong with them.
TAKEN = {
    r"`(min|max)Length` at /properties/(new_)?password": "characters are counted after normalization, in NFKC",
}


@schemathesis.auth(refresh_interval=None)
class Credential:
    """The caller's, or that of a double where the caller's session would not survive the call."""

    def get(self, case, context):
        return STAGE["doubles"].get(case.operation.definition.raw.get("operationId"), STAGE["credential"])

    def set(self, case, data, context):
        if data:
            case.headers["Authorization"] = f"Bearer {data}"


def known(operation, name: str, turn: int):
    """A value for this parameter or field that means something on the platform, if there is one."""
    if name == "cursor":
        return CURSORS.get(operation.path)
    path = operation.path.removeprefix("/api/v1")
    for key in (f"{operation.method.upper()} {path} {name}", f"{path} {name}", name):
        if values := STAGE["values"].get(key):
            return values[turn % len(values)]
    return None


def is_plain(meta) -> bool:
    """Whether this is the one request of each operation in which nothing is wrong, or at a bound: the same in every run."""
    data = meta.phase.data
    return isinstance(data, CoveragePhaseData) and data.scenario is CoverageScenario.DEFAULT_POSITIVE_TEST


def is_about_tags(meta) -> bool:
    """Whether `If-Match` is what this case has wrong. In the coverage phase the generator finds no value of its pattern, and
    sends "0" beside whatever else the case is about."""
    if isinstance(meta.phase.data, CoveragePhaseData):
        return meta.phase.data.parameter == "If-Match"
    return meta.is_negative_at(ParameterLocation.HEADER)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Puts what exists into three of four requests, where they fit the document: so they reach what lies behind the first
    check. Into the plain one always: that an operation succeeds once must not be left to chance. All values of a request are
    of one index, because some belong together."""
    meta, operation = case.meta, case.operation
    if meta is None:
        return
    # By the case alone, not by how many came before: the same case is the same request when it is tried again. What is not
    # set is an object that is named by its address.
    said = json.dumps((case.path_parameters, case.query, case.body), default=lambda value: type(value).__name__)
    turn = zlib.crc32(said.encode())
    # The generator's favourite key would be used up by the first request.
    key, tag = case.headers.get("Idempotency-Key"), case.headers.get("If-Match")
    if isinstance(key, str) and re.fullmatch("[!-~]{1,200}", key):
        case.headers["Idempotency-Key"] = f"{key}-{turn:x}-{zlib.crc32(repr(tag).encode()):x}"
    if tag is not None and not is_about_tags(meta):
        # What has not been changed is in its first version.
        case.headers["If-Match"] = ("*", '"1"', 'W/"1"', '"1", "2"')[turn // 4 % 4]
    # A subscription that ended could not be resumed or changed any more.
    if operation.definition.raw.get("operationId") == "cancel_subscription" and isinstance(case.body, dict):
        if case.body.get("at_period_end") is False:
            case.body["at_period_end"] = True
    if turn % 4 == 0 and not is_plain(meta):
        return

    def fill(container, location):
        if not isinstance(container, dict) or meta.is_negative_at(location):
            return
        for name, generated in container.items():
            value = known(operation, name, turn // 4)
            if value is not None and isinstance(generated, str):
                # What is put into a path here is not escaped any more.
                container[name] = quote(value, safe="") if location is ParameterLocation.PATH else value

    fill(case.path_parameters, ParameterLocation.PATH)
    fill(case.query, ParameterLocation.QUERY)
    fill(case.body, ParameterLocation.BODY)


@schemathesis.hook
def after_call(context, case, response):
    # Some probes use other methods than the operation's.
    if response.request.method == case.operation.method.upper():
        STATUSES[case.operation.label][response.status_code] += 1
    try:
        answer = response.json()
    except ValueError:
        return
    if isinstance(answer, dict) and isinstance(answer.get("next_cursor"), str):
        CURSORS[case.operation.path] = answer["next_cursor"]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if isinstance(failure, AcceptedNegativeData):
        return not any(re.search(taken, failure.message) for taken in TAKEN)
    if not isinstance(failure, RejectedPositiveData):
        return True
    answer = response.json()
    said = answer["error"]["message"] if "error" in answer else answer["detail"]
    return not any(re.search(beyond, said) for beyond in BEYOND_SCHEMAS)


@atexit.register
def tell_statuses():
    path = pathlib.Path(os.environ["FUZZ_STAGE"]).with_name("statuses.json")
    path.write_text(json.dumps({label: dict(sorted(counts.items())) for label, counts in sorted(STATUSES.items())}))

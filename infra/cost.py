"""What the platform costs a month, from stated prices and assumptions.

    cost.py                          prints the tables of docs/scale.md
    cost.py --write docs/scale.md    puts them there, between the two marks
    cost.py --check docs/scale.md    fails when what stands there is something else

What can be counted in infra/template.yaml is counted there. Needs nothing but Python.
"""

import argparse
import math
import pathlib
import re
import sys
from typing import NamedTuple

CALLS = (0, 10_000, 1_000_000, 100_000_000)
HOURS = 730
SECONDS = HOURS * 3600
NIGHTS = HOURS / 24
MILLION = 1_000_000
KILOBYTES = 1e-6  # in gigabytes

BEGIN, END = "<!-- infra/cost.py writes from here -->", "<!-- to here -->"


class Price(NamedTuple):
    what: str
    dollars: float
    per: int
    unit: str
    free: float
    page: str


PRICES = {
    "api": Price("API Gateway, REST, first 333 million", 3.50, MILLION, "requests", 0, "api-gateway/pricing"),
    "invocation": Price("Lambda", 0.20, MILLION, "invocations", 1 * MILLION, "lambda/pricing"),
    "time": Price("Lambda, arm64", 13.3334, MILLION, "GB-seconds", 400_000, "lambda/pricing"),
    "write": Price("DynamoDB, on demand", 0.625, MILLION, "write units", 0, "dynamodb/pricing"),
    "read": Price("DynamoDB, on demand", 0.125, MILLION, "read units", 0, "dynamodb/pricing"),
    "storage": Price("DynamoDB, data", 0.25, 1, "GB-months", 25, "dynamodb/pricing"),
    "recovery": Price("DynamoDB, point-in-time recovery", 0.20, 1, "GB-months", 0, "dynamodb/pricing"),
    "queue": Price("SQS, standard", 0.40, MILLION, "requests", 1 * MILLION, "sqs/pricing"),
    "log": Price("CloudWatch Logs, taken in", 0.50, 1, "GB", 5, "cloudwatch/pricing"),
    "kept": Price("CloudWatch Logs, kept, compressed", 0.03, 1, "GB-months", 0, "cloudwatch/pricing"),
    "metric": Price("CloudWatch, metrics of one's own", 0.30, 1, "metrics", 10, "cloudwatch/pricing"),
    "alarm": Price("CloudWatch", 0.10, 1, "alarms", 10, "cloudwatch/pricing"),
    "dashboard": Price("CloudWatch", 3.00, 1, "dashboards", 3, "cloudwatch/pricing"),
    "trace": Price("X-Ray", 5.00, MILLION, "traces", 100_000, "xray/pricing"),
    "secret": Price("Secrets Manager", 0.40, 1, "secrets", 0, "secrets-manager/pricing"),
    "fetch": Price("Secrets Manager", 0.05, 10_000, "requests", 0, "secrets-manager/pricing"),
    "key": Price("KMS, AWS's own keys", 0.03, 10_000, "requests", 20_000, "kms/pricing"),
    "schedule": Price("EventBridge Scheduler", 1.00, MILLION, "invocations", 14 * MILLION, "eventbridge/pricing"),
    "transfer": Price("Data out to the internet, first 10 TB", 0.09, 1, "GB", 100, "ec2/pricing/on-demand"),
}

# One call is one chat completion. docs/scale.md gives the reasons.
CALLS_PER_TENANT = 10_000
LEAST_TENANTS = 10
VENDOR_SECONDS = 4
WRITE_UNITS = 6
READ_UNITS = 0.5
ANSWER_KB = 40
PROMPT_KB = 8
RECORD_KB = 0.5  # 400 bytes, and DynamoDB's 100
MONTHS_KEPT = 12
CHAT_LOG_KB = 0.8
OTHER_LOG_KB = 0.45
LOG_MONTHS, LOG_COMPRESSION = 3, 0.15
# Calls that find no environment of the function, and so read two secrets.
COLD = {0: 0, 10_000: 0.5, 1_000_000: 0.05, 100_000_000: 0.001}
# What API Gateway counts for each method, and methods that are called in every hour.
METHOD_METRICS, BUSY_METHODS = 5, 1
# Lambda asks an idle queue with five pollers, each for twenty seconds.
POLLS = HOURS * 3600 / 20 * 5
SHARDS = 16
PAGE = 8  # tenants of a page of the register
SWEEP_SECONDS, SWEEP_PAGE_SECONDS, SWEEP_TRACES = 0.1, 0.02, 3
# A thousand records looked at by the reconciler, which reads last month and this one, half of it on average.
RECONCILE_SECONDS, RECONCILED_MONTHS = 0.15, 1.5
AGGREGATOR_SECONDS, AGGREGATOR_SECONDS_PER_CALL, WINDOW, POLLERS = 0.05, 0.03, 5, 5


class Template(NamedTuple):
    alarms: int
    secrets: int
    dashboards: int
    queues: int
    sweeps: float
    chat_gb: float
    queues_gb: float


def read_template() -> Template:
    text = pathlib.Path(__file__).with_name("template.yaml").read_text(encoding="utf-8")
    minutes = int(re.search(r"ScheduleExpression: rate\((\d+) minutes\)\n +Input: '\{\"job\":\"sweep\"\}'", text)[1])

    def gigabytes(function: str) -> float:
        return int(re.search(rf"\n  {function}:\n(?:    .*\n)*?      MemorySize: (\d+)\n", text)[1]) / 1024

    return Template(
        alarms=text.count("Type: AWS::CloudWatch::Alarm\n"),
        secrets=text.count("Type: AWS::SecretsManager::Secret\n"),
        dashboards=text.count("Type: AWS::CloudWatch::Dashboard\n"),
        queues=text.count("          Type: SQS\n"),
        sweeps=HOURS * 60 / minutes,
        chat_gb=gigabytes("ChatFunction"),
        queues_gb=max(gigabytes("UsageAggregatorFunction"), gigabytes("QuotaResetFunction")),
    )


# ── The bill ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def amounts(calls: int, template: Template) -> dict[str, dict[str, float]]:
    """What is used, by line of the bill and price."""
    tenants = max(calls / CALLS_PER_TENANT, LEAST_TENANTS if calls else 1)
    rate = calls / SECONDS
    # An event opens a window, and those that come to the same poller within it join.
    batch = 1 + rate * WINDOW / POLLERS
    batches = calls / batch
    pages = max(tenants / PAGE, SHARDS)
    sweeping = template.sweeps * (1 + SHARDS)
    looked_at = calls * RECONCILED_MONTHS * NIGHTS
    data = calls * RECORD_KB * KILOBYTES * MONTHS_KEPT
    log = (calls * CHAT_LOG_KB + (batches + sweeping) * OTHER_LOG_KB) * KILOBYTES
    gb = template.queues_gb
    return {
        "API Gateway": {"api": calls},
        "Lambda: waiting for vendors": {"invocation": calls, "time": calls * VENDOR_SECONDS * template.chat_gb},
        "Lambda: usage events": {
            "invocation": batches,
            "time": (batches * AGGREGATOR_SECONDS + calls * AGGREGATOR_SECONDS_PER_CALL) * gb,
        },
        "Lambda: sweeps, reconciliation": {
            "invocation": sweeping,
            "time": (
                sweeping * SWEEP_SECONDS
                + template.sweeps * pages * SWEEP_PAGE_SECONDS
                + looked_at / 1000 * RECONCILE_SECONDS
            )
            * gb,
        },
        "DynamoDB: writes": {"write": calls * WRITE_UNITS},
        "DynamoDB: reads of calls": {"read": calls * READ_UNITS},
        "DynamoDB: reads of sweeps, reconciliation": {
            "read": template.sweeps * (tenants + pages) * 0.5 + looked_at * (RECORD_KB - 0.1) / 4 * 0.5
        },
        "DynamoDB: a year's records": {"storage": data, "recovery": data},
        "SQS: usage events": {"queue": calls * (1 + 2 / min(10, batch))},
        "SQS: sweeps, and asking idle queues": {
            # A message is sent, received and deleted.
            "queue": POLLS * template.queues + template.sweeps * SHARDS * 3
        },
        "CloudWatch: logs": {"log": log, "kept": log * LOG_MONTHS * LOG_COMPRESSION},
        "CloudWatch: metrics of each method": {"metric": METHOD_METRICS * BUSY_METHODS if calls else 0},
        "CloudWatch: alarms": {"alarm": template.alarms},
        "CloudWatch: dashboard": {"dashboard": template.dashboards},
        "X-Ray": {"trace": traces(calls) + traces(batches) + template.sweeps * SWEEP_TRACES},
        "Secrets Manager": {"secret": template.secrets, "fetch": calls * COLD[calls] * 2},
        # DynamoDB asks for its key every five minutes for each role that is at work.
        "KMS, Scheduler": {"key": HOURS * 12 * (3 if calls else 1), "schedule": template.sweeps + NIGHTS + 1},
        "Data out": {"transfer": calls * (ANSWER_KB + PROMPT_KB) * KILOBYTES},
    }


def traces(requests: float) -> float:
    """The first of each second, and a twentieth of the others; requests come at random."""
    first = SECONDS * (1 - math.exp(-requests / SECONDS))
    return first + (requests - first) / 20


def dollars(price: str, amount: float) -> float:
    return amount * PRICES[price].dollars / PRICES[price].per


def line_dollars(used: dict[str, float]) -> float:
    return sum(dollars(price, amount) for price, amount in used.items())


def with_free_tier(bill: dict[str, dict[str, float]]) -> float:
    """Of the whole bill: an account has each allowance once."""
    totals: dict[str, float] = {}
    for used in bill.values():
        for price, amount in used.items():
            totals[price] = totals.get(price, 0) + amount
    return sum(dollars(price, max(0, amount - PRICES[price].free)) for price, amount in totals.items())


# ── The tables ───────────────────────────────────────────────────────────────────────────────────────────────────────


def tables() -> str:
    template = read_template()
    bills = [amounts(calls, template) for calls in CALLS]
    lines = ["| dollars a month, with calls a month: | " + " | ".join(f"{calls:,}" for calls in CALLS) + " |"]
    lines.append("|---|" + "--:|" * len(CALLS))
    for name in bills[0]:
        lines.append(f"| {name} | " + " | ".join(shown(line_dollars(bill[name])) for bill in bills) + " |")
    totals = [sum(map(line_dollars, bill.values())) for bill in bills]
    lines.append("| **all, at list price** | " + " | ".join(f"**{shown(total)}**" for total in totals) + " |")
    free = [with_free_tier(bill) for bill in bills]
    lines.append("| **all, less what is always free** | " + " | ".join(f"**{shown(total)}**" for total in free) + " |")
    per_call = [f"{total / calls * 1000:.3f}" if calls else "–" for total, calls in zip(totals, CALLS)]
    lines.append("| a thousand calls, at list price | " + " | ".join(per_call) + " |")
    lines += ["", "| price | dollars | for | free each month |", "|---|--:|---|--:|"]
    for price in PRICES.values():
        page = f"[{price.what}](https://aws.amazon.com/{price.page}/)"
        unit = f"{price.per:,} {price.unit}" if price.per > 1 else price.unit.removesuffix("s")
        free = f"{price.free:,}" if price.free else "–"
        lines.append(f"| {page} | {price.dollars:g} | {unit} | {free} |")
    return "\n".join(lines)


def shown(amount: float) -> str:
    if amount == 0:
        return "0"
    if amount < 0.005:
        return "< 0.01"
    return f"{amount:,.2f}" if amount < 100 else f"{amount:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="What the platform costs a month.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", type=pathlib.Path, metavar="FILE")
    what.add_argument("--check", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    file = arguments.write or arguments.check
    if file is None:
        print(tables())
        return
    text = file.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"{file} has not the marks {BEGIN} and {END}")
    wanted = f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"
    if arguments.write:
        file.write_text(wanted, encoding="utf-8")
    elif text != wanted:
        sys.exit(f"the costs in {file} are not those of infra/cost.py; run `python3 infra/cost.py --write {file}`")


if __name__ == "__main__":
    main()

"""Copies a table's items into a file, and back.

    table.py export  <stack> FILE                   every item into FILE: gzipped JSON lines of DynamoDB's JSON
    table.py restore <stack> FILE [--into-filled]   every item of FILE into the table, which has to be empty
    table.py count   <stack>

`--table NAME` instead of a stack's name takes any table. Needs boto3, which comes with the SAM CLI. A page of items is
in memory at a time, so the table may be of any size. docs/operations.md says when to use it, and what to do afterwards.
"""

import argparse
import base64
import collections
import concurrent.futures
import gzip
import itertools
import json
import os
import pathlib
import random
import sys
import time
import zlib

import boto3
from botocore.config import Config

# What BatchWriteItem takes.
BATCH = 25
# Batches under way at the same time.
AT_ONCE = 8
# How often in a row a batch may come back without one item written; waits between them grow to LONGEST_WAIT seconds.
TRIES = 12
LONGEST_WAIT = 20


class Refused(Exception):
    """What the operator reads."""


def main() -> None:
    arguments = parse()
    table = arguments.table or table_of(arguments.stack)
    dynamodb = boto3.client(
        "dynamodb", config=Config(retries={"mode": "standard", "max_attempts": 10}, max_pool_connections=AT_ONCE)
    )
    if arguments.what == "export":
        export(dynamodb, table, arguments.file)
    elif arguments.what == "restore":
        restore(dynamodb, table, arguments.file, arguments.into_filled)
    else:
        print(count(dynamodb, table))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Copies a table's items into a file, and back.")
    commands = parser.add_subparsers(dest="what", required=True)
    for what in ("export", "restore", "count"):
        command = commands.add_parser(what)
        which = command.add_mutually_exclusive_group(required=True)
        which.add_argument("stack", nargs="?", help="the stack whose table it is")
        which.add_argument("--table", help="the table's own name")
        if what != "count":
            command.add_argument("file", type=pathlib.Path, metavar="FILE")
        if what == "restore":
            command.add_argument(
                "--into-filled",
                action="store_true",
                help="write into a table that has items: those with the same key are replaced, the others stay",
            )
    return parser.parse_args()


def table_of(stack: str) -> str:
    outputs = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
    return next(output["OutputValue"] for output in outputs if output["OutputKey"] == "TableName")


# ── Out ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def export(dynamodb, table: str, file: pathlib.Path) -> None:
    if file.exists():
        raise Refused(f"{file} exists; name another file")
    # It has its name only when it is whole. Nobody else may read it: hashes of passwords are in it.
    partial = file.with_name(f"{file.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as raw:
        with gzip.open(raw, "wt", encoding="utf-8") as lines:
            items = 0
            for page in scan(dynamodb, table):
                for item in page["Items"]:
                    lines.write(to_line(item))
                items += page["Count"]
        raw.flush()
        os.fsync(raw.fileno())
    partial.rename(file)
    print(f"exported {items} items of {table} into {file}")


def count(dynamodb, table: str) -> int:
    """By reading everything: what DescribeTable says is hours old."""
    return sum(page["Count"] for page in scan(dynamodb, table, Select="COUNT"))


def scan(dynamodb, table: str, **more):
    return dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True, **more)


# ── In ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def restore(dynamodb, table: str, file: pathlib.Path, into_filled: bool) -> None:
    # Read to its end before anything is written, so that a damaged file changes nothing.
    expected = sum(1 for _ in read(file))
    if not into_filled and dynamodb.scan(TableName=table, ConsistentRead=True, Limit=1)["Items"]:
        raise Refused(f"{table} has items already. --into-filled replaces those with the same key and keeps the others")
    items = read(file)
    written, running = 0, collections.deque()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        while batch := list(itertools.islice(items, BATCH)):
            running.append(pool.submit(write, dynamodb, table, batch))
            # Nothing is read from the file faster than it is written.
            if len(running) > AT_ONCE:
                written += running.popleft().result()
        written += sum(done.result() for done in running)
    if written != expected:
        raise Refused(f"{written} items were written, and {file} has {expected}: it was changed meanwhile")
    print(f"restored {written} items of {file} into {table}")


def read(file: pathlib.Path):
    number = 0
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield from_line(line)
    except (OSError, EOFError, zlib.error, ValueError, AttributeError, TypeError) as error:
        raise Refused(f"{file} cannot be read beyond line {number}: {error}") from error


def write(dynamodb, table: str, batch: list[dict]) -> int:
    """Writes a batch whole, however often DynamoDB hands a part of it back."""
    left = [{"PutRequest": {"Item": item}} for item in batch]
    tries = 0
    while left:
        back = dynamodb.batch_write_item(RequestItems={table: left})["UnprocessedItems"].get(table, [])
        if back:
            tries = tries + 1 if len(back) == len(left) else 1
            if tries > TRIES:
                raise Refused(f"{table} takes nothing any more. Run it again with --into-filled to go on")
            time.sleep(random.uniform(0, min(LONGEST_WAIT, 0.1 * 2**tries)))
        left = back
    return len(batch)


# ── Lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_line(item: dict) -> str:
    """The same item is the same line, always."""
    return json.dumps(attributes(item, to_text), ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n"


def from_line(line: str) -> dict:
    return attributes(json.loads(line), to_bytes)


def attributes(item: dict, binary) -> dict:
    return {name: value(typed, binary) for name, typed in item.items()}


def value(typed: dict, binary) -> dict:
    """A value of DynamoDB's JSON, bytes changed by `binary`, sets in order. The file has base64 for bytes."""
    ((kind, content),) = typed.items()
    if kind == "M":
        content = attributes(content, binary)
    elif kind == "L":
        content = [value(element, binary) for element in content]
    elif kind == "B":
        content = binary(content)
    elif kind == "BS":
        content = sorted(binary(element) for element in content)
    elif kind in ("SS", "NS"):
        content = sorted(content)
    return {kind: content}


def to_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def to_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        sys.exit(str(refused))

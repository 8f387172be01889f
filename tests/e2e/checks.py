"""What journeys say, and how they compare."""

import time

from platform_under_test import Failed


def step(name: str, work):
    started = time.monotonic()
    made = work()
    say(f"{name}: ok, {time.monotonic() - started:.1f} s")
    return made


def say(what: str) -> None:
    print(f"   {what}", flush=True)


def same(found, wanted) -> None:
    true(found == wanted, f"found {found!r}, wanted {wanted!r}")


def true(fact, otherwise: str) -> None:
    if not fact:
        raise Failed(otherwise)

"""`cargo xtask fuzz-api`: schemathesis over the whole API document, by every kind of caller.

Each caller has a platform of its own, because requests change what is there. What is generated depends on the seed and on
nothing else; ids and tokens differ from run to run.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import time

from stage import HERE, ROLES, Failed, platform, set_stage


def main() -> int:
    arguments = parse()
    roles = [arguments.role] if arguments.role else ROLES
    started = time.monotonic()
    statuses: dict[str, set[int]] = {}
    failed = []
    with concurrent.futures.ThreadPoolExecutor(min(len(roles), max(os.cpu_count() or 1, 1))) as pool:
        runs = {role: pool.submit(run, arguments, role) for role in roles}
        for role, future in runs.items():
            try:
                problems, answered = future.result()
            except Failed as error:
                problems, answered = str(error), {}
            if problems:
                failed.append(role)
                print(f"\n── as {role}\n{problems}\n{hint(arguments, role)}", flush=True)
            for label, counts in answered.items():
                statuses.setdefault(label, set()).update(map(int, counts))
    requests = sum(TOTALS.values())
    print(f"{requests} requests to {len(statuses)} operations as {', '.join(roles)} in {time.monotonic() - started:.0f} s")
    if not failed and not arguments.role and not arguments.operation:
        failed = unreached(statuses)
    return 1 if failed else 0


# Requests by role.
TOTALS: dict[str, int] = {}


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="the program of host/")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where logs and reports go")
    parser.add_argument("--examples", type=int, default=20, help="generated requests per operation and caller, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--role", choices=ROLES, help="this caller alone")
    parser.add_argument("--operation", help="this operation alone, as in `GET /api/v1/models`")
    return parser.parse_args()


def run(arguments, role: str) -> tuple[str, dict]:
    """What is wrong, as text that is empty when nothing is, and how often each operation answered what."""
    folder = arguments.folder / role
    with platform(arguments.binary, folder) as base:
        demo = json.loads((folder / "dev.json").read_text())
        stage = folder / "stage.json"
        stage.write_text(json.dumps(set_stage(base, demo, role)))
        program = pathlib.Path(sys.executable).with_name("schemathesis")
        command = [program, "--config-file", HERE / "schemathesis.toml", "run", f"{base}/api/v1/openapi.json"]
        command += ["--url", base, "--no-color", "--seed", str(arguments.seed), "--max-examples", str(arguments.examples)]
        # Only a vendor can sign what these take; tests/tests/suite/webhooks.rs has vendors.
        command += ["--exclude-path-regex", "^/webhooks/"]
        if arguments.operation:
            command += ["--include-name", arguments.operation]
        environment = os.environ | {
            "FUZZ_STAGE": str(stage),
            "PYTHONPATH": str(HERE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SCHEMATHESIS_HOOKS": "hooks",
        }
        ended = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    report = ended.stdout + ended.stderr
    (folder / "report.txt").write_text(report)
    log = (folder / "platform.log").read_text()
    problems = ""
    if ended.returncode != 0:
        # Of the report, what comes after the progress of the phases.
        found = re.search(r"^=+ (ERRORS|FAILURES) =+$", report, re.MULTILINE)
        problems = report[found.start() :] if found else report
    if panics := [line for line in log.splitlines() if "panicked" in line]:
        problems += "\nThe platform panicked:\n" + "\n".join(panics[:5])
    statuses = json.loads((folder / "statuses.json").read_text())
    TOTALS[role] = sum(sum(counts.values()) for counts in statuses.values())
    return problems, statuses


def hint(arguments, role: str) -> str:
    return (
        f"Again, for this caller and one operation (seed {arguments.seed}, the platform is a new one each time):\n"
        f"  cargo xtask fuzz-api --role {role} --seed {arguments.seed} --examples {arguments.examples}"
        " --operation '<METHOD /path>'\n"
        f"The whole report is {arguments.folder / role / 'report.txt'}, the platform's log beside it."
    )


# What no platform of this stage can do, and why.
UNREACHABLE = {"POST /api/v1/embeddings": "the offline model has none"}


def unreached(statuses: dict[str, set[int]]) -> list[str]:
    """Operations that nobody had a success of: there nothing but refusals was checked."""
    reached = {label for label, seen in statuses.items() if any(200 <= status < 300 for status in seen)}
    missing = [label for label in statuses if label not in reached and label not in UNREACHABLE]
    for label in missing:
        print(f"{label} never succeeded, whoever asked: give stage.py and hooks.py what it takes")
    return missing


if __name__ == "__main__":
    sys.exit(main())

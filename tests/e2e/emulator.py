"""Keeps ministack running until standard input ends, which it does when whoever started this is gone, however it went.

Prints one line, the emulator's address, once it answers. Its log, with that of the functions, is <folder>/ministack.log.
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

# What the template uses. The others would listen on ports of their own.
SERVICES = "apigateway,cloudformation,cloudwatch,dynamodb,events,iam,kms,lambda,logs,s3,scheduler,secretsmanager,ses,sns,sqs,sts,xray"
START_SECONDS = 60
STOP_SECONDS = 10


def main(folder: pathlib.Path) -> int:
    # Code of earlier runs, unpacked.
    temporary = folder / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with open(folder / "ministack.log", "wb") as log:
        # Another process may take the port between finding and using it.
        for _ in range(3):
            port = free_port()
            process = start(port, temporary, log)
            try:
                if answers(process, port):
                    print(f"http://127.0.0.1:{port}", flush=True)
                    wait_for_end(process)
                    return 0
            finally:
                stop(process)
    return 1


def start(port: int, temporary: pathlib.Path, log) -> subprocess.Popen:
    address = f"http://127.0.0.1:{port}"
    # Functions inherit this environment, so it is made, not passed on.
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "AWS_ENDPOINT_URL": address,
        "LAMBDA_EXECUTOR": "local",
        "SERVICES": SERVICES,
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        # Roles count: a function that does what its role does not allow is refused.
        "AUTH": "true",
    }
    program = pathlib.Path(sys.executable).with_name("ministack")
    # A session of its own: what it starts is stopped with it.
    return subprocess.Popen(
        [program], cwd=temporary, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def answers(process: subprocess.Popen, port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_ministack/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False


def wait_for_end(process: subprocess.Popen) -> None:
    """Of standard input, or of ministack."""
    ended = threading.Event()

    def wait(what) -> None:
        what()
        ended.set()

    for what in (sys.stdin.buffer.read, process.wait):
        threading.Thread(target=wait, args=(what,), daemon=True).start()
    ended.wait()


def stop(process: subprocess.Popen) -> None:
    for how, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    # Its own end is orderly too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    code = main(pathlib.Path(sys.argv[1]))
    # Not sys.exit: a thread may still be reading standard input.
    os._exit(code)

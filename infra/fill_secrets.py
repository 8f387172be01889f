"""Fills in the secrets of a stack where they are empty; changes none that has a value.

Run by `cargo xtask deploy`, with the stack's name. With `rotate` behind it, as `cargo xtask rotate` runs it, it takes the
key of access tokens one step further; docs/operations.md says what to do between the steps. Needs boto3 and cryptography,
which come with the SAM CLI.
"""

import base64
import hashlib
import json
import secrets
import sys
import time

import boto3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


# As long as an access token is good for, with something to spare: no key goes sooner than its last token.
WAIT_SECONDS = 15 * 60


def main(stack: str) -> None:
    identity, tokens, platform, vendors, payments = secrets_of(
        stack, "Identity", "Tokens", "Platform", "Vendors", "Payments"
    )
    manager = boto3.client("secretsmanager")

    # The two halves of the key belong together. The public half is written first: a run that is cut off in between leaves
    # a pair that the next run replaces, and never a signing key whose tokens nobody can check.
    if "JWT_SIGNING_KEY" not in read(manager, identity):
        signing_key, jwks = new_key()
        write(manager, tokens, {"JWT_JWKS": jwks})
        write(manager, identity, {"JWT_SIGNING_KEY": signing_key})
        print("made the key of access tokens")
    else:
        print("the key of access tokens is there")
    if "SECRET_KEY" not in read(manager, platform):
        write(manager, platform, {"SECRET_KEY": base64.b64encode(secrets.token_bytes(32)).decode()})
        print("made the key of refresh tokens and cursors")
    else:
        print("the key of refresh tokens and cursors is there")
    if not read(manager, vendors):
        # An empty object: a secret without a value cannot be read, and the gateway reads it.
        write(manager, vendors, {})
        print(f"no vendor has a key yet; put them into {vendors}, as docs/operations.md says")
    if not read(manager, payments):
        write(manager, payments, {})
        print(f"nobody can pay yet; put the payment vendors' keys into {payments}, as docs/operations.md says")


def secrets_of(stack: str, *names: str) -> list[str]:
    cloudformation = boto3.client("cloudformation")
    outputs = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
    ids = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    return [ids[f"{name}SecretId"] for name in names]


def rotate(stack: str, at_once: bool) -> None:
    """One step: a standby key is published, then it signs, then the key before it is revoked.

    Which step is next is told by the secrets alone, so a run that was cut off is made good by the next. A public key is
    always published before its private half is written: nothing ever signs that nobody can check.
    """
    identity, tokens = secrets_of(stack, "Identity", "Tokens")
    manager = boto3.client("secretsmanager")
    private, public = read(manager, identity), read(manager, tokens)
    if "JWT_SIGNING_KEY" not in private:
        sys.exit("there is no key yet; `cargo xtask deploy` makes it")
    left = float(private.get("JWT_ROTATED_AT", 0)) + WAIT_SECONDS - time.time()
    if left > 0 and not at_once:
        sys.exit(f"the last step was a moment ago; the next one can be taken in {left / 60:.0f} minutes")

    published = json.loads(public["JWT_JWKS"])["keys"]
    current = kid(private["JWT_SIGNING_KEY"])
    standby = kid(private["JWT_STANDBY_KEY"]) if "JWT_STANDBY_KEY" in private else None
    kept = [jwk for jwk in published if jwk["kid"] in (current, standby)]
    if len(kept) < len(published):
        public["JWT_JWKS"] = json.dumps({"keys": kept})
        done = "the previous key is revoked: its tokens are refused. This was the last step."
    elif standby:
        private["JWT_SIGNING_KEY"] = private.pop("JWT_STANDBY_KEY")
        done = f"the standby key {standby} signs from here on; {current} is the previous key, and still good."
    else:
        private["JWT_STANDBY_KEY"], jwks = new_key()
        public["JWT_JWKS"] = json.dumps({"keys": kept + json.loads(jwks)["keys"]})
        done = f"the standby key {kid(private['JWT_STANDBY_KEY'])} is published; {current} signs."
    private["JWT_ROTATED_AT"] = f"{time.time():.0f}"
    write(manager, tokens, public)
    write(manager, identity, private)
    print(done)
    print("now have new environments made and wait, as docs/operations.md says")


def read(manager, secret: str) -> dict[str, str]:
    try:
        return json.loads(manager.get_secret_value(SecretId=secret)["SecretString"] or "{}")
    except manager.exceptions.ResourceNotFoundException:
        # Made by the stack, without a value so far.
        return {}


def write(manager, secret: str, variables: dict[str, str]) -> None:
    manager.put_secret_value(SecretId=secret, SecretString=json.dumps(variables))


def new_key() -> tuple[str, str]:
    """A P-256 key: PKCS #8 in base64, and its public half as a JWKS. `web::auth` names keys the same way."""
    key = ec.generate_private_key(ec.SECP256R1())
    pkcs8 = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    point = point_of(key)
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "alg": "ES256",
        "use": "sig",
        "kid": kid_of(point),
        "x": base64url(point[1:33]),
        "y": base64url(point[33:65]),
    }
    return base64.b64encode(pkcs8).decode(), json.dumps({"keys": [jwk]})


def point_of(key) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )


def kid_of(point: bytes) -> str:
    return base64url(hashlib.sha256(point).digest()[:12])


def kid(pkcs8: str) -> str:
    return kid_of(point_of(serialization.load_der_private_key(base64.b64decode(pkcs8), None)))


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


if __name__ == "__main__":
    match sys.argv[1:]:
        case [stack]:
            main(stack)
        case [stack, "rotate", *now]:
            rotate(stack, now == ["now"])
        case _:
            sys.exit("fill_secrets.py <stack> [rotate [now]]")

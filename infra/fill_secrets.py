"""Fills in the secrets of a stack where they are empty; changes none that has a value.

Run by `cargo xtask deploy`, with the stack's name. Needs boto3 and cryptography, which come with the SAM CLI.
"""

import base64
import hashlib
import json
import secrets
import sys

import boto3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def main(stack: str) -> None:
    cloudformation = boto3.client("cloudformation")
    outputs = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
    ids = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    names = ("Identity", "Tokens", "Platform", "Vendors")
    identity, tokens, platform, vendors = (ids[f"{name}SecretId"] for name in names)
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
    point = key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "alg": "ES256",
        "use": "sig",
        "kid": base64url(hashlib.sha256(point).digest()[:12]),
        "x": base64url(point[1:33]),
        "y": base64url(point[33:65]),
    }
    return base64.b64encode(pkcs8).decode(), json.dumps({"keys": [jwk]})


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


if __name__ == "__main__":
    main(sys.argv[1])

"""Clients of AWS that wait when they are throttled, and whose errors are told in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shoal_gateway.aws.errors import AwsError

# Of one call, the first try included. In adaptive mode the client also slows down by itself as
# long as AWS throttles it.
ATTEMPTS = 6
# Seconds. A call that hangs is no better than one that failed.
CONNECT, READ = 5.0, 60.0

_EXPIRED = "the credentials have expired; get new ones (`aws sso login`, or a new session token)"
_UNKNOWN = "AWS does not know these credentials; look at AWS_ACCESS_KEY_ID or the profile in use"
_DENIED = "access denied; the policy of the role or user in use has to allow it"
_THROTTLED = f"AWS throttles this account, and still did at the last of {ATTEMPTS} tries"

# AWS's services name the same things differently.
_WORDS = {
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "AuthFailure": _UNKNOWN,
    "InvalidAccessKeyId": _UNKNOWN,
    "InvalidClientTokenId": _UNKNOWN,
    "UnrecognizedClientException": _UNKNOWN,
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "RequestTimeTooSkewed": "this host's clock is wrong; AWS refuses signatures of another time",
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "UnauthorizedOperation": _DENIED,
    # HEAD has no body that could say more. S3 answers so, too, for an object that is not there
    # when the caller may not list the bucket.
    "403": f"{_DENIED} (for S3 s3:ListBucket too, else nothing can be told from a missing object)",
    "404": "there is no such thing",
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such object",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION to it",
    "Throttling": _THROTTLED,
    "ThrottlingException": _THROTTLED,
    "RequestLimitExceeded": _THROTTLED,
    "TooManyRequestsException": _THROTTLED,
    "SlowDown": _THROTTLED,
}


def client(service: str, *, region: str | None = None, connections: int = 10) -> Any:
    """A boto3 client; safe for several threads.

    Where to and as whom is found as everywhere with AWS: environment, profile, the instance's role;
    ``AWS_ENDPOINT_URL`` leads elsewhere.

    Args:
        service: AWS's name: "s3", "ec2".
        region: None: the environment's or the profile's.
        connections: Kept open at once; as many as threads call.

    Raises:
        AwsError: boto3 is not installed, or no region is known.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("boto3", "botocore"):
            raise
        raise AwsError(
            f"AWS is spoken to by boto3, which is not installed here: {error.name} is missing;"
            " pip install 'shoal[aws]'"
        ) from error
    config = Config(
        retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT,
        read_timeout=READ,
        max_pool_connections=connections,
        user_agent_appid="shoal",
    )
    try:
        session = boto3.Session()
        # boto3 itself does not read AWS_REGION, which AWS's other tools do.
        where = region or session.region_name or os.environ.get("AWS_REGION")
        return session.client(service, region_name=where, config=config)
    except (BotoCoreError, ValueError) as error:
        raise AwsError(f"no client of {service} can be made: {said(error)}") from error


@contextmanager
def spoken(what: str) -> Iterator[None]:
    """Turns boto3's errors within into ours.

    Args:
        what: Begins the message: "the instances of fleet 'blue' can't be listed".

    Raises:
        AwsError: a call failed for good.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise AwsError(f"{what}: {said(error)}", code_of(error)) from error


def code_of(error: Exception) -> str:
    """AWS's name of an error; empty when the error is not one that AWS answered."""
    answer: dict[str, Any] = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


def said(error: Exception) -> str:
    """An error of boto3 in words."""
    code = code_of(error)
    if code:
        answer: dict[str, Any] = getattr(error, "response", {})
        message = str(answer["Error"].get("Message", ""))
        words = _WORDS.get(code)
        if words is None:
            return f"{message or 'refused'} ({code})"
        # Of what was denied AWS says more than we could.
        return f"{words} ({code}: {message})" if message not in ("", code) else f"{words} ({code})"
    match type(error).__name__:
        case "NoCredentialsError" | "PartialCredentialsError" | "CredentialRetrievalError":
            return (
                f"no credentials ({error}); set AWS_PROFILE or AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY, or give the instance a role"
            )
        case "NoRegionError":
            return "no region is known; set AWS_DEFAULT_REGION"
        case _:
            return str(error)

"""Where a store's keys come from, and that no message repeats them."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|CREDENTIAL|ACCESS_KEY|ACCOUNT_KEY|SAS|SERVICE_ACCOUNT_KEY")
"""Parts of the names of environment variables whose values are never repeated."""


def without_secrets(error: object) -> str:
    """An error's text in one line: no request's signature, no key of a URL, no value of a secret variable."""
    text = str(error).split("\n\nDebug source")[0]
    text = re.sub(r"<\?xml.*?<Code>(\w+)</Code>.*", r"\1", text, flags=re.DOTALL)  # the rest repeats the request
    text = re.sub(r"(\w+://)[^/@\s]*@", r"\1", text)
    text = re.sub(r"(\w+://[^\s?]*)\?[^\s\"')]*", r"\1", text)
    for name, value in os.environ.items():
        if _SECRET.search(name.upper()) and len(value) >= 8:
            text = text.replace(value, f"${name}")
    return " ".join(text.split())


_REMEDIES = {
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "/latest/api/token": "no keys in the environment or in ~/.aws/credentials, and this machine has no role: set "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "NoSuchBucket": "there is no such bucket: look for a typing error, or create it",
    "ContainerNotFound": "there is no such container: look for a typing error, or create it",
    "403 Forbidden": "these keys may not do that; to keys that may not list (s3:ListBucket) S3 says so of what is not "
    "there, too",
}
"""Part of what a store or its client says -> what to do."""


def remedy(error: object, root: str = "") -> str:
    """What to do about a store's error, to be put behind it; empty where nothing is known.

    Args:
        error: what the store or its client said.
        root: of the store; a web server is shown no keys.
    """
    text = "" if root.startswith("http") else str(error)
    return next((f" ({what})" for part, what in _REMEDIES.items() if part in text), "")


def plain_http() -> bool:
    """Whether the user lets a store of their own answer without encryption; options given here would overrule that."""
    names = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP")
    return any(os.environ.get(name, "").lower() in ("true", "1") for name in names)


def aws_provider(root: str) -> Callable | None:
    """Who gives the keys of an S3 store where the environment does not: the shared file, which may change, or boto3."""
    if not root.startswith("s3") or "AWS_ACCESS_KEY_ID" in os.environ:
        return None  # obstore itself reads the environment, and renews what a role, a container or a machine gives
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", Path.home() / ".aws" / "credentials"))
    profile = os.environ.get("AWS_PROFILE", "default")
    if path.is_file() and (known := SharedKeys(path, profile)).found():
        return known
    if "AWS_PROFILE" in os.environ:  # single sign-on and other roles of the configuration file
        with contextlib.suppress(ModuleNotFoundError):
            from obstore.auth.boto3 import Boto3CredentialProvider

            return Boto3CredentialProvider()
    return None


class SharedKeys:
    """The keys of AWS's shared credentials file, read anew every minute, since whoever renews them writes there."""

    LASTS = datetime.timedelta(minutes=1)
    LOOKS = 5

    def __init__(self, path: Path, profile: str) -> None:
        self.path, self.profile = path, profile

    def found(self) -> dict[str, str]:
        """The profile's entries; none if the file has no keys for it."""
        import configparser

        for _ in range(self.LOOKS):
            file = configparser.RawConfigParser()
            with contextlib.suppress(configparser.Error):
                file.read(self.path, encoding="utf-8")
            entries = dict(file[self.profile]) if file.has_section(self.profile) else {}
            if {"aws_access_key_id", "aws_secret_access_key"} <= entries.keys():
                return entries
            time.sleep(0.1)  # whoever renews them may be in the middle of writing
        return {}

    def __call__(self) -> dict[str, Any]:
        """What obstore wants of a provider."""
        found = self.found()
        if not found:
            raise PermissionError(f"{self.path} holds no keys for the profile {self.profile!r} any more")
        return {
            "access_key_id": found["aws_access_key_id"],
            "secret_access_key": found["aws_secret_access_key"],
            "token": found.get("aws_session_token"),
            "expires_at": datetime.datetime.now(datetime.UTC) + self.LASTS,
        }

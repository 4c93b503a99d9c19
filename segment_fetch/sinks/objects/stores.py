"""Object stores by URL: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`. Needs the extra
`objects`.

Credentials come from the same places as for each platform's own tools, and never from a URL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec import Struct

from segment_fetch.errors import DestinationError, InputError, MissingExtraError
from segment_fetch.local.regular_files import read_regular
from segment_fetch.query import is_loopback

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or assign a role to the machine",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run where the machine has a service account",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or assign an identity to the machine",
}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_TIMEOUT = timedelta(seconds=120)
_CONNECT_TIMEOUT = timedelta(seconds=10)


class Place(Struct, frozen=True):
    """A bucket or container, and a prefix in it; `prefix` has no leading or trailing slash."""

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def place_of(url: str) -> Place:
    """Return the place that a URL names. Raises InputError, without possible secrets, if it is invalid."""
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme not in SCHEMES:
        raise InputError(f"an object store's URL begins with one of {', '.join(f'{name}://' for name in SCHEMES)}")
    if any(sign in rest for sign in "@?#"):
        raise InputError(f"{scheme} URL: must hold no key, user name or password; {CREDENTIALS[scheme]}")
    bucket, _, path = rest.partition("/")
    prefix = path.strip("/")
    parts = prefix.split("/") if prefix else []
    if not _BUCKET.fullmatch(bucket) or not all(part.isprintable() and part not in ("", ".", "..") for part in parts):
        raise InputError(f"{url!r}: write {scheme}://bucket/prefix")
    return Place(scheme, bucket, prefix)


def store_of(place: Place, environ: Mapping[str, str] | None = None) -> ObjectStore:
    """Return the store with its client, configured by the environment. Nothing is sent yet."""
    env = os.environ if environ is None else environ
    stores = _obstore_stores()
    endpoint = _endpoint(place.scheme, env)
    shared: dict[str, Any] = {"prefix": place.prefix or None, "client_options": _client_options(endpoint, env)}
    try:
        if place.scheme == "s3":
            return stores.S3Store(place.bucket, **shared, **_s3_options(endpoint, env))  # type: ignore[no-any-return]
        if place.scheme == "gs":
            base = {"base_url": endpoint} if endpoint else {}
            return stores.GCSStore(place.bucket, **shared, **base)  # type: ignore[no-any-return]
        given = {"endpoint": endpoint} if endpoint else {}
        return stores.AzureStore(place.bucket, **shared, **given)  # type: ignore[no-any-return]
    except (ValueError, OSError, exceptions().BaseError):  # their texts may contain values of the environment
        raise DestinationError(f"{place}: the environment's settings do not match any account: {_how(place)}") from None


def exceptions() -> ModuleType:
    """Return the module with the client's errors."""
    _obstore_stores()
    from obstore import exceptions as errors  # noqa: PLC0415 - an optional extra

    return errors


def _how(place: Place) -> str:
    return CREDENTIALS[place.scheme]


def _obstore_stores() -> ModuleType:
    try:
        import obstore.store  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise MissingExtraError("object stores need an extra: pip install 'segment-fetch[objects]'") from None
    return obstore.store


def _endpoint(scheme: str, env: Mapping[str, str]) -> str | None:
    """Return the configured endpoint, None for the platform's. Raises InputError if it would not be encrypted."""
    name = next((name for name in _ENDPOINTS[scheme] if env.get(name)), None)
    if name is None:
        return None
    url = env[name]
    try:
        parsed = urlsplit(url)
        host = parsed.hostname
    except ValueError:
        raise InputError(f"{name} is not a URL; write https://host") from None
    if parsed.scheme not in ("http", "https") or not host or "@" in parsed.netloc or parsed.query or parsed.fragment:
        raise InputError(f"{name}: write https://host, without user name, password or question mark")
    if parsed.scheme == "http" and not is_loopback(host):
        raise InputError(f"{name}: plain http would expose the data on the network; use https")
    return url.rstrip("/")


def _client_options(endpoint: str | None, env: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {"timeout": _TIMEOUT, "connect_timeout": _CONNECT_TIMEOUT}
    if endpoint and endpoint.startswith("http://"):
        options["allow_http"] = True
    if bundle := env.get("AWS_CA_BUNDLE") or env.get("SSL_CERT_FILE"):
        options["root_certificate"] = _certificates(bundle)
    return options


def _certificates(file: str) -> bytes:
    try:
        return read_regular(file, 2**24)
    except OSError as error:
        raise InputError(f"the certificates in {file} cannot be read: {error.strerror}") from None


def _s3_options(endpoint: str | None, env: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {"conditional_put": "etag", "disable_bulk_delete": True}  # not every store supports it
    if endpoint:
        options["endpoint"] = endpoint
    if attempts := env.get("AWS_MAX_ATTEMPTS"):
        if not attempts.isdecimal() or not int(attempts):
            raise InputError("AWS_MAX_ATTEMPTS is not a number of attempts, such as 3")
        options["retry_config"] = {"max_retries": int(attempts) - 1}
    if not env.get("AWS_ACCESS_KEY_ID") and _has_profiles(env):
        provider = _profile()
        options |= {"credential_provider": provider, **provider.config}
    return options


def _has_profiles(env: Mapping[str, str]) -> bool:
    """Return True if there are configuration files of the AWS tools, which need the AWS library."""
    home = Path(env.get("HOME") or os.path.expanduser("~")) / ".aws"  # noqa: PTH111 - Path raises without a home folder
    files = (env.get("AWS_SHARED_CREDENTIALS_FILE", home / "credentials"), env.get("AWS_CONFIG_FILE", home / "config"))
    return bool(env.get("AWS_PROFILE")) or any(Path(file).is_file() for file in files)


def _profile() -> Any:
    try:
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped] # noqa: PLC0415 - an optional extra
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise MissingExtraError("AWS profiles need an extra: pip install 'segment-fetch[aws]'") from None
    try:
        return Boto3CredentialProvider()
    except (ValueError, BotoCoreError):
        raise DestinationError(f"the AWS profile has no credentials: {CREDENTIALS['s3']}") from None

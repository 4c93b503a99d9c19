"""Errors of object stores, translated into messages that say what to do.

The client has one class for most failures, so the status and the store's error code are extracted from its text. The
rest of that text is not shown: it contains whole requests, whose URLs can be signed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from segment_fetch.errors import DestinationError, DestinationUnavailableError
from segment_fetch.sinks.objects.stores import CREDENTIALS, Place, exceptions

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_REFUSED = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
    *("AuthenticationFailed", "InvalidAuthenticationInfo", "AuthenticationRequired"),
}
_OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_REDIRECT = "redirect without LOCATION"
_METADATA = ("/latest/api/token", "/latest/meta-data", "/metadata/identity", "/computeMetadata/", "169.254.170.")
"""Parts of the metadata URLs from which the client requests a machine's credentials when it finds no others."""


@contextmanager
def translated(place: Place) -> Iterator[None]:
    """Turn the client's errors into DestinationErrors that say what to do."""
    try:
        yield
    except (exceptions().BaseError, OSError) as error:
        raise _translation(error, place) from None


def _translation(error: Exception, place: Place) -> DestinationError:
    """Return the error to show."""
    text = str(error)
    code = found[1] if (found := _CODE.search(text)) else ""
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    if advice := _credentials_advice(error, text, status, code, place.scheme) or _advice(error, text, status, code):
        return DestinationError(f"{place}: {advice}")
    if status == 501 or isinstance(error, NotImplementedError | exceptions().NotSupportedError):
        return unsafe(place)
    answer = f"answered {status} {code}".rstrip() if status else "did not answer"
    if isinstance(error, FileNotFoundError):
        answer = "no longer has an object that existed"
    return DestinationUnavailableError(f"{place}: the store {answer}; run again later; what is committed stays")


def _advice(error: Exception, text: str, status: int, code: str) -> str | None:
    if code in _NO_BUCKET:
        return "there is no such bucket; create it, or fix the URL"
    if code in _OTHER_REGION or _REDIRECT in text:
        return "the bucket is in another region; set AWS_REGION to that"
    if status == 403 or isinstance(error, exceptions().PermissionDeniedError):
        return "no permission; grant the right to list, read, write and delete objects there"
    return None


def _credentials_advice(error: Exception, text: str, status: int, code: str, scheme: str) -> str | None:
    if any(part in text for part in _METADATA):
        return f"no credentials were found; {CREDENTIALS[scheme]}"
    if code in _REFUSED or status == 401 or isinstance(error, exceptions().UnauthenticatedError):
        return f"the credentials are refused; {CREDENTIALS[scheme]}"
    return None


def unsafe(place: Place) -> DestinationError:
    """Return the error for a store without conditional writes."""
    return DestinationError(
        f"{place}: this store has no conditional writes (If-Match, If-None-Match), so two runs could destroy each "
        "other's work; use one that has them, such as S3, Google or Azure, or a folder"
    )

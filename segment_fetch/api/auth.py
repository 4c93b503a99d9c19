"""Credentials and what they put on a request: OAuth 1.0, OAuth 2.0 client credentials, or the caller's bearer token.

The three public classes hold secrets and show none: their repr is bare. `authorizer()` gives the state that one client
needs (a token and its end); it sends nothing itself, the transport passes in the call that fetches a token.
"""

from __future__ import annotations

import base64
import binascii
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from segment_fetch.errors import InputError, TransientError, check_callback, check_type

if TYPE_CHECKING:
    from oauthlib.oauth1 import Client

Method: TypeAlias = Literal["GET", "POST"]

_RENEW_BEFORE_S = 60.0
_RENEW_SHARE = 0.1
_UNKNOWN_LIFETIME_S = 600.0
_FRESH_S = 1.0
"""A token that never served and is refused within this time was refused for what it is, not for its age."""


class Token(msgspec.Struct, frozen=True):
    """A bearer token, and when it ends: `expires_in` seconds after it was issued, or at `exp` (epoch seconds)."""

    value: str
    expires_in: float | None
    exp: float | None

    def __repr__(self) -> str:
        return "Token(...)"

    def lifetime(self, now: float) -> float:
        """Return the seconds that a token issued now lasts; ten minutes where nothing sensible says so.

        A token that ends earlier is renewed when it is refused, so too long a lifetime costs one request.
        """
        if self.expires_in is not None:
            return self.expires_in
        left = 0.0 if self.exp is None else self.exp - now
        return left if left > 0 else _UNKNOWN_LIFETIME_S


TokenRequest: TypeAlias = Callable[[Mapping[str, str]], Awaitable[Token]]
"""Posts a form to the login service and returns the token in its answer."""


class Authorizer(ABC):
    """The authorisation of one client's requests."""

    async def ready(self) -> None:  # noqa: B027 - most kinds have nothing to fetch
        """Return when `header` can answer without a request of its own."""

    @abstractmethod
    async def header(self, method: Method, url: str) -> str:
        """Return the `Authorization` header for one attempt at one request."""

    def accepted(self, header: str) -> None:  # noqa: B027 - most kinds learn nothing from it
        """Note that a request with this header was served."""

    def refused(self, header: str) -> bool:
        """Note that a request with this header was refused; True if the next header is another one.

        False if that would be in vain: for a fixed token, and for one that was refused as soon as it was issued.
        """
        return False


class Auth(ABC):
    """Credentials, in one of three kinds."""

    needs_clock = False
    """True if requests are refused where the local clock is some minutes off."""

    @abstractmethod
    def authorizer(self, request_token: TokenRequest) -> Authorizer:
        """Return the state that one client needs to authorise its requests."""

    @abstractmethod
    def secrets(self) -> tuple[str, ...]:
        """Return every value that must never be shown."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


def _checked(kind: str, **values: str) -> None:
    for name, value in values.items():
        check_type(f"{kind}: {name}", value, str, "text")
        if not value or not value.isascii() or not value.isprintable() or value != value.strip():
            raise InputError(f"{kind}: {name} is empty, or holds spaces, line breaks or other odd characters")


class OAuth1Key(Auth):
    """An API key as LivePerson's console shows it: four secrets. Each attempt gets a nonce, time and signature."""

    needs_clock = True

    def __init__(
        self,
        app_key: str,
        app_secret: str,
        access_token: str,
        access_token_secret: str,
        *,
        signature_method: Literal["HMAC-SHA1", "HMAC-SHA256"] = "HMAC-SHA1",
    ) -> None:
        _checked(
            "OAuth 1.0 key",
            app_key=app_key,
            app_secret=app_secret,
            access_token=access_token,
            access_token_secret=access_token_secret,
        )
        if signature_method not in ("HMAC-SHA1", "HMAC-SHA256"):
            raise InputError("signature_method: must be HMAC-SHA1 or HMAC-SHA256")
        self._values = (app_key, app_secret, access_token, access_token_secret)
        self._method = signature_method

    def authorizer(self, request_token: TokenRequest) -> Authorizer:
        from oauthlib.oauth1 import Client  # noqa: PLC0415 - 50 ms that other kinds need not pay

        logging.getLogger("oauthlib.oauth1.rfc5849").addFilter(_not_signing)
        key, secret, token, token_secret = self._values
        return _Signer(Client(key, secret, token, token_secret, signature_method=self._method))

    def secrets(self) -> tuple[str, ...]:
        return self._values


_signing: ContextVar[bool] = ContextVar("_signing", default=False)


def _not_signing(record: logging.LogRecord) -> bool:
    """Drop what oauthlib logs while it signs for this library: at DEBUG that is the app key and the access token."""
    return not _signing.get()


class _Signer(Authorizer):
    def __init__(self, client: Client) -> None:
        self._client = client

    async def header(self, method: Method, url: str) -> str:
        muted = _signing.set(True)
        try:
            _, headers, _ = self._client.sign(url, http_method=method)
        finally:
            _signing.reset(muted)
        return str(headers["Authorization"])


class BearerToken(Auth):
    """A token that the caller obtained. It is not refreshed."""

    def __init__(self, token: str) -> None:
        _checked("bearer token", token=token)
        self._token = token

    def authorizer(self, request_token: TokenRequest) -> Authorizer:
        return _Fixed(f"Bearer {self._token}")

    def secrets(self) -> tuple[str, ...]:
        return (self._token,)


class _Fixed(Authorizer):
    def __init__(self, value: str) -> None:
        self._value = value

    async def header(self, method: Method, url: str) -> str:
        return self._value


class ClientCredentials(Auth):
    """An OAuth 2.0 application. Its token is fetched when first needed and before it ends."""

    def __init__(self, client_id: str, client_secret: str, *, clock: Callable[[], float] = time.time) -> None:
        _checked("OAuth 2.0 client", client_id=client_id, client_secret=client_secret)
        check_callback("clock", clock, "a function that returns seconds since the epoch")
        self._id = client_id
        self._secret = client_secret
        self._clock = clock

    def authorizer(self, request_token: TokenRequest) -> Authorizer:
        form = {"client_id": self._id, "client_secret": self._secret, "grant_type": "client_credentials"}
        return _SharedToken(lambda: request_token(form), self._clock)

    def secrets(self) -> tuple[str, ...]:
        return (self._id, self._secret)


class _SharedToken(Authorizer):
    """One token for all requests of a client; however many wait for a new one, one request fetches it."""

    def __init__(self, fetch: Callable[[], Awaitable[Token]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        from segment_fetch.api.single_flight import SingleFlight  # noqa: PLC0415 - asyncio: importing the library need not pay it

        self._renewal = SingleFlight()
        self._header = ""
        self._issued_at = self._renew_at = 0.0
        self._has_served = False
        self._is_refused = True

    async def ready(self) -> None:
        if self._is_due():
            await self._renewal.run(self._renew, needed=self._is_due)

    def _is_due(self) -> bool:
        return self._is_refused or self._clock() >= self._renew_at

    async def header(self, method: Method, url: str) -> str:
        await self.ready()
        return self._header

    def accepted(self, header: str) -> None:
        self._has_served |= header == self._header

    def refused(self, header: str) -> bool:
        if header != self._header:
            return True  # another request has had it renewed meanwhile
        self._is_refused = True
        # One that has served, or that waited for its turn at the limiter, may have ended early. One that was refused
        # as soon as it was issued tells of the credentials, and so will the next.
        return self._has_served or self._clock() - self._issued_at > _FRESH_S

    async def _renew(self) -> None:
        token = await self._fetch()
        now = self._clock()
        lifetime = token.lifetime(now)
        self._header = f"Bearer {token.value}"
        self._issued_at, self._has_served, self._is_refused = now, False, False
        self._renew_at = now + lifetime - min(_RENEW_BEFORE_S, lifetime * _RENEW_SHARE)


class _TokenAnswer(msgspec.Struct):
    access_token: str
    expires_in: Any = None


class _Claims(msgspec.Struct):
    exp: float | None = None
    iat: float | None = None


def parse_token(body: bytes) -> Token:
    """Return the token in the login service's answer; TransientError where there is none: that is not a refusal.

    `expires_in` says how long it lasts, as a number or a text of one; else the claims of the token (a JWT, whose
    signature is the server's business): from `iat` to `exp`, which does not depend on the local clock, or until `exp`.
    """
    try:
        answer = msgspec.json.decode(body, type=_TokenAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TransientError("the login service's answer holds no access_token", "server", status=200) from None
    value = answer.access_token
    if not value or not value.isascii() or not value.isprintable():
        raise TransientError("the login service's answer holds no usable access_token", "server", status=200)
    lasts, exp = _expiry(value)
    return Token(value, _positive(answer.expires_in) or lasts, exp)


def _positive(value: object) -> float | None:
    """Return a number of seconds above zero; None for anything else."""
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) else 0.0
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < inf else None


def _expiry(token: str) -> tuple[float | None, float | None]:
    """Return how many seconds a token lasts, and when it ends, as far as its claims say so."""
    parts = token.split(".")
    if len(parts) != 3:
        return None, None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(payload, type=_Claims)
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return None, None
    lasts = None if claims.exp is None or claims.iat is None else _positive(claims.exp - claims.iat)
    return lasts, claims.exp

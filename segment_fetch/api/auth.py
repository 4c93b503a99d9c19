"""Credentials and the headers they produce: OAuth 1.0, OAuth 2.0 client credentials, or the caller's bearer token.

The three public classes hold secrets and never show them: their repr has no values. `authorizer()` returns the state
of one client (a token and its expiry); it does no I/O, the transport passes in the call that fetches a token.
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
"""Seconds within which a refusal of a token that was never accepted means bad credentials, not expiry."""


class Token(msgspec.Struct, frozen=True):
    """A bearer token and its expiry: `expires_in` seconds after it was issued, or at `exp` (epoch seconds)."""

    value: str
    expires_in: float | None
    exp: float | None

    def __repr__(self) -> str:
        return "Token(...)"

    def lifetime(self, now: float) -> float:
        """Return the lifetime in seconds of a token issued now; ten minutes if it has no plausible expiry.

        A token that expires earlier is renewed when it is refused, so too long a lifetime costs only one request.
        """
        if self.expires_in is not None:
            return self.expires_in
        left = 0.0 if self.exp is None else self.exp - now
        return left if left > 0 else _UNKNOWN_LIFETIME_S


TokenRequest: TypeAlias = Callable[[Mapping[str, str]], Awaitable[Token]]
"""Posts a form to the login service and returns the token in its answer."""


class Authorizer(ABC):
    """The authorisation of one client's requests."""

    async def ready(self) -> None:  # noqa: B027 - most kinds fetch nothing
        """Fetch a token if necessary, so that `header` needs no request."""

    @abstractmethod
    async def header(self, method: Method, url: str) -> str:
        """Return the `Authorization` header for one attempt at one request."""

    def accepted(self, header: str) -> None:  # noqa: B027 - most kinds ignore it
        """Note that a request with this header was accepted."""

    def refused(self, header: str) -> bool:
        """Note that a request with this header was refused; return True if the next header will be different.

        False if a retry would be useless: for a fixed token, and for one that was refused as soon as it was issued.
        """
        return False


class Auth(ABC):
    """Credentials of one of three kinds."""

    needs_clock = False
    """True if requests are refused when the local clock is off by some minutes."""

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
            raise InputError(f"{kind}: {name} is empty, or contains spaces, line breaks or other invalid characters")


class OAuth1Key(Auth):
    """An API key as shown in LivePerson's console: four secrets. Each attempt has its own nonce, time and signature."""

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
        from oauthlib.oauth1 import Client  # noqa: PLC0415 - takes 50 ms, and only this kind needs it

        logging.getLogger("oauthlib.oauth1.rfc5849").addFilter(_not_signing)
        key, secret, token, token_secret = self._values
        return _Signer(Client(key, secret, token, token_secret, signature_method=self._method))

    def secrets(self) -> tuple[str, ...]:
        return self._values


_signing: ContextVar[bool] = ContextVar("_signing", default=False)


def _not_signing(record: logging.LogRecord) -> bool:
    """Filter out what oauthlib logs while it signs for this library: at DEBUG, the app key and the access token."""
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
    """An OAuth 2.0 application. Its token is fetched when first needed, and renewed before it expires."""

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
    """One token for all requests of a client; a single request renews it, however many wait for it."""

    def __init__(self, fetch: Callable[[], Awaitable[Token]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        from segment_fetch.api.single_flight import SingleFlight  # noqa: PLC0415 - imports asyncio

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
            return True  # renewed for another request in the meantime
        self._is_refused = True
        # A token that was accepted before, or that waited at the limiter, may have expired early. One that is refused
        # as soon as it was issued means that the credentials are wrong, and the next one would be refused, too.
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
    """Return the token in the login service's answer. Raises TransientError if there is none: that is not a refusal.

    Its lifetime is `expires_in`, a number or numeric text; else it follows from the claims of the token (a JWT, whose
    signature is not checked): from `iat` to `exp`, which does not depend on the local clock, or until `exp`.
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
    """Return a positive number of seconds; None for anything else."""
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) else 0.0
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < inf else None


def _expiry(token: str) -> tuple[float | None, float | None]:
    """Return a token's lifetime in seconds and its expiry (epoch seconds); None for what its claims do not say."""
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

"""Authentication of callers: OAuth 2.0 client credentials or a fixed bearer token.

OAuth 1.0 is in `oauth1`. Each description is frozen; its `verifier()` holds the state.
"""

import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple, Protocol

import msgspec
import orjson

from segment_fetch.simulator.answers import Answer, bad_request, json_answer, unauthorized
from segment_fetch.simulator.checks import check_positive


class Call(NamedTuple):
    """The parts of a request that authentication needs. `path` and `query` are as sent, still encoded."""

    method: str
    scheme: str
    host: str
    path: str
    query: str
    authorization: str


class Refusal(NamedTuple):
    """The reason for a 401, and its message."""

    reason: str
    message: str


class Verifier(Protocol):
    """Interface of the check of credentials. Times are epoch seconds of the simulator's clock."""

    def refuse(self, call: Call, now: float) -> Refusal | None:
        """Return the reason to refuse the credentials of a request, or None if they are accepted."""


class Bearer(msgspec.Struct, frozen=True):
    """A fixed token in `Authorization: Bearer`."""

    token: str

    def verifier(self) -> Verifier:
        """Return the object that checks the token."""
        return _BearerVerifier(self.token)


class ClientCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that the token endpoint issues for a client's id and secret.

    A token is a JWT that is valid for `lifetime_s`; with `expires_in` the answer states the lifetime as well.
    With `dies_after_s` it becomes invalid before it expires.
    """

    client_id: str = "client"
    client_secret: str = "client-secret"  # noqa: S105
    lifetime_s: int = 3600
    expires_in: bool = True
    dies_after_s: float | None = None

    def __post_init__(self) -> None:
        check_positive("lifetime_s", self.lifetime_s)

    def verifier(self) -> "TokenIssuer":
        """Return the object that issues and checks tokens."""
        return TokenIssuer(self)


class TokenIssuer:
    """Issues and checks tokens."""

    def __init__(self, settings: ClientCredentials) -> None:
        self._settings = settings
        self._key = secrets.token_bytes(32)
        self._expiry: dict[str, float] = {}

    def issue(self, form: Mapping[str, str], now: float) -> Answer:
        """Answer a token request."""
        if form.get("grant_type") != "client_credentials":
            return bad_request(["grant_type: must be client_credentials"])
        sent = form.get("client_id", ""), form.get("client_secret", "")
        if sent != (self._settings.client_id, self._settings.client_secret):
            return unauthorized("invalid_client", "The client's id or secret is wrong")
        token = self._token(now)
        answer = {"access_token": token, "token_type": "Bearer"}
        if self._settings.expires_in:
            return json_answer(200, {**answer, "expires_in": self._settings.lifetime_s})
        return json_answer(200, answer)

    def revoke(self) -> None:
        """Revoke every token issued so far."""
        self._expiry.clear()

    def refuse(self, call: Call, now: float) -> Refusal | None:
        """Refuse a request whose token is missing, unknown, revoked or expired."""
        token = _bearer(call)
        if token is None:
            return Refusal("unauthorized", "The request has no bearer token")
        if token not in self._expiry:
            return Refusal("invalid_token", "The token is unknown or revoked")
        if now >= self._expiry[token]:
            return Refusal("invalid_token", "The token has expired")
        return None

    def _token(self, now: float) -> str:
        expiry = int(now) + self._settings.lifetime_s
        claims = {
            "sub": self._settings.client_id,
            "iat": int(now),
            "exp": expiry,
            "jti": secrets.token_hex(8),
        }
        signed = f"{_encoded(orjson.dumps({'alg': 'HS256', 'typ': 'JWT'}))}.{_encoded(orjson.dumps(claims))}"
        token = f"{signed}.{_encoded(hmac.digest(self._key, signed.encode(), sha256))}"
        dies_after_s = self._settings.dies_after_s
        self._expiry[token] = expiry if dies_after_s is None else now + dies_after_s
        return token


class _BearerVerifier:
    def __init__(self, token: str) -> None:
        self._token = token

    def refuse(self, call: Call, now: float) -> Refusal | None:
        del now
        token = _bearer(call)
        if token is None:
            return Refusal("unauthorized", "The request has no bearer token")
        return None if token == self._token else Refusal("invalid_token", "The token is unknown")


def _bearer(call: Call) -> str | None:
    scheme, _, token = call.authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _encoded(part: bytes) -> str:
    return urlsafe_b64encode(part).rstrip(b"=").decode()

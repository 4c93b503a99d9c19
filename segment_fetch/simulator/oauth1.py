"""OAuth 1.0 as in RFC 5849: the signature of each request is recomputed and compared."""

import hmac
from base64 import b64encode
from typing import Literal
from urllib.parse import quote, unquote, unquote_plus

import msgspec

from segment_fetch.simulator.auth import Call, Refusal
from segment_fetch.simulator.checks import check_positive

SignatureMethod = Literal["HMAC-SHA1", "HMAC-SHA256"]

_DIGESTS = {"HMAC-SHA1": "sha1", "HMAC-SHA256": "sha256"}
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_REQUIRED = (
    "oauth_consumer_key",
    "oauth_token",
    "oauth_signature_method",
    "oauth_signature",
    "oauth_timestamp",
    "oauth_nonce",
)


class OAuth1(msgspec.Struct, frozen=True, kw_only=True):
    """Four secrets that sign each request.

    `window_s` is the maximum difference between a request's timestamp and the simulator's clock, in seconds. A nonce
    is valid for one request, whatever the timestamp.
    """

    app_key: str = "app-key"
    app_secret: str = "app-secret"  # noqa: S105
    access_token: str = "access-token"  # noqa: S105
    access_token_secret: str = "access-token-secret"  # noqa: S105
    methods: tuple[SignatureMethod, ...] = ("HMAC-SHA1", "HMAC-SHA256")
    window_s: float = 300.0

    def __post_init__(self) -> None:
        check_positive("window_s", self.window_s)

    def verifier(self) -> "SignatureVerifier":
        """Return the object that checks signatures and remembers nonces."""
        return SignatureVerifier(self)


class SignatureVerifier:
    """Verifies signatures; the nonce of an accepted request is refused from then on."""

    def __init__(self, settings: OAuth1) -> None:
        self._settings = settings
        self.nonces: set[str] = set()

    def refuse(self, call: Call, now: float) -> Refusal | None:
        """Refuse a request that is unsigned, wrongly signed, too old, or a replay."""
        parameters = _header_parameters(call.authorization)
        if parameters is None:
            return Refusal("unauthorized", "The request is not signed with OAuth 1.0")
        return (
            self._refuse_parameters(parameters)
            or self._refuse_time(parameters["oauth_timestamp"], now)
            or self._refuse_signature(call, parameters)
            or self._refuse_nonce(parameters["oauth_nonce"])
        )

    def _refuse_parameters(self, parameters: dict[str, str]) -> Refusal | None:
        missing = [name for name in _REQUIRED if not parameters.get(name)]
        if missing:
            return Refusal("parameter_absent", f"The signature lacks {', '.join(missing)}")
        if parameters.get("oauth_version", "1.0") != "1.0":
            return Refusal("version_rejected", "The OAuth version is not 1.0")
        if parameters["oauth_signature_method"] not in self._settings.methods:
            return Refusal("signature_method_rejected", "The signature method is not accepted")
        if parameters["oauth_consumer_key"] != self._settings.app_key:
            return Refusal("consumer_key_unknown", "The app key is unknown")
        if parameters["oauth_token"] != self._settings.access_token:
            return Refusal("token_rejected", "The access token is unknown")
        return None

    def _refuse_time(self, timestamp: str, now: float) -> Refusal | None:
        if not timestamp.isdecimal() or abs(int(timestamp) - now) > self._settings.window_s:
            return Refusal("timestamp_refused", "The timestamp is too far from the server's time")
        return None

    def _refuse_signature(self, call: Call, parameters: dict[str, str]) -> Refusal | None:
        settings = self._settings
        key = f"{_escaped(settings.app_secret)}&{_escaped(settings.access_token_secret)}"
        digest = _DIGESTS[parameters["oauth_signature_method"]]
        expected = b64encode(hmac.digest(key.encode(), signature_base(call, parameters).encode(), digest))
        if not hmac.compare_digest(expected, parameters["oauth_signature"].encode()):
            return Refusal("signature_invalid", "The signature is wrong")
        return None

    def _refuse_nonce(self, nonce: str) -> Refusal | None:
        if nonce in self.nonces:
            return Refusal("nonce_used", "The nonce has been used before")
        self.nonces.add(nonce)
        return None


def signature_base(call: Call, parameters: dict[str, str]) -> str:
    """Return the signature base string (RFC 5849, 3.4.1): method, URL without query, and all parameters in order."""
    pairs = [(name, value) for name, value in parameters.items() if name not in ("oauth_signature", "realm")]
    pairs += [_decoded_pair(part) for part in call.query.split("&") if part]
    ordered = sorted((_escaped(name), _escaped(value)) for name, value in pairs)
    host = call.host.lower().removesuffix(_DEFAULT_PORTS[call.scheme])
    url = f"{call.scheme}://{host}{call.path}"
    joined = "&".join(f"{name}={value}" for name, value in ordered)
    return f"{call.method.upper()}&{_escaped(url)}&{_escaped(joined)}"


def _header_parameters(authorization: str) -> dict[str, str] | None:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "oauth":
        return None
    parts = (part.strip().partition("=") for part in rest.split(","))
    return {unquote(name): unquote(value.strip('"')) for name, _, value in parts if name}


def _decoded_pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return unquote_plus(name), unquote_plus(value)


def _escaped(text: str) -> str:
    return quote(text, safe="~")

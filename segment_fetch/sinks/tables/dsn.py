"""URLs of PostgreSQL servers; their secrets are never shown."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from segment_fetch.errors import InputError

SCHEMES = ("postgresql", "postgres")
_OWN = ("table", "schema", "account_id")
_SECRETIVE = ("password", "secret", "token")
_DEFAULTS = {
    "fallback_application_name": "segment-fetch",
    "connect_timeout": "10",
    "keepalives_idle": "30",  # a dead network is noticed in a minute, not in hours
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_FORM = "write postgresql://USER@HOST:PORT/DATABASE?schema=SCHEMA&table=TABLE; each part may be omitted"


class Dsn:
    """The parts of a libpq URL; the parameters `table`, `schema` and `account_id` are not passed to libpq.

    The driver in a SQLAlchemy URL, `postgresql+psycopg2://`, is ignored: the server is the same.

    Neither `str` nor `repr` shows a secret. Raises InputError, which shows no part of the URL, if it is invalid.
    """

    def __init__(self, url: str) -> None:
        parts = _split(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.table = query.get("table")
        self.schema = query.get("schema")
        self.account_id = query.get("account_id")
        user, _, place = parts.netloc.rpartition("@")
        name, _, password = user.partition(":")
        self._shown = f"postgresql://{name}{'@' if name else ''}{place}{parts.path}"
        hidden = [value for key, value in query.items() if any(word in key.lower() for word in _SECRETIVE)]
        self.secrets = tuple(value for value in (password, unquote(password), *hidden) if value)
        passed = {key: value for key, value in query.items() if key not in _OWN}
        self._uri = f"postgresql://{parts.netloc}{parts.path}?{urlencode(_DEFAULTS | passed, quote_via=quote)}"

    def reveal(self) -> str:
        """Return the URL with its secrets, for the driver."""
        return self._uri

    def redacted(self, text: str) -> str:
        """Return a text without the secrets of the URL."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"Dsn({self._shown!r})"


def _users(parts: SplitResult) -> list[str]:
    """Return the user names among the parameters."""
    return [value for key, value in parse_qsl(parts.query) if key == "user"]


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise InputError(f"the URL of the PostgreSQL server is invalid: {_FORM}") from None
    if parts.scheme.partition("+")[0] not in SCHEMES or "://" not in url:
        raise InputError(f"this is not the URL of a PostgreSQL server: {_FORM}")
    user, _, place = parts.netloc.rpartition("@")
    if url.count("@") > 1 or ("@" in url and "@" not in parts.netloc) or "@" in unquote(place):
        raise InputError(
            "the URL of the PostgreSQL server has more than one @, or one of / ? # before it: within a name or a "
            "password write them as %40 %2F %3F %23"
        )
    if any(":" in name for name in (unquote(user.partition(":")[0]), *_users(parts))):
        raise InputError(
            "the URL of the PostgreSQL server has a colon, %3A, in the user name, which may hide a password: {_FORM}"
        )
    return parts

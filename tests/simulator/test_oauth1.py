"""OAuth 1.0 against signatures that another implementation made, and the example of RFC 5849."""

import msgspec
import pytest
from oauthlib.oauth1 import Client

from segment_fetch.simulator import OAuth1
from segment_fetch.simulator.auth import Call
from segment_fetch.simulator.oauth1 import SignatureVerifier, signature_base
from tests.simulator.conftest import NOON

URL = "https://example.test:8443/api/account/111111/agent-segments?source=a_b&limit=500&EmployeeId=Zo%C3%AB%20x%2By"
KEYS = OAuth1()


def signed(url: str = URL, method: str = "HMAC-SHA1", *, keys: OAuth1 = KEYS, **more: str) -> Call:
    client = Client(
        keys.app_key,
        client_secret=keys.app_secret,
        resource_owner_key=keys.access_token,
        resource_owner_secret=keys.access_token_secret,
        signature_method=method,
        timestamp=more.get("timestamp", str(int(NOON))),
        nonce=more.get("nonce"),
    )
    _, headers, _ = client.sign(url, realm=more.get("realm"))
    return call(url, headers["Authorization"])


def call(url: str, authorization: str) -> Call:
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    host, _, path = place.partition("/")
    return Call("GET", scheme, host, f"/{path}", query, authorization)


def reason(asked: Call, verifier: SignatureVerifier | None = None) -> str | None:
    refusal = (verifier or KEYS.verifier()).refuse(asked, NOON)
    return refusal and refusal.reason


@pytest.mark.parametrize("method", ["HMAC-SHA1", "HMAC-SHA256"])
@pytest.mark.parametrize(
    "url",
    [
        URL,
        "http://127.0.0.1:5000/api/account/1/agent-segments?source=x&source=a&empty=",
        "https://EXAMPLE.test:443/path",
        "http://example.test:80/path?a=1&A=2&a=0",
    ],
)
def test_a_good_signature_passes(method: str, url: str) -> None:
    assert reason(signed(url, method)) is None
    assert reason(signed(url, method, realm="Photos")) is None


@pytest.mark.parametrize("name", ["app_key", "app_secret", "access_token", "access_token_secret"])
def test_each_secret_matters(name: str) -> None:
    wrong = msgspec.structs.replace(KEYS, **{name: "wrong"})
    expected = {"app_key": "consumer_key_unknown", "access_token": "token_rejected"}.get(name, "signature_invalid")
    assert reason(signed(keys=wrong)) == expected


def test_each_part_of_the_request_is_signed() -> None:
    good = signed()
    for changed in (
        good._replace(method="POST"),
        good._replace(scheme="http"),
        good._replace(host="example.test"),
        good._replace(path="/api/account/222222/agent-segments"),
        good._replace(query=good.query.replace("500", "499")),
        good._replace(query=f"{good.query}&extra=1"),
        good._replace(authorization=good.authorization.replace("HMAC-SHA1", "HMAC-SHA256")),
    ):
        assert reason(changed) == "signature_invalid"
    assert reason(good) is None


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_timestamp_out_of_the_window_is_refused(seconds: int) -> None:
    assert reason(signed(timestamp=str(int(NOON) + seconds))) == "timestamp_refused"
    assert reason(signed(timestamp=str(int(NOON) + seconds - seconds // abs(seconds)))) is None


def test_a_timestamp_must_be_a_number() -> None:
    assert reason(signed(timestamp="today")) == "timestamp_refused"


def test_a_nonce_is_good_once() -> None:
    verifier = KEYS.verifier()
    assert reason(signed(nonce="one"), verifier) is None
    assert reason(signed(nonce="one"), verifier) == "nonce_used"
    assert reason(signed(nonce="one", timestamp=str(int(NOON) + 1)), verifier) == "nonce_used"
    assert reason(signed(nonce="two"), verifier) is None
    assert verifier.nonces == {"one", "two"}


def test_a_wrong_request_uses_up_no_nonce() -> None:
    verifier = KEYS.verifier()
    assert reason(signed(nonce="one", keys=OAuth1(app_secret="wrong")), verifier) == "signature_invalid"
    assert reason(signed(nonce="one"), verifier) is None


def test_a_request_without_a_signature_is_refused() -> None:
    assert reason(call(URL, "")) == "unauthorized"
    assert reason(call(URL, "Bearer token")) == "unauthorized"
    assert reason(call(URL, 'OAuth oauth_consumer_key="app-key"')) == "parameter_absent"


def test_only_the_methods_asked_for_are_accepted() -> None:
    only_sha256 = OAuth1(methods=("HMAC-SHA256",)).verifier()
    assert reason(signed(method="HMAC-SHA1"), only_sha256) == "signature_method_rejected"
    assert reason(signed(method="HMAC-SHA256"), only_sha256) is None


def test_another_version_is_refused() -> None:
    good = signed()
    changed = good._replace(authorization=good.authorization.replace('version="1.0"', 'version="2.0"'))
    assert reason(changed) == "version_rejected"


def test_what_is_signed_is_what_the_rfc_signs() -> None:
    """RFC 5849, 3.4.1.1, without its form body."""
    asked = Call("POST", "http", "EXAMPLE.COM:80", "/request", "b5=%3D%253D&a3=a&c%40=&a2=r%20b", "")
    parameters = {
        "realm": "Example",
        "oauth_consumer_key": "9djdj82h48djs9d2",
        "oauth_token": "kkk9d7dh3k39sjv7",
        "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": "137131201",
        "oauth_nonce": "7d8f3e4a",
        "oauth_signature": "bYT5CMsGcbgUdFHObYMEfcx6bsw=",
    }
    assert signature_base(asked, parameters) == (
        "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26"
        "oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1"
        "%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
    )


def test_a_wrong_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^window_s must"):
        OAuth1(window_s=0)

from base64 import urlsafe_b64decode

import orjson
import pytest

from segment_fetch.simulator import Bearer, ClientCredentials
from segment_fetch.simulator.auth import Call, TokenIssuer, Verifier
from tests.simulator.conftest import NOON

FORM = {"grant_type": "client_credentials", "client_id": "client", "client_secret": "client-secret"}


def reason(verifier: Verifier, authorization: str, now: float = NOON) -> str | None:
    refusal = verifier.refuse(Call("GET", "http", "h", "/", "", authorization), now)
    return refusal and refusal.message


def token(issuer: TokenIssuer, now: float = NOON) -> str:
    answer = issuer.issue(FORM, now)
    assert answer.status == 200
    issued: str = orjson.loads(answer.body)["access_token"]
    return issued


def test_a_token_is_good_for_its_lifetime() -> None:
    issuer = ClientCredentials(lifetime_s=60).verifier()
    bearer = f"Bearer {token(issuer)}"
    assert reason(issuer, bearer, NOON + 59.9) is None
    assert reason(issuer, bearer, NOON + 60) == "The token has expired"


def test_a_token_says_when_it_ends() -> None:
    issuer = ClientCredentials(lifetime_s=60).verifier()
    claims = token(issuer).split(".")[1]
    decoded = orjson.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert decoded["exp"] == int(NOON) + 60
    assert decoded["iat"] == int(NOON)


def test_expires_in_is_told_by_choice() -> None:
    told = orjson.loads(ClientCredentials(lifetime_s=60).verifier().issue(FORM, NOON).body)
    silent = orjson.loads(ClientCredentials(expires_in=False).verifier().issue(FORM, NOON).body)
    assert (told["expires_in"], told["token_type"]) == (60, "Bearer")
    assert "expires_in" not in silent


def test_a_revoked_token_is_refused_and_a_new_one_is_good() -> None:
    issuer = ClientCredentials().verifier()
    old = f"Bearer {token(issuer)}"
    issuer.revoke()
    assert reason(issuer, old) == "The token is unknown or revoked"
    assert reason(issuer, f"Bearer {token(issuer)}") is None


def test_tokens_are_different() -> None:
    issuer = ClientCredentials().verifier()
    assert token(issuer) != token(issuer)


def test_a_token_of_ones_own_making_is_refused() -> None:
    assert reason(ClientCredentials().verifier(), f"Bearer {token(ClientCredentials().verifier())}")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"client_id": "other"}, 401),
        ({"client_secret": "other"}, 401),
        ({"client_secret": ""}, 401),
        ({"grant_type": "password"}, 400),
    ],
)
def test_a_wrong_token_request_is_refused(changed: dict[str, str], status: int) -> None:
    assert ClientCredentials().verifier().issue({**FORM, **changed}, NOON).status == status


def test_a_fixed_bearer_is_compared() -> None:
    verifier = Bearer("secret").verifier()
    assert reason(verifier, "Bearer secret") is None
    assert reason(verifier, "bearer secret") is None
    assert reason(verifier, "Bearer other") == "The token is unknown"
    assert reason(verifier, "") == "The request has no bearer token"
    assert reason(verifier, "Bearer ") == "The request has no bearer token"
    assert reason(verifier, "Basic secret") == "The request has no bearer token"


def test_a_wrong_lifetime_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^lifetime_s must"):
        ClientCredentials(lifetime_s=0)

"""An answer becomes a page, or the error that says what to do."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment_fetch.api.responses import PERMISSION, date_ms, raise_for_status, retry_after, server_time
from segment_fetch.errors import (
    InputError,
    ProxyError,
    RequestRefusedError,
    SchemaError,
    SegmentFetchError,
    ThrottledError,
    TransientError,
    UnauthorizedError,
    printable,
    redacted,
)
from segment_fetch.query import Window
from segment_fetch.wire import pages
from segment_fetch.wire.models import MAX_COUNT
from segment_fetch.wire.pages import decode_page, new_fields
from tests.support import page_body, row

NEW = page_body(row(1), row(2, newField="x"))
TO_THE_LETTER = 1_792_567_680_000  # Wed, 21 Oct 2026 07:28:00 GMT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b"<!DOCTYPE html><html></html>",
        b'{"internalCode":1017,"message":"Internal server error"}',
        b'{"segments":[]}',
        b'{"pagination":{"count":0}}',
        page_body(row())[:-3],
        page_body(row()) + b"x",
        b"\xef\xbb\xbf" + page_body(row()),
        page_body(row()).replace(b"id-1", b"\xff\xfe"),
        page_body(row()).replace(b"id-1", b"\\ud800"),
        NEW[:-3],
        NEW + b"x",
        NEW.replace(b'"x"', b'"\xff"'),
        NEW.replace(b'"x"', b'"\\ud800"'),
        NEW.replace(b'"x"', b"9" * 5000),
        b'{"segments":5,"pag',
        b'{"\xff":1,"segments":5,"pagination":{}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"segments":' + b"[" * 100_000,
        b'{"segments":[{"segmentId":"a","endTimeL":1,"newField":' + b"[" * 100_000,
        b'{"newField":' + b"[" * 100_000 + b"]" * 100_000 + page_body().replace(b"{", b",", 1),
        b'{"segments":[{"segmentId":"a","endTimeL":' + b"9" * 5000 + b'}],"pagination":{"count":1}}',
        b'{"segments":[{"segmentId":"a","endTimeL":1e400}],"pagination":{"count":1}}',
    ],
    ids=lambda body: f"{len(body)}-{body[:24]!r}",
)
def test_what_is_no_page_is_a_fault_to_be_tried_again(body: bytes) -> None:
    with pytest.raises(TransientError) as caught:
        decode_page(body)
    assert caught.value.kind == "network"
    assert caught.value.status == 200
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (page_body(row(), row(agentId="7")), "$.segments[1].agentId"),
        (page_body(row(newField=1), row(agentId="7")), "$.segments[1].agentId"),
        (page_body(row(newField=1, agentId="7")), "$.segments[0].agentId"),
        (page_body(row(agentId=1.5)), "$.segments[0].agentId"),
        (page_body(row(agentId=True)), "$.segments[0].agentId"),
        (page_body(row(endReason=["a"])), "$.segments[0].endReason"),
        (page_body(row(startTimeL="2026")), "$.segments[0].startTimeL"),
        (page_body({"endTimeL": 1}), "$.segments[0]"),
        (page_body({"segmentId": "a"}), "$.segments[0]"),
        (page_body(row(segmentId=None)), "$.segments[0].segmentId"),
        (page_body(row(endTimeL=None)), "$.segments[0].endTimeL"),
        (page_body(row(endTimeL=1.5)), "$.segments[0].endTimeL"),
        (b'{"segments":[5],"pagination":{"count":1}}', "$.segments[0]"),
        (b'{"segments":null,"pagination":{"count":0}}', "$.segments"),
        (b'{"segments":[],"pagination":null}', "$.pagination"),
        (b'{"segments":[],"pagination":{}}', "$.pagination"),
        (b'{"segments":[],"pagination":{"count":"x"}}', "$.pagination.count"),
        (page_body(count=-1), "$.pagination.count"),
        (page_body(count=MAX_COUNT + 1), "$.pagination.count"),
    ],
)
def test_a_wrong_type_is_named_by_its_path(body: bytes, path: str) -> None:
    with pytest.raises(SchemaError) as caught:
        decode_page(body)
    assert caught.value.path == path
    assert f"at {path}:" in str(caught.value)
    placed = caught.value.at(Window(0, 1000), 500)
    assert str(placed).endswith("(window 1970-01-01T00:00:00Z to 1970-01-01T00:00:01Z, offset 500)")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_page_or_an_error_of_this_library(noise: bytes) -> None:
    for body in (noise, page_body(row(newField=1))[: len(noise)] + noise):
        with suppress(TransientError, SchemaError):
            decode_page(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aé\\"'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["segmentId", "endTimeL", "agentId", "newField", "extras"]), json_values))
def test_any_row_loses_nothing_or_is_refused(fields: dict[str, Any]) -> None:
    wire = json.loads(json.dumps(fields))
    try:
        (segment,) = decode_page(page_body(wire)).segments
    except (TransientError, SchemaError):
        return
    known = {name: getattr(segment, name) for name in wire if hasattr(segment, name) and name != "extras"}
    assert known | getattr(segment, "extras", {}) == wire


def test_only_a_page_that_fails_strictly_takes_the_slow_road(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(body: bytes) -> None:
        raise AssertionError(body)

    monkeypatch.setattr(pages, "_decode_unusual", refuse)
    decode_page(page_body(row(employeeId=None, endReason="new reason")))
    with pytest.raises(AssertionError):
        decode_page(NEW)


def test_new_fields_above_the_segments_do_not_disturb() -> None:
    body = {
        "newField": {"a": [1]},
        "timeframe": {"startTimeL": 1, "newField": None},
        "segments": [row()],
        "pagination": {"count": 1, "newField": 1, "references": [{"rel": "self", "href": "x", "newField": []}]},
    }
    page = decode_page(json.dumps(body).encode())
    assert new_fields(page) == set()
    assert page.pagination.count == 1


def test_new_fields_are_named() -> None:
    page = decode_page(page_body(row(1), row(2, b=1, a=2), row(3, c=None)))
    assert new_fields(page) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (
            400,
            {"causes": ["limit: must be less than or equal to 500", "source: must not be empty"], "message": "Bad"},
            RequestRefusedError,
            "(400): limit: must be less than or equal to 500; source: must not be empty",
        ),
        (400, {"message": "Bad request"}, RequestRefusedError, "(400): Bad request"),
        (400, {"causes": "text", "message": 7}, RequestRefusedError, "(400): 7"),
        (400, {"causes": [["a"], {"b": 1}, None, "c"]}, RequestRefusedError, "(400): c"),
        (400, "<html>", RequestRefusedError, "the API refused the request (400)"),
        (
            401,
            {"reason": "unauthorized", "message": "No"},
            UnauthorizedError,
            f"(401): No; check the four secrets or the token, and that the API key has the permission {PERMISSION} (",
        ),
        (401, {"reason": "unauthorized"}, UnauthorizedError, "(401): unauthorized; "),
        (401, "", UnauthorizedError, PERMISSION),
        (403, "", UnauthorizedError, PERMISSION),
        (404, {"message": "not found"}, RequestRefusedError, "(404): not found"),
        (418, "", RequestRefusedError, "(418)"),
        (301, "", RequestRefusedError, "redirects (301), which is never followed"),
        (304, "", RequestRefusedError, "redirects (304)"),
        (204, "", TransientError, "answered 204 instead of a page"),
        (206, "", TransientError, "answered 206 instead of a page"),
        (407, "", ProxyError, "the request was not repeated"),
        (451, {"message": "blocked"}, UnauthorizedError, "the account or its user is blocked (451): blocked"),
        (408, "", TransientError, "failed with 408"),
        (500, {"internalCode": 1017, "message": "Oh"}, TransientError, "failed with 500 (internalCode 1017): Oh"),
        (503, {"message": "down\r\nforged: line\x1b[31m"}, TransientError, "failed with 503: down?forged: line?[31m"),
        (599, "\xff", TransientError, "failed with 599"),
    ],
)
def test_a_status_becomes_the_error_that_says_what_to_do(
    status: int, body: Any, kind: type[SegmentFetchError], text: str
) -> None:
    sent = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(kind) as caught:
        raise_for_status(status, {}, sent.encode("latin-1"), 0)
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert text in str(caught.value)


def test_a_400_carries_its_causes_and_is_an_error_of_the_input() -> None:
    with pytest.raises(InputError) as caught:
        raise_for_status(400, {}, b'{"causes":["a","b"]}', 0)
    assert isinstance(caught.value, RequestRefusedError)
    assert caught.value.causes == ("a", "b")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"message":' + b"9" * 5000 + b"}", b"\xff", b'{"causes":' + b"[" * 950]
)
def test_no_error_body_can_break_the_error(status: int, body: bytes) -> None:
    with pytest.raises(SegmentFetchError):
        raise_for_status(status, {}, body, 0)


def test_words_of_the_service_are_short() -> None:
    with pytest.raises(RequestRefusedError) as caught:
        raise_for_status(400, {}, json.dumps({"causes": ["x" * 10_000] * 1000}).encode(), 0)
    assert len(str(caught.value)) < 5000


SECRET = "s3cr/t+value=&%"


@pytest.mark.parametrize(
    "echo",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote(quote(SECRET, safe=""), safe=""),
        "x" * 190 + SECRET,
    ],
)
@pytest.mark.parametrize(
    ("status", "name"), [(400, "message"), (401, "reason"), (500, "message"), (500, "internalCode")]
)
def test_secrets_that_the_service_repeats_are_blotted_out(status: int, name: str, echo: str) -> None:
    body = "".join(f"\\u{ord(letter):04x}" for letter in f"got {echo}")
    with pytest.raises(SegmentFetchError) as caught:
        raise_for_status(status, {}, f'{{"{name}":"{body}"}}'.encode(), 0, secrets=("", SECRET))
    assert "***" in str(caught.value)
    assert "s3cr" not in str(caught.value)


def test_nothing_is_blotted_out_without_secrets() -> None:
    assert redacted("a text", ()) == "a text"
    assert redacted("a text", ("",)) == "a text"
    assert redacted("abcd ab", ("ab", "abc")) == "***d ***"


def _base64(secret: str, before: int) -> str:
    return base64.b64encode(b"x" * before + secret.encode() + b":and more").decode()


ECHOES: dict[str, Callable[[str], str]] = {
    "in HTML": html.escape,
    "in HTML, twice": lambda secret: html.escape(html.escape(secret)),
    "in HTML, by decimal numbers": lambda secret: "".join(f"&#{ord(letter)};" for letter in secret),
    "in HTML, by hexadecimal numbers": lambda secret: "".join(f"&#x{ord(letter):X};" for letter in secret),
    "in JSON": lambda secret: json.dumps(secret)[1:-1].replace("/", "\\/"),
    "in JSON, by numbers": lambda secret: "".join(f"\\u{ord(letter):04x}" for letter in secret),
    "in JSON within JSON": lambda secret: json.dumps(json.dumps(secret))[1:-1],
    "in a program's text": lambda secret: "".join(f"\\x{ord(letter):02x}" for letter in secret),
    "in a URL, three times": lambda secret: quote(quote(quote(secret, safe=""), safe=""), safe=""),
    "in hexadecimal": lambda secret: secret.encode().hex(),
    "in hexadecimal, capital": lambda secret: secret.encode().hex().upper(),
    "in base64, in a URL": lambda secret: quote(base64.b64encode(secret.encode()).decode(), safe=""),
    "in base64": lambda secret: _base64(secret, 0),
    "in base64, a byte before": lambda secret: _base64(secret, 1),
    "in base64, two bytes before": lambda secret: _base64(secret, 2),
    "in base64 for URLs": lambda secret: base64.urlsafe_b64encode(b"id:" + secret.encode()).decode(),
}


@pytest.mark.parametrize("form", ECHOES)
@pytest.mark.parametrize("secret", ["s3cr/t+va&lue=%'\"<x>", "\\s3cret?~~~???>>>", "0123456789abcdef"])
def test_a_secret_is_found_in_whatever_form_it_is_repeated(secret: str, form: str) -> None:
    shown = redacted(f"got {ECHOES[form](secret)} from you", (secret,))
    assert "***" in shown
    kept = shown.removeprefix("got ").removesuffix(" from you").replace("***", "")
    assert len(kept) <= len(ECHOES[form](secret)) - len(secret)
    assert secret[2:6] not in html.unescape(unquote(shown))


def test_a_text_from_outside_is_one_harmless_line() -> None:
    assert printable("name\r\nforged: line\x1b[31m\u202eabc\ud800") == "name?forged: line?[31m?abc?"
    assert printable("Łukasz 李雷") == "Łukasz 李雷"
    assert printable("a" * 201) == "a" * 199 + "…"
    assert printable("a" * 10**7, longest=5) == "aaaa…"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "5"}, 5.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:27:00 GMT"}, 60.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:29:00 GMT"}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 10.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "today"}, 10.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1.5"}, 2.0),
        ({"Retry-After": "6.0"}, 6.0),
        ({"Retry-After": "6, 6"}, 6.0),
        ({"Retry-After": "2, 6, soon"}, 6.0),
        ({"Retry-After": "0000000006"}, 6.0),
        ({"Retry-After": "2, Wed, 21 Oct 2026 07:28:00 GMT"}, 10.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT, 60"}, 60.0),
        ({"Retry-After": str(TO_THE_LETTER // 1000)}, 10.0),
        ({"Retry-After": str(TO_THE_LETTER // 1000 - 60)}, 0.0),
        ({"Retry-After": "²"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "Wed, 21 Oct 99999 07:28:00 GMT"}, None),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 +999999999999999999"}, None),
        ({"Retry-After": ""}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, TO_THE_LETTER - 10_000) == seconds
    with pytest.raises(ThrottledError) as caught:
        raise_for_status(429, headers, b"<html>", TO_THE_LETTER - 10_000)
    assert caught.value.retry_after == seconds
    assert caught.value.status == 429


@pytest.mark.parametrize("status", [301, 400, 403, 404, 408, 413, 500, 503])
def test_whatever_asks_for_a_pause_is_heard(status: int) -> None:
    with pytest.raises(SegmentFetchError) as caught:
        raise_for_status(status, {"Retry-After": "7"}, b"", 0)
    assert caught.value.retry_after == 7.0


@given(st.text())
def test_any_retry_after_can_be_read(value: str) -> None:
    seconds = retry_after({"Retry-After": value}, 0)
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("Wed, 21 Oct 2026 07:28:00 GMT", TO_THE_LETTER),
        ("Wed, 21 Oct 2026 09:28:00 +0200", TO_THE_LETTER),
        ("Wed, 21 Oct 2026 07:28:00", TO_THE_LETTER),
        ("yesterday", None),
    ],
)
def test_the_servers_clock(text: str, ms: int | None) -> None:
    assert date_ms(text) == ms
    assert server_time({"Date": text}) == ms
    assert server_time({}) is None

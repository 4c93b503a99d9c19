"""The log of the library: where it goes, what its records carry, and that no secret is in it or in any span."""

from __future__ import annotations

import logging
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from segment_fetch import ClientCredentials, Event, OAuth1Key
from segment_fetch.api.auth import Auth, BearerToken
from segment_fetch.simulator import Fault
from segment_fetch.simulator import auth as simulated
from segment_fetch.sinks import JsonlSink
from tests.extraction.test_telemetry import Recorded, recorded
from tests.support_runs import END, START, client, served, settled

__all__ = ["recorded"]

KEY = OAuth1Key("app/key+1", "app secret&2", "token=value 3", "token/secret+4")
CLIENT = ClientCredentials("client id+5", "client/secret &6")


async def test_records_carry_account_run_and_window(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "segment_fetch")
    events: list[Event] = []
    async with served(settled(1_200)) as simulator, client(simulator, on_event=events.append) as opened:
        for name in "ab":
            await opened.extract(START, END, JsonlSink(tmp_path / name))
    records: list[Any] = [record for record in caplog.records if record.name == "segment_fetch.events"]
    assert [record.getMessage() for record in records] == [str(event) for event in events]
    assert {record.account for record in records} == {simulator.account}
    assert len({record.run_id for record in records}) == 2
    (done,) = [record for record in records if record.event == "window_done"][:1]
    assert done.window in done.getMessage()
    assert (done.levelname, done.fields["segments"]) == ("INFO", 1_200)


def test_without_a_handler_nothing_is_printed() -> None:
    program = "import logging, segment_fetch; logging.getLogger('segment_fetch.events').warning('unseen')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def forms(secret: str) -> set[str]:
    """The secret as it is, percent-encoded once and twice, and in base64, also where it is not at a beginning."""
    quoted = {quote(secret, safe=""), quote(quote(secret, safe=""), safe=""), quote(secret), secret.replace(" ", "+")}
    shifted = {b64encode(b"x" * at + secret.encode()).decode()[4 if at else 0 : -4] for at in range(3)}
    return {secret, *quoted, *shifted}


@pytest.mark.parametrize("auth", [KEY, CLIENT, BearerToken("bearer/token+7 8")], ids=lambda auth: type(auth).__name__)
async def test_no_secret_is_logged_or_traced(
    auth: Auth, recorded: Recorded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asked = None
    if isinstance(auth, ClientCredentials):
        asked = simulated.ClientCredentials(client_id="client id+5", client_secret="client/secret &6")
    async with served(settled(1_200), auth=asked) as simulator, client(simulator, auth=auth, split_above=500) as opened:
        for fault in (Fault.ERROR_500, Fault.DROP, Fault.BAD_JSON, Fault.TOO_MANY, Fault.UNAUTHORIZED):
            simulator.fail_next(fault)
        try:
            await opened.extract(START, END, JsonlSink(tmp_path / "out"))
        except Exception:
            logging.getLogger("app").exception("the run ended")
    spans = [span.to_json() for span in recorded.exporter.get_finished_spans()]
    lines = [f"{caplog.handler.format(record)} {vars(record)}" for record in caplog.records]
    assert len(spans) > 2
    assert len(lines) > 3
    found = [form for secret in auth.secrets() for form in forms(secret) for text in [*spans, *lines] if form in text]
    assert found == []

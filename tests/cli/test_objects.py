"""`--out s3://…`, as scripts run it."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segment_fetch.simulator import Dataset, Simulator
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from tests.cli.conftest import KEY, Run
from tests.cli.support import AT_ONCE, Result, assert_no_secret, command, spanning
from tests.support_objects import DROP_BEFORE, Answer, Asked, Bucket
from tests.support_objects import KEY as AWS

DAY_S = 86_400


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_extract_and_verify(run: Run, api: Simulator, bucket: Bucket, form: str) -> None:
    where = ("--out", bucket.url, "--base-url", api.base_url, *AT_ONCE)
    asked = (*spanning(api.dataset), "--format", form, "--compress", "gzip", "--partition", "day")
    first = run("extract", *asked, *where, "--json")
    assert (first.code, first.json["segments"]) == (0, 3_000)
    assert first.json["destination"] == bucket.url
    bucket.proxy.asked.clear()
    assert "Nothing to do" in run("extract", *asked, *where).words
    assert set(bucket.proxy.methods()) == {"GET"}
    verified = run("verify", "--out", bucket.url, "--against-api", "--base-url", api.base_url, *AT_ONCE)
    assert verified.code == 0
    assert f"{bucket.url} is sound" in verified.out
    assert "3,000 segments" in verified.out
    assert_nothing_secret(verified)


def test_verify_finds_damage(run: Run, api: Simulator, bucket: Bucket) -> None:
    where = ("--out", bucket.url, "--base-url", api.base_url, *AT_ONCE)
    assert "nothing has been committed here yet" in run("verify", "--out", bucket.url).words
    run("extract", *spanning(api.dataset), *where, "--window", "1d")
    one, two, three, *_ = (name for name in bucket.names() if name != "manifest.json")
    bucket.put(one, bucket.read(one).swapcase())
    bucket.put(two, bucket.read(two)[:-1])
    bucket.delete(three)
    extra = three.replace(".jsonl", ".csv")
    bucket.put(extra, b"")
    found = run("verify", "--out", bucket.url, "--json")
    assert found.code == 3
    kinds = {finding["where"]: finding["kind"] for finding in reversed(found.json["findings"])}
    assert {name: kinds[name] for name in (one, two, three, extra)} == {
        one: "changed",
        two: "wrong size",
        three: "missing file",
        extra: "extra file",
    }
    bucket.delete("manifest.json")
    assert "restore it from a copy" in run("verify", "--out", bucket.url).words


def test_kept_up_to_date(run: Run, segment_simulator: SimulatorFactory, bucket: Bucket) -> None:
    recent = segment_simulator(Dataset.recent(1_200, now=time.time(), days=6), auth=KEY)
    where = ("--out", bucket.url, "--base-url", recent.base_url, *AT_ONCE)
    assert run("sync", "--from", "now-5d", *where).code == 0
    recent.insert(int((time.time() - DAY_S) * 1000) // 1000 * 1000)
    second = run("sync", *where)
    assert second.code == 0
    assert "1 segment added, 0 removed" in second.words
    assert f"{bucket.url} is sound" in run("verify", "--out", bucket.url).out
    named = {window["file"] for window in json.loads(bucket.read("manifest.json"))["windows"]}
    assert named | {"manifest.json"} == set(bucket.names())


def lives(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrong."""


def no_bucket(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.url = "s3://no-such-bucket/prefix"


def answers(answer: Answer) -> Callable[[Bucket, pytest.MonkeyPatch], None]:
    def prepare(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        bucket.proxy.fault = lambda asked: answer

    return prepare


def dead(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")


def without_keys(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")


def key_in_url(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.url = f"s3://{AWS['AWS_ACCESS_KEY_ID']}:{AWS['AWS_SECRET_ACCESS_KEY']}@bucket/prefix"


TROUBLE = {
    "no bucket": (no_bucket, 2, "there is no such bucket; create it, or fix the URL"),
    "no permission": (
        answers(Answer(403, "AccessDenied")),
        2,
        "no permission; grant the right to list, read, write and delete",
    ),
    "wrong keys": (answers(Answer(403, "InvalidAccessKeyId")), 2, "the credentials are refused; set AWS_ACCESS_KEY_ID"),
    "wrong region": (answers(Answer(301, "PermanentRedirect")), 2, "in another region; set AWS_REGION to that"),
    "overloaded": (answers(Answer(503, "SlowDown")), 3, "answered 503 SlowDown; run again later; what is committed"),
    "broken off": (answers(DROP_BEFORE), 3, "the store did not answer; run again later; what is committed stays"),
    "dead": (dead, 3, "the store did not answer; run again later; what is committed stays"),
    "no keys": (without_keys, 2, "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"),
    "key in URL": (key_in_url, 2, "must hold no key, user name or password; set AWS_ACCESS_KEY_ID and"),
}


@pytest.mark.parametrize("name", ["extract", "sync", "verify"])
@pytest.mark.parametrize("kind", TROUBLE)
def test_trouble_is_told_with_a_mend(
    run: Run, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    prepare, code, message = TROUBLE[kind]
    prepare(bucket, monkeypatch)
    begin = () if name == "verify" else ("--from", "now-1d", *AT_ONCE)
    result = run(name, "--out", bucket.url, "--log-level", "debug", *begin)
    assert (result.code, message in result.words) == (code, True), result.words
    assert_nothing_secret(result)


def test_another_run_wins(run: Run, api: Simulator, bucket: Bucket) -> None:
    """It publishes between this run's beginning and its first window."""

    def meanwhile(asked: Asked) -> None:
        if asked.method == "PUT" and asked.name.startswith("segments-"):
            bucket.put("manifest.json", b"{}")

    bucket.proxy.fault = meanwhile
    lost = run("extract", *spanning(api.dataset), "--out", bucket.url, "--base-url", api.base_url, *AT_ONCE)
    assert lost.code == 3
    assert f"another run has written to {bucket.url}" in lost.words
    assert bucket.contents() == {"manifest.json": b"{}"}


def test_other_destinations_are_named(run: Run) -> None:
    result = run("extract", "--from", "now-1d", "--out", "s4://bucket/prefix")
    assert result.code == 2
    assert "s3://BUCKET/PREFIX" in result.err


def assert_nothing_secret(result: Result) -> None:
    assert_no_secret(result)
    assert AWS["AWS_SECRET_ACCESS_KEY"] not in result.out + result.err


def test_it_can_be_tried_on_this_machine(
    segment_simulator: SimulatorFactory, env: dict[str, str], tmp_path: Path
) -> None:
    """The block of the documentation, on a port that is free here."""
    api = segment_simulator(Dataset.recent(1_000, now=time.time(), days=9), auth=KEY)
    text = (Path(__file__).parents[2] / "docs" / "objects.md").read_text(encoding="utf-8")
    [block] = [
        block
        for block in re.findall(r"^```shell\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if "moto_server" in block
    ]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    stand_in(tmp_path, "pip", "test -n 1")
    stand_in(tmp_path, "moto_server", f'exec {sys.executable} -m moto.server "$@"')
    asked = shlex.join(["--base-url", api.base_url, *AT_ONCE])
    stand_in(tmp_path, "segment-fetch", f'exec {shlex.join(command())} "$@" {asked}')
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"trap 'kill $(jobs -p)' EXIT\n{block.replace('5555', str(port))}"],
        env={**env, "PATH": f"{tmp_path}{os.pathsep}{env['PATH']}", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "s3://my-bucket/segments is sound" in done.stdout
    assert "http://" not in done.stdout + done.stderr


def stand_in(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)

"""Object stores: what is asked of them, two runs at once, interruptions, faults, and what people are told."""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from segment_fetch import (
    DestinationBusyError,
    DestinationError,
    DestinationUnavailableError,
    ManifestError,
    Segment,
    Window,
)
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.reader import read_committed
from segment_fetch.manifest.verify import audit
from segment_fetch.sinks import Csv, FolderSink, JsonLines, ObjectSink
from tests.cli.support import until
from tests.support_objects import DROP_AFTER, DROP_BEFORE, KEY, Answer, Asked, Bucket, Fault
from tests.support_runs import contents, without_count
from tests.support_sinks import QUERY, hours, window_read

ONE, TWO, THREE = hours(0, 1), hours(1, 2), hours(2, 3)
STEM_ONE = "segments-20261101T000000000Z-20261101T010000000Z"
TOKEN = r"-[0-9a-f]{12}\."
MEGABYTES = 1 << 20


def commit(sink: Any, *windows: Window, status: Any = "complete") -> None:
    """A run that resumes, and commits these windows."""
    log = CommitLog(sink, QUERY, sink.open())
    try:
        log.resume(ONE.start, THREE.end, ONE.start)
        for window in windows:
            log.commit(window_read(window, [sink.encode([row(window)])], status))
        log.abandon()
        log.close()
    finally:
        sink.close()


def row(window: Window) -> Segment:
    return Segment(segmentId=str(window), endTimeL=window.start)


def plain(stored: dict[str, bytes]) -> dict[str, bytes]:
    """Return the stored objects, without the tokens in their names."""
    return {re.sub(TOKEN, ".", name): re.sub(TOKEN.encode(), b".", stored[name]) for name in stored}


def assert_sound(bucket: Bucket) -> None:
    """Check that every object that the manifest and the commits name is there, byte for byte."""
    stored = bucket.contents()
    sink = ObjectSink(bucket.url, JsonLines())
    manifest = sink.look()
    for entry in read_committed(manifest, sink.appended()).entries if manifest else ():
        if entry.file is not None:
            assert hashlib.sha256(stored[entry.file]).hexdigest() == entry.sha256


@pytest.mark.parametrize(("form", "compress"), [(JsonLines(), "none"), (JsonLines(), "gzip"), (Csv(safe=True), "zstd")])
def test_layout_is_that_of_a_folder(bucket: Bucket, tmp_path: Path, form: Any, compress: str) -> None:
    commit(ObjectSink(bucket.url, form, compress), ONE, hours(1, 3))
    commit(FolderSink(tmp_path / "folder", form, compress), ONE, hours(1, 3))
    assert plain(bucket.contents()) == {
        name: data for name, data in contents(tmp_path / "folder").items() if name != ".lock"
    }
    (tmp_path / "copy").mkdir()
    for name, data in bucket.contents().items():
        (tmp_path / "copy" / name).write_bytes(data)
    assert audit(tmp_path / "copy").sound


def test_what_is_asked_for(bucket: Bucket) -> None:
    """A commit after what it names, one whole manifest at the end, and each condition tried out once a run."""
    commit(ObjectSink(bucket.url, JsonLines()), ONE)
    manifest, window = ("PUT", "manifest.json"), ("PUT", f"{STEM_ONE}.jsonl")
    first = second = "manifest.log"  # their numbers look like tokens
    asked = [(each.method, re.sub(TOKEN, ".", each.name)) for each in bucket.proxy.asked]
    begin = [("GET", bucket.name), ("GET", "manifest.json")]
    commits = [window, ("PUT", first), ("HEAD", "manifest.json")]
    end = [("PUT", second), manifest, manifest, ("DELETE", first), ("DELETE", second)]
    assert asked == [*begin, manifest, manifest, *commits, *end]
    bucket.proxy.asked.clear()
    commit(ObjectSink(bucket.url, JsonLines()))
    assert [(each.method, each.name) for each in bucket.proxy.asked] == begin


# Two runs at once


def names_in(store: Any) -> list[str]:
    """The files that the manifest and the commits beside it name."""
    sink = ObjectSink("gs://bucket", JsonLines(), store=store)
    manifest = sink.look()
    entries = read_committed(manifest, sink.appended()).entries if manifest else ()
    return [entry.file for entry in entries if entry.file is not None]


class Turns:
    """Lets two runs, each in a thread, make one call to the store at a time, in an order that is given."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = list(order)
        self._waiting = [threading.Event(), threading.Event()]
        self._go = [threading.Semaphore(0), threading.Semaphore(0)]
        self._threads: list[threading.Thread] = []

    def take(self, me: int) -> None:
        """Wait for the next turn."""
        self._waiting[me].set()
        assert self._go[me].acquire(timeout=20)

    def play(self, runs: Sequence[Callable[[], object]], after_each: Callable[[], object]) -> None:
        """Run both to their end."""

        def begin(me: int) -> None:
            try:
                self.take(me)
                runs[me]()
            finally:
                ended.add(me)
                self._waiting[me].set()

        ended = set[int]()
        threads = [threading.Thread(target=begin, args=(me,)) for me in (0, 1)]
        for thread in threads:
            thread.start()
        for me in (*self._order, *(0, 1) * 200):
            assert self._waiting[me].wait(20)
            if me not in ended:
                self._waiting[me].clear()
                self._go[me].release()
                assert self._waiting[me].wait(20)
                after_each()
        for thread in threads:
            thread.join(20)
        assert ended == {0, 1}


class TurnedSink(ObjectSink[bytes]):
    """A sink whose calls to the store wait for their turns."""

    def __init__(self, store: Any, turns: Turns, me: int) -> None:
        self.take: Callable[[], None] = lambda: turns.take(me)
        super().__init__("gs://bucket", JsonLines(), store=store)

    def _forget(self) -> None:
        super()._forget()
        self._manifest._store = TurnedStore(self._store, self.take)

    def _delete(self, names: Any) -> None:
        for name in names:
            self.take()
            super()._delete([name])

    def _listed(self) -> dict[str, int]:
        self.take()
        return super()._listed()


class TurnedStore:
    def __init__(self, store: Any, take: Callable[[], None]) -> None:
        self._store, self._take = store, take

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self._take()
            return getattr(self._store, name)(*args, **options)

        return call


@pytest.mark.parametrize("seed", range(150))
def test_of_two_runs_in_any_order_of_their_calls_what_was_committed_last_is_there(seed: int) -> None:
    chance, store = random.Random(seed), MemoryStore()
    if seed % 3:  # else both find an empty place
        commit(ObjectSink("gs://bucket", JsonLines(), store=store), ONE, status="provisional")
    turns = Turns([chance.randrange(2) for _ in range(chance.choice([10, 60]))])
    committed: dict[int, bytes] = {}

    def run(me: int) -> None:
        sink = TurnedSink(store, turns, me)
        with suppress(DestinationBusyError, DestinationUnavailableError):  # the other has deleted what this one reads
            log = CommitLog(sink, QUERY, sink.open())
            log.clean([ONE])
            for number in range(2):
                mark = f'{{"segmentId":"{me} {number}","endTimeL":{ONE.start}}}\n'.encode()
                log.commit(window_read(ONE, [mark], "provisional"))
                assert log._commits not in committed, "two runs have made the same commit"
                committed[log._commits] = mark
            log.close()

    def named_are_there() -> None:
        for name in names_in(store):
            store.head(name)

    turns.play([lambda: run(0), lambda: run(1)], named_are_there)
    [name] = names_in(store)
    assert bytes(store.get(name).bytes()) == committed[max(committed)]
    last = ObjectSink("gs://bucket", JsonLines(), store=store)
    log = CommitLog(last, QUERY, last.open())
    log.clean([ONE])
    log.close()
    assert sorted(each["path"] for batch in store.list() for each in batch) == ["manifest.json", name]


def test_loser_takes_back_what_it_wrote(bucket: Bucket) -> None:
    winner, loser = (ObjectSink(bucket.url, JsonLines()) for _ in range(2))
    log = CommitLog(loser, QUERY, loser.open())
    commit(winner, ONE)
    before = bucket.contents()
    with pytest.raises(DestinationBusyError, match=r"another run has written to s3://.*run again"):
        log.commit(window_read(ONE, [b"lost\n"]))
    assert bucket.contents() == before


def test_what_a_loser_wrote_stays_if_the_winner_knows_it(bucket: Bucket) -> None:
    """It has committed one window, and another run builds on that before it commits the next one."""
    slow = ObjectSink(bucket.url, JsonLines())
    log = CommitLog(slow, QUERY, slow.open())
    log.commit(window_read(ONE, [b'{"segmentId":"a","endTimeL":1}\n']))
    commit(ObjectSink(bucket.url, JsonLines()), TWO)
    before = bucket.contents()
    with pytest.raises(DestinationBusyError):
        log.commit(window_read(THREE, [b"lost\n"]))
    assert bucket.contents() == before
    assert_sound(bucket)


def test_run_whose_object_was_taken_for_a_leftover_cannot_publish_it(bucket: Bucket) -> None:
    """Another run begins between its object and its commit."""
    commit(ObjectSink(bucket.url, JsonLines()), ONE)
    slow = ObjectSink(bucket.url, JsonLines())
    log = CommitLog(slow, QUERY, slow.open())
    written = slow.write(TWO, [b"{}\n"])
    commit(ObjectSink(bucket.url, JsonLines()))
    assert written.file not in bucket.names()
    with pytest.raises(DestinationBusyError):
        log.commit(window_read(TWO))
    assert_sound(bucket)


# Interruptions


def nightly(bucket: Bucket) -> None:
    commit(ObjectSink(bucket.url, JsonLines(), store=bucket.store()), hours(0, 2), status="provisional")


def following(bucket: Bucket) -> None:
    commit(ObjectSink(bucket.url, JsonLines(), store=bucket.store()), ONE, TWO)


def from_then_on(at: int, answer: Answer, then: Answer) -> Fault:
    """Fails at one request, counted from 0, and at all that follow."""
    seen = iter(range(10_000))

    def fault(asked: Asked) -> Answer | None:
        number = next(seen)
        if number < at:
            return None
        return answer if number == at else then

    return fault


@pytest.mark.parametrize("lost", [DROP_BEFORE, DROP_AFTER], ids=["request lost", "answer lost"])
def test_interrupted_at_any_request_and_run_again(bucket: Bucket, lost: Answer) -> None:
    nightly(bucket)
    prepared = bucket.contents()
    following(bucket)
    end, at, failed = plain(bucket.contents()), 0, True
    while failed:
        restore(bucket, prepared)
        bucket.proxy.fault = from_then_on(at, lost, DROP_BEFORE)
        failed = not succeeds(lambda: following(bucket))
        bucket.proxy.fault = lambda asked: None
        assert_sound(bucket)
        following(bucket)
        assert plain(bucket.contents()) == end | {"manifest.json": plain(bucket.contents())["manifest.json"]}
        assert_sound(bucket)
        at += 1
    assert at > 12


def restore(bucket: Bucket, stored: dict[str, bytes]) -> None:
    for name in bucket.names():
        bucket.delete(name)
    for name, data in stored.items():
        bucket.put(name, data)


def succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except DestinationUnavailableError:
        return False
    return True


def once(at: int, answer: Answer) -> Fault:
    """Fails at one request, counted from 0."""
    seen = iter(range(10_000))
    return lambda asked: answer if next(seen) == at else None


@pytest.mark.parametrize("answer", [Answer(503, "SlowDown"), Answer(500, "InternalError")], ids=lambda each: each.code)
def test_fault_that_passes_is_not_noticed(bucket: Bucket, answer: Answer) -> None:
    for at in range(8):
        restore(bucket, {})
        bucket.proxy.fault = once(at, answer)
        commit(ObjectSink(bucket.url, JsonLines(), store=bucket.store()), ONE, TWO)
        assert_sound(bucket)
        assert len(bucket.names()) == 3


@pytest.mark.parametrize("status", [500, 503])
def test_manifest_whose_answer_is_an_error_is_found_by_the_repeat(bucket: Bucket, status: int) -> None:
    """The store takes the manifest, and then says that it failed: the repeat meets its own condition."""
    sink = ObjectSink(bucket.url, JsonLines(), store=bucket.store())
    sink.open()
    bucket.proxy.fault = once(0, Answer(status, "InternalError", taken=True))
    sink.publish(b'{"commits":1}', [])
    assert bucket.contents() == {"manifest.json": b'{"commits":1}'}
    assert bucket.proxy.methods("manifest.json").count("PUT") >= 2
    bucket.proxy.fault = once(0, Answer(status, "InternalError", taken=True))
    sink.append(b'{"commit":2}', [])
    assert bucket.proxy.methods("manifest-000000000002.log").count("PUT") >= 2
    sink.publish(b'{"commits":3}', [])
    assert bucket.contents() == {"manifest.json": b'{"commits":3}'}


# Large windows


def large(parts: int) -> Iterator[bytes]:
    for number in range(parts):
        yield bytes([number]) * MEGABYTES


def test_large_window_goes_up_in_parts(bucket: Bucket) -> None:
    sink = ObjectSink(bucket.url, JsonLines(), store=bucket.store())
    written = sink.write(ONE, large(12))
    data = b"".join(large(12))
    assert (written.bytes, written.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert bucket.read(str(written.file)) == data
    assert bucket.proxy.methods(str(written.file)).count("PUT") == 3
    assert sink.intact(written)
    assert bucket.uploads() == 0


def failing(parts: int) -> Iterator[bytes]:
    yield from large(parts)
    raise RuntimeError("in the middle")


def test_upload_is_aborted_when_its_window_fails(bucket: Bucket) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        ObjectSink(bucket.url, JsonLines(), store=bucket.store()).write(ONE, failing(8))
    assert "DELETE" in bucket.proxy.methods()
    assert (bucket.names(), bucket.uploads()) == ([], 0)


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (400, "BadRequest"), (503, "SlowDown")])
def test_an_abort_that_fails_does_not_hide_why(bucket: Bucket, status: int, code: str) -> None:
    refused: list[Asked] = []

    def fault(asked: Asked) -> Answer | None:
        if asked.method != "DELETE":
            return None
        refused.append(asked)
        return Answer(status, code)

    bucket.proxy.fault = fault
    with pytest.raises(RuntimeError, match="in the middle"):
        ObjectSink(bucket.url, JsonLines(), store=bucket.store()).write(ONE, failing(8))
    assert refused
    assert bucket.names() == []


@pytest.mark.parametrize("part", ["uploads", "partNumber=1", "partNumber=2", "complete"])
def test_upload_that_fails_leaves_nothing(bucket: Bucket, part: str) -> None:
    def fault(asked: Asked) -> Answer | None:
        completes = asked.method == "POST" and "uploadId" in asked.path
        fails = completes if part == "complete" else f"?{part}" in asked.path
        return Answer(503, "SlowDown") if fails else None

    sink = ObjectSink(bucket.url, JsonLines(), store=bucket.store())
    bucket.proxy.fault = fault
    with pytest.raises(DestinationUnavailableError, match="the store answered 503 SlowDown; run again"):
        sink.write(ONE, large(8))
    bucket.proxy.fault = lambda asked: None
    assert (bucket.names(), bucket.uploads()) == ([], 0)


def test_writing_waits_for_the_store(bucket: Bucket) -> None:
    """However large a window is, a few parts of it are in memory."""
    taken, go_on = [], threading.Event()

    def fault(asked: Asked) -> Answer | None:
        assert "partNumber" not in asked.path or go_on.wait(20)
        return None

    def parts() -> Iterator[bytes]:
        for part in large(60):
            taken.append(len(part))
            yield part

    bucket.proxy.fault = fault
    sink = ObjectSink(bucket.url, JsonLines(), store=bucket.store())
    writing = threading.Thread(target=lambda: sink.write(ONE, parts()))
    writing.start()
    until(lambda: sum("partNumber" in asked.path for asked in bucket.proxy.asked) == 3)
    writing.join(0.2)
    held = sum(taken)
    go_on.set()
    writing.join(20)
    assert held <= 25 * MEGABYTES
    assert len(bucket.read(bucket.names()[0])) == 60 * MEGABYTES


# What is there already


def test_leftovers_go_and_other_objects_stay(bucket: Bucket) -> None:
    commit(ObjectSink(bucket.url, JsonLines()), ONE)
    foreign = ["notes.txt", f"{STEM_ONE}.csv", f"{STEM_ONE}-0123456789ab.jsonl.bak", "sub/segments.jsonl"]
    leftovers = [f"{STEM_ONE}-0123456789ab.jsonl", f"{STEM_ONE}.jsonl"]
    before = bucket.contents()
    for name in foreign + leftovers:
        bucket.put(name, b"x")
    commit(ObjectSink(bucket.url, JsonLines()))
    after = bucket.contents()
    assert {name: after[name] for name in foreign} == dict.fromkeys(foreign, b"x")
    assert sorted(after) == sorted([*before, *foreign])
    assert without_count(after)["manifest.json"] == without_count(before)["manifest.json"]
    assert_sound(bucket)


def test_segments_without_a_manifest_are_refused(bucket: Bucket) -> None:
    bucket.put(f"{STEM_ONE}-0123456789ab.jsonl", b"whose?")
    before = bucket.contents()
    with pytest.raises(DestinationError, match=r"holds segments-.* but no manifest\.json: restore"):
        ObjectSink(bucket.url, JsonLines()).open()
    assert bucket.contents() == before


@pytest.mark.parametrize("name", ["../victim", "/victim", f"{STEM_ONE}-../../victim.jsonl", f"{STEM_ONE}-XYZ.jsonl"])
def test_manifest_cannot_name_other_objects(bucket: Bucket, name: str) -> None:
    commit(ObjectSink(bucket.url, JsonLines()), ONE, status="provisional")
    manifest = json.loads(bucket.read("manifest.json"))
    manifest["windows"][0]["file"] = name
    bucket.put("manifest.json", json.dumps(manifest).encode())
    before = bucket.contents()
    with pytest.raises(ManifestError, match="the file of window"):
        commit(ObjectSink(bucket.url, JsonLines()), ONE)
    assert bucket.contents() == before


@pytest.mark.parametrize(
    ("harm", "holds", "intact"),
    [
        (lambda data: data, True, True),
        (lambda data: data.swapcase(), True, False),
        (lambda data: data[:-1], False, False),
        (lambda data: None, False, False),
    ],
)
def test_object_holds_while_it_has_its_size(
    bucket: Bucket, harm: Callable[[bytes], bytes | None], holds: bool, intact: bool
) -> None:
    sink = ObjectSink(bucket.url, JsonLines())
    written = sink.write(ONE, [b'{"segmentId": "a"}'])
    harmed = harm(bucket.read(str(written.file)))
    bucket.delete(str(written.file))
    if harmed is not None:
        bucket.put(str(written.file), harmed)
    assert (sink.holds(written), sink.intact(written)) == (holds, intact)


def test_damaged_object_is_told_by_its_keys(bucket: Bucket) -> None:
    sink = ObjectSink(bucket.url, JsonLines(), "gzip")
    written = sink.write(ONE, [sink.encode([row(ONE)])])
    data = bytearray(bucket.read(str(written.file)))
    data[-6] ^= 1
    bucket.put(str(written.file), bytes(data))
    with pytest.raises(ValueError, match="the compressed data is damaged"):
        list(sink.keys(written))
    bucket.delete(str(written.file))
    with pytest.raises(DestinationUnavailableError, match="no longer has an object"):
        list(sink.keys(written))


# Trouble, told with advice


ADVICE = {
    Answer(404, "NoSuchBucket"): "there is no such bucket; create it",
    Answer(403, "AccessDenied"): "no permission; grant the right to list, read, write and delete",
    Answer(403, "InvalidAccessKeyId"): "the credentials are refused; set AWS_ACCESS_KEY_ID and",
    Answer(403, "SignatureDoesNotMatch"): "the credentials are refused; set AWS_ACCESS_KEY_ID and",
    Answer(400, "ExpiredToken"): "the credentials are refused; set AWS_ACCESS_KEY_ID and",
    Answer(401, "Unauthorized"): "the credentials are refused; set AWS_ACCESS_KEY_ID and",
    Answer(301, "PermanentRedirect", (("x-amz-bucket-region", "eu-west-1"),)): "in another region; set AWS_REGION",
    Answer(400, "AuthorizationHeaderMalformed"): "in another region; set AWS_REGION",
}
PASSING = {
    Answer(503, "SlowDown"): "the store answered 503 SlowDown; run again later; what is committed stays",
    Answer(500, "InternalError"): "the store answered 500 InternalError; run again later",
    DROP_BEFORE: "the store did not answer; run again later",
}


@pytest.mark.parametrize("answer", [*ADVICE, *PASSING], ids=lambda answer: answer.code)
def test_trouble_is_told_with_advice(bucket: Bucket, answer: Answer) -> None:
    bucket.proxy.fault = lambda asked: answer
    sink = ObjectSink(bucket.url, JsonLines(), store=bucket.store())
    with pytest.raises(DestinationError, match=ADVICE.get(answer) or PASSING[answer]) as caught:
        sink.open()
    assert str(caught.value).startswith(f"{bucket.url}: ")
    assert isinstance(caught.value, DestinationUnavailableError) is (answer in PASSING)
    assert_no_secret("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("answer", [*ADVICE, *PASSING], ids=lambda answer: answer.code)
def test_trouble_while_writing_is_told_with_advice(bucket: Bucket, answer: Answer) -> None:
    sink = ObjectSink(bucket.url, JsonLines(), store=bucket.store())
    sink.open()
    bucket.proxy.fault = lambda asked: answer if asked.method in ("PUT", "POST") else None
    with pytest.raises(DestinationError, match=ADVICE.get(answer) or PASSING[answer]) as caught:
        sink.write(ONE, large(7))
    assert isinstance(caught.value, DestinationUnavailableError) is (answer in PASSING)
    assert_no_secret("".join(traceback.format_exception(caught.value)))
    assert bucket.names() == []


def assert_no_secret(text: str) -> None:
    assert KEY["AWS_SECRET_ACCESS_KEY"] not in text
    assert "http://" not in text


def test_store_that_refuses_conditions_is_refused(bucket: Bucket) -> None:
    bucket.proxy.fault = lambda asked: Answer(501, "NotImplemented") if asked.method == "PUT" else None
    with pytest.raises(DestinationError, match=r"has no conditional writes .*use one that has them"):
        commit(ObjectSink(bucket.url, JsonLines(), store=bucket.store()), ONE)
    assert bucket.names() == []


@pytest.mark.parametrize("begun", [False, True], ids=["new", "there"])
def test_store_that_ignores_conditions_is_refused(bucket: Bucket, begun: bool) -> None:
    if begun:
        commit(ObjectSink(bucket.url, JsonLines()), ONE)
    bucket.proxy.heedless = True
    with pytest.raises(DestinationError, match=r"has no conditional writes .*use one that has them"):
        commit(ObjectSink(bucket.url, JsonLines(), store=bucket.store()), TWO)
    assert_sound(bucket)

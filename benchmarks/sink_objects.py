"""JSON Lines in an object store, beside msgspec's encoder and obstore's own upload of what it gives."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from obstore.store import S3Store

from benchmarks import forgetful_store
from benchmarks.sinks import Contest, Pages
from segment_fetch.sinks import JsonLines, ObjectSink, Sink


@contextmanager
def contest() -> Iterator[Contest]:
    """Over HTTP, to a server that costs next to nothing: neither a network nor a store hides what is slow here."""
    with forgetful_store.running() as url:
        reached: Any = {"endpoint": url, "client_options": {"allow_http": True}}
        keys: Any = {"access_key_id": "any", "secret_access_key": "any", "region": "us-east-1"}

        def store(place: Path) -> Any:
            return S3Store("bucket", prefix=str(place).strip("/"), **reached, **keys)

        def sink(place: Path) -> Sink[Any]:
            return ObjectSink("s3://bucket", JsonLines(), store=store(place))

        def plain(place: Path, rows: Pages) -> None:
            """The fastest of obstore's ways: it takes the pages one by one, and uploads them in parts, side by side."""
            encoder = msgspec.json.Encoder()
            store(place).put("segments.jsonl", map(encoder.encode_lines, rows))

        yield Contest(sink, plain)

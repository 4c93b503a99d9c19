"""What the library promises to callers: few names, each documented and typed, and cheap to import."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import segment_fetch
from segment_fetch import errors, sinks, testing

PUBLIC = {
    "segment_fetch": [
        "Auth",
        "BearerToken",
        "ClientCredentials",
        "CredentialsError",
        "DestinationBusyError",
        "DestinationError",
        "DestinationUnavailableError",
        "Event",
        "ExtendedSegment",
        "Filters",
        "IncompleteError",
        "InputError",
        "ManifestError",
        "MissingExtraError",
        "OAuth1Key",
        "PaceStore",
        "Plan",
        "PlannedWindow",
        "RequestRefusedError",
        "RetryPolicy",
        "SchemaError",
        "Segment",
        "SegmentClient",
        "SegmentFetchError",
        "ServiceError",
        "UnstorableValueError",
        "Window",
    ],
    "segment_fetch.testing": [
        "Medium",
        "Record",
        "SinkConformance",
        "VALUES",
        "as_columns",
        "as_json",
    ],
    "segment_fetch.sinks": [
        "Csv",
        "CsvSink",
        "Draft",
        "DuckDbSink",
        "FileFormat",
        "FolderSink",
        "Format",
        "JsonLines",
        "JsonlSink",
        "ObjectSink",
        "Parquet",
        "ParquetSink",
        "PostgresSink",
        "Sink",
        "StreamSink",
        "Written",
        "open_sink",
    ],
}
CLASSES = [
    (module, name)
    for module, names in PUBLIC.items()
    for name in names
    if inspect.isclass(getattr(import_module(module), name))
]


@pytest.mark.parametrize("module", [segment_fetch, testing, sinks], ids=lambda module: module.__name__)
def test_public_names_are_these(module: ModuleType) -> None:
    assert sorted(module.__all__) == PUBLIC[module.__name__]
    assert module.__doc__
    assert all(hasattr(module, name) for name in module.__all__)


def public(kind: type, name: str) -> object:
    """A member that callers may use, unwrapped."""
    value = inspect.getattr_static(kind, name)
    return value.fget if isinstance(value, property) else getattr(value, "__func__", value)


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_public_classes_and_their_methods_are_documented(module: str, name: str) -> None:
    kind = getattr(import_module(module), name)
    assert kind.__doc__, name
    assert "__doc__" in vars(kind), f"{name} has only its parent's words"
    for member in vars(kind):
        value = public(kind, member)
        if not member.startswith("_") and inspect.isfunction(value):
            assert inspect.getdoc(getattr(kind, member)), f"{name}.{member}"
            annotations = {*inspect.signature(value).parameters} - {"self"}
            assert annotations | {"return"} <= {*value.__annotations__, "return"}, f"{name}.{member} is not typed"
            assert "return" in value.__annotations__


def test_every_error_has_one_root() -> None:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert all(issubclass(kind, segment_fetch.SegmentFetchError) for kind in found)
    internal = {"NoStartError", "ThrottledError", "TooLargeError", "TransientError", "UnauthorizedError"}
    assert {kind.__name__ for kind in found} - internal <= set(segment_fetch.__all__)


def test_types_are_shipped() -> None:
    assert (Path(segment_fetch.__file__).parent / "py.typed").is_file()


def test_import_is_cheap_and_starts_nothing() -> None:
    script = (
        "import sys, threading, segment_fetch, segment_fetch.sinks\n"
        "heavy = ['aiohttp', 'oauthlib', 'rich', 'zstandard', 'hypothesis', 'segment_fetch.simulator.server',\n"
        "         'pyarrow', 'pytest', 'segment_fetch.testing']\n"
        "print([name for name in heavy if name in sys.modules], threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[] 1\n"
    assert done.stderr == ""

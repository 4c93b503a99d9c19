"""The public surface: few names, each documented and typed, and cheap to import."""

from __future__ import annotations

import ast
import inspect
import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Any, Protocol, get_args, get_type_hints

import pytest

import segment_fetch
from segment_fetch import errors, sinks, testing

PUBLIC = {
    "segment_fetch": [
        "Auth",
        "Authorizer",
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
        "Learned",
        "ManifestError",
        "MissingExtraError",
        "OAuth1Key",
        "PaceStore",
        "Plan",
        "PlannedWindow",
        "ProxyError",
        "Rate",
        "Report",
        "RequestRefusedError",
        "RetryPolicy",
        "SchemaError",
        "Segment",
        "SegmentClient",
        "SegmentFetchError",
        "ServiceError",
        "TimeLike",
        "Timeouts",
        "Token",
        "UnstorableValueError",
        "Window",
        "WindowEntry",
        "WindowRead",
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
        "Database",
        "Disk",
        "Draft",
        "DuckDbSink",
        "FileFormat",
        "Finding",
        "FolderSink",
        "Format",
        "JsonLines",
        "JsonlSink",
        "ObjectSink",
        "Parquet",
        "ParquetSink",
        "Place",
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
    internal |= {"MalformedPageError", "InconsistentError"}  # the latter is only ever a code
    assert {kind.__name__ for kind in found} - internal <= set(segment_fetch.__all__)


def named(hint: object) -> Iterator[type]:
    """Yield the classes that a type hint names, at any depth."""
    if inspect.isclass(hint) and not isinstance(hint, GenericAlias):
        yield hint
    for inner in get_args(hint):
        for part in inner if isinstance(inner, (list, tuple)) else [inner]:
            yield from named(part)


class Names(dict[str, object]):
    """The names of a class's module, then of every loaded one, for what is imported for the type checker alone."""

    def __init__(self, kind: type) -> None:
        super().__init__(vars(sys.modules[kind.__module__]))

    def __missing__(self, name: str) -> object:
        if name in ("aiohttp", "asyncio"):
            return import_module(name)
        if name == "pa":
            return import_module("pyarrow")
        if name == "ObjectStore":
            return import_module("obstore.store").ObjectStore
        for module in [module for key, module in sys.modules.items() if key.startswith("segment_fetch.")]:
            if hasattr(module, name):
                return getattr(module, name)
        raise KeyError(name)


@pytest.mark.parametrize(("module", "name"), [one for one in CLASSES if "testing" not in one[0]])
def test_every_type_in_a_public_signature_can_be_imported(module: str, name: str) -> None:
    kind = getattr(import_module(module), name)
    known = {getattr(import_module(module), name) for module, name in CLASSES} | set(get_args(segment_fetch.Event))
    for member in [member for member in vars(kind) if member == "__init__" or not member.startswith("_")]:
        value = public(kind, member)
        if not inspect.isfunction(value):
            continue
        for argument, hint in get_type_hints(value, None, Names(kind)).items():
            hidden = [one for one in named(hint) if one.__module__.startswith("segment_fetch") and one not in known]
            assert not hidden or all(issubclass(one, Protocol) for one in hidden), f"{member}({argument})"
    for field, hint in get_type_hints(kind, None, Names(kind)).items():
        hidden = [one for one in named(hint) if one.__module__.startswith("segment_fetch") and one not in known]
        assert not hidden, f"{name}.{field}"


KEY = segment_fetch.BearerToken("token")
TOKEN = {"access_token": "x", "access_token_secret": "x"}
WRONG: dict[str, tuple[Callable[..., object], Mapping[str, object]]] = {
    "SegmentClient": (segment_fetch.SegmentClient, {"account": "111111", "auth": KEY, "source": "test"}),
    "OAuth1Key": (
        segment_fetch.OAuth1Key,
        dict.fromkeys(("app_key", "app_secret", "access_token", "access_token_secret"), "x"),
    ),
    "ClientCredentials": (segment_fetch.ClientCredentials, {"client_id": "x", "client_secret": "x"}),
    "BearerToken": (segment_fetch.BearerToken, {"token": "x"}),
    "Filters": (segment_fetch.Filters, {}),
    "Window": (segment_fetch.Window, {"start": 0, "end": 1}),
    "RetryPolicy": (segment_fetch.RetryPolicy, {}),
    "Timeouts": (segment_fetch.Timeouts, {}),
    "PaceStore": (segment_fetch.PaceStore, {"folder": "pace"}),
    "open_sink": (sinks.open_sink, {"url": "out"}),
    "JsonlSink": (sinks.JsonlSink, {"folder": "out"}),
    "CsvSink": (sinks.CsvSink, {"folder": "out"}),
    "ParquetSink": (sinks.ParquetSink, {"folder": "out"}),
    "FolderSink": (sinks.FolderSink, {"folder": "out", "form": sinks.JsonLines()}),
    "ObjectSink": (sinks.ObjectSink, {"url": "s3://bucket/x", "form": sinks.JsonLines(), "store": object()}),
    "DuckDbSink": (sinks.DuckDbSink, {"path": "x.duckdb"}),
    "PostgresSink": (sinks.PostgresSink, {"dsn": "postgresql:///x"}),
    "StreamSink": (sinks.StreamSink, {"stream": io.BytesIO()}),
    "Csv": (sinks.Csv, {}),
}
ANYTHING = {("ObjectSink", "store")}
"""Arguments that take what another library made, and are not looked at."""


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (name, argument)
        for name, (call, _) in WRONG.items()
        for argument in inspect.signature(call).parameters
        if (name, argument) not in ANYTHING
    ],
)
def test_an_argument_of_a_wrong_type_is_named(name: str, argument: str) -> None:
    call, right = WRONG[name]
    with pytest.raises(segment_fetch.InputError, match=rf"\b{argument}\b"):
        call(**{**right, argument: object()})


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("auth", "x"),
        ("filters", {}),
        ("session", "x"),
        ("retry", (1, 2)),
        ("rate", True),
        ("connections", 2.0),
        ("window", 7),
        ("limit", "500"),
        ("timeouts", 30),
        ("pace", "pace"),
        ("base_url", b"https://example.com"),
        ("clock", 12),
    ],
)
def test_a_likely_mistake_is_named(argument: str, value: object) -> None:
    right: dict[str, Any] = {"account": "111111", "auth": KEY, "source": "test"}
    with pytest.raises(segment_fetch.InputError, match=f"^{argument}\\b"):
        segment_fetch.SegmentClient(**{**right, argument: value})


class Callback:
    async def __call__(self, event: segment_fetch.Event) -> None: ...

    async def method(self, event: segment_fetch.Event) -> None: ...


async def async_function(event: segment_fetch.Event) -> None: ...


@pytest.mark.parametrize("callback", [async_function, Callback(), Callback().method, partial(async_function)])
def test_an_async_callback_is_refused(callback: Any) -> None:
    with pytest.raises(segment_fetch.InputError, match=r"on_event: must be .*not an async one"):
        segment_fetch.SegmentClient("111111", auth=KEY, source="test", on_event=callback)


@pytest.mark.parametrize("call", ["count", "plan", "stream", "stream_arrow", "windows", "extract", "sync", "counts"])
async def test_an_argument_of_a_call_that_is_of_a_wrong_type_is_named(call: str, tmp_path: Path) -> None:
    right: dict[str, Any] = {"start": "now-1d", "end": "now", "encode": list, "sink": sinks.JsonlSink(tmp_path)}
    async with segment_fetch.SegmentClient("1", auth=KEY, source="test", base_url="http://127.0.0.1:9") as client:
        method = getattr(client, call)
        takes = list(inspect.signature(method).parameters)
        for argument in takes:
            arguments = {name: right[name] for name in takes if name in right} | {argument: object()}
            made = method(**arguments)
            with pytest.raises(segment_fetch.InputError, match=rf"\b{argument}\b"):
                await (anext(made) if inspect.isasyncgen(made) else made)


def test_no_message_of_the_library_names_an_option_of_the_command() -> None:
    root = Path(segment_fetch.__file__).parent
    apart = {"cli", "simulator", "testing"}
    for path in root.rglob("*.py"):
        if path.relative_to(root).parts[0] in apart or "singer" in path.parts:
            continue
        texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        found = [text for text in texts if isinstance(text, str) and re.search(r"(?<![\w-])--[a-z][a-z-]+", text)]
        assert not found, f"{path}: {found}"


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


def test_on_windows_the_import_says_what_to_do() -> None:
    script = "import sys; sys.platform = 'win32'; import segment_fetch"
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: segment_fetch does not run on Windows itself" in done.stderr
    assert "WSL" in done.stderr

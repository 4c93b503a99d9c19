"""Tools for users' own tests: the pytest fixture `segment_simulator`, and the conformance suite for destinations.

Imported only by test suites; needs pytest. To test a `Sink`, subclass `Medium`, which reads and damages the sink's
storage, and `SinkConformance`, whose tests pytest then collects::

    class TestMySink(SinkConformance):
        @pytest.fixture
        def medium(self, tmp_path):
            return MyMedium(tmp_path)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_fetch.testing.medium import Medium, Record, as_columns, as_json
    from segment_fetch.testing.sink_suite import SinkConformance
    from segment_fetch.testing.values import VALUES

__all__ = ["VALUES", "Medium", "Record", "SinkConformance", "as_columns", "as_json"]

_MODULES = {
    "VALUES": "values",
    "Medium": "medium",
    "Record": "medium",
    "SinkConformance": "sink_suite",
    "as_columns": "medium",
    "as_json": "medium",
}


def __getattr__(name: str) -> object:
    """Import a name on first access, so that the pytest plugin costs almost nothing in runs that do not use it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

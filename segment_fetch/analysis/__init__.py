"""Answers from a destination: handle time by interval, skill, agent, group, employee or end reason.

Called by the command and by users; reads committed windows through `manifest` and `sinks`, and never uses the API.
DuckDB or PostgreSQL computes the sums. Needs the extra `duckdb`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_fetch.analysis.export import write_excel, write_table
    from segment_fetch.analysis.handle_time_sums import HandleTime, handle_time
    from segment_fetch.analysis.report_page import report

__all__ = ["HandleTime", "handle_time", "report", "write_excel", "write_table"]

_MODULES = {
    "HandleTime": "handle_time_sums",
    "report": "report_page",
    "handle_time": "handle_time_sums",
    "write_excel": "export",
    "write_table": "export",
}


def __getattr__(name: str) -> object:
    """Import a name on first access: DuckDB and pyarrow are large and optional."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

"""The report of an extraction, as text and as JSON, and what to do next."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from segment_fetch.cli import failures
from segment_fetch.cli.formatting import plural, wrapped
from segment_fetch.errors import IncompleteError, lasting, printable
from segment_fetch.timerange import SETTLE_AFTER_MS, format_time, settles_at

if TYPE_CHECKING:
    from segment_fetch.extraction.report import Report

_LISTED = 5
_LABEL = 14
_LONGEST = 1_000  # characters


class Run(NamedTuple):
    """A run besides its report: the destination, the command, and whether it can be resumed."""

    destination: str
    command: str
    resumable: bool = True
    syncs: bool = False
    settle_after: timedelta = timedelta(milliseconds=SETTLE_AFTER_MS)


def counts(report: Report) -> dict[str, int]:
    """Return the numbers of proven, provisional and unproven windows."""
    statuses = [entry.status for entry in report.windows]
    return {
        "proven": statuses.count("complete"),
        "provisional": statuses.count("provisional"),
        "unproven": statuses.count("unproven"),
    }


def as_json(report: Report, run: Run, code: int, **more: Any) -> dict[str, Any]:
    """Return the report in machine-readable form, with `error` if the run is not complete."""
    return {
        **more,
        "destination": run.destination,
        "exit_code": code,
        **counts(report),
        **msgspec.to_builtins(report),
        **({} if report.complete else {"error": error_of(report)}),
    }


def error_of(report: Report) -> dict[str, str]:
    """Return the error of an incomplete run, in machine-readable form; its advice says if running it again can help."""
    error = failures.as_json(_failure(report))
    if report.unproven and not failures.can_pass(_codes(report)):
        error["advice"] = failures.lasting_advice(_codes(report))
    return error


def _failure(report: Report) -> IncompleteError:
    if report.unproven:
        windows = [entry.window for entry in report.unproven]
        return IncompleteError(f"{plural(len(windows), 'window')} could not be proven complete", windows)
    return failures.LostRangeError(f"{', '.join(report.lost)}: never read, and no longer served", report.lost)


def as_text(report: Report, run: Run, columns: int) -> str:
    """Return the report as text."""
    if not report.windows:
        return wrapped(_nothing(report, run), columns)
    lines = [_headline(report, run), *_empty(report), *_facts(report), *_unproven(report), *_next(report, run)]
    return "\n".join(wrapped(line, columns, hang=" " * _LABEL if line.startswith("  ") else "") for line in lines)


def _nothing(report: Report, run: Run) -> str:
    there = plural(report.skipped, "window")
    return (
        f"Nothing to do: the range is already in {run.destination} ({there}, proven complete). "
        f"{plural(report.requests, 'request')} made."
    )


def _headline(report: Report, run: Run) -> str:
    verb = "Extracted" if report.complete else "INCOMPLETE: extracted"
    return f"{verb} {plural(report.segments, 'segment')} into {run.destination} in {lasting(report.seconds)}."


def _empty(report: Report) -> list[str]:
    if report.segments or not report.complete:
        return []
    return ["The range holds none. If that is unexpected, check the account, the range and the filters."]


def _facts(report: Report) -> list[str]:
    there = f"; {report.skipped:,} more were already complete" if report.skipped else ""
    repeated = f", {report.retries:,} of them retries" if report.retries else ""
    throttled = f", {report.throttled:,} answered 429 (too many)" if report.throttled else ""
    facts = {
        "windows": f"{len(report.windows):,} read{there}",
        **_proofs(counts(report)),
        "requests": f"{report.requests:,}{repeated}{throttled}",
    }
    if report.duplicates:
        facts["duplicates"] = f"{plural(report.duplicates, 'row')} received twice, kept once"
    if report.added or report.removed:
        facts["changes"] = f"{plural(report.added, 'segment')} added, {report.removed:,} removed in windows read again"
    if report.fallback_pages and report.fast_pages:  # if none took the fast path, the run has reported it
        count = f"{report.fallback_pages:,} of {plural(report.fast_pages + report.fallback_pages, 'page')}"
        reason = printable(report.fallback_reason, _LONGEST)
        facts["slow pages"] = f"{count} could not take the fast path; the first for this reason: {reason}"
    if report.unknown_fields:
        facts["new fields"] = printable(", ".join(report.unknown_fields), _LONGEST)
    return [f"  {label:<{_LABEL - 2}}{text}" for label, text in facts.items()]


def _proofs(found: dict[str, int]) -> dict[str, str]:
    words = {
        "proven": "every segment is there once, and no more will be added",
        "provisional": "every segment as of now; late ones may still appear",
        "unproven": "left out, because they could not be proven complete",
    }
    return {
        name: f"{plural(found[name], 'window')}: {words[name]}" if found[name] else "0 windows"
        for name in words
        if found[name] or name == "proven"
    }


def _unproven(report: Report) -> list[str]:
    lines = [
        f"  {'-':<{_LABEL - 2}}{entry.window}: {printable(entry.reason, _LONGEST)}"
        for entry in report.unproven[:_LISTED]
    ]
    more = len(report.unproven) - _LISTED
    return [*lines, f"  {'-':<{_LABEL - 2}}and {more:,} more"] if more > 0 else lines


def _next(report: Report, run: Run) -> list[str]:
    if not run.resumable:
        return (
            ["Next: run it again from the beginning; standard output keeps no record of this run."]
            if report.unproven
            else []
        )
    if report.unproven:
        advice = failures.lasting_advice(_codes(report))
        if not failures.can_pass(_codes(report)):
            return [f"Next: {advice}"]
        lines = ["Next: run the same command again; only what is missing is read:", f"  {run.command}"]
        return [*lines, f"For the others: {advice}"] if advice else lines
    if not counts(report)["provisional"]:
        return []
    return (
        ["Next: sync again tomorrow; it settles what is provisional."]
        if run.syncs
        else [_settle(report, run.settle_after)]
    )


def _codes(report: Report) -> list[str | None]:
    return [entry.code for entry in report.unproven]


def _settle(report: Report, settle_after: timedelta) -> str:
    provisional = [entry.window for entry in report.windows if entry.status == "provisional"]
    first = min(window.start for window in provisional)
    last = max(window.end for window in provisional)
    settled = format_time(settles_at(last, settle_after // timedelta(milliseconds=1)) // 1000 * 1000)
    return (
        f"Next: after {settled} extract the same range again into the same destination, to settle what is provisional: "
        f"--from {format_time(first)} --to {format_time(last)}"
    )

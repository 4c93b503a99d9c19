"""Segments that are difficult to store, and windows for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from segment_fetch.query import Window
from segment_fetch.wire.models import ExtendedSegment, Segment

_EPOCH = 1_793_491_200_000  # 2026-11-01T00:00:00Z
_HOUR_MS = 3_600_000


def hours(start: int, end: int) -> Window:
    """Return a window on 1 November 2026, from one hour (UTC) to another."""
    return Window(_EPOCH + start * _HOUR_MS, _EPOCH + end * _HOUR_MS)


ONE, TWO, THREE = hours(0, 1), hours(1, 2), hours(2, 3)
BOTH = hours(0, 2)


def rows_of(window: Window, *texts: str) -> list[Segment]:
    """Return segments of a window, in the written order, with these ids and texts."""
    return [
        Segment(segmentId=f"{number}:{text}", endTimeL=window.start + number, employeeId=text)
        for number, text in enumerate(texts)
    ]


def _row(segment_id: str, **fields: Any) -> Segment:
    values = {"segmentId": segment_id, "endTimeL": ONE.start + ord(segment_id)} | fields
    return msgspec.convert(values, ExtendedSegment if "extras" in fields else Segment)


_EVERY_FIELD = {
    "startTimeL": ONE.start - 60_000,
    "conversationId": "0ab68239-5265",
    "agentId": 287000,
    "employeeId": "dksd434",
    "skillId": 146688951,
    "groupId": 23865772,
    "endReason": "agentTransfer",
    "totalHandleTimeMillis": 66833,
}

VALUES: Mapping[str, Sequence[Segment]] = MappingProxyType(
    {
        "every field": [_row("a", **_EVERY_FIELD), _row("b", **_EVERY_FIELD)],
        "unicode": rows_of(ONE, "Zoë", "李雷", "🎧", "e\u0301", "\u202eright to left", "\ufeff"),
        "quotes": rows_of(ONE, '"', '""', "'", 'a"b', "\\", '\\"', "a,b", ";", "a\tb"),
        "newlines": rows_of(ONE, "a\nb", "a\r\nb", "\r", "\n", "\u2028", "\x85", "\x0b", "\x0c"),
        "control characters": rows_of(ONE, "\x01", "\x1f", "\x7f"),
        "zero characters": rows_of(ONE, "\0", "a\0b"),
        "escapes as text": rows_of(ONE, r"\ud800", r"\u0000", r"\n", r"\N", "%00", "&amp;", "NULL", "null"),
        "blanks": rows_of(ONE, "", " ", " a ", "\t"),
        "formulas": rows_of(ONE, "=1+1", "+1", "-1", "@a", "=cmd|' /C calc'!A0"),
        "absent": [_row("a")],
        "null": [_row("a", **dict.fromkeys(_EVERY_FIELD)), _row("b", **_EVERY_FIELD)],
        "numbers": [_row("a", startTimeL=2**53 + 1, agentId=-(2**62), skillId=0, groupId=2**63 - 1)],
        "numbers beyond 64 bits": [_row("a"), _row("b", totalHandleTimeMillis=2**80)],
        "unknown reasons": [_row("a", endReason="brandNew"), _row("b", endReason="agentTransfer")],
        "unknown fields": [
            _row("a", agentId=None),
            _row("b", skillId=5, extras={"new": {"deep": [1, None, "x", 0.5]}}),
            _row("c", extras={"extras": True, "neu\n": "=1"}),
        ],
    }
)
"""Kinds of values, each with the segments of one window, in the written order."""

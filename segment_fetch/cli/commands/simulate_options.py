"""The options of `simulate`, and the limits and times that they spell."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from typing import TYPE_CHECKING

from segment_fetch.cli import options, values
from segment_fetch.simulator.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

_RATE = re.compile(r"(\d+(?:\.\d+)?)/s(?::(\d+))?")
_SLIDING = re.compile(r"(\d+)/(\d+(?:\.\d+)?)s")
_AT_ONCE = re.compile(r"(\d+)-at-once")
_LATENCY = re.compile(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?")

Limit = tuple[str, float, float]
"""A limit as spelled: ("rate", a second, burst), ("sliding", requests, seconds) or ("at-once", requests, 0)."""


def limit(text: str) -> Limit:
    """40/s, 40/s:10, 100/10s or 5-at-once."""
    if match := _RATE.fullmatch(text):
        return "rate", float(match[1]), float(match[2] or 1)
    if match := _SLIDING.fullmatch(text):
        return "sliding", float(match[1]), float(match[2])
    if match := _AT_ONCE.fullmatch(text):
        return "at-once", float(match[1]), 0.0
    raise ArgumentTypeError(f"{text!r} is no limit: write 40/s, 40/s:10 (10 at once), 100/10s, or 5-at-once")


def latency(text: str) -> tuple[float, float]:
    """Milliseconds: 50, or the least and the most: 30-120."""
    match = _LATENCY.fullmatch(text)
    least, most = (float(match[1]), float(match[2] or match[1])) if match else (1.0, 0.0)
    if least > most:
        raise ArgumentTypeError(f"{text!r}: write milliseconds (50), or the least and the most (30-120)")
    return least, most


def fault(text: str) -> tuple[str, float]:
    """KIND=SHARE."""
    kind, equals, part = text.partition("=")
    if not equals:
        raise ArgumentTypeError(f"{text!r}: write KIND=SHARE (error_500=0.02)")
    return kind.replace("-", "_"), values.share(part)


def port(text: str) -> int:
    """A TCP port; 0 for one that is free."""
    value = values.whole(text)
    if value > 65_535:
        raise ArgumentTypeError("must be at most 65535")
    return value


def add(parser: ArgumentParser) -> None:
    """Every option of `simulate`."""
    _add_service(parser)
    _add_data(parser)
    _add_trouble(parser)
    options.add_output(parser)


def _add_service(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("service")
    group.add_argument("--port", type=port, default=0, metavar="N", help="0 takes one that is free (default: 0)")
    group.add_argument("--account", metavar="ID", help="(else LIVEPERSON_ACCOUNT, else 111111)")
    group.add_argument(
        "--auth",
        choices=("oauth1", "client-credentials", "bearer", "none"),
        default="oauth1",
        help="credentials asked for (default: oauth1)",
    )
    group.add_argument("--credentials", metavar="FILE", help="take them from NAME=VALUE lines, not the environment")
    group.add_argument("--no-permission", action="store_true", help="refuse good credentials, as without permission")
    group.add_argument(
        "--latency", type=latency, default=(0.0, 0.0), metavar="MS", help="of each answer: 50, or 30-120 (default: 0)"
    )
    group.add_argument(
        "--limit",
        type=limit,
        action="append",
        default=[],
        metavar="LIMIT",
        help="answer 429 beyond it: 40/s (a token bucket; 40/s:10 lets 10 at once pass), 100/10s (any 10 seconds), "
        "5-at-once; may be repeated",
    )
    group.add_argument("--no-retry-after", action="store_true", help="429 of a limit does not say how long to wait")
    group.add_argument("--to-exclusive", action="store_true", help="a segment closed at `to` itself is left out")
    group.add_argument("--no-gzip", action="store_true", help="never compress answers")
    group.add_argument(
        "--until-stdin-closes", action="store_true", help="end when standard input does; for a program that starts this"
    )


def _add_data(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("segments")
    group.add_argument("--segments", type=values.whole, default=10_000, metavar="N", help="how many (default: 10000)")
    group.add_argument("--days", type=values.number, default=7.0, metavar="N", help="before --to (default: 7)")
    group.add_argument(
        "--from", dest="start", type=values.moment, metavar="TIME", help="first close time, instead of --days"
    )
    group.add_argument(
        "--to", dest="end", type=values.moment, default="now", metavar="TIME", help="end of close times (default: now)"
    )
    group.add_argument("--seed", type=values.whole, default=1, metavar="N", help="of all that is random (default: 1)")
    group.add_argument("--daily-load", action="store_true", help="busy by day, quiet by night and at weekends")
    _add_numbers(
        group.add_argument,
        values.share,
        "SHARE",
        {
            "concentrate": "closed in the one hour at the middle",
            "ties": "closed in the same millisecond as the one before",
            "null-share": "has null fields (default: 0.01)",
            "unknown-reasons": "has an end reason that is not documented",
            "wrong-types": "has a field of the wrong type",
        },
    )
    group.add_argument("--burst", type=values.whole, default=0, metavar="N", help="close in one millisecond")
    group.add_argument(
        "--new-field-from", type=values.whole, metavar="N", help="have an undocumented field from the Nth on"
    )


def _add_trouble(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("trouble")
    group.add_argument(
        "--fault",
        type=fault,
        action="append",
        default=[],
        metavar="KIND=SHARE",
        help=f"spoil this share of answers; may be repeated. KIND: {', '.join(Fault)}",
    )
    group.add_argument("--late", type=values.share, default=0.0, metavar="SHARE", help="appears late")
    group.add_argument(
        "--late-delay", type=values.span, default="24h", metavar="SPAN", help="so late at most (default: 24h)"
    )
    _add_numbers(
        group.add_argument,
        values.number,
        "N",
        {
            "inserts": "segments that appear, a second",
            "vanish": "segments that vanish, a second",
            "swaps": "segments that vanish as another appears, a second",
        },
    )
    group.add_argument("--shuffle-ties", action="store_true", help="equal close times in ever another order")


def _add_numbers(
    add_argument: Callable[..., object], kind: Callable[[str], float], metavar: str, helps: dict[str, str]
) -> None:
    for name, text in helps.items():
        default = 0.01 if name == "null-share" else 0.0
        add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=text)

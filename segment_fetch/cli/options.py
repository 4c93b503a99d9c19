"""Options that several commands share, in groups."""

from __future__ import annotations

from argparse import ArgumentParser, _ArgumentGroup
from datetime import timedelta

from segment_fetch.cli import values
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.windows.planning import SPLIT_ABOVE

FILTERS = ("agent-id", "skill-id", "group-id", "employee-id", "conversation-id")


def add_connection(parser: ArgumentParser) -> None:
    """Who asks, whom, and how hard."""
    group = parser.add_argument_group("connection")
    group.add_argument("--account", metavar="ID", help="LivePerson account (else LIVEPERSON_ACCOUNT)")
    group.add_argument(
        "--credentials", metavar="FILE", help="NAME=VALUE lines with the names that the environment has, instead of it"
    )
    group.add_argument(
        "--source",
        metavar="NAME",
        default="segment_fetch",
        help="names this job to the API: 1 to 20 letters, digits, underscores (default: %(default)s)",
    )
    group.add_argument(
        "--base-url", metavar="URL", help="ask this address, not the account's domain; http only to this machine"
    )
    group.add_argument(
        "--rate",
        type=values.rate,
        default="auto",
        metavar="auto|N|none",
        help="auto: find the API's limit from its answers; N: the same, but at most N requests a second; none: no "
        "limit (default: auto)",
    )
    group.add_argument(
        "--connections", type=values.positive, default=16, metavar="N", help="requests at once (default: 16)"
    )
    group.add_argument(
        "--state",
        metavar="DIR",
        help="keep what was found about the API's limit here, or none: nowhere (default: the user's state folder)",
    )
    _add_patience(parser)


def _add_patience(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("patience")
    policy = RetryPolicy()
    delays = {
        "--retry-delays": (policy.server, "seconds before each repeat after a 5xx answer"),
        "--network-retry-delays": (policy.network, "the same after a fault of the network"),
        "--later-retry-delays": (policy.parked, "seconds before later rounds of such repeats"),
    }
    for name, (default, text) in delays.items():
        listed = ",".join(f"{delay:g}" for delay in default)
        told = f"{text}, or none (default: {listed})"
        group.add_argument(name, type=values.delays, default=default, metavar="S,S,...", help=told)
    group.add_argument(
        "--patience",
        type=values.span,
        default="15m",
        metavar="SPAN",
        help="how long to wait while nothing comes through any more (default: 15m)",
    )
    timeouts = {
        "--connect-timeout": (10.0, "seconds to connect"),
        "--read-timeout": (30.0, "seconds of silence"),
        "--timeout": (120.0, "seconds for one attempt"),
    }
    for name, (seconds, text) in timeouts.items():
        told = f"{text} (default: {seconds:g})"
        group.add_argument(name, type=values.seconds, default=seconds, metavar="S", help=told)


def add_range(parser: ArgumentParser) -> None:
    """Which segments."""
    group = parser.add_argument_group("range")
    group.add_argument(
        "--from",
        dest="start",
        type=values.moment,
        metavar="TIME",
        help="close time of the first segment: RFC 3339, a date, now, or now-7d (units s, m, h, d, w); UTC where no "
        "offset says otherwise; at most one month back",
    )
    group.add_argument(
        "--to", dest="end", type=values.moment, default="now", metavar="TIME", help="where it ends (default: now)"
    )
    group.add_argument(
        "--window", type=values.span, default="7d", metavar="SPAN", help="widest window, at most 7d (default: 7d)"
    )
    _add_selection(parser, group)


def add_days(parser: ArgumentParser) -> None:
    """Which segments, of a destination that grows day by day."""
    group = parser.add_argument_group("range")
    group.add_argument(
        "--from",
        dest="start",
        type=values.moment,
        metavar="TIME",
        help="where an empty folder begins: RFC 3339, a date, now-7d; needed the first time",
    )
    group.add_argument("--timezone", metavar="ZONE", default="UTC", help="whose days: an IANA name (default: UTC)")
    parser.set_defaults(window=timedelta(days=7))
    _add_selection(parser, group)


def _add_selection(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    group.add_argument("--clamp", action="store_true", help="begin at the oldest moment that can still be had")
    group.add_argument(
        "--split-above",
        type=values.positive,
        default=SPLIT_ABOVE,
        metavar="N",
        help=f"divide windows with more segments (default: {SPLIT_ABOVE})",
    )
    filters = parser.add_argument_group("filters")
    for name in FILTERS:
        filters.add_argument(f"--{name}", metavar="ID", help=f"only segments of this {name[:-3]}")


def add_output(parser: ArgumentParser) -> None:
    """What is said, and how."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="the report as one JSON object on standard output")
    group.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    group.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="least level of what is logged on standard error (default: info)",
    )
    group.add_argument("--log-format", choices=("text", "json"), default="text", help="form of the log (default: text)")

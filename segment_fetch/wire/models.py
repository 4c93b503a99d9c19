"""The records of the API, under the API's own names.

Source: LivePerson, Agent Activity API, "agent segments" method. Only `segmentId` and `endTimeL` are required; any
other field may be absent (`UNSET`) or null (`None`), and the two are kept apart so that a segment is written exactly
as it was read.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

Part = TypeVar("Part")
"""Encoded segments, in the form in which a destination keeps them until their window is proven."""

MAX_COUNT = 1_000_000_000
"""Maximum count of a result: a larger one is an error, and planning its pages would exhaust memory."""


class Segment(Struct, kw_only=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The time that one human agent spent on one conversation, from assignment to close or transfer.

    `…TimeL` fields are epoch milliseconds, `startTime` and `endTime` the same instants as RFC 3339 text,
    `totalHandleTimeMillis` milliseconds. `endReason` is any text: the API may add reasons to those it documents.
    """

    segmentId: str
    startTimeL: int | UnsetType | None = UNSET
    endTimeL: int
    conversationId: str | UnsetType | None = UNSET
    agentId: int | UnsetType | None = UNSET
    employeeId: str | UnsetType | None = UNSET
    skillId: int | UnsetType | None = UNSET
    groupId: int | UnsetType | None = UNSET
    endReason: str | UnsetType | None = UNSET
    totalHandleTimeMillis: int | UnsetType | None = UNSET
    endTime: str | UnsetType | None = UNSET
    startTime: str | UnsetType | None = UNSET


class ExtendedSegment(Segment, kw_only=True, frozen=True):
    """A segment with fields that `Segment` does not know yet: `extras` holds them by name, as decoded from JSON."""

    extras: dict[str, Any]


class Timeframe(Struct, frozen=True, gc=False):
    """The time frame that the server answers for; epoch milliseconds and RFC 3339 text."""

    startTime: str | None = None
    endTime: str | None = None
    startTimeL: int | str | None = None
    endTimeL: int | str | None = None


class Reference(Struct, frozen=True, gc=False):
    """A link to a page of the result. Never followed: it may use parameters that the method does not know."""

    rel: str | int | None = None
    href: str | None = None


class Pagination(Struct, frozen=True):
    """`count` is the size of the whole result, not of the page."""

    count: Annotated[int, Meta(ge=0, le=MAX_COUNT)]
    references: list[Reference] | None = None


class WirePagination(Struct, frozen=True):
    """A `Pagination` as sent: the count is a number or text."""

    count: Annotated[int, Meta(ge=0, le=MAX_COUNT)] | Annotated[str, Meta(pattern=r"^[0-9]{1,9}$")]
    references: list[Reference] | None = None

    def plain(self) -> Pagination:
        """Return the same with the count as a number."""
        return Pagination(int(self.count), self.references)


class SegmentPage(Struct, frozen=True):
    """One answer: at most 500 segments, newest close time first."""

    segments: Sequence[Segment]
    pagination: Pagination
    timeframe: Timeframe | None = None


class ExtendedPage(SegmentPage, frozen=True):
    """A page that may hold an `ExtendedSegment`; any other page holds none."""


SEGMENT_FIELDS: tuple[str, ...] = Segment.__struct_fields__
"""Every field of a segment, in the order in which JSON Lines and CSV write them (the order of the wire)."""

"""Which of its two methods a sink or a format is to encode segments with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol, TypeVar

from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.raw_rows import RawRows, decode_lines

Part_co = TypeVar("Part_co", covariant=True)


class Encoder(Protocol[Part_co]):
    """A sink or a format."""

    def encode(self, segments: Sequence[Segment], /) -> Part_co:
        """Segments."""

    def encode_lines(self, lines: bytes, /) -> Part_co:
        """Segments that are JSON Lines."""


def encoded(encoder: Encoder[Part], segments: Sequence[Segment]) -> Part:
    """Segments as the encoder wants them held, whichever road they came."""
    return encoded_lines(encoder, segments.text) if isinstance(segments, RawRows) else encoder.encode(segments)


def encoded_lines(encoder: Encoder[Part], lines: bytes) -> Part:
    """The same for JSON Lines."""
    return encoder.encode_lines(lines) if _takes_lines(type(encoder)) else encoder.encode(decode_lines(lines))


@cache
def _takes_lines(kind: type) -> bool:
    """Whether a class says of lines what is to become of them. One that overrides `encode` alone sees every segment."""
    return next("encode_lines" in vars(base) for base in kind.__mro__ if {"encode", "encode_lines"} & vars(base).keys())

"""The content of each row (identifiers, people, times, JSON), derived only from the seed and the row's number."""

import struct
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import shake_128
from typing import NamedTuple

import orjson

from segment_fetch.simulator.timeline import mix

END_REASONS = (
    "closedByConsumer",
    "closedByAgent",
    "closedBySystem",
    "agentTransfer",
    "skillTransfer",
    "backToQueue",
    "other",
)
UNKNOWN_END_REASON = "closedByBot"

_BLOCK = 128
_AGENTS = 1009
_SKILLS = 61
_GROUPS = 23
_SHARE_UNIT = 65536
_TEMPLATE = b"********-****-****-****-************:######################********-****-****-****-************"
_STRIDE = len(_TEMPLATE)
_TOKEN = 22
_CONVERSATION = 37 + _TOKEN
_HEX_COLUMNS = [column for column, sign in enumerate(_TEMPLATE) if sign == ord("*")]
_SECONDS = tuple(f"{second:02d}." for second in range(60))
_MILLIS = tuple(f"{milli:03d}Z" for milli in range(1000))
_LEAST_NUMBER = 1_000_000_000
_FACTOR = 2_654_435_761
_UNICODE_NAMES = ("Zoë", "Łukasz", "Ñandú", "李雷", "Ωmega", "Şükrü")


class RowOptions(NamedTuple):
    """Deviations from the documented rows. Shares are 0 to 1; `new_field_from` is a row number."""

    null_share: float
    unknown_reasons: float
    wrong_types: float
    new_field_from: int | None


class Traits(NamedTuple):
    """The fields that filters and sorts use. Values are spelled as in a query parameter; absent is ``""``."""

    conversation: str
    agent: str
    employee: str
    skill: str
    group: str


class _Material(NamedTuple):
    """The random parts of one block of rows. `text` has for each row a UUID, a token and another UUID, in the form in
    which they are written; `numbers` has four 16-bit numbers per row.
    """

    text: str
    numbers: tuple[int, ...]


class _Agent(NamedTuple):
    number: int
    employee: str
    group: int
    agent_json: str
    wrong_json: str
    group_json: str


class RowWriter:
    """Renders rows. Any number from 0 to 2**32 - 1 is a row; the caller passes its close time."""

    def __init__(self, *, seed: int, account: str, options: RowOptions) -> None:
        self._seed = seed
        self._account = account
        self._agents = [_agent(seed, number) for number in range(_AGENTS)]
        self._skills = [146_000_000 + mix(seed + 2, number) % 1_000_000 for number in range(_SKILLS)]
        self._null_limit = int(options.null_share * _SHARE_UNIT)
        self._unknown_limit = int(options.unknown_reasons * _SHARE_UNIT)
        self._wrong_limit = int(options.wrong_types * _SHARE_UNIT)
        self._new_field_from = 2**32 if options.new_field_from is None else options.new_field_from
        self._odd_from = 0 if self._unknown_limit or self._wrong_limit else self._new_field_from
        self._minutes = _MinuteTexts()
        self._material = lru_cache(maxsize=256)(self._make_material)

    def segment_id(self, row: int) -> str:
        """Return the identifier of a row; unique, because the number in it is a scrambled row number."""
        block, slot = divmod(row, _BLOCK)
        at = slot * _STRIDE
        return f"{self._account}:{_scrambled(row)}:{self._material(block).text[at : at + _CONVERSATION]}"

    def traits(self, row: int) -> Traits:
        """Return the fields that filters and sorts use, without rendering the row."""
        block, slot = divmod(row, _BLOCK)
        material = self._material(block)
        agent_number, skill_number, oddity, _ = material.numbers[slot * 4 : slot * 4 + 4]
        agent = self._agents[agent_number % _AGENTS]
        nulled = oddity < self._null_limit
        return Traits(
            conversation=material.text[_conversation_at(slot, oddity) :][:36],
            agent=str(agent.number),
            employee=agent.employee,
            skill="" if nulled else str(self._skills[skill_number % _SKILLS]),
            group="" if nulled and oddity % 2 else str(agent.group),
        )

    def render(self, rows: Iterable[tuple[int, int]]) -> list[bytes]:
        """Return the JSON of each `(row, close time in epoch ms)`."""
        return [self.row(row, close) for row, close in rows]

    def row(self, row: int, close: int) -> bytes:
        """Return the JSON of one row. Expensive parts come from tables, because a page has 500 rows."""
        block, slot = divmod(row, _BLOCK)
        text, numbers = self._material(block)
        at = slot * _STRIDE
        agent_number, skill_number, oddity, length = numbers[slot * 4 : slot * 4 + 4]
        _, _, _, agent_json, _, group_json = agent = self._agents[agent_number % _AGENTS]
        skill: int | str = self._skills[skill_number % _SKILLS]
        reason, tail = END_REASONS[length % 7], "}"
        if oddity < self._null_limit:
            skill, group_json = "null", '"groupId":null' if oddity % 2 else group_json
        if row >= self._odd_from:
            reason, agent_json, tail = self._odd(row, agent, oddity, length)
        conversation = slot * _STRIDE + _CONVERSATION if oddity % 5 else _conversation_at(slot, oddity)
        span = 15_000 + length * length // 600
        start, minutes = close - span, self._minutes
        return (
            f'{{"segmentId":"{self._account}:{_LEAST_NUMBER + (row * _FACTOR & 0xFFFFFFFF)}:'
            f'{text[at : at + _CONVERSATION]}","startTimeL":{start},"endTimeL":{close},'
            f'"conversationId":"{text[conversation : conversation + 36]}",{agent_json}"skillId":{skill},'
            f'{group_json},"endReason":"{reason}","totalHandleTimeMillis":{span - span // (2 + oddity % 5)},'
            f'"endTime":"{minutes[close // 60_000]}{_SECONDS[close // 1000 % 60]}{_MILLIS[close % 1000]}",'
            f'"startTime":"{minutes[start // 60_000]}{_SECONDS[start // 1000 % 60]}{_MILLIS[start % 1000]}"{tail}'
        ).encode()

    def _odd(self, row: int, agent: _Agent, oddity: int, length: int) -> tuple[str, str, str]:
        """Return end reason, agent and tail of a row if unknown values, wrong types or new fields are configured."""
        draw = oddity * 40_503 % _SHARE_UNIT
        unknown = draw < self._unknown_limit
        wrong = (draw + _SHARE_UNIT // 2) % _SHARE_UNIT < self._wrong_limit
        return (
            UNKNOWN_END_REASON if unknown else END_REASONS[length % 7],
            agent.wrong_json if wrong else agent.agent_json,
            f',"newField":"{oddity}"}}' if row >= self._new_field_from else "}",
        )

    def _make_material(self, block: int) -> _Material:
        digest = shake_128(f"{self._seed}/{block}".encode()).digest(_BLOCK * 58)
        tokens_at, numbers_at = _BLOCK * 32, _BLOCK * 50
        text = bytearray(_TEMPLATE * _BLOCK)
        hexadecimal = digest[:tokens_at].hex().encode()
        tokens = urlsafe_b64encode(digest[tokens_at:numbers_at])
        for place, column in enumerate(_HEX_COLUMNS):
            text[column::_STRIDE] = hexadecimal[place::64]
        for place in range(_TOKEN):
            text[37 + place :: _STRIDE] = tokens[place::24]
        return _Material(text.decode(), struct.unpack(f"<{_BLOCK * 4}H", digest[numbers_at:]))


def utc_text(instant: int) -> str:
    """Return an epoch time in ms as RFC 3339 in UTC: ``2022-05-12T21:31:39.022Z``."""
    minute, rest = divmod(instant, 60_000)
    return f"{_minute_text(minute)}{rest // 1000:02d}.{rest % 1000:03d}Z"


def _minute_text(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%dT%H:%M:")


class _MinuteTexts(dict[int, str]):
    """The text of each minute since the epoch, created on first access."""

    def __missing__(self, minute: int) -> str:
        text = self[minute] = _minute_text(minute)
        return text


def row_of_id(segment_id: str) -> int:
    """Return the row number in an identifier; -1 if there is none."""
    parts = segment_id.split(":")
    if len(parts) != 4 or not parts[1].isdecimal():
        return -1
    return (int(parts[1]) - _LEAST_NUMBER) * pow(_FACTOR, -1, 2**32) % 2**32


def _scrambled(row: int) -> int:
    """Return a ten-digit number for a row number; one to one, because the factor is odd."""
    return _LEAST_NUMBER + (row * _FACTOR & 0xFFFFFFFF)


def _conversation_at(slot: int, oddity: int) -> int:
    """Return the position of the conversation's identifier; every fifth row continues the previous conversation."""
    return (slot - 1 if slot and oddity % 5 == 0 else slot) * _STRIDE + _CONVERSATION


def _agent(seed: int, number: int) -> _Agent:
    draw = mix(seed + 3, number)
    agent_id = 100_000 + number * 883 + draw % 883
    employee = _employee(draw >> 16, number)
    group = 23_000_000 + mix(seed + 4, (draw >> 40) % _GROUPS) % 1_000_000
    spelled = f'"employeeId":{orjson.dumps(employee).decode()},' if employee else ""
    return _Agent(
        agent_id,
        employee,
        group,
        f'"agentId":{agent_id},{spelled}',
        f'"agentId":"{agent_id}",{spelled}',
        f'"groupId":{group}',
    )


def _employee(draw: int, number: int) -> str:
    """Return an employee's id as a brand might write it: one agent in eight has none, one in sixteen is not ASCII."""
    kind = draw % 16
    if kind < 2:
        return ""
    if kind == 2:
        return f"{_UNICODE_NAMES[number % len(_UNICODE_NAMES)]}-{number}"
    return f"{'abcdefgh'[kind % 8]}{'klmnopqr'[draw // 16 % 8]}{'stuvwxyz'[draw // 128 % 8]}d{number:03d}"

"""Delivery of an answer to the client: intact, or damaged by a fault of the connection."""

import asyncio
import socket
import struct
from collections.abc import Mapping

from aiohttp import web
from multidict import CIMultiDict

from segment_fetch.simulator.answers import Answer
from segment_fetch.simulator.faults import Fault

_SLOW_PIECES = 20
_BIG_HEADER = 9_000
_ZSTD_BLOCK = 128 * 1024


async def deliver(
    request: web.BaseRequest, answer: Answer, headers: Mapping[str, str], fault: Fault | None, slow_body_s: float
) -> web.StreamResponse:
    """Send an answer with its own and the given headers, damaged by the fault.

    A stall lasts until the client leaves or the server stops, which cancels the request's task.
    """
    all_headers = CIMultiDict(answer.headers)
    all_headers.update(headers)
    match fault:
        case Fault.DROP:
            return _abort(request)
        case Fault.STALL:
            return await _stall()
        case Fault.RESET | Fault.TRUNCATED | Fault.STALL_BODY:
            await _send_half(request, answer, all_headers)
            return await _break_off(request, fault)
        case Fault.SLOW_BODY:
            return await _send_slowly(request, answer, all_headers, slow_body_s)
        case Fault.TWO_LENGTHS:
            return _send_two_lengths(request, answer)
        case Fault.BIG_HEADER:
            all_headers["X-Padding"] = "x" * _BIG_HEADER
        case Fault.ZSTD:
            all_headers["Content-Encoding"] = "zstd"
            answer = answer._replace(body=zstd_frame(answer.body))
        case _:
            pass
    return web.Response(status=answer.status, body=answer.body, headers=all_headers)


def zstd_frame(body: bytes) -> bytes:
    """Return a body as a zstd frame (RFC 8878) of raw blocks, which needs no compressor."""
    pieces = [body[at : at + _ZSTD_BLOCK] for at in range(0, len(body), _ZSTD_BLOCK)] or [b""]
    frame = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(body))
    for number, piece in enumerate(pieces):
        is_last = number == len(pieces) - 1
        frame += struct.pack("<I", is_last | len(piece) << 3)[:3] + piece
    return frame


def _send_two_lengths(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    size = len(answer.body)
    head = f"HTTP/1.1 {answer.status} OK\r\nContent-Length: {size}\r\nContent-Length: {size + 1}\r\n\r\n"
    if request.transport is not None:
        request.transport.write(head.encode() + answer.body)
        request.transport.close()
    return web.Response()


async def _send_half(request: web.BaseRequest, answer: Answer, headers: Mapping[str, str]) -> None:
    response = _stream(answer, headers)
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])


async def _send_slowly(
    request: web.BaseRequest, answer: Answer, headers: Mapping[str, str], seconds: float
) -> web.StreamResponse:
    response = _stream(answer, headers)
    await response.prepare(request)
    size = max(len(answer.body) // _SLOW_PIECES, 1)
    for at in range(0, len(answer.body), size):
        await response.write(answer.body[at : at + size])
        await asyncio.sleep(seconds / _SLOW_PIECES)
    await response.write_eof()
    return response


def _stream(answer: Answer, headers: Mapping[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = len(answer.body)
    return response


async def _break_off(request: web.BaseRequest, fault: Fault) -> web.StreamResponse:
    transport = request.transport
    if fault is Fault.STALL_BODY:
        return await _stall()
    if fault is Fault.RESET:
        return _reset(request)
    if transport is not None:
        transport.close()
    return web.Response()


async def _stall() -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


def _abort(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _reset(request: web.BaseRequest) -> web.StreamResponse:
    """Close the connection with a TCP reset, which is the effect of a linger time of 0."""
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return _abort(request)

"""Ctrl-C, SIGTERM and SIGHUP: stop requests in flight, and end within two seconds even if something hangs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from segment_fetch.cli.failures import InterruptedRunError

T = TypeVar("T")

_PATIENCE_S = 1.2
"""Seconds for a clean shutdown. Then the process is ended, which is safe: no window is committed in part."""


def run(main: Coroutine[Any, Any, T], on_signal: Callable[[int], None]) -> T:
    """Run a coroutine in a new event loop and return its result.

    A signal calls `on_signal` and cancels the coroutine, which then has 1.2 s to end: InterruptedRunError. A second
    signal ends the process.
    """
    import asyncio  # noqa: PLC0415 - takes 20 ms, and `--help` does without

    deadlines: list[threading.Timer] = []
    try:
        return asyncio.run(_supervised(main, on_signal, deadlines))
    finally:
        for deadline in deadlines:  # a clean end: output that is still pending is not limited
            deadline.cancel()


async def _supervised(
    main: Coroutine[Any, Any, T], on_signal: Callable[[int], None], deadlines: list[threading.Timer]
) -> T:
    import asyncio  # noqa: PLC0415 - as above

    task = asyncio.ensure_future(main)
    caught: list[int] = []

    def stop(signum: int) -> None:
        if caught:
            os._exit(128 + signum)
        caught.append(signum)
        deadlines.append(_end_process_later(128 + signum))
        task.cancel()
        on_signal(signum)

    loop = asyncio.get_running_loop()
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        signals.append(signal.SIGHUP)
    for signum in signals:
        loop.add_signal_handler(signum, stop, signum)
    try:
        return await task
    except BaseException:
        if caught:
            raise InterruptedRunError(caught[0]) from None
        raise
    finally:
        for signum in signals:
            loop.remove_signal_handler(signum)


def _end_process_later(code: int) -> threading.Timer:
    timer = threading.Timer(_PATIENCE_S, os._exit, (code,))
    timer.daemon = True
    timer.start()
    return timer

"""Ctrl-C, SIGTERM and a terminal that is closed: stop what is in flight, within two seconds, whatever hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from segment_fetch.cli.exit_codes import InterruptedRunError

T = TypeVar("T")

_PATIENCE_S = 1.2
"""Seconds for an orderly end. Then the process ends at once, which is safe: nothing is committed by halves."""


def run(main: Coroutine[Any, Any, T], on_signal: Callable[[int], None]) -> T:
    """Runs a coroutine in a new event loop. A signal tells `on_signal`, then cancels it: InterruptedRunError.

    A second signal ends the process.
    """
    return asyncio.run(_supervised(main, on_signal))


async def _supervised(main: Coroutine[Any, Any, T], on_signal: Callable[[int], None]) -> T:
    task = asyncio.ensure_future(main)
    caught: list[int] = []

    def stop(signum: int) -> None:
        if caught:
            os._exit(128 + signum)
        caught.append(signum)
        _end_process_later(128 + signum)
        task.cancel()
        on_signal(signum)

    loop = asyncio.get_running_loop()
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
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


def _end_process_later(code: int) -> None:
    timer = threading.Timer(_PATIENCE_S, os._exit, (code,))
    timer.daemon = True
    timer.start()

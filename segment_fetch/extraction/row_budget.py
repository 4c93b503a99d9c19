"""A bound on the rows that all clients in an event loop hold in memory together; a fleet sets it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary


class RowBudget:
    """Counts the rows held by the windows of many queues. A queue that holds nothing may always begin one window, so
    that there is no deadlock.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def has_room(self, rows: int) -> bool:
        """Return True if that many more rows fit."""
        return self.held + rows <= self.most


_budgets: WeakKeyDictionary[asyncio.AbstractEventLoop, RowBudget] = WeakKeyDictionary()


def budget_of(loop: asyncio.AbstractEventLoop) -> RowBudget | None:
    """Return the budget that the clients of an event loop share, None if none is set."""
    return _budgets.get(loop)


@contextmanager
def row_budget(rows: int) -> Iterator[RowBudget]:
    """Set a budget for the clients that are opened in this event loop while the block runs."""
    loop = asyncio.get_running_loop()
    budget = _budgets[loop] = RowBudget(rows)
    try:
        yield budget
    finally:
        if _budgets.get(loop) is budget:
            del _budgets[loop]

"""The pytest fixture `segment_simulator`; installed with the package, imported by every pytest run."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from segment_fetch.simulator import Dataset, Simulator


class SimulatorFactory(Protocol):
    """A callable that starts simulators, which are stopped at the end of the test."""

    def __call__(self, dataset: "Dataset", **options: Any) -> "Simulator":
        """Start a simulator in a separate thread; `options` are those of `Simulator`."""


@pytest.fixture
def segment_simulator() -> Iterator[SimulatorFactory]:
    """Return a callable that starts a simulator of the agent-segments API, given a `Dataset` and options.

    For synchronous and asynchronous tests; all simulators are stopped at the end of the test.
    """
    from segment_fetch.simulator import Simulator  # noqa: PLC0415 - loaded only if used

    with ExitStack() as stack:

        def start(dataset: "Dataset", **options: Any) -> "Simulator":
            return stack.enter_context(Simulator(dataset, **options).in_thread())

        yield start

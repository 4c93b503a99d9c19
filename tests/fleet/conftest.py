"""Fixtures of the fleet's tests."""

from tests.cli.conftest import run

__all__ = ["run"]

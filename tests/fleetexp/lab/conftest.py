"""The command line, as the tests of its commands call it."""

from tests.fleetexp.cli.conftest import invoke

__all__ = ["invoke"]

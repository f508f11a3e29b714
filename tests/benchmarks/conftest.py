"""What benchmarks share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_log() -> Iterator[None]:
    """Log nothing: pytest would keep every record of 10,000 inputs, and collecting them be charged to one input."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session", autouse=True)
def power_stays_on() -> None:
    """Wait for the disk here: what is measured is what users get."""

"""Fixtures of the collectors' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from agents.collectors import Collectors


@pytest.fixture
def closing() -> Iterator[Callable[[Collectors], Collectors]]:
    made: list[Collectors] = []

    def keep(collectors: Collectors) -> Collectors:
        made.append(collectors)
        return collectors

    yield keep
    for collectors in made:
        collectors.close()

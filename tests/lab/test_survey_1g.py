"""On a real kernel with 1 GB transparent huge pages: a survey splits none, and says what it therefore can't know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1000)]

Guest = Callable[..., dict[str, Any]]
GIB_KIB = 1048576


def process_of(seen: dict[str, Any]) -> dict[str, Any]:
    (one,) = seen["processes"]
    return {
        **one,
        "splitting": seen["splitting_sizes_kib"],
        "by_size": {size["size_kib"]: size for size in one["sizes"]},
    }


def split(seen: dict[str, Any]) -> int:
    return int(seen["after"]["thp_split_pud"] - seen["before"]["thp_split_pud"])


def test_a_survey_splits_no_1g_page_and_looks_again_once_none_can_be_there(guest: Guest) -> None:
    seen = guest("guest_survey.py", memory="5GiB", limit_seconds=900)
    assert seen["held"]["anon_fault_alloc"] - seen["before"]["anon_fault_alloc"] == 1, "it has a 1 GB page"

    for word in ("big", "left"):  # with the size on, and after it was switched off with a page alive
        one = process_of(seen[word])
        assert (one["sight"], one["splitting"]) == ("would_split", [GIB_KIB])
        assert one["by_size"][GIB_KIB]["residency"] is None
        assert one["by_size"][GIB_KIB]["extents"] >= 1
        assert one["by_size"][GIB_KIB]["whole_at_most"] >= 1
        assert split(seen[word]) == 0, "a survey split the page that it looks at"
    assert split(seen["smaps"]) == 1, "what the survey keeps from reading would have split it"

    assert seen["nr_anon"] == 0
    one = process_of(seen["none"])
    assert (one["sight"], one["splitting"]) == ("whole", [])
    assert one["by_size"][2048]["residency"]["resident_bytes"] >= 60 << 20
    assert split(seen["none"]) == 0

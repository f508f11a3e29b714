"""Every page of the gallery, served and read as a source: the right value or the right reason."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.prometheus_text import SeriesValue
from agents.metric_sources.reading import places, read_place
from agents.metric_sources.unreadable import Unreadable
from agents.sysroot import FolderRoot
from tests.agents.metric_sources.gallery import PageCase, Read, page_cases, serve
from tests.web_server import Web, serving

CASES = page_cases()


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_page_gives_the_right_value_or_the_right_reason(case: PageCase, web: Web) -> None:
    serve(web, case.page)
    (place,) = places([replace(read.source, url=web.url, timeout_seconds=30.0) for read in case.reads], "web-1")
    found = read_place(place, FolderRoot(), Cancellation())
    assert {read.source.pick: wrong for read in case.reads if (wrong := _wrong(read, found[read.source.metric]))} == {}


def _wrong(read: Read, one: SeriesValue | Unreadable) -> str:
    """Say what is wrong with an answer; '' where it is right."""
    match one:
        case Unreadable() as error:
            right = read.refused and read.refused in error.what and error.remedy
            return "" if right else f"{error.what} [{error.remedy}], not {read.refused or read.value}"
        case SeriesValue() as found:
            at = found.at_seconds
            right = read.value is not None and math.isclose(found.value, read.value, rel_tol=1e-12)
            instant = abs((at or 0.0) - time.time()) < 60 if read.now else at is None
            return "" if right and instant else f"{found}, not {read}"


def test_there_are_pages_of_every_kind() -> None:
    assert len(CASES) >= 60
    assert sum(len(case.reads) for case in CASES) >= 250


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.page.content_type.startswith("text/plain")], ids=lambda case: case.name
)
def test_values_of_text_pages_are_those_that_the_prometheus_library_reads(case: PageCase) -> None:
    try:
        families = list(text_string_to_metric_families(case.page.body.decode()))
    except ValueError:
        return  # it takes a page whole or not at all
    theirs: dict[str, list[float]] = {}  # and whole numbers of any size
    for family in families:
        for sample in family.samples:
            for name in {sample.name, sample.name.removesuffix("_total")}:  # it calls every counter _total
                theirs.setdefault(name, []).append(sample.value)
    for read in case.reads:
        if read.value is not None and not read.source.sum_series:
            assert read.value in theirs[read.source.pick], read.source.pick

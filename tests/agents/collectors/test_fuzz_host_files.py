"""Loaders of a host's files on mutations of real shapes: typed errors or a reason, never a crash or a hang."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz_examples import draws, quick_and_slow
from tests.host_file_fuzz import HOSTILE, HOSTS, PARSERS, Gallery, mutated, parse_anything


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("hosts"))


@quick_and_slow
def test_a_host_with_any_file_mutated_is_mapped_and_sampled_without_it(gallery: Gallery, examples: int) -> None:
    @draws(examples)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        host, file = gallery.file(data.draw)
        gallery.look(host, file, data.draw(mutated(gallery.texts[host, file])))

    check()


@pytest.mark.parametrize("host", [HOSTS[0], *(pytest.param(host, marks=pytest.mark.slow) for host in HOSTS[1:])])
def test_a_host_with_any_file_that_is_read_full_of_hostile_numbers_is_mapped_and_sampled(
    gallery: Gallery, host: str
) -> None:
    """Two kinds of number in each file; which of them goes on from host to host, so that each file meets them all."""
    files = [file for of, file in gallery.texts if of == host]
    assert {"proc/vmstat", "proc/uptime", "sys/devices/system/cpu/online"} <= set(files)
    kinds = list(HOSTILE.values())
    assert len(kinds) <= 2 * len(HOSTS)
    for first, file in enumerate(files, 2 * HOSTS.index(host)):
        for number in (first, first + 1):
            gallery.look(host, file, kinds[number % len(kinds)](gallery.texts[host, file]))


@quick_and_slow
@pytest.mark.parametrize("file", PARSERS)
def test_a_table_is_understood_or_says_why_not(gallery: Gallery, file: str, examples: int) -> None:
    @draws(examples)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        host = data.draw(st.sampled_from([host for host in HOSTS if (host, file) in gallery.texts]))
        parse_anything(file, data.draw(mutated(gallery.texts[host, file]) | st.binary(max_size=300)))

    check()

"""10,000 mutated files for each loader of a host's files, and 10,000 looks at hosts with one file mutated."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.host_file_fuzz import HOSTS, PARSERS, Gallery, mutated, parse_anything

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600), pytest.mark.usefixtures("no_log")]
LONG = settings(max_examples=10_000, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("hosts"))


@pytest.mark.parametrize("file", PARSERS)
def test_ten_thousand_tables_are_understood_or_say_why_not(gallery: Gallery, file: str) -> None:
    @LONG
    @given(st.data())
    def check(data: st.DataObject) -> None:
        host = data.draw(st.sampled_from([host for host in HOSTS if (host, file) in gallery.texts]))
        parse_anything(file, data.draw(mutated(gallery.texts[host, file]) | st.binary(max_size=300)))

    check()


def test_ten_thousand_hosts_with_one_file_mutated_are_mapped_and_sampled(gallery: Gallery) -> None:
    @LONG
    @given(st.data())
    def check(data: st.DataObject) -> None:
        host, file = gallery.file(data.draw)
        gallery.look(host, file, data.draw(mutated(gallery.texts[host, file])))

    check()

"""Which hosts take part."""

from __future__ import annotations

import pytest

from fleetexp.population import HostInfo, parse_conditions, why_not


@pytest.mark.parametrize(
    ("condition", "actual", "holds"),
    [
        (">=6.19", "6.19.0-rc3-amd64", True),
        (">=6.19", "6.9.12", False),
        (">=6.9", "6.19.0", True),
        ("<6.20", "6.19.99", True),
        (">6.19", "6.19.3", False),  # 6.19.3 is a 6.19
        ("6.18", "6.18.5", True),
        ("==6.18.4", "6.18.5", False),
        ("!=6.18", "6.18.5", False),
        (">=6.19.2", "6.19", False),
        (">=6.12, <6.20", "6.18.5", True),
        (">=6.12, <6.18", "6.18.5", False),
        (">=200GiB", "214748364800", True),
        (">=200GiB", "214748364799", False),
        (">=200G", "0.25 TiB", True),
        ("<=8", "16", False),
        ("<9", "10", False),
        ("intel", "intel", True),
        ("intel", "amd", False),
        ("!=web-a", "web-b", True),
        ("!=web-a", "web-a", False),
        (">=6.19", "unknown", False),
        ("<6.19", "unknown", False),
        ("!=6.19", "unknown", True),
        (">=200GiB", "plenty", False),
    ],
)
def test_conditions_compare_versions_sizes_numbers_and_words(condition: str, actual: str, holds: bool) -> None:
    assert all(part.holds(actual) for part in parse_conditions(condition)) is holds


@pytest.mark.parametrize("text", ["", ">=", "=>6", ">=new", "6.1,,6.2", "<>6"])
def test_what_is_no_comparison_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="compar"):
        parse_conditions(text)


def test_the_reason_for_leaving_a_host_out_is_told() -> None:
    host = HostInfo(name="web-7", labels={"pool": "web-a", "kernel": "6.18.5"})

    def ask(**asked: object) -> str:
        none: dict[str, object] = {"pools": (), "hosts": (), "exclude": (), "where": {}}
        return why_not(host, **{**none, **asked})  # type: ignore[arg-type]

    assert ask() == ""
    assert ask(pools=("web-a",), hosts=("web-*",), where={"kernel": parse_conditions(">=6.18")}) == ""
    assert ask(exclude=("web-?",)) == "it is excluded by name"
    assert ask(hosts=("web-1",)) == "its name is not listed"
    assert ask(pools=("web-b",)) == "its pool is web-a"
    assert ask(where={"memory": parse_conditions(">=1GiB")}) == "its memory is not known"
    assert ask(where={"kernel": parse_conditions(">=6.19")}) == "its kernel is 6.18.5, not >=6.19"

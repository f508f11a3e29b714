"""Which hosts take part."""

from __future__ import annotations

import pytest

from fleetexp.experiment.population import HostInfo, parse_conditions, why_not


@pytest.mark.parametrize(
    ("condition", "kernel", "holds"),
    [
        (">=6.19", "6.19.0-rc3-amd64", True),
        (">=6.19", "6.9.12", False),
        (">=6.9", "6.19.0", True),
        ("<6.20", "6.19.99", True),
        (">6.19", "6.19.3", False),  # 6.19.3 is a 6.19
        ("6.19", "6.19.3", True),
        ("6.19", "6.19-rc2", True),
        ("6.1", "6.19.3", False),
        ("6.18", "6.18.5", True),
        ("==6.18.4", "6.18.5", False),
        ("!=6.18", "6.18.5", False),
        (">=6.19.2", "6.19", False),
        (">=6.12, <6.20", "6.18.5", True),
        (">=6.12, <6.18", "6.18.5", False),
        (">=6.19", "unknown", False),
        ("<6.19", "unknown", False),
        ("!=6.19", "unknown", True),
        # RHEL
        ("4.18", "4.18.0-553.el8_10.x86_64", True),
        (">=4.18.0-553", "4.18.0-553.el8_10.x86_64", True),
        (">=4.18.0-553", "4.18.0-477.10.1.el8_8.x86_64", False),
        (">4.18.0-553.el8_10", "4.18.0-553.5.1.el8_10.x86_64", True),
        ("4.18.0-553.el8_10", "4.18.0-553.el8_10.x86_64", True),
        ("4.18.0-553.el8_10", "4.18.0-553.el8_1.x86_64", False),
        ("4.18.0-55", "4.18.0-553.el8_10.x86_64", False),
        (">=5.14", "5.14.0-362.8.1.el9_3.x86_64", True),
        # Ubuntu
        (">=5.15.0-91", "5.15.0-91-generic", True),
        (">5.15.0-91", "5.15.0-101-generic", True),
        (">=5.15.0-101", "5.15.0-91-generic", False),
        ("5.15.0-91-generic", "5.15.0-91-generic", True),
        ("5.15.0-91-generic", "5.15.0-91-lowlatency", False),
        (">5.15.0-91-generic", "5.15.0-91-lowlatency", False),  # words have no order
        ("5.15.0-9", "5.15.0-91-generic", False),
        (">=6.8", "6.8.0-31-generic", True),
        # Debian, mainline
        (">=6.1.0-18", "6.1.0-18-amd64", True),
        (">=6.19-rc2", "6.19.0-rc3-amd64", True),
        (">=6.19-rc3", "6.19-rc2", False),
        (">=6.19-rc2", "6.19.3", True),
        (">6.19-rc2", "6.19", True),
        ("<6.19.3", "6.19-rc2", True),
        (">=6.19.0", "6.19.0", True),
        (">=5.15.0-91", "5.15.0", False),
    ],
)
def test_kernels_compare_as_distributions_number_them(condition: str, kernel: str, holds: bool) -> None:
    assert all(part.holds(kernel) for part in parse_conditions(condition, "kernel")) is holds


@pytest.mark.parametrize(
    ("condition", "actual", "holds"),
    [
        ("6226", "6226", True),
        ("6226", "6226R", False),
        ("==7543", "7543P", False),
        ("!=7543", "7543P", True),
        ("!=7543", "7543", False),
        ("1", "1a", False),
        ("3", "3-east", False),
        ("!=3", "3-east", True),
        (">=3", "3-east", False),
        ("<=3", "3-east", False),
        ("<4", "3-east", False),
        (">=1", "1a", False),
        ("1.2", "1.2.3", False),
        ("1.2", "1.20", False),
        ("8", "8.0", False),
        ("8", "08", False),
        ("16G", "16GiB", False),
        (">=1.2, <1.10", "1.9.3", True),
        (">=1.2", "1.2.3-beta", False),
        ("<=8", "16", False),
        ("<9", "10", False),
        (">=200G", "0.25 TiB", True),
        ("intel", "intel", True),
        ("intel", "amd", False),
        ("intel", "Intel", False),
        ("!=web-a", "web-b", True),
        ("!=web-a", "web-a", False),
    ],
)
def test_labels_are_equal_as_text_and_ordered_as_numbers_sizes_and_versions(
    condition: str, actual: str, holds: bool
) -> None:
    assert all(part.holds(actual) for part in parse_conditions(condition, "sku")) is holds


@pytest.mark.parametrize(
    ("condition", "actual", "holds"),
    [
        (">=200GiB", "214748364800", True),
        (">=200GiB", "214748364799", False),
        ("200GiB", "214748364800", True),
        ("!=200GiB", "214748364800", False),
        (">=200GiB", "plenty", False),
    ],
)
def test_memory_is_a_size_however_it_is_written(condition: str, actual: str, holds: bool) -> None:
    assert all(part.holds(actual) for part in parse_conditions(condition, "memory")) is holds


@pytest.mark.parametrize("text", ["", ">=", "=>6", ">=new", "6.1,,6.2", "<>6"])
def test_what_is_no_comparison_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="compar"):
        parse_conditions(text)


def test_an_order_of_what_has_none_is_refused() -> None:
    with pytest.raises(ValueError, match="3-east"):
        parse_conditions(">=3-east", "rack")
    assert parse_conditions(">=4.18.0-553.el8_10", "kernel")


def test_the_reason_for_leaving_a_host_out_is_told() -> None:
    host = HostInfo(name="web-7", labels={"pool": "web-a", "kernel": "6.18.5"})

    def ask(**asked: object) -> str:
        none: dict[str, object] = {"pools": (), "hosts": (), "exclude": (), "where": {}}
        left = why_not(host, **{**none, **asked})  # type: ignore[arg-type]
        return "" if left is None else f"{left.condition}: {left.reason}"

    assert ask() == ""
    assert ask(pools=("web-a",), hosts=("web-*",), where={"kernel": parse_conditions(">=6.18", "kernel")}) == ""
    assert ask(exclude=("web-?",)) == "exclude: it is excluded by name"
    assert ask(hosts=("web-1",)) == "hosts: its name is not listed"
    assert ask(pools=("web-b",)) == "pools: its pool is web-a"
    assert ask(where={"memory": parse_conditions(">=1GiB", "memory")}) == "where memory >=1GiB: its memory is not known"
    assert ask(where={"kernel": parse_conditions(">=6.19", "kernel")}) == (
        "where kernel >=6.19: its kernel is 6.18.5, not >=6.19"
    )

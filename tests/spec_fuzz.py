"""Specs and addresses of stores that nobody would write: mutations of the gallery's, and what must hold for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from fleetexp.errors import BadStoreUrl, ConfigError
from fleetexp.experiment import analysis_plan, experiment_to_json, parse_experiment, warnings_of
from fleetexp.secret import Secret
from fleetexp.store.url import parse_url
from tests.cpu_time import no_hang

MOST_SAID = 150_000  # characters of all lines about one spec
CASES = Path(__file__).parent / "cases/config"
SPECS = [path.read_text() for path in sorted(CASES.glob("*/*.yaml"))]

_WORDS = (
    *('"[key]"', '"\\ud800"', '"\\0"', '"a\\eb"', "~", "[]", "{}", "[[]]", "{a: {b: {}}}", "-", "- -", "? ", ": ", "|"),
    *(
        "&a",
        "*a",
        "&a [*a]",
        "!!python/name:os.system",
        "!!binary aGk=",
        "<<",
        "'",
        '"',
        "#",
        "---",
        "...",
        "%YAML 1.2",
    ),
    *("1e999", "-1", "+5", ".inf", ".nan", "0x10", "1_0", "2026-01-01", "true", "no", "1:30", "100%", "150%", "0%"),
    *("9" * count for count in (10, 19, 20, 400, 5_000)),
    *(f"{'9' * 15}TiB", f"{'9' * 18}G", "1h" * 300, "9" * 9 + "d", "[" * 30, "{a: " * 30, "a" * 3_000),
    *("thp/" + "9" * 5_000 + "kB/enabled", "hugetlb/node" + "9" * 5_000 + "/2048kB/nr_hugepages", "thp/1g/enabled"),
    *(">=" + "9" * 400, ">=" + "1." * 400, ">" + "9" * 5_000, "name", "arms", "control", "metrics", "workload", "x"),
    *("http://[::1", "http://{host}:99999/", "http://" + "a" * 3_000, "a" + "[0]" * 500, "/dev/zero", "/proc/kcore"),
)


_GOOD = [yaml.safe_load(path.read_text()) for path in sorted(CASES.glob("good/*.yaml"))]
_KEYS = ("[key]", "\ud800", "\0", "a\x1bb", "", "<<", "0", "null", "name", "per_arm", "kind", "x" * 3_000, "9" * 5_000)
_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        10**18,
        10**30,
        1e308,
        0.5,
        "",
        "~",
        "\ud800",
        "a\0b",
        "\x1b[2J",
        "é",
        "x" * 3_000,
        "9" * 5_000,
    ),
    *([], {}, [None], [[]], {"a": {"b": {}}}, {"[key]": 1}, {"\ud800": 1}, {"a b": "c"}, {"": ""}, [{}] * 300),
    *(["throughput"] * 300, [f"metrik_{number}" for number in range(1_000)], {f"arm{n}": {} for n in range(300)}),
    *({f"a{n}": {"thp/2048kB/enabled": "always"} for n in range(300)}, {f"k{n}": n for n in range(1_000)}),
    *({f"k{n}": {"prometheus": "http://h/"} for n in range(300)}, "1h" * 300, f"{'9' * 15}TiB", f"{'9' * 18}G", "100%"),
    *(">=" + "9" * 400, ">" + "9" * 5_000, ">=" + "1." * 400 + "1", f"thp/{'9' * 5_000}kB/enabled", "thp/1g/enabled"),
    *("http://[::1", "http://{host}:99999/", "a" + "[0]" * 500, "/dev/zero", "access_seconds", "always", "switchback"),
)


@st.composite
def trees(draw: st.DrawFn) -> str:
    """Draw a good spec with values and keys exchanged, added or lost, as JSON, which YAML is too."""
    spec = _copy(draw(st.sampled_from(_GOOD)))
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(_places(spec))))
        match draw(st.sampled_from(("value", "value", "value", "key", "add", "lose"))):
            case "value":
                holder[key] = _copy(draw(st.sampled_from(_VALUES)))
            case "lose":
                del holder[key]
            case what:
                value = holder[key] if what == "key" else _copy(draw(st.sampled_from(_VALUES)))
                if isinstance(holder, dict):
                    holder[draw(st.sampled_from(_KEYS))] = value
                else:
                    holder.append(value)
        if not spec:
            break
    return json.dumps(spec)


def _copy(tree: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    return json.loads(json.dumps(tree))


def _places(tree: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Yield every (container, key or index) of a tree."""
    for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


@st.composite
def specs(draw: st.DrawFn) -> str:
    """Draw a spec of the gallery with words exchanged, lines lost, doubled, moved or indented, an end cut, noise."""
    text = draw(st.sampled_from(SPECS))
    for _ in range(draw(st.integers(1, 4))):
        lines = text.split("\n")
        at = draw(st.integers(0, len(lines) - 1))
        match draw(
            st.sampled_from(("word", "word", "word", "key", "lose", "double", "swap", "indent", "cut", "noise"))
        ):
            case "word":
                words = lines[at].split(" ")
                words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(_WORDS))
                lines[at] = " ".join(words)
            case "key":
                lines.insert(at, f"{draw(st.sampled_from(_WORDS))}: {draw(st.sampled_from(_WORDS))}")
            case "lose":
                del lines[at]
            case "double":
                lines[at:at] = lines[at : at + 5] * draw(st.integers(1, 30))
            case "swap":
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case "indent":
                lines[at] = " " * draw(st.integers(1, 60)) + lines[at]
            case "cut":
                lines = [text[: draw(st.integers(0, len(text)))]]
            case _:
                lines[at] = draw(st.text(max_size=40))
        text = "\n".join(lines)
    return text


@no_hang()
def read_spec_text(text: str) -> str:
    """Read one spec: it is an experiment that is whole, or every problem has place and remedy. Returns which."""
    try:
        experiment = parse_experiment(text, "spec.yaml")
    except ConfigError as error:
        _check_refusal(error)
        said = "refused"
    else:
        written = experiment_to_json(experiment)
        written.encode()  # what can't be is not a text that a store would take
        assert "\0" not in json.dumps(json.loads(written), ensure_ascii=False)
        assert parse_experiment(written, "json") == experiment
        assert analysis_plan(experiment).metrics
        assert all(map(str.strip, warnings_of(experiment)))
        said = "understood"
    return said


def _check_refusal(error: ConfigError) -> None:
    assert error.remedy
    assert error.problems
    assert sum(map(len, error.problems)) < MOST_SAID
    assert len(str(error)) < MOST_SAID
    for problem in error.problems:
        problem.encode()
        assert problem.startswith("spec.yaml:"), problem
        assert " — " in problem, problem


# ------------------------------------------------------------------ addresses
_PARTS = (
    *(
        "postgresql://",
        "postgres://",
        "sqlite:///",
        "sqlite://",
        "jdbc:",
        "mysql://",
        "://",
        "POSTGRESQL://",
        "sqlite:",
    ),
    *("ada", ":", "s3cret", "@", "db.example", "[::1]", "[", "]", ",", "5432", "99999", "/", "//", "fleet", "?", "&"),
    *(
        "=",
        "sslmode",
        "require",
        "sslmod",
        "host",
        "password",
        "#",
        "%40",
        "%00",
        "%",
        "%zz",
        "%ff",
        "\\",
        "'",
        '"',
        " ",
    ),
    *(
        "\0",
        "\n",
        "\ud800",
        "\ufeff",
        "é",
        "٣",
        ":memory:",
        "file:",
        "..",
        "x.db",
        "a" * 300,
        "9" * 5_000,
        "a" * 20_000,
    ),
)
SECRET = "s3cret"  # noqa: S105 - the one that is looked for


def addresses() -> st.SearchStrategy[str]:
    """Draw what somebody might give as a store: parts of addresses in any order, and any text."""
    return st.lists(st.sampled_from(_PARTS), max_size=14).map("".join) | st.text(max_size=60)


@no_hang()
def read_address(text: str) -> str:
    """Read one address: a database, or a refusal with a remedy that shows no password. Returns which."""
    try:
        database = parse_url(text)
    except BadStoreUrl as error:
        assert error.remedy
        assert error.where
        assert len(str(error)) < 5_000
        said = "refused"
    else:
        values = [one.reveal() if isinstance(one, Secret) else one for one in database.libpq.values()]
        assert not any("\0" in value for value in values)
        assert "\n" not in database.name
        said = "understood"
    return said


def hides_the_password(draw: Callable[[st.SearchStrategy[str]], str]) -> None:
    """Show an address whose password is known: nothing that is shown holds it."""
    tail = draw(st.lists(st.sampled_from(_PARTS), max_size=6).map("".join))
    if SECRET in tail:
        return
    text = f"postgresql://ada:{SECRET}@{tail}"
    try:
        database = parse_url(text)
        assert SECRET not in f"{database} {database!r} {database.libpq}"
    except BadStoreUrl as error:
        assert SECRET not in str(error)

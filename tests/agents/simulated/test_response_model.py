"""The plain model: spread between hosts, drift within one, effects that come and go with the backing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import pytest

from agents.simulated import MachineFiles, MetricModel, ModelParameters, PlainModel, Treatment
from agents.simulated.files import THP

BIG = f"{THP}/hugepages-1048576kB/enabled"
MACHINE = MachineFiles()
AS_FOUND = {path: knob.value for path, knob in MACHINE.knobs.items()}
TREATED = {**AS_FOUND, BIG: "always"}
EFFECT = Treatment(when={BIG: "always"}, effects={"throughput": 0.05, "dtlb_load_misses": -0.26})


def response_model(host: str = "h0", seed: int = 1, **what: object) -> PlainModel:
    metrics = {"throughput": MetricModel(mean=1000.0), "dtlb_load_misses": MetricModel(mean=1e7)}
    return PlainModel(ModelParameters(metrics=metrics, treatments=(EFFECT,), **what), MACHINE, seed=seed, host=host)  # type: ignore[arg-type]


def mean_over(made: PlainModel, start: float, seconds: int, knobs: Mapping[str, str]) -> float:
    values = []
    for second in range(seconds):
        made.advance(start + second, knobs)
        values.append(made.measure()["throughput"])
    return statistics.fmean(values)


def test_the_same_seed_and_host_give_the_same_numbers_and_another_host_others() -> None:
    assert mean_over(response_model(), 1.0, 50, AS_FOUND) == mean_over(response_model(), 1.0, 50, AS_FOUND)
    assert mean_over(response_model("h0"), 1.0, 50, AS_FOUND) != mean_over(response_model("h1"), 1.0, 50, AS_FOUND)
    assert mean_over(response_model(seed=1), 1.0, 50, AS_FOUND) != mean_over(response_model(seed=2), 1.0, 50, AS_FOUND)


def test_the_planted_effect_is_what_treated_hosts_gain() -> None:
    gains = []
    for number in range(40):
        made = response_model(f"h{number}", backing_seconds=1.0)
        before = mean_over(made, 1.0, 300, AS_FOUND)
        made.advance(400.0, TREATED)
        gains.append(mean_over(made, 401.0, 300, TREATED) / before - 1)
    assert statistics.fmean(gains) == pytest.approx(0.05, abs=0.005)


def test_the_effect_comes_with_the_backing_and_goes_with_it() -> None:
    made = response_model(backing_seconds=10.0)
    seen = []
    for at, knobs in [(1.0, AS_FOUND), (6.0, TREATED), (100.0, TREATED), (105.0, AS_FOUND), (300.0, AS_FOUND)]:
        made.advance(at, knobs)
        seen.append(made.thp_stat(1048576, "nr_anon"))
    none, some, full, less, gone = seen
    assert none == gone == 0
    assert 0 < some < full
    assert 0 < less < full


def test_hosts_differ_by_their_spread_and_the_past_of_one_tells_its_future() -> None:
    pairs = []
    for number in range(60):
        made = response_model(f"h{number}")
        pairs.append((mean_over(made, 1.0, 100, AS_FOUND), mean_over(made, 1000.0, 100, AS_FOUND)))
    before, after = zip(*pairs, strict=True)
    assert statistics.stdev(before) / statistics.fmean(before) == pytest.approx(0.1, rel=0.4)
    assert statistics.correlation(before, after) > 0.9


def test_one_host_drifts_slowly() -> None:
    made = response_model()
    series = []
    for second in range(2000):
        made.advance(float(second), AS_FOUND)
        series.append(made.measure()["throughput"])
    assert statistics.correlation(series[:-1], series[1:]) > 0.9
    assert abs(statistics.correlation(series[:-600], series[600:])) < 0.4


def test_counters_never_fall_and_begin_anew_after_a_boot() -> None:
    made = response_model()
    last: dict[str, int] = {}
    for step in range(200):
        made.advance(step * 1.7, TREATED if step % 40 < 20 else AS_FOUND)
        now = {**made.events(), "pgfault": made.vmstat()["pgfault"], "split": made.thp_stat(2048, "split")}
        assert all(now[name] >= last.get(name, 0) for name in now)
        last = now
    assert last["dtlb_load_misses"] > 0
    made.restart(1000.0)
    assert made.events()["dtlb_load_misses"] == 0


def test_an_effect_on_a_counted_event_changes_its_rate() -> None:
    def rate(knobs: Mapping[str, str]) -> float:
        made = response_model(backing_seconds=0.0)
        made.advance(10.0, knobs)
        before = made.events()["dtlb_load_misses"]
        for second in range(11, 1000):
            made.advance(float(second), knobs)
        return (made.events()["dtlb_load_misses"] - before) / 989

    assert rate(TREATED) / rate(AS_FOUND) == pytest.approx(0.74, abs=0.005)

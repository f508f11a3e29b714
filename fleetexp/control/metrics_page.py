"""The metrics of a run under way, `fleetexp_*`, for a Prometheus server to fetch: what `Progress` says, and its age."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, StateSetMetricFamily
from prometheus_client.registry import Collector

from analysis.results import Verdict
from fleetexp.control.progress import Progress
from fleetexp.domain import RunState, UnitState
from fleetexp.errors import RunError


class MetricsPage(Collector):
    """A page served from its own threads: it answers while the run waits, and shows how old what it says is.

    What is not known is left out: before the first reading there is no age of the newest one.
    """

    def __init__(self, address: str, port: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Serve on a port (0: any free one) until `close`; RunError where that can't be."""
        self._clock = clock
        self._told: tuple[Progress, float] | None = None
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, address, registry)
        except OSError as error:
            raise RunError(
                f"the metrics can't be served: {error.strerror or error}",
                where=f"{address}:{port}",
                remedy="choose another --metrics-port or --metrics-address; 0 takes any free port",
            ) from error
        host = f"[{address}]" if ":" in address else address
        self.url = f"http://{host}:{self._server.server_port}/metrics"

    def __enter__(self) -> MetricsPage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def show(self, progress: Progress) -> None:
        """Take what is to be said from now on."""
        self._told = progress, self._clock()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it is at this moment."""
        if self._told is None:
            return
        progress, told_at = self._told
        run = str(progress.run_id)
        state = StateSetMetricFamily("fleetexp_run_state", "State of the run.", labels=["run"])
        state.add_metric([run], {one.value: one is progress.state for one in RunState})
        yield state
        yield from self._gauges(progress, run, self._clock() - told_at)
        for name, what, value in (
            (
                "readings_stored",
                "Readings that the store has taken since this process started.",
                progress.readings_stored,
            ),
            ("polls_answered", "Polls answered, their readings stored.", progress.polls_answered),
        ):
            counter = CounterMetricFamily(f"fleetexp_{name}", what, labels=["run"])
            counter.add_metric([run], value)
            yield counter
        hosts = GaugeMetricFamily("fleetexp_hosts", "Hosts by state.", labels=["run", "state"])
        for unit_state in UnitState:
            hosts.add_metric([run, unit_state.value], progress.units.get(unit_state, 0))
        yield hosts
        verdicts = StateSetMetricFamily(
            "fleetexp_guardrail_verdict", "What the last test of each guardrail said.", labels=["run", "guardrail"]
        )
        for metric, verdict in progress.guardrails.items():
            verdicts.add_metric([run, metric], {one.value: one.value == verdict for one in Verdict})
        yield verdicts

    def _gauges(self, progress: Progress, run: str, age_seconds: float) -> Iterator[Metric]:
        newest = progress.newest_reading_age_seconds
        lag = None if newest is None else newest + age_seconds
        waits = progress.oldest_poll_seconds
        for name, what, value in (
            ("progress_age_seconds", "Time since the run last said where it is.", age_seconds),
            ("run_elapsed_seconds", "Time since this process started or resumed it.", progress.elapsed_seconds),
            ("run_planned_seconds", "Planned length of the run.", progress.planned_seconds),
            ("run_stage", "Stage of the ramp, from 1.", progress.stage + 1),
            ("run_stages", "Stages of the ramp.", progress.stages),
            ("periods_done", "Periods that have ended.", progress.periods_done),
            ("periods_planned", "Periods that are planned, repeats included.", progress.periods_total),
            ("hosts_failed", "Hosts that take no further part.", progress.hosts_failed),
            ("newest_reading_age_seconds", "Age of the newest reading in the store.", lag),
            ("oldest_poll_age_seconds", "How long a poll has gone unanswered.", waits + age_seconds if waits else 0.0),
            ("store_outage_seconds", "For how long the store has been refusing writes.", progress.store_outage_seconds),
            ("store_writes_waiting", "Writes that wait for the store.", progress.writes_waiting),
        ):
            if value is None:
                continue
            gauge = GaugeMetricFamily(f"fleetexp_{name}", what, labels=["run"])
            gauge.add_metric([run], value)
            yield gauge

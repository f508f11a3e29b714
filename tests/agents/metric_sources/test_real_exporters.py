"""Exporters as Debian ships them, each started on a free loopback port: read as the Prometheus library reads them."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from agents.messages import MetricSource, SourceForm
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.check import check_sources
from agents.metric_sources.picking import Found
from agents.metric_sources.prometheus_text import ACCEPT
from agents.metric_sources.reading import places, read_place
from agents.metric_sources.unreadable import Unreadable
from agents.sysroot import FolderRoot
from tests.free_port import free_port
from tests.postgresql_server import Server
from tests.web_server import Web

pytestmark = pytest.mark.slow

AT_MOST = 300  # of a page's series, evenly spread
COUNTED = ("_bucket", "_count", "_sum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A series as the Prometheus library sees it, and its value."""

    name: str
    labels: Mapping[str, str]
    counter: bool | None
    value: float

    def source(self, metric: str, url: str) -> MetricSource:
        return MetricSource(
            metric=metric,
            url=url,
            form=SourceForm.PROMETHEUS,
            pick=self.name,
            labels=self.labels,
            counter=self.counter or False,
            kind_said=self.counter is None,
            timeout_seconds=30.0,
        )


class Started:
    """Programs that serve, none of them as root, and a folder that they may write to."""

    def __init__(self, wait_until: Callable[..., float], folder: Path) -> None:
        self.folder = folder
        self._wait_until = wait_until
        self._processes: list[subprocess.Popen[bytes]] = []

    def program(self, *argv: str, environment: Mapping[str, str] | None = None) -> None:
        if shutil.which(argv[0]) is None:
            pytest.skip(f"{argv[0]} is not installed (Debian: apt-get install {argv[0]})")
        with (self.folder / f"{argv[0]}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    argv,
                    cwd="/",
                    env={"PATH": os.environ["PATH"], **(environment or {})},
                    stdout=log,
                    stderr=log,
                    user="nobody" if os.geteuid() == 0 else None,
                )
            )

    def wait_for(self, url: str) -> None:
        """Wait until a page is served."""
        try:
            self._wait_until(lambda: served(url), within_seconds=30)
        except AssertionError:
            said = "".join(log.read_text()[-2000:] for log in self.folder.glob("*.log"))
            raise AssertionError(said) from None

    def wait_until_up(self, url: str, gauge: str) -> None:
        """Wait until the page says that what it is about answers."""
        self._wait_until(
            lambda: any(
                line.startswith((f"{gauge} ", f"{gauge}{{")) and " 1" in line for line in answer(url)[0].splitlines()
            ),
            within_seconds=30,
        )

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def started(wait_until: Callable[..., float]) -> Iterator[Started]:
    folder = Path(tempfile.mkdtemp(prefix="fleetexp-exporters-"))
    folder.chmod(0o777)
    made = Started(wait_until, folder)
    yield made
    made.end()
    shutil.rmtree(folder)


def answer(url: str) -> tuple[str, str]:
    """The page and its type, as curl sees them."""
    request = urllib.request.Request(url, headers={"Accept": ACCEPT})  # noqa: S310 - an address of this test
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return response.read().decode(), response.headers["Content-Type"]


def served(url: str) -> bool:
    try:
        return bool(answer(url)[0])
    except OSError:
        return False


def series_of(page: str, kind: str) -> dict[str, Series]:
    """Every series of a page, by its name and labels."""
    openmetrics = kind.startswith("application/openmetrics-text")
    parse = openmetrics_parser.text_string_to_metric_families if openmetrics else text_string_to_metric_families
    out: dict[str, Series] = {}
    for family in parse(page):
        for sample in family.samples:
            counter = {"counter": True, "unknown": None, "untyped": None}.get(family.type, False)
            if family.type in {"histogram", "summary"}:
                counter = sample.name.endswith(COUNTED)
            if sample.name.endswith("_created"):
                counter = False
            name = sample.name if f"\n{sample.name}" in page else sample.name.removesuffix("_total")
            key = f"{name}{sorted(sample.labels.items())}"  # the library calls every counter _total
            out[key] = Series(name=name, labels=sample.labels, counter=counter, value=float(sample.value))
    return out


def read(url: str, chosen: Mapping[str, Series]) -> Found:
    """Read series as sources of one place."""
    (place,) = places([one.source(key, url) for key, one in chosen.items()], "web-1")
    return read_place(place, FolderRoot(), Cancellation())


def compare(url: str, web: Web) -> int:
    """Check what is read of a page as it stands and of one recorded; return how many series have a value."""
    page, kind = answer(url)
    before = series_of(page, kind)
    chosen = dict(list(before.items())[:: max(1, len(before) // AT_MOST)])
    living = read(url, chosen)
    after = series_of(*answer(url))
    web.body, web.content_type = page.encode(), kind
    recorded = read(web.url, chosen)
    values, wrong = 0, {}
    for key, one in chosen.items():
        now, then = living[key], recorded[key]
        if isinstance(now, Unreadable) or isinstance(then, Unreadable):
            if math.isfinite(one.value) and not several(one, before):
                wrong[key] = f"{now} {then}"
            continue
        values += 1
        if then.value != one.value or (one.counter and key in after and not one.value <= now.value <= after[key].value):
            wrong[key] = f"{then.value} and {now.value}, not {one.value}"
    assert wrong == {}
    return values


def several(one: Series, all_of_them: Mapping[str, Series]) -> bool:
    """Whether another series has these labels, and more."""
    alike = [other for other in all_of_them.values() if other.name == one.name and other is not one]
    return any(one.labels.items() <= other.labels.items() for other in alike)


def test_the_node_exporter_is_read_as_the_library_reads_it(started: Started, web: Web) -> None:
    port = free_port()
    started.program("prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}")
    url = f"http://127.0.0.1:{port}/metrics"
    started.wait_for(url)
    assert compare(url, web) >= 200


def test_the_redis_exporter_is_read_as_the_library_reads_it(started: Started, web: Web) -> None:
    server, port = free_port(), free_port()
    redis = ("--port", f"{server}", "--bind", "127.0.0.1", "--save", "", "--dir", str(started.folder))
    started.program("redis-server", *redis)
    started.program(
        "prometheus-redis-exporter", f"-redis.addr=redis://127.0.0.1:{server}", f"-web.listen-address=127.0.0.1:{port}"
    )
    url = f"http://127.0.0.1:{port}/metrics"
    started.wait_for(url)
    started.wait_until_up(url, "redis_up")
    assert compare(url, web) >= 100


@pytest.mark.postgresql
def test_the_postgres_exporter_is_read_as_the_library_reads_it(started: Started, web: Web, postgresql: Server) -> None:
    port = free_port()
    started.program(
        "prometheus-postgres-exporter",
        f"--web.listen-address=127.0.0.1:{port}",
        environment={"DATA_SOURCE_NAME": f"postgresql://postgres@127.0.0.1:{postgresql.port}/postgres?sslmode=disable"},
    )
    url = f"http://127.0.0.1:{port}/metrics"
    started.wait_for(url)
    started.wait_until_up(url, "pg_up")
    assert compare(url, web) >= 200


def test_prometheus_itself_is_read_and_its_federation_with_its_instants(started: Started, web: Web) -> None:
    port = free_port()
    config = started.folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: self, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
    )
    started.program(
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={started.folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    url = f"http://127.0.0.1:{port}"
    started.wait_for(f"{url}/metrics")
    assert compare(f"{url}/metrics", web) >= 200
    # Federation gives each value the instant of its scrape.
    federation = f"{url}/federate?match[]=up"
    started.wait_until_up(federation, "up")
    source = MetricSource(metric="up", url=federation, form=SourceForm.PROMETHEUS, pick="up", needed=True)
    assert check_sources([source], FolderRoot(), host="web-1") == ()


def test_the_python_client_is_read_in_openmetrics(web: Web) -> None:
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.GCCollector(registry=registry)
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.PlatformCollector(registry=registry)
    jobs = prometheus_client.Counter("jobs", "Jobs", ["kind"], registry=registry)
    took = prometheus_client.Histogram("took_seconds", "Time", registry=registry)
    prometheus_client.Enum("state", "State", states=["on", "off"], registry=registry)
    for number in range(100):
        jobs.labels("odd" if number % 2 else 'a "quoted" one\n').inc(exemplar={"trace_id": f"{number}"})
        took.observe(number / 50, exemplar={"trace_id": f"{number}"})
    page = generate_latest(registry)
    web.body, web.content_type = page, CONTENT_TYPE_LATEST
    assert compare(web.url, web) >= 30

"""A switchback on this machine's own kernel whose primary metric a real Prometheus keeps."""

from __future__ import annotations

import mmap
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents.sysroot import FolderRoot
from fleetexp.domain import CentralGap, RunState
from tests.fleetexp.control.conftest import Bench
from tests.prometheus_server import exporter, prometheus

pytestmark = [
    pytest.mark.real_knobs,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("real_knobs", "no_guardian_left"),
]

REGION = 32 << 20  # bytes
HUGE = 2 << 20
PAGE = 4096
SPEC = """\
name: by-promql-on-this-kernel
design: switchback
control: 4k
arms:
  4k: {{thp/2048kB/enabled: never}}
  2m: {{thp/2048kB/enabled: always}}
assignment: {{seed: 5}}
periods: {{washout: 2s, measure: 6s, blocks: 3, sample_every: 500ms}}
metrics:
  primary: fill_seconds
  secondary: [scraped_fill_seconds]
  server: {{url: "{server}", timeout: 3s}}
  sources:
    fill_seconds:
      promql: 'rate(fill_seconds_total{{job="own"}}[2s]) / rate(fills_total{{job="own"}}[2s])'
      by: instance
      unit: seconds
      step: 500ms
      settle: 1s
      every: 1s
    scraped_fill_seconds:
      prometheus: "{page}"
      name: last_fill_seconds
      unit: seconds
      timeout: 1s
      every: 200ms
  better: {{fill_seconds: decrease}}
safety: {{lease: 20s, max_failed_hosts: 1}}
"""


class Filler:
    """A service that fills fresh memory ten times a second and tells on a page how long that took."""

    def __init__(self) -> None:
        self.fills = 0
        self.seconds = self.last = 0.0
        self.over = threading.Event()

    def work(self) -> None:
        while not self.over.wait(0.1):
            with mmap.mmap(-1, REGION + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
                memory.madvise(mmap.MADV_HUGEPAGE)  # 'inherit' and 'madvise' are this machine's own settings
                began = time.thread_time()
                for place in range(0, REGION, PAGE):
                    memory[place] = 1
                self.last = time.thread_time() - began
            self.seconds += self.last
            self.fills += 1

    def page(self) -> bytes:
        labels = f'{{instance="{platform.node()}:9100"}}'
        return (
            f"# TYPE fill_seconds_total counter\nfill_seconds_total{labels} {self.seconds}\n"
            f"# TYPE fills_total counter\nfills_total{labels} {self.fills}\n"
            f"# TYPE last_fill_seconds gauge\nlast_fill_seconds{labels} {self.last}\n"
        ).encode()


@contextmanager
def filling() -> Iterator[Filler]:
    filler = Filler()
    thread = threading.Thread(target=filler.work)
    thread.start()
    try:
        yield filler
    finally:
        filler.over.set()
        thread.join()


def test_the_server_tells_what_the_page_tells_and_the_effect_of_huge_pages_is_found(tmp_path: Path) -> None:
    bench = Bench(root=FolderRoot(), folder=tmp_path)
    with filling() as filler, exporter() as web:
        web.body = filler.page
        with prometheus({"own": [web.url.split("/")[2]]}, scrape_every="500ms") as server:
            server.wait_for("fills_total offset 3s", 1)
            outcome = bench.launch(SPEC.format(server=server.url, page=web.url + "?agents"))
    assert outcome.state is RunState.COMPLETED, outcome.reason
    with bench.store() as store:
        assert {one.gap for one in store.central_values(1) if one.metric == "fill_seconds"} == {CentralGap.NONE}
        rows = store.observations(1, ["fill_seconds", "scraped_fill_seconds"])
        measured = rows[rows["kind"] == "measure"]
        means = measured.groupby(["arm", "metric"])["mean"].mean().unstack()
        assert len(measured) == 2 * 3 * 2
        # Fewer faults: 16 instead of 8,192. The two looks at it meet within what a fill varies.
        assert means.loc["2m", "fill_seconds"] < 0.8 * means.loc["4k", "fill_seconds"]
        for arm in ("4k", "2m"):
            assert means.loc[arm, "fill_seconds"] == pytest.approx(means.loc[arm, "scraped_fill_seconds"], rel=0.2)
        headline = {one.metric: one for one in store.findings(1).estimates if one.headline}
        assert headline["fill_seconds"].lift is not None
        assert headline["fill_seconds"].lift < -0.2

"""An import of 43 million values against a bare read of the same Parquet file, each in a process of its own.

The figure is processor time (of all threads) and not the clock's: other work on the machine changes it little. Loading
what is used, and giving a new store its tables, is no part of it. What an import costs beyond reading grows with the
sums that are kept, not with the values: both are quoted.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

HOSTS, MINUTES, METRICS = 100, 30 * 24 * 60, 10
VALUES = HOSTS * MINUTES * METRICS
MOST_RATIO = 3.0
MOST_MEMORY_BYTES = 2**30
MAPPING = """\
name: a-month
read: {layout: LAYOUT}
period: PERIOD
arms: {control: ["web-0[0-4]?"], treatment: ["web-0[5-9]?"]}
changed_at: 2024-01-16T00:00:00+00:00
assigned: at random
drawn: a coin for each host
metrics:
  primary: m0
  secondary: [m1, m2]
  explored: [m3, m4, m5, m6, m7, m8, m9]
  better: {m0: decrease}
"""
LOAD_READ = "import sys, pyarrow.dataset, pyarrow.parquet as pq"
READ = "pq.read_table(sys.argv[1])"
STREAM = "[0 for _ in pq.ParquetFile(sys.argv[1]).iter_batches(batch_size=1 << 19)]"
LOAD_SUM = (
    "import sys; from pathlib import Path; from fleetexp.experiment.mapping import read_mapping; "
    "from fleetexp.imports.gather import Gathering; from fleetexp.imports.tables import open_file"
)
SUM = (
    "written = read_mapping(sys.argv[2]); one = Gathering(written); "
    "one.read(open_file(Path(sys.argv[1]), written.mapping.read)); assert one.finish().values == int(sys.argv[3])"
)
LOAD_IMPORT = (
    "import sys, fleetexp.api, fleetexp.imports.importer; from fleetexp.store.store import open_store; "
    "open_store(sys.argv[3]).close()"
)
IMPORT = "fleetexp.api.import_data(sys.argv[1], mapping=sys.argv[2], store=sys.argv[3])"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a process took: of the processor, and of memory at most."""

    cpu_seconds: float
    memory_bytes: int


def cost(load: str, code: str, *words: str) -> Cost:
    """Run code in a process of its own, which measures it once what is used has been loaded."""
    timed = f"{load}\nimport time\nbegun = time.process_time()\n{code}\nprint(time.process_time() - begun)"
    child = subprocess.Popen([sys.executable, "-c", timed, *words], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stdout.close()
    assert child.returncode == 0
    return Cost(cpu_seconds=float(told), memory_bytes=used.ru_maxrss * 1024)


@pytest.fixture(scope="module", params=["long", "wide"])
def month(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Thirty days of a hundred hosts at one minute, as a Parquet file, in the order of time."""
    path = tmp_path_factory.mktemp("month") / f"{request.param}.parquet"
    chance = np.random.default_rng(1)
    names = pa.array([f"web-{place:03d}" for place in range(HOSTS)])
    metrics = pa.array([f"m{place}" for place in range(METRICS)])
    word, at = pa.dictionary(pa.int32(), pa.string()), pa.timestamp("ms", tz="UTC")
    head = [("host", word), ("time", at)]
    long = request.param == "long"
    schema = pa.schema(
        [*head, *([("metric", word), ("value", pa.float64())] if long else [(str(m), pa.float64()) for m in metrics])]
    )
    day = 24 * 60
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, MINUTES, day):
            times = np.repeat(np.arange(first, first + day) * 60_000 + 1_704_067_200_000, HOSTS)
            hosts = np.tile(np.arange(HOSTS, dtype=np.int32), day)
            values = np.round(chance.gamma(9.0, 3.0, (day * HOSTS, METRICS)), 3)
            again = METRICS if long else 1
            columns = [
                pa.DictionaryArray.from_arrays(np.repeat(hosts, again), names),
                pa.array(np.repeat(times, again), at),
            ]
            if long:
                which = np.tile(np.arange(METRICS, dtype=np.int32), day * HOSTS)
                columns += [pa.DictionaryArray.from_arrays(which, metrics), pa.array(values.ravel())]
            else:
                columns += [pa.array(values[:, place].copy()) for place in range(METRICS)]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return request.param, path


@pytest.mark.benchmark
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_month_at_one_minute_is_imported_in_bounded_time_and_memory(month: tuple[str, Path], tmp_path: Path) -> None:
    layout, path = month
    mapping = tmp_path / "mapping.yaml"

    def written(period: str) -> str:
        mapping.write_text(MAPPING.replace("LAYOUT", layout).replace("PERIOD", period))
        return str(mapping)

    found = {"bare read": cost(LOAD_READ, READ, str(path)), "bare stream": cost(LOAD_READ, STREAM, str(path))}
    for period in ("1d", "1h"):
        asked = str(path), written(period)
        found[f"read and summed by {period}"] = cost(LOAD_SUM, SUM, *asked, str(VALUES))
        found[f"imported by {period}"] = cost(LOAD_IMPORT, IMPORT, *asked, f"sqlite:///{tmp_path / period}.db")
    floor, stream = found["bare read"].cpu_seconds, found["bare stream"].cpu_seconds
    print(f"\n{layout}: {VALUES:,} values, {path.stat().st_size / 2**20:.0f} MiB")
    for name, one in found.items():
        print(
            f"  {name}: {one.cpu_seconds:.1f} s of CPU, {one.cpu_seconds / floor:.1f} x a bare read, "
            f"{one.cpu_seconds / stream:.1f} x a bare stream, {one.memory_bytes / 2**20:.0f} MiB"
        )
    summed = [one for name, one in found.items() if name.startswith("read and")]
    assert max(one.cpu_seconds for one in summed) < MOST_RATIO * floor
    assert max(one.memory_bytes for name, one in found.items() if "bare" not in name) < MOST_MEMORY_BYTES

"""Runs inside the guest: an experiment that traces who splits pages, to its end, and the kernel's counters around it.

    python guest_traced_run.py RESULT.json

Not a test itself: `test_traced_run.py` boots a guest, runs this in it and judges what it wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.lab import splitting_service
from tests.lab.guest_experiment import counters, fleetexp, knobs, stored
from tests.lab.guest_splits import left_over

SERVICE = Path(splitting_service.__file__)
SPEC = f"""\
name: traced-1g
design: switchback
control: small
arms:
  small: {{thp/1048576kB/enabled: never, thp/2048kB/enabled: always, thp/defrag: madvise}}
  big: {{thp/1048576kB/enabled: always, thp/2048kB/enabled: always, thp/defrag: madvise}}
assignment: {{seed: 4}}
periods: {{washout: 1s, measure: 20m, blocks: 1, sample_every: 1s}}  # over once the service has done
workload:
  command:
    argv: [{sys.executable}, {SERVICE}]
    env: {{PYTHONPATH: {SERVICE.parents[2]}}}
metrics: {{primary: rounds, better: {{rounds: increase}}}}
trace: [splits, stalls]
safety: {{lease: 60s}}
"""


def main() -> None:
    os.chdir("/run")
    os.environ["PATH"] += ":/bin"
    os.environ["FLEETEXP_TIMEOUT_FACTOR"] = "4"
    Path("spec.yaml").write_text(SPEC)
    result: dict[str, Any] = {"knobs_before": knobs(), "before": counters()}
    result["run"] = fleetexp("run", "spec.yaml", "--fleet", "inline", "--store", "sqlite:///fleetexp.db")
    result |= {"after": counters(), "knobs_after": knobs(), "left_over": left_over()}
    if Path("fleetexp.db").exists():
        result["periods"] = stored("SELECT period_id, arm, kind, state FROM period ORDER BY period_id")
        result["samples"] = stored("SELECT period_id, thp_split_pud FROM sample ORDER BY period_id, sequence")
        result["splits"] = stored(
            "SELECT period_id, arm, kind, metric, cause, program, splits, splits_counted FROM split_causes"
        )
        result["rounds"] = stored(
            "SELECT p.arm, o.maximum FROM observation o JOIN period p ON p.period_id = o.period_id"
            " WHERE p.kind = 'measure' AND o.metric = 'rounds'"
        )
        result["incomplete"] = stored("SELECT detail FROM event WHERE kind = 'trace_incomplete'")
        shutil.copy("fleetexp.db", "/mnt/share")
    Path(sys.argv[1]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()

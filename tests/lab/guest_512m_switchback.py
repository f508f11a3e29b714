"""Runs inside an arm64 guest with 64 KiB pages: one switchback of 512 MiB pages by the command line, and its report.

Not a test itself: `test_512m_switchback.py` boots the guest, runs this in it and judges what it left in SHARE. The
command runs in this process: what it imports takes a minute or more under emulation.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

SHARE = Path("/mnt/share")
THP = Path("/sys/kernel/mm/transparent_hugepage")
KNOB, SIZE_KIB = "thp/524288kB/enabled", 524288
STORE = Path("/run/fleetexp.db")
SPEC = f"""\
name: arm-512m
hypothesis: with pages of 512 MiB a program that touches little holds much more memory
design: switchback
control: small
arms:
  small: {{{KNOB}: never}}
  big: {{{KNOB}: always}}
assignment: {{order: pairs, seed: 5}}
periods: {{washout: 1s, measure: 5s, blocks: 6, sample_every: 1s}}
workload: {{command: {{argv: [/usr/bin/python3, -S, /app/sparse_touch.py, "{SIZE_KIB << 10}"]}}}}
metrics:
  primary: touches_per_second
  better: {{touches_per_second: increase}}
  secondary: [dtlb_load_misses]
  guardrails: [{{metric: memory_used_bytes, worse: increase, margin: 5%}}]
  trade: {{throughput: touches_per_second}}
safety: {{lease: 60s}}
"""


def kernel() -> dict[str, str]:
    folder = THP / f"hugepages-{SIZE_KIB}kB"
    names = ("enabled", "stats/anon_fault_alloc", "stats/nr_anon")
    return {name.rpartition("/")[2]: (folder / name).read_text().strip() for name in names}


def fleetexp(*words: str) -> int:
    """Run a command of the command line; returns its exit code."""
    from fleetexp.cli.main import main

    sys.argv = ["fleetexp", *words, "--store", f"sqlite:///{STORE}"]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def main() -> None:
    # With the kernel's own 8191, khugepaged makes a page of any 64 KiB that are touched.
    (THP / "khugepaged/max_ptes_none").write_text("0")
    Path("/run/spec.yaml").write_text(SPEC)
    result: dict[str, object] = {"before": kernel()}
    result["run"] = fleetexp("run", "/run/spec.yaml", "--fleet", "inline", "--reports", str(SHARE))
    result["after"] = kernel()
    if STORE.exists():
        shutil.copyfile(STORE, SHARE / STORE.name)
    (SHARE / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

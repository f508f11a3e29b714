"""An agent without root: it reads what it may, and says why for the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")

# Everything is imported before the change of user: the interpreter may lie where only root can look.
CODE = """
import json, os
from agents.collectors import Collectors
from agents.facts import survey
from agents.sysroot import FolderRoot
os.setgroups([]); os.setgid(65534); os.setuid(65534)
collectors = Collectors(FolderRoot())
boundary = collectors.boundary()
facts = survey(FolderRoot())
print(json.dumps({
    "sampled": sorted(boundary),
    "unavailable": dict(collectors.unavailable),
    "events": collectors.events(),
    "writable": facts.writable_knobs,
    "knobs": len(facts.knobs),
    "why": facts.not_writable_because,
    "perf": {one.event: one.reason for one in facts.perf_events},
}))
"""


def test_without_root_what_is_readable_is_sampled_and_the_rest_has_its_reason() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert {"pgfault", "memory_total_bytes", "agent_cpu_seconds"} <= set(seen["sampled"])
    assert not set(seen["sampled"]) & set(seen["unavailable"])
    if "page_faults" not in seen["sampled"]:
        assert "perf_event_paranoid" in seen["unavailable"]["page_faults"]
        assert seen["perf"]["page_faults"] == seen["unavailable"]["page_faults"]
    if not any(name.startswith("pageblocks") for name in seen["sampled"]):
        assert "run as root" in seen["unavailable"]["pageblocks"]
    assert seen["knobs"] > 0
    assert seen["writable"] == []
    assert "not root" in seen["why"] or "read-only" in seen["why"]

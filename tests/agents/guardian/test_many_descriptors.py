"""An agent with more open files than select(2) can count to: an actor with many hosts, or a spool for each of them."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest

from agents.claim import take_claim
from agents.messages import MetricSource, SourceForm
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.command_output import run_command
from agents.metric_sources.page import SourcePage
from agents.metric_sources.parser import Readers
from tests.agents.guardian.agent_process import THP_2M, HostTree

MOST_OF_SELECT = 1024


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Keep open what pushes every further descriptor past select's last."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_OF_SELECT + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this process may open {hard} files at most")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    opened = [os.open(os.devnull, os.O_RDONLY)]
    while opened[-1] < MOST_OF_SELECT:
        opened.append(os.dup(opened[0]))
    yield
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_host_is_claimed_and_its_guardian_answers(host_tree: HostTree, no_guardian_left: None) -> None:
    claim = take_claim(host_tree(), run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    assert claim.guardian_alive()
    claim.release()


def test_a_command_is_heard_to_its_end() -> None:
    assert run_command(["echo", "41"], user=None, timeout_seconds=10, cut=Cancellation()).strip() == b"41"


def test_a_page_is_understood() -> None:
    readers = Readers()
    source = MetricSource(metric="x", form=SourceForm.PROMETHEUS, pick="x", url="http://h/x")
    found = readers.pick(SourcePage(body=b"x 41\n"), (source,), seconds=30.0, cut=Cancellation())
    readers.close()
    assert found["x"].value == 41.0

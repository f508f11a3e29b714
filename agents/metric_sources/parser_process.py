"""The process that understands pages: it opens nothing, and its memory and CPU time are limited.

A request is a line of JSON and the bytes of the page after it; the answer is a line of JSON.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agents.messages import MetricSource, SourceForm
from agents.metric_sources.page import SourcePage
from agents.metric_sources.picking import Found, pick
from agents.metric_sources.prometheus_text import SeriesValue
from agents.metric_sources.unreadable import Unreadable

MEMORY_AT_MOST = 512 * 2**20
ANSWER_AT_MOST = 4 * 2**20
_SHOWN = 500
_SPARE_SECONDS = 2.0  # whoever asked ends this process before the kernel does


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserReply:
    """What was found, and the CPU time that this process has used since it began."""

    found: Found
    cpu_seconds: float


def request_line(page: SourcePage, sources: Sequence[MetricSource], *, seconds: float) -> bytes:
    """Return the line that asks for what sources pick, in so many seconds; the page's bytes go after it."""
    about = {"size": len(page.body), "content_type": page.content_type, "whole": page.whole, "seconds": seconds}
    return json.dumps(about | {"sources": [asdict(source) for source in sources]}).encode() + b"\n"


def read_answer(line: bytes) -> ParserReply:
    """Return the answer of the process."""
    said = json.loads(line)
    found = {
        metric: Unreadable(**one["not"]) if "not" in one else SeriesValue(**one)
        for metric, one in said["found"].items()
    }
    return ParserReply(found=found, cpu_seconds=said["cpu_seconds"])


def main() -> int:
    """Answer requests until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_AT_MOST, MEMORY_AT_MOST))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(b"\n")  # ready
    answers.flush()
    while line := asked.readline():
        about = json.loads(line)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = math.ceil(time.process_time() + about["seconds"] + _SPARE_SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
        answers.write(_answer(asked.read(about["size"]), about))
        answers.flush()
    return 0


def _answer(body: bytes, about: Mapping[str, Any]) -> bytes:
    sources = [MetricSource(**{**one, "form": SourceForm(one["form"])}) for one in about["sources"]]
    try:
        found = pick(SourcePage(body=body, content_type=about["content_type"], whole=about["whole"]), sources)
    except MemoryError:
        what = f"to understand it takes more than {MEMORY_AT_MOST // 2**20} MiB"
        found = dict.fromkeys((source.metric for source in sources), Unreadable(what, "let it be shorter"))
    except Exception as error:
        found = dict.fromkeys((source.metric for source in sources), Unreadable(f"a defect: {error!r}"[:_SHOWN]))
    said = {metric: _written(one) for metric, one in found.items()}
    return json.dumps({"found": said, "cpu_seconds": time.process_time()}).encode() + b"\n"


def _written(one: SeriesValue | Unreadable) -> Mapping[str, object]:
    if isinstance(one, Unreadable):
        return {"not": {"what": one.what[:_SHOWN], "remedy": one.remedy[:_SHOWN]}}
    return asdict(one)

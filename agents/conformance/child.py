"""The process of one scenario: runs it, and tells its checks line by line, so that none is lost when it dies.

It asks the runner to set knobs, and never writes one itself.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module

from agents.conformance.bench import Bench, BenchHost, NotTried
from agents.conformance.huge_heap import allow_huge_pages
from agents.conformance.memory import allow_balancing
from agents.conformance.verdict import PageCheck
from agents.sysroot import FolderRoot


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 - the runner's end of the pipe


def _apply(knobs: Mapping[str, str]) -> None:
    _say(apply=dict(knobs))
    answer = json.loads(sys.stdin.readline() or '{"refused": "the runner has gone"}')
    if answer["refused"]:
        raise RuntimeError(answer["refused"])


def _note(check: PageCheck) -> None:
    _say(check=asdict(check))


def main(words: list[str]) -> int:
    """Run `MODULE FUNCTION SIZE_KIB`; returns the exit status."""
    module, function, size_kib = words
    run = getattr(import_module(module), function)
    allow_huge_pages()
    allow_balancing(False)
    bench = Bench(BenchHost(root=FolderRoot(), size_kib=int(size_kib), apply=_apply, note=_note))
    _say(counted=bench.counted)
    maker = os.getpid()
    try:
        run(bench)
    except NotTried as reason:
        _say(not_tried={"cause": reason.cause, "detail": reason.detail})
    except Exception as error:  # it is told, and judged a fault of the scenario's own
        _say(broken=f"{type(error).__name__}: {error}", trace=traceback.format_exc()[-2000:])
    finally:
        if os.getpid() != maker:  # a fork of the scenario's that went astray
            os._exit(1)
    _say(ended=bench.counts())
    return 0

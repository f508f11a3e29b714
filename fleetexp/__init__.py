"""Find out, on real server pools, whether a kernel memory setting is worth rolling out.

What this package gives to Python; each name is loaded when it is first used, `docs/PYTHON.md` shows them at work:

- `load_experiment(path)`: read an experiment; every problem found is in the error
- `prepare(spec, fleet=..., store=...)`: who would take part, the plan, what it can show, why it would be refused
- `run(prepared)`: run exactly that; every host is restored when it returns
- `resume(run_id, store=...)`: go on with a run that was paused or interrupted
- `open_store(url)`: the database of runs, to be read
- `render_report(store, run_id)`: what a run found, as a page, as Markdown, in a notebook
- `import_data(source, mapping=..., store=...)`: measurements of your own, entered as a run and analysed
- `analyze(frame, control=..., assigned="at random")`: what a plain frame of measurements shows
"""

from __future__ import annotations

TYPE_CHECKING = False  # what checkers of types take for true; to import typing takes longer than all that is here
if TYPE_CHECKING:
    from fleetexp.api import import_data, open_store, prepare, resume, run
    from fleetexp.experiment import load_experiment
    from fleetexp.plain_frame import analyze
    from fleetexp.reporting.report import render_report

__all__ = ["analyze", "import_data", "load_experiment", "open_store", "prepare", "render_report", "resume", "run"]

_ELSEWHERE = {
    "analyze": "fleetexp.plain_frame",
    "load_experiment": "fleetexp.experiment",
    "render_report": "fleetexp.reporting.report",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - an interpreter that only imports us does without

    return getattr(import_module(_ELSEWHERE.get(name, "fleetexp.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

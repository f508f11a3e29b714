"""The YAML of an experiment: read, checked as a whole, and answered in base units.

And what follows from it alone: population, assignment, schedule, blast radius. May import domain and errors.
"""

from __future__ import annotations

import json
from pathlib import Path

from fleetexp.experiment.checks import warnings_of
from fleetexp.experiment.document import MAX_BYTES, decode, read_document
from fleetexp.experiment.metrics import analysis_plan
from fleetexp.experiment.model import Experiment
from fleetexp.experiment.problem import nearest, refuse
from fleetexp.experiment.validation import build

__all__ = [
    "Experiment",
    "analysis_plan",
    "experiment_to_json",
    "load_experiment",
    "parse_experiment",
    "read_spec",
    "recall_experiment",
    "warnings_of",
]


def read_spec(path: Path | str) -> str:
    """Return a spec file's text; ConfigError where it can't be read or is no UTF-8."""
    file = Path(path)
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        beside = [p.name for p in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
        close = nearest(file.name, beside)
        remedy = f"did you mean {file.with_name(close)}?" if close else "check the path; 'fleetexp example' has some"
        refuse(str(path), what="there is no such file", remedy=remedy)
    except OSError as error:
        what = f"the file can't be read: {error.strerror or error}"
        refuse(str(path), what=what, remedy="name a YAML file that you may read")
    return decode(raw, str(path))


def load_experiment(path: Path | str) -> Experiment:
    """Read an experiment from a file; ConfigError with every problem found, each with line, key and remedy."""
    return parse_experiment(read_spec(path), str(path))


def parse_experiment(text: str, source: str = "spec") -> Experiment:
    """Read an experiment from its YAML text; `source` is the file name that errors show."""
    return build(read_document(text, source))


def recall_experiment(text: str, run_id: int) -> Experiment:
    """Read the spec of a run that was: what only a later version refuses must not hide its results."""
    return build(read_document(text, f"run {run_id}"), refuse_meaning=False)


def experiment_to_json(experiment: Experiment) -> str:
    """Write the experiment with its defaults as JSON, in the words of the spec: parse_experiment reads it back."""
    spec = experiment.model_dump(mode="json", exclude_none=True, by_alias=True)
    return json.dumps(spec, ensure_ascii=False, indent=2)

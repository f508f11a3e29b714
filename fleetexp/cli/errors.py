"""How an error looks to a user: one line on stderr, a JSON object where one was asked for, and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click

from fleetexp.cli.output import json_text, visible
from fleetexp.exit_codes import ExitCode

JSON_WANTED = "fleetexp.json"
_WITHOUT = {"ray": "install it (pip install ray), or use --fleet inline: this host, its agent in this process"}


def report_failure(error: Exception, *, debug: bool, as_json: bool) -> ExitCode:
    """Say what failed, where, and the remedy; return the exit code. Ours carry the three, others get a hint."""
    code = exit_code_of(error)
    problem = problem_of(error)
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    for line in failure_lines(error):
        click.echo(line, err=True)
    if as_json:
        found = {**problem, "problems": list(getattr(error, "problems", ())), "exit_code": int(code)}
        click.echo(json_text({"error": found}))
    sys.stderr.flush()
    return code


def problem_of(error: Exception) -> dict[str, str]:
    """Return what, where and remedy of any error."""
    what = getattr(error, "what", None)
    if isinstance(what, str):
        return {"what": what, "where": str(getattr(error, "where", "")), "remedy": str(getattr(error, "remedy", ""))}
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return {
            "what": f"this needs the package {package}, which is not installed",
            "where": "",
            "remedy": _WITHOUT.get(package, f"install it: pip install {package}"),
        }
    if isinstance(error, OSError) and error.strerror:
        return {"what": error.strerror, "where": str(error.filename or ""), "remedy": ""}
    return {
        "what": f"unexpected {type(error).__name__}: {error}",
        "where": "",
        "remedy": "rerun as 'fleetexp --debug ...' for the traceback, and report it",
    }


def failure_lines(error: Exception) -> list[str]:
    """Return the error as one line; where it carries several problems, each follows on a line of its own."""
    problem = problem_of(error)
    problems: Sequence[str] = getattr(error, "problems", ())
    place = f" [{_flat(problem['where'])}]" if problem["where"] else ""
    remedy = f" — {_flat(problem['remedy'])}" if problem["remedy"] else ""
    head = f"error: {_flat(problem['what'])}{place}{remedy}"
    return [head, *(f"  {_flat(one)}" for one in problems)] if len(problems) > 1 else [head]


def exit_code_of(error: Exception) -> ExitCode:
    """Return RESTORE_INCOMPLETE where a host is not as it was found, else ERROR."""
    from agents.errors import RestoreIncomplete

    return ExitCode.RESTORE_INCOMPLETE if isinstance(error, RestoreIncomplete) else ExitCode.ERROR


def _flat(text: str) -> str:
    return visible(" ".join(text.split()))

"""`fleetexp example`: the experiments, units and pages that come with fleetexp, listed and written to files."""

from __future__ import annotations

from pathlib import Path

import click

from fleetexp.cli.options import json_option
from fleetexp.cli.output import emit_json
from fleetexp.cli.output_file import Over, write_output


@click.command(
    epilog="""
    \b
    Example:
      fleetexp example
      fleetexp example thp-2m-demo
      fleetexp example thp-1g-web my-rollout.yaml
      fleetexp example systemd/ray.env /etc/fleetexp
      fleetexp example docs/DEPLOY.md -
    """
)
@click.argument("name", metavar="[NAME]", default="")
@click.argument("path", metavar="[FILE]", default="", type=click.Path(allow_dash=True, path_type=Path))
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
def example(name: str, path: Path, force: bool, as_json: bool) -> None:
    """List the examples that come along, or write one.

    Experiments, systemd units, a Grafana dashboard, and the documentation.
    NAME may lack its folder and its suffix. FILE is a file, a folder, or - for
    stdout; without it, the file gets its own name, here.
    """
    from fleetexp.errors import RunError
    from fleetexp.experiment.problem import choose
    from fleetexp.shipped import shipped_file, shipped_files

    if not name:
        _list(shipped_files(), as_json=as_json)
        return
    source = shipped_file(name)
    if source is None:
        names = [whole.removeprefix("configs/") for whole in shipped_files()]
        raise RunError("no file of that name comes with fleetexp", where=name, remedy=choose(name, names))
    if str(path) == "-":
        click.echo(source.read_bytes(), nl=False)
        return
    target = path / source.name if path.is_dir() else path
    over = Over.ANY_FILE if force else Over.NOTHING
    write_output(source.read_bytes(), target, over, remedy="name another one, or write over it with --force")
    if as_json:
        emit_json({"wrote": str(target)})
        return
    click.echo(f"wrote {target}")
    if target.suffix == ".yaml":
        click.echo(f"see what it would do: fleetexp plan {target}\nrun it: fleetexp run {target}")


def _list(files: dict[str, Path], *, as_json: bool) -> None:
    about = {name.removeprefix("configs/"): _about(path) for name, path in files.items()}
    if as_json:
        emit_json({"files": [{"name": name, "about": text} for name, text in about.items()]})
        return
    from fleetexp.cli.output import wrapped

    for name, text in about.items():
        click.echo(name)
        if text:
            click.echo(wrapped(text, indent="    "))
    click.echo("\nwrite one: fleetexp example NAME [FILE]")


def _about(path: Path) -> str:
    """Say what a file is for: an experiment by its hypothesis, a page by its heading."""
    if path.suffix == ".yaml":
        from fleetexp.experiment import load_experiment

        return load_experiment(path).hypothesis
    if path.suffix == ".md":
        heading = next((line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")), "")
        return heading.removeprefix("# ")
    return ""

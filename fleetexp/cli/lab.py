"""`fleetexp lab`: guests of this machine as a small fleet, from any kernel image, to rehearse an experiment on it."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from fleetexp.cli.options import json_option
from fleetexp.cli.output import emit_json, print_table

if TYPE_CHECKING:
    from fleetexp.lab.record import LabRecord

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT_FOLDER = "/run/fleetexp-lab"  # gone after a reboot, as the lab is
_NEXT = """\
next:
  fleetexp lab enter{folder}      a shell on the lab's network, for
  fleetexp hosts --fleet ray
  fleetexp run SPEC --fleet ray"""


class _Quantity(click.ParamType[Any]):
    """An amount with its unit, as in a spec: 4GiB, 15m."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        from fleetexp.experiment.problem import ValueRefused
        from fleetexp.experiment.quantities import parse_duration, parse_size

        if isinstance(value, int | float):
            return value
        try:
            return parse_size(value) if self.name == "size" else parse_duration(value)
        except ValueRefused as error:
            self.fail(f"{error.what}: {error.remedy}", param, ctx)


def _folder_option(function: F) -> F:
    return click.option(
        "--folder",
        type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
        default=_DEFAULT_FOLDER,
        show_default=True,
        help="Where the lab's record and the guests' consoles are; one lab a folder.",
    )(function)


@click.group(
    epilog="""
    \b
    Example:
      fleetexp lab boot bzImage initramfs.cpio.gz --hosts 2
    """
)
def lab() -> None:
    """Boot a kernel on guests here: a fleet to rehearse on."""


@lab.command(
    epilog="""
    \b
    Example:
      fleetexp lab boot bzImage initramfs.cpio.gz --hosts 2 --memory 5GiB
    """
)
@click.argument("image", metavar="KERNEL", type=click.Path(path_type=Path))
@click.argument("initramfs", metavar="INITRAMFS", type=click.Path(path_type=Path))
@click.option("--hosts", type=click.IntRange(1, 100), default=2, show_default=True, help="How many guests.")
@click.option("--memory", type=_Quantity("size"), default="4GiB", show_default=True, help="Of each guest.")
@click.option("--cpus", type=click.IntRange(1, 256), default=2, show_default=True, help="Of each guest.")
@click.option("--cpu-model", metavar="MODEL", default="", help="As QEMU names it, with flags: max,-pdpe1gb.")
@click.option("--kernel-args", metavar="TEXT", default="", help="What else stands on the kernel's command line.")
@click.option(
    "--prepare",
    metavar="FILE",
    type=click.File(),
    help="Shell script that each guest runs as root before it joins: swap, sysctls.",
)
@click.option("--emulate", is_flag=True, help="Don't try KVM: every CPU feature is there, and all is slow.")
@click.option(
    "--timeout", type=_Quantity("duration"), default="15m", show_default=True, help="How long guests may take to join."
)
@click.option("--background", is_flag=True, help="Return once all have joined; end it with 'fleetexp lab stop'.")
@_folder_option
@json_option
def boot(
    *,
    image: Path,
    initramfs: Path,
    hosts: int,
    memory: int,
    cpus: int,
    cpu_model: str,
    kernel_args: str,
    prepare: TextIO | None,
    emulate: bool,
    timeout: float,
    background: bool,
    folder: Path,
    as_json: bool,
) -> None:
    """Boot guests from a kernel image; they join as hosts.

    Any kernel with 9p, overlayfs, virtio and a serial console: docs/LAB.md. Guests see this machine's files, read-only
    below a layer of memory. Until Ctrl-C, unless --background; then all of it is taken away again.
    """
    from fleetexp.lab import lab as labs
    from fleetexp.lab.machine import Hardware, KernelImage

    plan = labs.LabPlan(
        kernel=KernelImage(image=image.absolute(), initramfs=initramfs.absolute(), arguments=kernel_args),
        hardware=Hardware(memory_bytes=memory, cpus=cpus, cpu_model=cpu_model, emulated=emulate),
        hosts=hosts,
        prepare="" if prepare is None else prepare.read(),
        timeout_seconds=timeout,
    )

    def say(text: str) -> None:
        click.echo(text, err=True)

    with _ended_in_order():
        record = labs.boot(folder, plan, say)
        try:
            if as_json:
                emit_json(_described(record, folder))
            else:
                click.echo(_NEXT.format(folder=_named(folder)))
            if background:
                say(f"'fleetexp lab stop{_named(folder)}' ends the lab")
            else:
                say("Ctrl-C ends the lab")
                _wait(record, say)
        except (KeyboardInterrupt, BrokenPipeError):
            pass
        finally:
            if not background:
                labs.stop_what_is_left(folder)
                say("the lab is gone")


@lab.command(
    epilog="""
    \b
    Example:
      fleetexp lab status
    """
)
@_folder_option
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Say which guests there are and how they are."""
    from fleetexp.lab.record import read_record

    record = read_record(folder)
    if as_json:
        emit_json(_described(record, folder))
        return
    described = _described(record, folder)
    click.echo(f"{described['kernel']}, network namespace {described['network']}")
    rows = [[one["host"], one["state"], one["address"], one["console"]] for one in described["hosts"]]
    print_table(["host", "state", "address", "console"], rows)


@lab.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="""
    \b
    Example:
      fleetexp lab enter
    """,
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@_folder_option
def enter(command: tuple[str, ...], folder: Path) -> None:
    """Run a shell, or a command, on the lab's network.

    What it runs finds the lab's hosts with '--fleet ray', and is let in.
    """
    from fleetexp.lab import lab as labs
    from fleetexp.lab.record import read_record

    record = read_record(folder)
    words = labs.entering(record, command or (os.environ.get("SHELL", "/bin/sh"),))
    os.execvpe(words[0], words, labs.environment(record))  # noqa: S606 - the user's own command


@lab.command(
    epilog="""
    \b
    Example:
      fleetexp lab stop
    """
)
@_folder_option
@json_option
def stop(folder: Path, as_json: bool) -> None:
    """End the lab, or whatever a killed one left behind.

    Its processes, network namespace and Ray's files are gone then; the guests' consoles stay.
    """
    from fleetexp.lab import lab as labs

    record = labs.stop(folder)
    if as_json:
        emit_json({"stopped": [guest.name for guest in record.guests]})
    else:
        click.echo("the lab is gone")


def _named(folder: Path) -> str:
    return "" if folder == Path(_DEFAULT_FOLDER) else f" --folder {shlex.quote(str(folder))}"


def _described(record: LabRecord, folder: Path) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "kernel": record.kernel,
        "network": record.network.space,
        "ray_address": record.head.address,
        "hosts": [
            {
                "host": guest.name,
                "state": guest.state,
                "address": record.network.address(guest.number),
                "console": str(guest.console_path),
            }
            for guest in record.guests
        ],
    }


def _wait(record: LabRecord, say: Callable[[str], None]) -> None:
    """Wait until we are told to end, or every guest has ended of itself; say so of each that does."""
    from fleetexp.lab.guest import GuestState

    living = list(record.guests)
    while living:
        for guest in list(living):
            if guest.state is GuestState.ENDED:
                living.remove(guest)
                say(f"{guest.name} has ended; its console: {guest.console_path}")
        time.sleep(0.5)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end us as Ctrl-C does."""

    def interrupt(_number: int, _frame: object) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # once is enough: what was begun is taken away undisturbed
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

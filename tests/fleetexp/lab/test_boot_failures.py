"""What a console says of a boot that failed is told as one cause, with its remedy."""

from __future__ import annotations

import pytest

from fleetexp.lab.console import BootFailure, explained, failure_of, last_lines

PANIC = "[    1.2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n"


@pytest.mark.parametrize(
    ("console", "failure"),
    [
        ("", BootFailure.SILENT),
        ("\n \n", BootFailure.SILENT),
        ("fleetexp-lab: up\nfleetexp-lab: lacks 9p\n", BootFailure.NINE_P),
        ("fleetexp-lab: up\r\nfleetexp-lab: lacks overlay\r\n" + PANIC, BootFailure.OVERLAY),
        ("fleetexp-lab: up\nmount: no channel\nfleetexp-lab: lacks virtio\n", BootFailure.VIRTIO),
        ("fleetexp-lab: up\nfleetexp-lab: lacks network\n", BootFailure.NETWORK),
        ("Kernel panic - not syncing: Requested init /fleetexp-init-busybox failed (error -2).", BootFailure.NO_SHELL),
        ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", BootFailure.NO_SHELL),
        ("fleetexp-lab: up\n" + PANIC, BootFailure.PANIC),
        ("fleetexp-lab: up\nModuleNotFoundError: ray\nfleetexp-lab: ended 1\n" + PANIC, BootFailure.ENDED),
        ("fleetexp-lab: up\n", BootFailure.ENDED),
    ],
)
def test_each_end_of_a_boot_is_told_apart(console: str, failure: BootFailure) -> None:
    assert failure_of(console) is failure


def test_a_guest_that_still_boots_is_late() -> None:
    assert failure_of("fleetexp-lab: up\n", ended=False) is BootFailure.LATE


@pytest.mark.parametrize("failure", BootFailure)
def test_each_failure_has_words_and_a_remedy(failure: BootFailure) -> None:
    assert all(explained(failure))


def test_the_last_lines_are_those_that_say_something() -> None:
    assert last_lines("".join(f"line {number}\n\n" for number in range(40)))[-1] == "line 39"
    assert len(last_lines("x\n" * 40)) == 12
    assert last_lines("one\n" + PANIC + " Call Trace:\n  do_exit\n") == ("one", PANIC.rstrip())

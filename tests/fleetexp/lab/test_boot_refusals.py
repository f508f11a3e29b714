"""What can't be booted is refused before anything is made, with what is missing and what helps."""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from fleetexp.errors import LabError
from fleetexp.lab.architecture import Architecture, kernel_architecture
from fleetexp.lab.lab import LabPlan, boot, check, check_memory, read_record
from fleetexp.lab.machine import Hardware, KernelImage
from fleetexp.lab.network import Network
from fleetexp.lab.record import record_path

GIB = 2**30
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="root is asked for before all else")
MAGIC = {
    Architecture.X86_64: (0x202, b"HdrS"),
    Architecture.AARCH64: (56, b"ARM\x64"),
    Architecture.RISCV64: (56, b"RSC\x05"),
}


def image(folder: Path, architecture: Architecture) -> Path:
    offset, magic = MAGIC[architecture]
    path = folder / f"kernel-{architecture}"
    path.write_bytes(bytes(offset) + magic + bytes(1024))
    return path


def plan(folder: Path, *, hosts: int = 2, memory: int = 2**26, kernel: Path | None = None) -> LabPlan:
    return LabPlan(
        kernel=KernelImage(
            image=kernel or image(folder, Architecture(platform.machine())), initramfs=folder / "initramfs"
        ),
        hardware=Hardware(memory_bytes=memory),
        hosts=hosts,
    )


@pytest.mark.parametrize("architecture", MAGIC)
def test_an_image_says_which_architecture_it_is_for(architecture: Architecture, tmp_path: Path) -> None:
    assert kernel_architecture(image(tmp_path, architecture)) is architecture


@pytest.mark.parametrize("content", [b"", b"\x7fELF" + bytes(600), b"\xfd7zXZ" + bytes(600), struct.pack("<600x")])
def test_what_is_no_image_is_refused_with_what_is_wanted(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(content)
    with pytest.raises(LabError, match=r"no kernel image.*vmlinux.*give a bzImage"):
        kernel_architecture(path)


@AS_ROOT
def test_a_kernel_for_another_architecture_is_refused(tmp_path: Path) -> None:
    other = next(one for one in MAGIC if one != platform.machine())
    with pytest.raises(LabError, match=f"this kernel is for {other}"):
        check(plan(tmp_path, kernel=image(tmp_path, other)))


@AS_ROOT
def test_without_the_program_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"qemu-system-\w+ is not installed — install it \(Debian: apt-get install qemu"):
        check(plan(tmp_path))


def test_guests_that_would_not_find_their_memory_are_refused_with_how_many_would(tmp_path: Path) -> None:
    meminfo = "MemTotal:       24000000 kB\nMemAvailable:    9437184 kB\n"  # 9 GiB
    check_memory(plan(tmp_path, hosts=2, memory=4 * GIB), meminfo)
    with pytest.raises(LabError, match=r"want 13\.0 GiB, and 9\.0 GiB are available.*--hosts 2 would fit"):
        check_memory(plan(tmp_path, hosts=3, memory=4 * GIB), meminfo)
    with pytest.raises(LabError, match="give them less with --memory"):
        check_memory(plan(tmp_path, hosts=1, memory=9 * GIB), meminfo)


@AS_ROOT
def test_an_initramfs_that_can_not_be_read_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    with pytest.raises(LabError, match="the initramfs can't be read"):
        boot(folder, plan(tmp_path))
    assert not record_path(folder).exists()


@AS_ROOT
def test_a_folder_with_a_lab_takes_no_second_one(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    record_path(folder).write_text("{}")
    with pytest.raises(LabError, match="there is a lab here already"):
        boot(folder, plan(tmp_path))
    assert record_path(folder).read_text() == "{}"


def test_a_network_that_is_not_there_has_no_processes_and_is_removed_without_a_word() -> None:
    network = Network(space="fleetexp-absent")
    assert network.processes() == []
    network.remove()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no lab here"),
        ("{", "can't be read"),
        ('{"space": 7}', "can't be read"),
        ("{}", "can't be read"),
    ],
)
def test_a_record_that_is_none_is_refused(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        record_path(tmp_path).write_text(content)
    with pytest.raises(LabError, match=said):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--memory", "5"), "'5' is not a size: write for example '4GiB'"),
        (("--timeout", "90"), "is not a duration"),
        (("--hosts", "0"), "0 is not in the range"),
        (("--prepare", "/nowhere.sh"), "/nowhere.sh"),
    ],
)
def test_the_command_refuses_wrong_options_by_name(
    invoke: Callable[..., Result], words: tuple[str, str], said: str
) -> None:
    result = invoke("lab", "boot", "bzImage", "initramfs", *words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


@AS_ROOT
def test_the_command_says_in_one_line_that_the_kernel_is_not_there(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    result = invoke("lab", "boot", str(tmp_path / "bzImage"), "initramfs", "--folder", str(tmp_path / "lab"))
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: the kernel can't be read: No such file or directory [{tmp_path}/bzImage] — name a kernel image\n"
    )
    assert not (tmp_path / "lab").exists()

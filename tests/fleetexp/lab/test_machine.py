"""The command line of a guest, and what stands behind its initramfs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fleetexp.lab.initramfs import FALLBACK, INIT, with_init
from fleetexp.lab.machine import Hardware, KernelImage, Share, Tap, qemu_command, with_our_init
from tests.fleetexp.lab.test_boot_refusals import MAGIC, image


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelImage:
    """An x86-64 kernel by its magic number, where the program that would boot it is on the path."""
    program = tmp_path / "bin/qemu-system-x86_64"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    (tmp_path / "initramfs").write_bytes(b"given!")
    return KernelImage(
        image=image(tmp_path, next(iter(MAGIC))), initramfs=tmp_path / "initramfs", arguments="pud.gb=always"
    )


def value(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_an_emulated_guest_has_every_cpu_feature_unless_a_model_is_named(kernel: KernelImage) -> None:
    command = qemu_command(kernel, Hardware(memory_bytes=5 * 2**30, cpus=3))
    assert [value(command, option) for option in ("-accel", "-cpu", "-smp", "-m")] == [
        "tcg,thread=multi",
        "max",
        "3",
        "5120M",
    ]
    assert value(qemu_command(kernel, Hardware(cpu_model="max,-pdpe1gb")), "-cpu") == "max,-pdpe1gb"
    assert value(qemu_command(kernel, Hardware(emulated=False)), "-cpu") == "host"


def test_numa_nodes_share_memory_and_cpus(kernel: KernelImage) -> None:
    command = qemu_command(kernel, Hardware(memory_bytes=4 * 2**30, cpus=3, numa_nodes=2))
    assert [command[at + 1] for at, word in enumerate(command) if word in {"-object", "-numa"}] == [
        "memory-backend-ram,id=node0,size=2048M",
        "node,nodeid=0,memdev=node0,cpus=0,cpus=2",
        "memory-backend-ram,id=node1,size=2048M",
        "node,nodeid=1,memdev=node1,cpus=1",
    ]
    assert value(command, "-smp") == "3,sockets=3"
    assert "-numa" not in qemu_command(kernel, Hardware())


def test_folders_are_read_only_unless_said_otherwise_and_commas_in_them_are_escaped(kernel: KernelImage) -> None:
    shares = (Share(tag="hostroot", folder=Path("/")), Share(tag="share", folder=Path("/a,b"), writable=True))
    command = qemu_command(kernel, Hardware(), shares, Tap(device="tap101", mac="52:54:00:00:00:65"))
    drives = [word for word in command if word.startswith("local,")]
    assert drives == [
        "local,id=hostroot,path=/,security_model=none,multidevs=remap,readonly=on",
        "local,id=share,path=/a,,b,security_model=none,multidevs=remap",
    ]
    assert "virtio-net-pci,netdev=net,mac=52:54:00:00:00:65" in command


def test_our_init_is_asked_for_beside_the_user_s_arguments(kernel: KernelImage, tmp_path: Path) -> None:
    made = with_our_init(kernel, tmp_path / "bin")
    words = value(qemu_command(made, Hardware()), "-append").split()
    assert words == [
        "console=ttyS0",
        "panic=-1",
        "loglevel=4",
        "pud.gb=always",
        f"rdinit={INIT}",
        f"init={FALLBACK}",
    ]
    assert kernel.initramfs.read_bytes() == b"given!"


def test_the_archive_begins_at_a_multiple_of_four_behind_what_was_given(tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(b"given!")
    made = with_init(tmp_path / "given")
    assert made.startswith(b"given!\0\x00070701")


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio, which reads the archive here, is not installed")
def test_cpio_unpacks_what_stands_behind_an_initramfs_and_it_is_sound_shell(tmp_path: Path) -> None:
    (tmp_path / "given").touch()
    folder = tmp_path / "unpacked"
    folder.mkdir()
    subprocess.run(["cpio", "-id", "--quiet"], cwd=folder, input=with_init(tmp_path / "given"), check=True)
    assert {f"/{path.name}" for path in folder.iterdir()} == {INIT, FALLBACK}
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o755
        subprocess.run(["sh", "-n", str(path)], check=True)

"""What is put behind a kernel's own initramfs: an init that mounts this machine's files and runs a script on them.

The kernel unpacks one archive after the other (Documentation/driver-api/early-userspace/buffer-format.rst).
So any initramfs will do that has a shell, `mount`, `mkdir` and `chroot`, or busybox for all of them; its own init is
not run.
"""

from __future__ import annotations

from pathlib import Path

from fleetexp.errors import LabError

INIT = "/fleetexp-init"
FALLBACK = "/fleetexp-init-busybox"  # the kernel tries `rdinit`, then `init`: where there is no /bin/sh, busybox
SHARE = "/mnt/share"  # in the guest; what this machine exports under the tag of that name
SCRIPT = f"{SHARE}/run.sh"
SAYS = "fleetexp-lab:"
UP = f"{SAYS} up".encode()

_INIT = f"""\
PATH=/bin:/sbin:/usr/bin:/usr/sbin
mkdir -p /proc /sys /dev /fleetexp/lower /fleetexp/upper /fleetexp/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
exec </dev/console >/dev/console 2>&1
echo "{SAYS} up"
finish() {{ sync; echo o >/proc/sysrq-trigger; sleep 5; exit; }}
lacks() {{ echo "{SAYS} lacks $1"; finish; }}
offers() {{
    while read -r one other; do case "$one $other" in *"$1") return 0 ;; esac; done </proc/filesystems
    return 1
}}
for module in virtio_pci 9pnet_virtio 9p overlay virtio_net; do modprobe "$module" 2>/dev/null; done
offers 9p || lacks 9p
offers overlay || lacks overlay
over_virtio=trans=virtio,version=9p2000.L,msize=512000,access=any
root=/fleetexp/root
mount -t 9p -o "$over_virtio,ro,cache=loose" hostroot /fleetexp/lower || lacks virtio
mount -t tmpfs upper /fleetexp/upper
mkdir -p /fleetexp/upper/data /fleetexp/upper/work
layers=lowerdir=/fleetexp/lower,upperdir=/fleetexp/upper/data,workdir=/fleetexp/upper/work
mount -t overlay -o "$layers" overlay "$root" || lacks overlay
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root{SHARE}"
mount -t proc proc "$root/proc"
mount -t sysfs sys "$root/sys"
mount -t devtmpfs dev "$root/dev"
mkdir -p "$root/dev/pts" "$root/dev/shm"
mount -t devpts pts "$root/dev/pts"
mount -t tmpfs shm "$root/dev/shm"
mount -t tmpfs run "$root/run"
mount -t cgroup2 cgroup "$root/sys/fs/cgroup" 2>/dev/null
mount -t debugfs debug "$root/sys/kernel/debug" 2>/dev/null
mount -t tracefs trace "$root/sys/kernel/tracing" 2>/dev/null
mount -t 9p -o "$over_virtio,rw,cache=none" share "$root{SHARE}" || lacks virtio
card=
for one in /sys/class/net/*; do if [ -e "$one/device" ]; then card=${{one##*/}}; fi; done
chroot "$root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \\
    TERM=dumb LANG=C.UTF-8 CARD="$card" /bin/sh {SCRIPT}
echo "{SAYS} ended $?"
finish
"""
_SHELLS = {INIT: "#!/bin/sh\n", FALLBACK: "#!/bin/busybox sh\n/bin/busybox --install -s /bin\n"}
_EXECUTABLE = 0o100755


def with_init(initramfs: Path) -> bytes:
    """Return the initramfs with our init behind it; LabError where it can't be read."""
    try:
        given = initramfs.read_bytes()
    except OSError as error:
        what = f"the initramfs can't be read: {error.strerror}"
        raise LabError(what, str(initramfs), "name an initramfs, compressed or not") from error
    padding = b"\0" * (-len(given) % 4)  # an archive that isn't compressed begins at a multiple of 4
    return given + padding + archive({name: (shell + _INIT).encode() for name, shell in _SHELLS.items()})


def archive(files: dict[str, bytes]) -> bytes:
    """Return executable files as an archive of cpio's 'newc' format (buffer-format.rst, as above)."""
    return b"".join(_entry(name.lstrip("/"), data, _EXECUTABLE) for name, data in files.items()) + _entry(
        "TRAILER!!!", b"", 0
    )


def _entry(name: str, data: bytes, mode: int) -> bytes:
    path = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device (2), device of a node (2), length of the name, checksum
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)

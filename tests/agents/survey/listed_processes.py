"""Two processes, one forked from the other, as the files of a copied tree tell them: path below the root -> text."""

from __future__ import annotations

MAPS = """\
55550000-55560000 r-xp 00000000 fe:00 1234                               /usr/bin/server
55560000-55570000 rw-p 00010000 fe:00 1234                               /usr/bin/server
7f0000000000-7f0080000000 rw-p 00000000 00:00 0
7f0080000000-7f0080100000 r--p 00000000 00:00 0
7f0080100000-7f00c0000000 rw-p 00000000 00:00 0                          [anon:arena]
7f0200000000-7f0300000000 ---p 00000000 00:00 0
7f0400000000-7f0480000000 rw-s 00000000 00:01 7                          /dev/zero (deleted)
7fff00000000-7fff00200000 rw-p 00000000 00:00 0                          [stack]
7fff00300000-7fff00302000 r-xp 00000000 00:00 0                          [vdso]
"""
STATUS = "Name:\tserver\nPPid:\t1\nVmSize:\t 4000000 kB\nRssAnon:\t 2000000 kB\nVmSwap:\t 0 kB\nVmPTE:\t 4000 kB"
STAT = "42 (server) S 1 42 42 0 -1 4194560 1 0 0 0"
FILES = {
    "proc/42/maps": MAPS,
    "proc/42/status": STATUS,
    "proc/42/stat": STAT,
    "proc/42/comm": "server",
    "proc/42/cgroup": "0::/system.slice/web.service",
    "proc/43/status": STATUS.replace("server", "worker").replace("PPid:\t1", "PPid:\t42"),
    "proc/43/stat": "43 (a (b) c) S 42 42 42 0 -1 4194624 1 0 0 0",
    "proc/43/maps": MAPS,
    "proc/44/status": "Name:\tkthreadd\nPPid:\t0",
    "proc/stat": "cpu  100 0 50 9000 1 0 0 0 0 0\nprocesses 21308",
}

"""Somebody else's write is seen, and ours is not taken for one."""

from __future__ import annotations

import errno
import threading

from agents.knobs import find_knob
from agents.messages import KnobReason
from agents.sysroot import FolderRoot
from tests.agents.claim.claims import THP_2M, Claimer, HostTree, arm


def test_somebody_elses_write_is_seen_and_ours_is_not(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claim = claimer(root, THP_2M, "thp/enabled")
    claim.apply(arm(thp_2M="always"))
    root.write(find_knob(root, "thp/enabled").path, b"never")
    (drift,) = claim.drift()
    assert (drift.knob, drift.wanted, drift.actual) == ("thp/enabled", "madvise", "never")
    claim.apply(arm(thp_2M="always"), KnobReason.REAPPLY)
    assert claim.drift() == ()


def test_a_knob_that_has_gone_is_a_drift(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claim = claimer(root, THP_2M)
    path = root.root / find_knob(root, THP_2M).path
    path.unlink()
    (drift,) = claim.drift()
    assert drift.actual == ""
    path.write_text("inherit")
    assert claim.drift() == ()

    class Broken:
        def read(self) -> bytes:
            raise OSError(errno.ENODEV, "gone")

        def close(self) -> None: ...

    claim._readers[THP_2M] = Broken()
    assert claim.drift()[0].actual == ""
    assert claim.drift() == ()  # opened again


def test_drift_is_not_asked_while_we_write_ourselves(host_tree: HostTree, claimer: Claimer) -> None:
    writing, go_on = threading.Event(), threading.Event()

    class Slow(FolderRoot):
        def write(self, path: str, value: bytes) -> None:
            super().write(path, value)
            writing.set()
            assert go_on.wait(10)

    claim = claimer(Slow(host_tree().root), THP_2M)
    thread = threading.Thread(target=claim.apply, args=(arm(thp_2M="always"),))
    thread.start()
    assert writing.wait(10)
    assert claim.drift() == ()
    claim.renew()  # a poll is answered meanwhile
    go_on.set()
    thread.join()
    assert claim.drift() == ()

"""What a workload's process says of its own huge pages by prctl(2), whatever the host's knobs say.

Source: Documentation/admin-guide/mm/transhuge.rst, and PR_SET_THP_DISABLE in prctl(2); the exception for advised memory
came with Linux 6.18 (include/uapi/linux/prctl.h).
"""

from __future__ import annotations

import ctypes
import errno
import os
from enum import StrEnum

from agents.errors import WorkloadError

_PR_SET_THP_DISABLE = 41
_PR_THP_DISABLE_EXCEPT_ADVISED = 1 << 1


class ProcessThp(StrEnum):
    """Whether the process takes the huge pages that the knobs would give it."""

    AS_FOUND = "as_found"
    DISABLED = "disabled"
    ONLY_ADVISED = "only_advised"

    def takes(self, *, madvise: bool) -> bool:
        """Whether memory of the process may get huge pages at a fault; `madvise`: it asks with MADV_HUGEPAGE."""
        return self is ProcessThp.AS_FOUND or (self is ProcessThp.ONLY_ADVISED and madvise)


def tell_kernel(choice: ProcessThp) -> None:
    """Make the choice hold for this process, and what it starts; WorkloadError where the kernel doesn't know it."""
    if choice is ProcessThp.AS_FOUND:
        return
    flags = _PR_THP_DISABLE_EXCEPT_ADVISED if choice is ProcessThp.ONLY_ADVISED else 0
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    words = (ctypes.c_ulong(word) for word in (1, flags, 0, 0))
    if prctl(_PR_SET_THP_DISABLE, *words) != 0:
        number = ctypes.get_errno()
        why = "PR_THP_DISABLE_EXCEPT_ADVISED" if number == errno.EINVAL and flags else os.strerror(number)
        raise WorkloadError(
            f"this kernel does not let a process choose process_thp {choice}: {why}",
            where="prctl(PR_SET_THP_DISABLE)",
            remedy="only_advised takes Linux 6.18 or newer; disabled is known since 3.15",
        )

"""A service whose pages are split by known causes, again and again: the workload of the traced run in a guest.

It rests until the host traces, and has done before its period is over, so that all that it did lies between the first
reading and the last. After each round it prints how many it has made.
"""

from __future__ import annotations

import time

from tests.lab.guest_splits import left_over
from tests.lab.split_causes import copy_on_write, mprotect, munmap, program_of, run_as

GIB = 1 << 30
CAUSES = (copy_on_write, mprotect, munmap)
ROUNDS = 4
FIRST_READING_SECONDS = 15  # from the instance in the kernel's tracing, on an emulated host that is busy


def main() -> None:
    while not left_over():
        time.sleep(1)
    time.sleep(FIRST_READING_SECONDS)
    for number in range(1, ROUNDS + 1):
        for cause in CAUSES:
            run_as(program_of("pud", cause), cause, GIB)
        print("rounds", number, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

"""How much of the CPU a piece of work may take, as a ratio to a floor taken in the same process: a hang, no slow day.

What else the process holds must not count: its garbage collector is off meanwhile (after thousands of tests one full
collection costs more than the work).
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

NO_QUESTION_SECONDS = 0.5  # below this nobody asks for the floor
MOST_FLOORS = 25  # a floor is 0.1 s on a server of 2020


def floor_seconds() -> float:
    """CPU seconds for a million plain steps of Python here and now."""
    began = time.process_time()
    sum(number * number % 7 for number in range(1_000_000))
    return time.process_time() - began


@contextmanager
def no_hang() -> Iterator[None]:
    """Fail where what is done inside takes more CPU time than MOST_FLOORS million steps of Python."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = time.process_time()
        yield
        took = time.process_time() - began
        if took > NO_QUESTION_SECONDS:
            floors = took / floor_seconds()
            assert floors < MOST_FLOORS, f"it took {took:.1f} s of the CPU, {floors:.0f} times the floor"
    finally:
        if collecting:
            gc.enable()

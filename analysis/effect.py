"""A metric's effect of one treatment: the headline row and the inference that it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.inference import Inference
from analysis.look import Look
from analysis.results import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The inference had all that is missing been as low, or as high, as it may be under the treatment.

    Under the control it is taken to be at the other end each time.
    """

    low: Inference
    high: Inference


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A metric's headline for one treatment and what it rests on.

    `inference` None says that too few units bear no claim (`few`), or that none could be made. `bounds` are the same
    inference had what is missing been at either end; None: nothing is missing.
    """

    estimate: Estimate
    inference: Inference | None
    look: Look
    bounds: Bounds | None = None
    few: bool = False

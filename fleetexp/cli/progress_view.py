"""A run as it goes on: a bar that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from fleetexp.cli.output import console, duration, visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from fleetexp.control.progress import Progress

logger = logging.getLogger(__name__)

_LATEST_SHOWN = 4
_REFRESH_SECONDS = 0.2
_BAR = 30


class ProgressView(Protocol):
    """Something that a run's progress can be shown on."""

    def show(self, progress: Progress) -> None: ...


@contextmanager
def progress_view(metrics: Sequence[str], *, to_stderr: bool = False) -> Iterator[ProgressView]:
    """Open the view that fits: live where the output is a terminal, lines where not. `metrics` are shown first.

    Where the output goes away (`| head`, a terminal that was closed) the run goes on unseen.
    """
    screen = console(stderr=to_stderr)
    if not screen.is_terminal:
        yield MayBeLost(LineView(screen))
        return
    from rich.live import Live

    with Live(console=screen, auto_refresh=False, transient=True) as live:
        yield MayBeLost(LiveView(live, metrics))


class MayBeLost:
    """Shows on another view until that can't be written any more: no reason to leave a host between two arms."""

    def __init__(self, view: ProgressView) -> None:
        self.view: ProgressView | None = view

    def show(self, progress: Progress) -> None:
        if self.view is None:
            return
        try:
            self.view.show(progress)
        except (OSError, SystemExit) as error:  # rich leaves by SystemExit where a pipe was closed
            logger.warning("progress can't be shown any more, the run goes on: %s", error)
            self.view = None


class LineView:
    """One line whenever the run moves on to something else."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._said = ""
        self._message = ""

    def show(self, progress: Progress) -> None:
        current = progress.current or progress.state.value
        if current != self._said:
            self._said = current
            self._line(progress, current)
        if progress.message and progress.message != self._message:
            self._message = progress.message
            self._line(progress, announcement(progress))

    def _line(self, progress: Progress, text: str) -> None:
        at = f"{progress.elapsed_seconds:6.0f} s  {progress.share * 100:3.0f} %  "
        self._screen.print(at + visible(text), soft_wrap=False)


class LiveView:
    """A bar, what goes on now, the latest values, how the hosts are."""

    def __init__(self, live: Live, metrics: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._live = live
        self._metrics = tuple(metrics)
        self._clock = clock
        self._shown_at = float("-inf")
        self._message = ""

    def show(self, progress: Progress) -> None:
        if progress.message and progress.message != self._message:
            self._message = progress.message
            self._live.console.print(visible(announcement(progress)))
        now = self._clock()
        if now - self._shown_at >= _REFRESH_SECONDS or progress.state.is_terminal:
            self._shown_at = now
            self._live.update(frame(progress, self._metrics), refresh=True)


def announcement(progress: Progress) -> str:
    """Say what has just happened; where a run is being stopped, that the host is put back whatever is pressed."""
    from fleetexp.domain import RunState

    if progress.state is RunState.HALTING:
        return f"stopping: {progress.message}. Putting every knob back; Ctrl-C again changes nothing"
    return progress.message


def frame(progress: Progress, metrics: Sequence[str]) -> RenderableType:
    """Draw one moment of a run."""
    from rich.text import Text

    done = round(progress.share * _BAR)
    left = f"about {duration(progress.remaining_seconds)} left" if progress.remaining_seconds else "finishing"
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"run {progress.run_id}  ")
    text.append("━" * done, style="green")
    text.append("─" * (_BAR - done), style="dim")
    text.append(f" {progress.share * 100:3.0f} %  {left}\n")
    text.append(f"  now     {visible(progress.current or progress.state.value)}\n")
    text.append(f"  done    {progress.periods_done} of {progress.periods_total} periods")
    if sum(progress.units.values()) > 1:
        states = ", ".join(f"{count} {state.value}" for state, count in progress.units.items())
        text.append(f"; hosts: {states}")
    for name, value in latest_values(progress.latest, metrics):
        text.append(f"\n  latest  {visible(name)}: {value}")
    return text


def latest_values(latest: Mapping[str, float], metrics: Sequence[str]) -> list[tuple[str, str]]:
    """Choose the latest values to show, those of the experiment first, each with its unit."""
    from agents.catalogue import describe
    from analysis.quantities import quantity

    order = [name for name in metrics if name in latest]
    order += [name for name in sorted(latest) if name not in order]
    shown = []
    for name in order[:_LATEST_SHOWN]:
        try:
            unit = describe(name).unit
        except KeyError:
            unit = ""
        shown.append((name, quantity(latest[name], unit)))
    return shown

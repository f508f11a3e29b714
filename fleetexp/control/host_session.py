"""What is under way with one host: its stream of readings, the end of a period or of its claim, a search for it."""

from __future__ import annotations

from dataclasses import dataclass

from agents.messages import Ended, Poll
from fleetexp.control.messages import Collect


@dataclass(slots=True)
class HostSession:
    """One host as the controller talks to it; when it is polled is the business of the `PollScheduler`."""

    acknowledged: int = 0  # the last reading that is stored
    collect: Collect | None = None  # an End is under way
    closing: tuple[Collect, Ended] | None = None  # ended; the stream is not yet stored
    releasing: bool = False  # reverted; the rest of the stream is still to be stored
    knows_too_little: Poll | None = None  # the poll that was under way when it was reverted
    reconnecting: bool = False
    drifting: bool = False  # the drift of this period was told

    def collected(self, ended: Ended) -> bool:
        """Let the period close once its stream is stored; False where nobody waits for that any longer."""
        collect, self.collect = self.collect, None
        if collect is None:
            return False
        self.closing = collect, ended
        return True

    def closed(self) -> tuple[Collect, Ended] | None:
        """Return the period that has ended and is stored whole, once."""
        if self.closing is None or self.acknowledged < self.closing[1].last_position:
            return None
        closing, self.closing = self.closing, None
        return closing

    def reverted(self, under_way: Poll | None) -> None:
        """Let the claim end once the rest of the stream is stored."""
        self.releasing, self.knows_too_little = True, under_way

    def stored_all(self, poll: object, readings: int) -> bool:
        """Whether the claim may end: this poll's answer, all stored, says that nothing is left."""
        return self.releasing and not readings and poll is not self.knows_too_little

    def give_up_period(self) -> None:
        """The host is put back: no period of it closes any more."""
        self.collect = self.closing = None

    def lose(self) -> None:
        """Forget everything that is under way."""
        self.give_up_period()
        self.releasing, self.knows_too_little = False, None
        self.reconnecting = self.drifting = False

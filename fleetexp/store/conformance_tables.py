"""The tables of trials of a huge page size on a host under a kernel. They belong to no run.

conformance         one trial
conformance_result  the verdict on one scenario of it
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from agents.conformance.verdict import PageVerdict, VerdictCause
from fleetexp.store.table_base import NUMBERED, STRICT, Base, Json


class ConformanceRow(Base):
    __tablename__ = "conformance"
    __table_args__ = (
        Index(None, "host", "size_kib"),
        {**NUMBERED, "comment": "One trial of a huge page size on a host under a kernel: fleetexp conform."},
    )

    conformance_id: Mapped[int] = mapped_column(primary_key=True, comment="number of the trial")
    host: Mapped[str] = mapped_column(comment="name of the host, which no run need have named")
    kernel: Mapped[str] = mapped_column(comment="release of the kernel")
    architecture: Mapped[str] = mapped_column(comment="machine, as uname says it")
    boot_id: Mapped[str] = mapped_column(comment="changes with every boot")
    size_kib: Mapped[int] = mapped_column(comment="the page size, KiB")
    begun_at: Mapped[datetime] = mapped_column(comment="when it began, UTC")
    begun_by: Mapped[str] = mapped_column(comment="user@host pid of who tried")
    ended_at: Mapped[datetime | None] = mapped_column(
        comment="when the settings had been put back, UTC; NULL: it goes on, was killed, or the host died of it"
    )
    given_up: Mapped[str | None] = mapped_column(comment="why the host was given up in mid-trial; NULL: it was not")


class ConformanceResultRow(Base):
    __tablename__ = "conformance_result"
    __table_args__ = ({**STRICT, "comment": "The verdict on one scenario of a trial of a huge page size."},)

    conformance_id: Mapped[int] = mapped_column(
        ForeignKey("conformance.conformance_id"), primary_key=True, comment="the trial"
    )
    scenario: Mapped[str] = mapped_column(primary_key=True, comment="name of the scenario")
    verdict: Mapped[str] = mapped_column(comment=", ".join(PageVerdict))
    cause: Mapped[str] = mapped_column(
        comment=f"what the verdict is owed to: {', '.join(filter(None, VerdictCause))}; empty: a pass"
    )
    detail: Mapped[str] = mapped_column(comment="the cause in words")
    seconds: Mapped[float] = mapped_column(comment="how long it took, seconds")
    attempts: Mapped[int] = mapped_column(comment="times that it was tried, because others moved its counters")
    found: Mapped[Json] = mapped_column(comment="every check, and the counters before and after; JSON")

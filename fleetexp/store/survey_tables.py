"""The tables of surveys: what huge pages would back and add on a host. They belong to a host, not to a run.

page_survey       one look at a host
surveyed_process  a process of it
surveyed_size     a page size in that process
surveyed_share    its extents by how much of them is resident
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from agents.survey.figures import SHARES, Sight
from fleetexp.store.table_base import NUMBERED, STRICT, Base, Json


class PageSurveyRow(Base):
    __tablename__ = "page_survey"
    __table_args__ = (
        UniqueConstraint("host_id", "taken_at"),
        {**NUMBERED, "comment": "One look at what huge pages would do for the processes of a host."},
    )

    page_survey_id: Mapped[int] = mapped_column(primary_key=True, comment="number of the survey")
    host_id: Mapped[int] = mapped_column(ForeignKey("host.host_id"), comment="the host")
    taken_at: Mapped[datetime] = mapped_column(comment="when it began, UTC")
    boot_id: Mapped[str] = mapped_column(comment="changes with every boot")
    kernel: Mapped[str] = mapped_column(comment="release of the kernel")
    memory_total_bytes: Mapped[int] = mapped_column(comment="memory that the kernel manages, bytes")
    base_page_bytes: Mapped[int] = mapped_column(comment="size of a base page, bytes")
    pmd_kib: Mapped[int] = mapped_column(comment="size that one PMD maps, KiB; 0 where not known")
    small_processes: Mapped[int] = mapped_column(comment="processes too small to be looked at, count")
    small_anon_bytes: Mapped[int] = mapped_column(comment="anonymous memory of these, bytes")
    looked_at_bytes: Mapped[int] = mapped_column(comment="address space whose pages were looked up, bytes")
    forks_per_second: Mapped[float | None] = mapped_column(comment="of the whole host, mean since its boot")
    cpu_seconds: Mapped[float] = mapped_column(comment="CPU time that the survey took, seconds")
    wall_seconds: Mapped[float] = mapped_column(comment="how long it took, seconds")
    splitting_sizes_kib: Mapped[Json] = mapped_column(comment="sizes that looking would have split; JSON list, KiB")
    sizes: Mapped[Json] = mapped_column(comment="page sizes there: size_kib, thp (its setting), hugetlb; JSON list")
    readers: Mapped[Json] = mapped_column(comment="programs there that read files which split pages; JSON list")


class SurveyedProcessRow(Base):
    __tablename__ = "surveyed_process"
    __table_args__ = ({**STRICT, "comment": "A process as a survey found it. NULL: not seen, never zero."},)

    page_survey_id: Mapped[int] = mapped_column(
        ForeignKey("page_survey.page_survey_id"), primary_key=True, autoincrement=False, comment="the survey"
    )
    pid: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="number of the process")
    command: Mapped[str] = mapped_column(comment="name of the program, as far as the kernel keeps it")
    cgroup: Mapped[str] = mapped_column(comment="its memory cgroup; empty where not known")
    sight: Mapped[str] = mapped_column(comment=f"how much was seen, or why nothing: {', '.join(Sight)}")
    anon_bytes: Mapped[int] = mapped_column(comment="anonymous memory, resident, bytes")
    swap_bytes: Mapped[int] = mapped_column(comment="anonymous memory in swap, bytes")
    span_bytes: Mapped[int] = mapped_column(comment="private anonymous address space that may be touched, bytes")
    page_table_bytes: Mapped[int] = mapped_column(comment="its page tables, bytes")
    forked_children: Mapped[int] = mapped_column(comment="living children that go on in its program, count")
    refused_bytes: Mapped[int | None] = mapped_column(comment="of the span: never gets huge pages, by its own wish")
    huge_bytes: Mapped[int | None] = mapped_column(comment="anonymous memory that PMDs map now, bytes")
    shared_bytes: Mapped[int | None] = mapped_column(comment="anonymous memory shared since a fork, bytes")


class SurveyedSizeRow(Base):
    __tablename__ = "surveyed_size"
    __table_args__ = ({**STRICT, "comment": "A page size in a surveyed process. NULL: not seen, never zero."},)

    page_survey_id: Mapped[int] = mapped_column(
        ForeignKey("page_survey.page_survey_id"), primary_key=True, autoincrement=False, comment="the survey"
    )
    pid: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="number of the process")
    size_kib: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="page size, KiB")
    extents: Mapped[int] = mapped_column(comment="aligned extents within one mapping, count")
    cut_extents: Mapped[int] = mapped_column(comment="extents lost to borders between contiguous mappings, count")
    whole_at_most: Mapped[int] = mapped_column(comment="extents that can be wholly resident, wherever pages lie, count")
    growth_at_most_bytes: Mapped[int] = mapped_column(comment="growth_bytes can't be more, wherever pages lie")
    whole: Mapped[int | None] = mapped_column(comment="extents of which all is resident, count")
    mostly: Mapped[int | None] = mapped_column(comment="extents of which more than half is, and not all, count")
    partly: Mapped[int | None] = mapped_column(comment="extents of which something, and at most half, is, count")
    resident_bytes: Mapped[int | None] = mapped_column(comment="what is resident, or in swap, within extents, bytes")
    growth_bytes: Mapped[int | None] = mapped_column(comment="what pages of this size for all used extents would add")
    tables_saved_bytes: Mapped[int | None] = mapped_column(comment="page tables that they would free, bytes")
    deposit_bytes: Mapped[int | None] = mapped_column(comment="page tables laid by for the case of a split, bytes")
    growth_error_bytes: Mapped[float | None] = mapped_column(comment="standard error of growth_bytes; 0: no sample")


class SurveyedShareRow(Base):
    __tablename__ = "surveyed_share"
    __table_args__ = ({**STRICT, "comment": "Extents of a size in a process by how much of them is resident."},)

    page_survey_id: Mapped[int] = mapped_column(
        ForeignKey("page_survey.page_survey_id"), primary_key=True, autoincrement=False, comment="the survey"
    )
    pid: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="number of the process")
    size_kib: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="page size, KiB")
    share: Mapped[int] = mapped_column(
        primary_key=True,
        autoincrement=False,
        comment=f"how much of each: 0 none, n up to n eighths, {SHARES - 1} all of it",
    )
    extents: Mapped[int] = mapped_column(comment="so many extents, count; shares without any have no row")
    growth_bytes: Mapped[int] = mapped_column(comment="what pages of this size for them would add, bytes")

"""The views of surveys: which hosts, and which programs, would gain from pages of each size, and at what cost."""

from __future__ import annotations

from fleetexp.store.views.definition import View

_NEWEST = """page_survey s
JOIN host h ON h.host_id = s.host_id
JOIN surveyed_process p ON p.page_survey_id = s.page_survey_id
JOIN surveyed_size z ON z.page_survey_id = p.page_survey_id AND z.pid = p.pid
WHERE s.taken_at = (SELECT max(n.taken_at) FROM page_survey n WHERE n.host_id = s.host_id)"""
_SIZES = {
    "processes": "processes that were surveyed, count",
    "processes_seen": "of these, processes whose residency was seen, count: the figures from whole on are theirs",
    "anon_bytes": "anonymous memory of the processes, bytes",
    "extents": "aligned extents within one mapping, count",
    "cut_extents": "extents lost to borders between contiguous mappings, count",
    "growth_at_most_bytes": "what pages of this size could add at most, wherever pages lie, bytes",
    "whole": "extents of which all is resident, count; NULL: nothing was seen",
    "whole_bytes": "memory that pages of this size would back without growth, bytes",
    "backed_bytes": "memory that pages of this size would back if all used extents had one, bytes",
    "growth_bytes": "what that would add, bytes",
    "tables_saved_bytes": "page tables that it would free, bytes",
    "deposit_bytes": "page tables that the kernel would lay by for the case of a split, bytes",
}
_SUMS = """count(*) AS processes, sum(CASE WHEN z.whole IS NULL THEN 0 ELSE 1 END) AS processes_seen,
  CAST(sum(p.anon_bytes) AS DOUBLE PRECISION) AS anon_bytes,
  CAST(sum(z.extents) AS BIGINT) AS extents, CAST(sum(z.cut_extents) AS BIGINT) AS cut_extents,
  CAST(sum(z.growth_at_most_bytes) AS DOUBLE PRECISION) AS growth_at_most_bytes,
  CAST(sum(z.whole) AS BIGINT) AS whole, CAST(sum(z.whole * z.size_kib) AS DOUBLE PRECISION) * 1024 AS whole_bytes,
  CAST(sum((z.whole + z.mostly + z.partly) * z.size_kib) AS DOUBLE PRECISION) * 1024 AS backed_bytes,
  CAST(sum(z.growth_bytes) AS DOUBLE PRECISION) AS growth_bytes,
  CAST(sum(z.tables_saved_bytes) AS DOUBLE PRECISION) AS tables_saved_bytes,
  CAST(sum(z.deposit_bytes) AS DOUBLE PRECISION) AS deposit_bytes"""

SURVEY_SIZES = View(
    name="survey_sizes",
    question="What would pages of each size back, and add, on each host, by its newest survey?",
    columns={
        "host": "name of the host",
        "taken_at": "when the survey began, UTC",
        "size_kib": "page size, KiB",
        **_SIZES,
        "memory_total_bytes": "memory of the host, bytes",
    },
    sql=f"""SELECT h.name AS host, s.taken_at, z.size_kib, {_SUMS},
  CAST(max(s.memory_total_bytes) AS DOUBLE PRECISION) AS memory_total_bytes
FROM {_NEWEST}
GROUP BY h.name, s.taken_at, z.size_kib""",  # noqa: S608 - our own words
)

SURVEY_PROGRAMS = View(
    name="survey_programs",
    question="Which programs would pages of each size back, and at what growth, over the newest surveys of all hosts?",
    columns={
        "command": "name of the program, as far as the kernel keeps it",
        "size_kib": "page size, KiB",
        "hosts": "hosts that run it, count",
        **_SIZES,
        "forked_children": "living children that go on in the program: the first write after a fork splits, count",
    },
    sql=f"""SELECT p.command, z.size_kib, count(DISTINCT s.host_id) AS hosts, {_SUMS},
  CAST(sum(p.forked_children) AS BIGINT) AS forked_children
FROM {_NEWEST}
GROUP BY p.command, z.size_kib""",  # noqa: S608
)

SURVEY_SHARES = View(
    name="survey_shares",
    question="From extents of which residency would the growth come, on each host, by its newest survey?",
    columns={
        "host": "name of the host",
        "taken_at": "when the survey began, UTC",
        "size_kib": "page size, KiB",
        "share": "how much of each extent is resident: 0 none, n up to n eighths, 9 all of it",
        "extents": "so many extents, count",
        "growth_bytes": "what pages of this size for them would add, bytes",
    },
    sql="""SELECT h.name AS host, s.taken_at, e.size_kib, e.share, CAST(sum(e.extents) AS BIGINT) AS extents,
  CAST(sum(e.growth_bytes) AS DOUBLE PRECISION) AS growth_bytes
FROM page_survey s
JOIN host h ON h.host_id = s.host_id
JOIN surveyed_share e ON e.page_survey_id = s.page_survey_id
WHERE s.taken_at = (SELECT max(n.taken_at) FROM page_survey n WHERE n.host_id = s.host_id)
GROUP BY h.name, s.taken_at, e.size_kib, e.share""",
)

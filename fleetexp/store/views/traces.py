"""The views of what was traced: who split big pages and why, and what kept programs waiting."""

from __future__ import annotations

from fleetexp.store.views.definition import OF_PERIOD, View

SPLIT_CAUSES = View(
    name="split_causes",
    question="Who had big pages split, why, how often, and how long did that take, in each period that was traced?",
    columns={
        **OF_PERIOD,
        "metric": "the kernel's counter of the same splits",
        "cause": "why: fork, mprotect, smaps_reader, ...",
        "program": "in whose name, 15 characters at most; empty: programs that were left off",
        "splits": "splits, count",
        "splits_counted": "what the counter rose by in the period, over all causes; NULL where it was not read",
        "splits_timed": "of the splits, those that were timed, count",
        "seconds_lost": "how long the timed ones took together, seconds; NULL: none was timed",
        "seconds": "how long the period was sampled, seconds",
        "started_at": "when sampling began, UTC",
    },
    sql="""SELECT <period columns>,
  'thp_' || c.function AS metric, c.cause, c.program, CAST(c.calls AS DOUBLE PRECISION) AS splits,
  o.rise AS splits_counted, CAST(c.timed AS DOUBLE PRECISION) AS splits_timed, c.seconds AS seconds_lost,
  <seconds:p.started_at:p.ended_at> AS seconds, p.started_at
FROM <period tables>
JOIN traced_call c ON c.period_id = p.period_id AND c.function IN ('split_pmd', 'split_pud')
LEFT JOIN observation o ON o.period_id = p.period_id AND o.metric = 'thp_' || c.function""",
)

STALLS = View(
    name="stalls",
    question="How long did faults of big pages and contiguous allocations keep programs waiting, in traced periods?",
    columns={
        **OF_PERIOD,
        "function": "what the kernel was called for",
        "program": "who waited, 15 characters at most; empty: programs that were left off",
        "calls": "calls, count",
        "seconds_lost": "how long all of them took together, seconds",
        "longest_seconds": "none took longer: the end of a power of two of microseconds, seconds",
        "seconds": "how long the period was sampled, seconds",
        "started_at": "when sampling began, UTC",
    },
    sql="""SELECT <period columns>, c.function, c.program, c.calls, c.seconds AS seconds_lost, c.longest_seconds,
  <seconds:p.started_at:p.ended_at> AS seconds, p.started_at
FROM <period tables>
JOIN traced_call c ON c.period_id = p.period_id AND c.function NOT IN ('split_pmd', 'split_pud')""",
)

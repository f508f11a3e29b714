"""The views of what big pages cost: getting them, the memory they take, and what watching them took."""

from __future__ import annotations

from fleetexp.store.views.definition import OF_PERIOD, View

FAULT_OUTCOMES = View(
    name="fault_outcomes",
    question="How many faults that wanted a huge page of each size got one, how long did a fault take, and how free, "
    "how fragmented was the memory, how long was the host up?",
    columns={
        **OF_PERIOD,
        "size_kib": "page size, KiB",
        "allocated": "faults that got a page of this size, count",
        "fallbacks": "faults that wanted one and got smaller pages, count; NULL where it was not read",
        "charge_refusals": "of the fallbacks, refused by a memory cgroup, count; NULL where it was not read",
        "success_share": "allocated over all that wanted one, ratio; NULL where none did",
        "memory_free_bytes": "memory used for nothing, mean, bytes",
        "memory_free_share": "memory_free_bytes over all memory, ratio",
        "free_huge_bytes": "free memory in blocks that hold a PMD-sized huge page, mean, bytes; little of it with much "
        "free memory: fragmented",
        "compact_stalls": "allocations that waited for compaction, count",
        "uptime_seconds": "time since boot at the first sample, seconds",
        "fault_p50_seconds": "median time of one big-page fault, seconds; NULL where no workload measured it",
        "fault_p99_seconds": "99th percentile of it, seconds",
        "fault_maximum_seconds": "the slowest, seconds",
        "started_at": "when sampling began, UTC",
    },
    sql="""SELECT <period columns>,
  CAST(replace(replace(o.metric, 'thp_', ''), 'kB_anon_fault_alloc', '') AS BIGINT) AS size_kib,
  o.rise AS allocated, f.rise AS fallbacks, c.rise AS charge_refusals,
  o.mean / nullif(o.mean + f.mean, 0) AS success_share,
  m.mean AS memory_free_bytes, m.mean / nullif(t.mean, 0) AS memory_free_share,
  b.mean AS free_huge_bytes, d.rise AS compact_stalls,
  (SELECT s.boottime_seconds FROM sample s WHERE s.period_id = p.period_id ORDER BY s.sequence LIMIT 1)
    AS uptime_seconds,
  l.p50 AS fault_p50_seconds, l.p99 AS fault_p99_seconds, l.maximum AS fault_maximum_seconds, p.started_at
FROM <period tables>
JOIN observation o ON o.period_id = p.period_id AND o.metric LIKE 'thp~_%kB~_anon~_fault~_alloc' ESCAPE '~'
LEFT JOIN observation f ON f.period_id = p.period_id
  AND f.metric = replace(o.metric, '_anon_fault_alloc', '_anon_fault_fallback')
LEFT JOIN observation c ON c.period_id = p.period_id
  AND c.metric = replace(o.metric, '_anon_fault_alloc', '_anon_fault_fallback_charge')
<mean:m:memory_free_bytes>
<mean:t:memory_total_bytes>
<mean:b:free_huge_bytes>
<mean:d:compact_stall>
<mean:l:fault_latency_seconds>""",
)

MEMORY_COST = View(
    name="memory_cost",
    question="How much memory was used in each period, how much of it by page tables, and did anything run short?",
    columns={
        **OF_PERIOD,
        "memory_used_bytes": "memory that could not be allocated without swapping, mean, bytes",
        "memory_free_bytes": "memory used for nothing, mean, bytes",
        "anon_bytes": "anonymous memory, mean, bytes",
        "page_table_bytes": "page tables, mean, bytes",
        "page_table_share": "page_table_bytes over memory_used_bytes, ratio",
        "cgroup_memory_bytes": "memory charged to the workload's cgroup, mean, bytes",
        "cgroup_page_table_bytes": "page tables of the workload's cgroup, mean, bytes",
        "oom_kills": "processes killed for want of memory, count",
        "reclaimed_pages": "pages that allocations had to scan themselves, count",
        "memory_stall_share": "share of the time in which a task waited for memory, ratio",
        "started_at": "when sampling began, UTC",
    },
    sql="""SELECT <period columns>, u.mean AS memory_used_bytes, m.mean AS memory_free_bytes, n.mean AS anon_bytes,
  t.mean AS page_table_bytes, t.mean / nullif(u.mean, 0) AS page_table_share, c.mean AS cgroup_memory_bytes,
  g.mean AS cgroup_page_table_bytes,
  k.rise AS oom_kills, d.rise AS reclaimed_pages,
  w.mean AS memory_stall_share, p.started_at
FROM <period tables>
<mean:u:memory_used_bytes>
<mean:m:memory_free_bytes>
<mean:n:anon_bytes>
<mean:t:page_table_bytes>
<mean:c:cgroup_memory_bytes>
<mean:g:cgroup_page_table_bytes>
<mean:k:oom_kills>
<mean:d:pgscan_direct>
<mean:w:psi_memory_some_seconds>
WHERE coalesce(u.mean, m.mean, n.mean, t.mean, c.mean, g.mean, k.mean, d.mean, w.mean) IS NOT NULL""",
)

AGENT_COST = View(
    name="agent_cost",
    question="What did watching cost the host in each period, and the same under every arm?",
    columns={
        **OF_PERIOD,
        "cpu_seconds": "CPU time of the agent in the period, seconds",
        "cpu_share": "that over the length of the period, ratio of one core",
        "rss_bytes": "memory of the agent's process, mean, bytes",
        "started_at": "when sampling began, UTC",
    },
    sql="""SELECT <period columns>, o.rise AS cpu_seconds, o.mean AS cpu_share,
  m.mean AS rss_bytes, p.started_at
FROM <period tables>
JOIN observation o ON o.period_id = p.period_id AND o.metric = 'agent_cpu_seconds'
<mean:m:agent_rss_bytes>""",
)

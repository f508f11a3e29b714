"""The first schema.

Written out in full, without a look at the models or the catalogue: what this step makes stays what it is. Comments
are set after the last step, from the models.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql, sqlite

revision = "0001"
down_revision = None

TEXT = sa.Text()
WHOLE = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
REAL = sa.Double().with_variant(sqlite.REAL(), "sqlite")
FLAG = sa.Boolean().with_variant(sqlite.INTEGER(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sqlite.TEXT(), "sqlite")
DOCUMENT = postgresql.JSON().with_variant(sqlite.TEXT(), "sqlite")
EXTRA = postgresql.JSONB().with_variant(sqlite.TEXT(), "sqlite")
STRICT = {"sqlite_strict": True}
NUMBERED = {"sqlite_strict": True, "sqlite_autoincrement": True}
METRICS = (
    "pgfault",
    "pgmajfault",
    "oom_kills",
    "thp_fault_alloc",
    "thp_fault_fallback",
    "thp_collapse_alloc",
    "thp_split_page",
    "thp_split_page_failed",
    "thp_split_pmd",
    "thp_split_pud",
    "compact_stall",
    "compact_fail",
    "compact_migrate_scanned",
    "pgmigrate_success",
    "pgscan_direct",
    "pswpin",
    "pswpout",
    "numa_pages_migrated",
    "nr_page_table_pages",
    "nr_anon_transparent_hugepages",
    "thp_2048kb_nr_anon",
    "thp_2048kb_anon_fault_alloc",
    "thp_2048kb_anon_fault_fallback",
    "thp_2048kb_split",
    "thp_1048576kb_nr_anon",
    "thp_1048576kb_anon_fault_alloc",
    "thp_1048576kb_anon_fault_fallback",
    "thp_1048576kb_split",
    "memory_total_bytes",
    "memory_free_bytes",
    "memory_available_bytes",
    "anon_bytes",
    "anon_huge_bytes",
    "page_table_bytes",
    "hugetlb_bytes",
    "psi_memory_some_seconds",
    "psi_memory_full_seconds",
    "psi_cpu_some_seconds",
    "psi_io_some_seconds",
    "cgroup_memory_bytes",
    "cgroup_anon_bytes",
    "cgroup_anon_thp_bytes",
    "cgroup_oom_kills",
    "instructions",
    "cycles",
    "dtlb_load_misses",
    "dtlb_store_misses",
    "dtlb_walk_cycles",
    "context_switches",
    "agent_cpu_seconds",
    "agent_rss_bytes",
)


def upgrade() -> None:
    op.create_table(
        "experiment",
        sa.Column("experiment_id", WHOLE, primary_key=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("hypothesis", TEXT, nullable=False),
        sa.Column("spec_hash", TEXT, nullable=False),
        sa.Column("spec_text", TEXT, nullable=False),
        sa.Column("spec", DOCUMENT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.UniqueConstraint("name", "spec_hash", name="uq_experiment_name_spec_hash"),
        **NUMBERED,
    )
    op.create_table(
        "host",
        sa.Column("host_id", WHOLE, primary_key=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("first_seen_at", INSTANT, nullable=False),
        sa.UniqueConstraint("name", name="uq_host_name"),
        **NUMBERED,
    )
    op.create_table(
        "run",
        sa.Column("run_id", WHOLE, primary_key=True),
        sa.Column(
            "experiment_id",
            WHOLE,
            sa.ForeignKey("experiment.experiment_id", name="fk_run_experiment_id_experiment"),
            nullable=False,
        ),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("design", TEXT, nullable=False),
        sa.Column("control_arm", TEXT, nullable=False),
        sa.Column("seed", WHOLE, nullable=False),
        sa.Column("plan", DOCUMENT, nullable=False),
        sa.Column("launched_by", TEXT, nullable=False),
        sa.Column("fleet", TEXT, nullable=False),
        sa.Column("versions", DOCUMENT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("started_at", INSTANT, nullable=True),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("request", TEXT, nullable=True),
        sa.Column("requested_by", TEXT, nullable=True),
        sa.Column("decision", TEXT, nullable=True),
        sa.Column("decision_reason", TEXT, nullable=True),
        sa.Column("findings", DOCUMENT, nullable=True),
        **NUMBERED,
    )
    op.create_index("ix_run_experiment_id", "run", ["experiment_id"])
    op.create_table(
        "assignment",
        sa.Column("run_id", WHOLE, sa.ForeignKey("run.run_id", name="fk_assignment_run_id_run"), nullable=False),
        sa.Column("host_id", WHOLE, sa.ForeignKey("host.host_id", name="fk_assignment_host_id_host"), nullable=False),
        sa.Column("stratum", TEXT, nullable=False),
        sa.Column("arm", TEXT, nullable=True),
        sa.Column("stage", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "host_id", name="pk_assignment"),
        **STRICT,
    )
    op.create_index("ix_assignment_host_id", "assignment", ["host_id"])
    op.create_table(
        "estimate",
        sa.Column("estimate_id", WHOLE, primary_key=True),
        sa.Column("run_id", WHOLE, sa.ForeignKey("run.run_id", name="fk_estimate_run_id_run"), nullable=False),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("unit", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("treatment", TEXT, nullable=False),
        sa.Column("control", TEXT, nullable=False),
        sa.Column("estimand", TEXT, nullable=False),
        sa.Column("method", TEXT, nullable=False),
        sa.Column("stratum", TEXT, nullable=False),
        sa.Column("stage", WHOLE, nullable=True),
        sa.Column("headline", FLAG, nullable=False),
        sa.Column("n_control", WHOLE, nullable=False),
        sa.Column("n_treatment", WHOLE, nullable=False),
        sa.Column("control_mean", REAL, nullable=True),
        sa.Column("treatment_mean", REAL, nullable=True),
        sa.Column("difference", REAL, nullable=True),
        sa.Column("difference_low", REAL, nullable=True),
        sa.Column("difference_high", REAL, nullable=True),
        sa.Column("lift", REAL, nullable=True),
        sa.Column("lift_low", REAL, nullable=True),
        sa.Column("lift_high", REAL, nullable=True),
        sa.Column("lift_excludes", FLAG, nullable=False),
        sa.Column("level", REAL, nullable=True),
        sa.Column("standard_error", REAL, nullable=True),
        sa.Column("df", REAL, nullable=True),
        sa.Column("p_value", REAL, nullable=True),
        sa.Column("p_adjusted", REAL, nullable=True),
        **NUMBERED,
    )
    op.create_index("ix_estimate_run_id", "estimate", ["run_id"])
    op.create_table(
        "guardrail_check",
        sa.Column("guardrail_check_id", WHOLE, primary_key=True),
        sa.Column("run_id", WHOLE, sa.ForeignKey("run.run_id", name="fk_guardrail_check_run_id_run"), nullable=False),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("treatment", TEXT, nullable=False),
        sa.Column("worse", TEXT, nullable=False),
        sa.Column("margin", REAL, nullable=True),
        sa.Column("tripwire", REAL, nullable=True),
        sa.Column("verdict", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        **NUMBERED,
    )
    op.create_index("ix_guardrail_check_run_id", "guardrail_check", ["run_id"])
    op.create_table(
        "host_facts",
        sa.Column("host_facts_id", WHOLE, primary_key=True),
        sa.Column("run_id", WHOLE, sa.ForeignKey("run.run_id", name="fk_host_facts_run_id_run"), nullable=False),
        sa.Column("host_id", WHOLE, sa.ForeignKey("host.host_id", name="fk_host_facts_host_id_host"), nullable=False),
        sa.Column("taken_at", INSTANT, nullable=False),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("kernel", TEXT, nullable=False),
        sa.Column("architecture", TEXT, nullable=False),
        sa.Column("cpu_model", TEXT, nullable=False),
        sa.Column("cpus", WHOLE, nullable=False),
        sa.Column("numa_nodes", WHOLE, nullable=False),
        sa.Column("memory_total_bytes", WHOLE, nullable=False),
        sa.Column("virtualisation", TEXT, nullable=False),
        sa.Column("facts", DOCUMENT, nullable=False),
        sa.UniqueConstraint("run_id", "host_id", "taken_at", name="uq_host_facts_run_id_host_id_taken_at"),
        **NUMBERED,
    )
    op.create_index("ix_host_facts_host_id", "host_facts", ["host_id"])
    op.create_table(
        "knob_change",
        sa.Column("knob_change_id", WHOLE, primary_key=True),
        sa.Column("run_id", WHOLE, sa.ForeignKey("run.run_id", name="fk_knob_change_run_id_run"), nullable=False),
        sa.Column("host_id", WHOLE, sa.ForeignKey("host.host_id", name="fk_knob_change_host_id_host"), nullable=False),
        sa.Column("knob", TEXT, nullable=False),
        sa.Column("before", TEXT, nullable=False),
        sa.Column("wanted", TEXT, nullable=False),
        sa.Column("after", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.UniqueConstraint(
            "run_id", "host_id", "knob", "changed_at", name="uq_knob_change_run_id_host_id_knob_changed_at"
        ),
        **NUMBERED,
    )
    op.create_index("ix_knob_change_host_id", "knob_change", ["host_id"])
    op.create_table(
        "period",
        sa.Column("period_id", WHOLE, primary_key=True),
        sa.Column("run_id", WHOLE, sa.ForeignKey("run.run_id", name="fk_period_run_id_run"), nullable=False),
        sa.Column("host_id", WHOLE, sa.ForeignKey("host.host_id", name="fk_period_host_id_host"), nullable=False),
        sa.Column("position", WHOLE, nullable=False),
        sa.Column("attempt", WHOLE, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("arm", TEXT, nullable=False),
        sa.Column("block", WHOLE, nullable=False),
        sa.Column("stage", WHOLE, nullable=False),
        sa.Column("planned_seconds", REAL, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("started_at", INSTANT, nullable=True),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("boot_id", TEXT, nullable=True),
        sa.UniqueConstraint(
            "run_id", "host_id", "position", "attempt", name="uq_period_run_id_host_id_position_attempt"
        ),
        **NUMBERED,
    )
    op.create_index("ix_period_host_id", "period", ["host_id"])
    op.create_table(
        "event",
        sa.Column("event_id", WHOLE, primary_key=True),
        sa.Column("run_id", WHOLE, sa.ForeignKey("run.run_id", name="fk_event_run_id_run"), nullable=True),
        sa.Column("host_id", WHOLE, sa.ForeignKey("host.host_id", name="fk_event_host_id_host"), nullable=True),
        sa.Column(
            "period_id", WHOLE, sa.ForeignKey("period.period_id", name="fk_event_period_id_period"), nullable=True
        ),
        sa.Column("sequence", WHOLE, nullable=True),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        **NUMBERED,
    )
    op.create_index("ix_event_run_id", "event", ["run_id"])
    op.create_index(
        "uq_event_host_id_sequence_at_kind",
        "event",
        ["host_id", "sequence", "at", "kind"],
        unique=True,
        sqlite_where=sa.text("period_id IS NULL AND sequence IS NOT NULL"),
        postgresql_where=sa.text("period_id IS NULL AND sequence IS NOT NULL"),
    )
    op.create_index(
        "uq_event_period_id_sequence",
        "event",
        ["period_id", "sequence"],
        unique=True,
        sqlite_where=sa.text("period_id IS NOT NULL"),
        postgresql_where=sa.text("period_id IS NOT NULL"),
    )
    op.create_table(
        "measurement",
        sa.Column(
            "period_id",
            WHOLE,
            sa.ForeignKey("period.period_id", name="fk_measurement_period_id_period"),
            nullable=False,
        ),
        sa.Column("sequence", WHOLE, nullable=False),
        sa.Column("taken_at", INSTANT, nullable=False),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("value", REAL, nullable=False),
        sa.PrimaryKeyConstraint("period_id", "sequence", name="pk_measurement"),
        **STRICT,
    )
    op.create_table(
        "observation",
        sa.Column(
            "period_id",
            WHOLE,
            sa.ForeignKey("period.period_id", name="fk_observation_period_id_period"),
            nullable=False,
        ),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("n", WHOLE, nullable=False),
        sa.Column("mean", REAL, nullable=False),
        sa.Column("variance", REAL, nullable=False),
        sa.Column("minimum", REAL, nullable=False),
        sa.Column("maximum", REAL, nullable=False),
        sa.Column("p50", REAL, nullable=False),
        sa.Column("p99", REAL, nullable=False),
        sa.PrimaryKeyConstraint("period_id", "metric", name="pk_observation"),
        **STRICT,
    )
    op.create_table(
        "sample",
        sa.Column(
            "period_id", WHOLE, sa.ForeignKey("period.period_id", name="fk_sample_period_id_period"), nullable=False
        ),
        sa.Column("sequence", WHOLE, nullable=False),
        sa.Column("taken_at", INSTANT, nullable=False),
        sa.Column("boottime_seconds", REAL, nullable=False),
        sa.Column("extra", EXTRA, nullable=True),
        *(sa.Column(name, REAL) for name in METRICS),
        sa.PrimaryKeyConstraint("period_id", "sequence", name="pk_sample"),
        **STRICT,
    )

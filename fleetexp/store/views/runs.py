"""The views of whole runs: how each ended, what it found, what its guardrails said."""

from __future__ import annotations

from fleetexp.store.views.definition import OF_RUN, View

RUN_SUMMARY = View(
    name="run_summary",
    question="Which runs were there, how did each end, and what was decided?",
    columns={
        **OF_RUN,
        "hypothesis": "what the experimenter expected",
        "origin": "fleet: hosts that fleetexp put under the arms; import: data that somebody brought",
        "design": "switchback, parallel or retrospective",
        "control_arm": "the arm that the others are compared with",
        "state": "where the run is or how it ended",
        "reason": "why it is in this state",
        "decision": "ship, ship_in_strata, better_here, inconclusive or do_not_ship; NULL before the analysis",
        "decision_reason": "the decision's reason in one sentence",
        "hosts": "hosts assigned, count",
        "periods": "periods planned, repeats included, count",
        "periods_complete": "periods measured whole, count",
        "periods_invalid": "periods not to be used, count",
        "knob_writes": "writes to kernel settings, count",
        "fleet": "kind of fleet",
        "launched_by": "user@host pid of the orchestrator",
        "created_at": "when it was entered, UTC",
        "started_at": "when it first ran, UTC",
        "ended_at": "when it ended, UTC",
        "seconds": "from start to end, seconds; NULL while it goes on",
    },
    sql="""SELECT r.run_id, e.name AS experiment, e.hypothesis, r.origin, r.design, r.control_arm, r.state, r.reason,
  r.decision, r.decision_reason,
  (SELECT count(*) FROM assignment a WHERE a.run_id = r.run_id) AS hosts,
  (SELECT count(*) FROM period p WHERE p.run_id = r.run_id) AS periods,
  (SELECT count(*) FROM period p WHERE p.run_id = r.run_id AND p.state = 'complete') AS periods_complete,
  (SELECT count(*) FROM period p WHERE p.run_id = r.run_id AND p.state = 'invalid') AS periods_invalid,
  (SELECT count(*) FROM knob_change k WHERE k.run_id = r.run_id) AS knob_writes,
  r.fleet, r.launched_by, r.created_at, r.started_at, r.ended_at, <seconds:r.started_at:r.ended_at> AS seconds
FROM run r JOIN experiment e ON e.experiment_id = r.experiment_id""",
)

DECISIONS = View(
    name="decisions",
    question="What was decided for each treatment, on which fact, for which hosts, and what could overturn it?",
    columns={
        **OF_RUN,
        "arm": "the treatment",
        "decision": "ship, ship_in_strata, better_here, inconclusive or do_not_ship, for this arm",
        "cause": "the fact that it rests on: better, guardrail_failed, not_clear, ...",
        "about": "what the cause names: guardrails, checks, strata; JSON list",
        "preferred": "1: preferred to the other treatments, 0: another is to it; NULL: not told apart, or no other",
        "hosts": "hosts that were compared, count",
        "periods": "periods measured on them, count",
        "seconds": "how long they were measured, all together, seconds",
        "host_names": "the hosts, where so few do not speak for others; JSON list",
        "strata": "where the arm may be taken; JSON list, empty: everywhere",
        "without": "strata that it must not be concluded for; JSON list",
        "harmed": "those of them where harm was shown; JSON list",
        "missing": "values that should be there: metric, arm, units, lost, due, stratum; JSON list",
        "overturn": "what could overturn the decision: doubt, about; JSON list",
        "sentence": "the decision in one sentence",
    },
    sql="""SELECT f.run_id, e.name AS experiment, f.arm, f.decision, f.cause, f.about,
  CAST(f.preferred AS INTEGER) AS preferred, f.hosts, f.periods, f.seconds, f.host_names, f.strata, f.without,
  f.harmed, f.missing, f.overturn, f.sentence
FROM finding f JOIN run r ON r.run_id = f.run_id JOIN experiment e ON e.experiment_id = r.experiment_id""",
)

EFFECTS = View(
    name="effects",
    question="What did each arm change against the control, and how sure is that?",
    columns={
        **OF_RUN,
        "metric": "name of the metric",
        "unit": "unit of means and differences",
        "role": "primary, secondary, guardrail, exploratory, exposure or observer",
        "treatment": "the arm",
        "control": "the arm that it is compared with",
        "control_mean": "mean under control, in `unit`",
        "treatment_mean": "mean under the arm, in `unit`",
        "difference": "arm minus control, in `unit`",
        "difference_low": "lower end of its interval, in `unit`; NULL: none or unbounded",
        "difference_high": "upper end of its interval, in `unit`; NULL: none or unbounded",
        "lift_percent": "difference relative to control, percent",
        "lift_low_percent": "lower end of its interval, percent; NULL: none or unbounded",
        "lift_high_percent": "upper end of its interval, percent; NULL: none or unbounded",
        "lift_excludes": "1: the set is what lies outside of the two ends; else 0",
        "p_value": "p-value, two-sided",
        "p_adjusted": "p-value adjusted for the number of metrics",
        "n_control": "units under control, count",
        "n_treatment": "units under the arm, count",
        "method": "how it was estimated",
        "stratum": "stratum; empty for all",
        "kind": "what the row is: headline, pairwise, randomisation, stratum, ...",
        "headline": "1: the result; 0: a sensitivity or subgroup row",
        "guardrail": "pass, fail or inconclusive where the metric is a guardrail; else NULL",
        "decision": "what was decided for the whole run",
        "level": "confidence level of the intervals, ratio",
        "stage": "stage of the ramp, from 0; NULL for all",
    },
    sql="""SELECT r.run_id, x.name AS experiment, s.metric, s.unit, s.role, s.treatment, s.control, s.control_mean,
  s.treatment_mean, s.difference, s.difference_low, s.difference_high, 100 * s.lift AS lift_percent,
  100 * s.lift_low AS lift_low_percent, 100 * s.lift_high AS lift_high_percent,
  CAST(s.lift_excludes AS INTEGER) AS lift_excludes, s.p_value, s.p_adjusted, s.n_control, s.n_treatment, s.method,
  s.stratum, s.kind, CAST(s.headline AS INTEGER) AS headline,
  (SELECT min(g.verdict) FROM guardrail_check g
   WHERE g.run_id = s.run_id AND g.metric = s.metric AND g.treatment = s.treatment AND g.stage IS NULL) AS guardrail,
  r.decision, s.level, s.stage
FROM estimate s JOIN run r ON r.run_id = s.run_id JOIN experiment x ON x.experiment_id = r.experiment_id""",
)

GUARDRAIL_LOOKS = View(
    name="guardrail_looks",
    question="What did each guardrail say, at the end of each stage, at the end, and on which host at once?",
    columns={
        **OF_RUN,
        "metric": "name of the metric",
        "treatment": "the arm; of a host, the one it had, which may be the control",
        "built_in": "1: watched in every run, whatever the experiment asks for; else 0",
        "stage": "the stage at whose end, or in which, from 0; NULL: at the end of the run",
        "look": "which planned look it was, from 0; NULL: at no planned moment",
        "host": "the host that crossed its tripwire; empty: over all hosts",
        "checked_at": "when, UTC",
        "worse": "the direction that hurts: increase or decrease",
        "margin_percent": "largest tolerable change, percent of control; NULL where there is none",
        "tripwire": "absolute limit, in the metric's unit; NULL where there is none",
        "verdict": "pass, fail or inconclusive",
        "reason": "why, in one sentence",
        "lift_percent": "the change that was found at the end, percent of control; NULL: not estimated",
        "lift_low_percent": "lower end of its interval, percent; NULL: none or unbounded",
        "lift_high_percent": "upper end of its interval, percent; NULL: none or unbounded",
    },
    sql="""SELECT g.run_id, e.name AS experiment, g.metric, g.treatment,
  CAST(g.built_in AS INTEGER) AS built_in, g.stage, g.look,
  coalesce(h.name, '') AS host, g.checked_at, g.worse, 100 * g.margin AS margin_percent, g.tripwire, g.verdict,
  g.reason, 100 * s.lift AS lift_percent, 100 * s.lift_low AS lift_low_percent, 100 * s.lift_high AS lift_high_percent
FROM guardrail_check g
JOIN run r ON r.run_id = g.run_id
JOIN experiment e ON e.experiment_id = r.experiment_id
LEFT JOIN host h ON h.host_id = g.host_id
LEFT JOIN estimate s ON g.stage IS NULL AND g.host_id IS NULL AND s.estimate_id = (
  SELECT min(f.estimate_id) FROM estimate f
  WHERE f.run_id = g.run_id AND f.metric = g.metric AND f.treatment = g.treatment AND f.kind = 'headline'
    AND f.stage IS NULL)""",
)

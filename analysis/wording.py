"""temporary"""

from analysis.results import *


def effect_words(row, alpha):
    return f"{row.metric} {row.difference}"


def decision_sentence(arm, headline, trade, rails, alpha):
    return f"{arm.cause} {arm.about} {headline and effect_words(headline, alpha)} [{headline and headline.lift_interval}] p={headline and headline.p} {arm.missing}"


def preference_sentence(p, pairs):
    return f"prefer {p.arm} over {p.over}"

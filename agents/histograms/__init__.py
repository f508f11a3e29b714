"""Histograms of Prometheus: what buckets rose by, merged over series, and the quantiles and shares they tell."""

"""Further ways to ask what a treatment did, one a module: each declares an `Estimator` at its top."""

"""Run, sweep and reproduce, against ports (Runner, Tracker, Tuner)."""

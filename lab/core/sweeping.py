"""Sweeping: the names under which Optuna's samplers and pruners are declared. Plain values."""

from __future__ import annotations

SAMPLERS = {
    "grid": "GridSampler",
    "brute_force": "BruteForceSampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "cma_es": "CmaEsSampler",
    "nsga2": "NSGAIISampler",
    "nsga3": "NSGAIIISampler",
}
"""Name in YAML → Optuna's class."""
EXHAUSTIVE = ("grid", "brute_force")
"""Samplers that try every point once."""
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "hyperband": "HyperbandPruner",
    "asha": "SuccessiveHalvingPruner",
    "patient": "PatientPruner",
    "threshold": "ThresholdPruner",
    "wilcoxon": "WilcoxonPruner",
}
"""Name in YAML → Optuna's class."""
NEEDS = {"percentile": ("percentile",), "patient": ("patience",), "threshold": ("upper", "lower")}
"""Pruner → options of which it needs one."""

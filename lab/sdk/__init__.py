"""The small room that user code may import inside runs; it imports nothing of ours.

import lab.sdk as lab
run = lab.init()                    # inside `lab run` or `lab apply`: the run in hand; else a run of its own
lr = lab.config["lr"]
lab.log({"loss": 0.5}, step=3)      # microseconds: a line in a file, never a network call
lab.finish()                        # optional: the end of the program says it as well
"""

from __future__ import annotations

from lab.sdk.artifact import Artifact
from lab.sdk.config import Config
from lab.sdk.media import log_artifact, log_figure, log_html, log_image, log_table, save
from lab.sdk.run import Run, checkpoints, config, current, finish, init, log, outputs, resumed, seed, tag, watch

__all__ = [
    "Artifact",
    "Config",
    "Run",
    "checkpoints",
    "config",
    "current",
    "finish",
    "init",
    "log",
    "log_artifact",
    "log_figure",
    "log_html",
    "log_image",
    "log_table",
    "outputs",
    "resumed",
    "save",
    "seed",
    "tag",
    "watch",
]

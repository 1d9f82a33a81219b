"""A child started with LAB_FAULT in its environment counts its effects and fails at the one that was chosen."""

import os

if "LAB_FAULT" in os.environ:
    from tests.faults import hook

    hook.install(hook.Fault.from_json(os.environ.pop("LAB_FAULT")))

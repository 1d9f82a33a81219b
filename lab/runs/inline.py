"""Inline: a `call` run in this process, for many short ones. Same folder, same records, no supervisor.

It has no limits, no timeout and no log file of its own: what it prints is Lab's output.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import threading
import time
import traceback

from lab.runs.after import after
from lab.runs.folder import RunFolder, who
from lab.runs.outcome import judged

_ONE = threading.Lock()


def run_inline(folder: RunFolder) -> None:
    """The call has been made and its result is in place; one at a time in a process: the SDK has one current run."""
    from lab.sdk import call
    from lab.sdk import run as sdk

    spec, began, mark = folder.spec, time.time(), time.monotonic()
    for name in ("artifacts", "outputs", "checkpoints"):
        (folder / name).mkdir(exist_ok=True)
    with _ONE, open(folder / "lease", "w") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        me = who(os.getpid())
        attempt = int(folder.read("process.json").get("attempt", 0)) + 1
        process = {"supervisor": me, "child": me, "attempt": attempt, "started": began}
        folder.write("process.json", process, durable=False)
        code, said = 0, ""
        before = os.environ.get("LAB_RUN")
        os.environ["LAB_RUN"] = str(folder.path)
        extra = [p for p in spec.get("path", ()) if p not in sys.path]
        sys.path[:0] = extra
        known = set(sys.modules)
        try:
            call.invoke(spec, folder.path)
        except call.Mistake as e:
            code, said = 1, str(e)
        except Exception as e:
            code, said = 1, traceback.format_exception_only(e)[-1].strip()
            with contextlib.suppress(OSError), open(folder / "output.log", "a") as f:
                traceback.print_exc(file=f)
        finally:
            sdk.finish("finished" if code == 0 else "failed")
            for path in extra:
                sys.path.remove(path)
            # The code of the next run may be another: its own modules are imported anew, libraries are not.
            for name in set(sys.modules) - known:
                if str(getattr(sys.modules[name], "__file__", None) or "").startswith(tuple(spec.get("path", ()))):
                    del sys.modules[name]
            if before is None:
                del os.environ["LAB_RUN"]
            else:
                os.environ["LAB_RUN"] = before
        if said:
            folder.write("exit.json", {"state": "failed", "reason": said})
        result = judged(folder, code, "", "")
        seconds = time.monotonic() - mark
        result |= {"attempts": attempt, "started": began, "ended": time.time(), "seconds": seconds}
        folder.write("result.json", result)
        after(folder)

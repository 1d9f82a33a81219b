# SPDX-License-Identifier: Apache-2.0
"""Machine: the one place where operations act; in check mode it only says what it would have done."""

from __future__ import annotations

import subprocess


class Failed(Exception):
    """An operation that could not be done: why, and what a person may do about it."""

    def __init__(self, why, do=""):
        super().__init__(why)
        self.why, self.do = why, do


class Machine:
    """Runs commands and notes what was done. `done` holds one line per change; `facts` what an item tells back."""

    def __init__(self, check=False):
        self.check = check
        self.done = []
        self.facts = {}

    def note(self, text):
        """One change, in words."""
        self.done.append(text)

    def ask(self, *argv):
        """A command that only reads: (exit status, stdout, stderr); 127 where it is not installed."""
        try:
            p = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300, check=False)
        except FileNotFoundError:
            return 127, "", f"{argv[0]} is not installed"
        except subprocess.TimeoutExpired:
            return 124, "", f"{argv[0]} did not end within five minutes"
        return p.returncode, p.stdout, p.stderr

    def run(self, *argv, fine=(0,), do="", said=None):
        """A command that changes something; noted, and left out in check mode. Other statuses than `fine` fail."""
        self.note(said or " ".join(argv))
        if self.check:
            return ""
        status, out, err = self.ask(*argv)
        if status not in fine:
            text = (err.strip() or out.strip() or f"it exited with {status}").splitlines()
            raise Failed("{}: {}".format(argv[0], " ".join(text[:3])), do)
        return out

"""A pytest plugin, `-p tests.elsewhere`: this process is a Mac as far as Python tells, and lacks what only Linux has.

What must be loaded for the system that is really here (libraries with compiled parts) is loaded before.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import select
import signal
import socket
import sys

LINUX = {
    os: ("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate", "memfd_create", "pidfd_open",
         "eventfd", "getrandom", "copy_file_range", "splice", "setresuid", "setresgid", "listxattr", "getxattr",
         "setxattr", "removexattr", "O_TMPFILE", "O_PATH", "O_DIRECT", "O_NOATIME", "fdatasync", "unshare", "setns"),
    select: ("epoll", "EPOLLIN", "EPOLLOUT", "EPOLLERR", "EPOLLHUP"),
    signal: ("pidfd_send_signal", "sigwaitinfo", "sigtimedwait"),
    socket: ("SO_PEERCRED", "AF_NETLINK", "AF_ALG", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "AF_PACKET"),
}  # fmt: skip
"""What CPython has on Linux and not on macOS, as far as a program might use it."""


def modules() -> list[str]:
    """Every module of lab/, by name."""
    import lab

    return sorted(m.name for m in pkgutil.walk_packages(lab.__path__, "lab.") if not m.name.endswith("__main__"))


def load(*, into: dict[str, str]) -> None:
    """Every module of lab/ is imported; `into` gets those that could not be, with the reason."""
    for name in modules():
        try:
            importlib.import_module(name)
        except BaseException as e:
            into[name] = f"{type(e).__name__}: {e}"


def become() -> None:
    """From here on it is macOS on Apple silicon; Lab is imported anew."""
    for name in [m for m in sys.modules if m == "lab" or m.startswith("lab.")]:
        del sys.modules[name]
    for module, names in LINUX.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = "darwin"
    platform.system = lambda: "Darwin"
    platform.machine = lambda: "arm64"
    platform.mac_ver = lambda *a: ("15.5", ("", "", ""), "arm64")  # type: ignore[assignment]


def pytest_configure() -> None:
    """As the plugin."""
    load(into={})
    become()

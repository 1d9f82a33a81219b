"""The process in which rattler runs: JSON requests on stdin, a line each, their answers on stdout.

rattler's threads crash the interpreter at exit in four runs of ten; here every answer is flushed and the process leaves
by `os._exit`, so no caller ever sees that.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import hashlib
import ipaddress
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

OFFLINE = "offline:"


class Fault(Exception):
    """A failure the caller can explain: its kind, and what it concerns."""

    def __init__(self, kind: str, **details: Any) -> None:
        super().__init__(kind)
        self.details = {"kind": kind, **details}


def solve(request: dict[str, Any]) -> dict[str, Any]:
    """Solved records per platform: `{platform: [{name, version, build, url, md5, sha256, size, depends}]}`."""
    return {p: asyncio.run(_solve(request, p, part)) for p, part in request["platforms"].items()}


async def _solve(request: dict[str, Any], platform: str, part: dict[str, Any]) -> list[dict[str, Any]]:
    import rattler as r

    virtual = []
    for name, said in part["virtual"].items():
        version, _, build = str(said).partition(" ")
        virtual.append(r.GenericVirtualPackage(r.PackageName(name), r.Version(version), r.BuildString(build or "0")))
    specs = []
    for text in part["specs"]:
        try:
            specs.append(r.MatchSpec(text, strict=False))
        except Exception as e:
            raise Fault("spec", text=text, why=str(e)) from e
    locked = []
    if part.get("locked") and request.get("lockfile"):
        locked = [
            record for record in _records(request["lockfile"], platform) if record.name.normalized in part["locked"]
        ]
    try:
        records = await r.solve(
            sources=request["channels"],
            specs=specs,
            gateway=_gateway(request),
            platforms=[platform, "noarch"],
            virtual_packages=virtual,
            locked_packages=locked,
        )
    except Exception as e:
        kind = "unsatisfiable" if type(e).__name__ == "SolverError" else "channel"
        raise Fault(kind, platform=platform, why=str(e)) from e
    sizes = await _sizes(request, platform, [x for x in records if x.size is None])
    return [
        {
            "name": x.name.normalized,
            "version": str(x.version),
            "build": str(x.build),
            "url": x.url,
            "md5": x.md5.hex() if x.md5 else None,
            "sha256": x.sha256.hex() if x.sha256 else None,
            "size": x.size or sizes.get(x.url),
            "depends": list(x.depends),
        }
        for x in records
    ]


def _gateway(request: dict[str, Any]) -> Any:
    import rattler as r

    cache = Path(request["cache"]) / "repodata"
    return r.Gateway(cache_dir=cache, client=_client(request["channels"]))


def _client(asked: list[str], offline: bool = False) -> Any:
    """What asks servers, with the credentials that ~/.netrc or rattler's own store has for them; None without any."""
    import rattler as r
    from rattler.networking import AddHeadersMiddleware

    if all(url.startswith("file:") for url in asked):
        return None
    return r.Client([AddHeadersMiddleware(_loopback_only)]) if offline else r.Client.default_client()


def _loopback_only(host: str, _path: str) -> None:
    """Raises where another machine would be asked."""
    try:
        here = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        here = False
    if not here:
        raise ConnectionRefusedError(f"{OFFLINE} {host} is not asked")


async def _sizes(request: dict[str, Any], platform: str, records: list[Any]) -> dict[str, int]:
    """URL → bytes of records that came from a lock, which holds no sizes."""
    import rattler as r

    if not records:
        return {}
    found = await _gateway(request).query(
        sources=request["channels"],
        platforms=[platform, "noarch"],
        specs=[r.MatchSpec(x.name.normalized) for x in records],
        recursive=False,
    )
    return {x.url: x.size for batch in found for x in batch if x.size is not None}


def _records(lockfile: str, platform: str) -> list[Any]:
    import rattler as r

    environment = r.LockFile.from_path(Path(lockfile)).default_environment()
    if environment is None:
        return []
    mine = next((p for p in environment.platforms() if p.name == platform), None)
    return list(environment.conda_repodata_records_for_platform(mine) or []) if mine else []


def install(request: dict[str, Any]) -> dict[str, Any]:
    """The conda part of a lock is linked into a prefix, from archives whose hashes are the lock's."""
    records = _records(request["lockfile"], request["platform"])
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        list(threads.map(_check_archive, (x for x in records if x.url.startswith("file://"))))
    asyncio.run(_install(request, records))
    return {"packages": len(records)}


def _check_archive(record: Any) -> None:
    path = Path(unquote(urlsplit(record.url).path))
    if not path.exists():
        raise Fault("gone", url=record.url, package=record.name.normalized)
    if record.sha256 is not None:
        s = path.stat()
        found = _hashed(path, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        if found != record.sha256.hex():
            raise Fault(
                "hash", url=record.url, package=record.name.normalized, expected=record.sha256.hex(), found=found
            )


@functools.cache
def _hashed(path: Path, *identity: int) -> str:
    """The SHA-256 of the file of that identity: the envs of one apply share their archives."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


async def _install(request: dict[str, Any], records: list[Any]) -> None:
    import rattler as r

    packages = Path(request["cache"]) / "pkgs"
    try:
        await r.install(
            records,
            request["prefix"],
            platform=r.Subdir(request["platform"]),
            reinstall_packages=set(request.get("reinstall", ())) or None,
            cache_dir=packages,
            show_progress=False,
            client=_client([x.url for x in records], request["offline"]),
        )
    except Exception as e:
        text = str(e)
        kind = "hash" if "hash" in text.lower() and "mismatch" in text.lower() else "install"
        if OFFLINE in text:
            kind, text = "offline", f"{text.partition(chr(10))[0]}: {text.rpartition(OFFLINE)[2].strip()}"
        raise Fault(kind, why=text) from e


def survey(request: dict[str, Any]) -> dict[str, Any]:
    """The prefix is surveyed and written down: see `lab.adapters.survey`."""
    home = str(Path(__file__).parents[2])
    if home not in sys.path:
        sys.path.append(home)
    from lab.adapters.survey import filed

    return filed(request["prefix"])


DEEDS = {"solve": solve, "install": install, "survey": survey}


def _end_with(pipe: int) -> None:
    """This process ends when the pipe's other end is closed."""
    os.read(pipe, 1)
    os._exit(1)


def main() -> None:
    """Answers requests until there are none, and leaves without running exit handlers."""
    if len(sys.argv) > 1:
        threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    # It lives for a few deeds: what the collector would free costs more than it gives back.
    gc.disable()
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "load":
            _load()
            continue
        sys.__stdout__.write("\n" + json.dumps(_answered(request)) + "\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]
    os._exit(0)


def _load() -> None:
    """rattler is loaded, as it is soon to be used; what fails here fails, and is told, there."""
    with contextlib.suppress(Exception):
        import rattler  # noqa: F401


def _answered(request: dict[str, Any]) -> dict[str, Any]:
    """What a deed gave, or its fault."""
    try:
        return {"done": DEEDS[request["do"]](request)}
    except Fault as e:
        return {"fault": e.details}
    except Exception as e:
        import traceback

        return {"fault": {"kind": "unexpected", "why": f"{type(e).__name__}: {e}", "trace": traceback.format_exc()}}


if __name__ == "__main__":
    main()

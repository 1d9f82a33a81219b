"""One file over HTTP, resumable and verified: it survives kills, dropped and stalled connections and servers that lie.

The bytes so far lie in `STORE/incoming/KEY.part` beside `KEY.json`; KEY is the sha256 the file shall have, so that
whoever needs the same content continues the same download. Whoever holds the part's `flock` writes it; the kernel frees
it when its holder dies. The file becomes a blob only when its length and its hash are right.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lab.adapters import clone, http, store
from lab.core import layout
from lab.core.problem import problem

CHUNK = 1 << 20
SYNC = 256 << 20
"""Bytes between two syncs of a part: what a power cut may cost."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file to obtain: from `url`, or from `path` on this machine; what is known of it beforehand."""

    name: str
    url: str = ""
    path: str = ""
    link: bool = False
    """Whether `path` is linked to, not copied."""
    sha256: str = ""
    oid: str = ""
    """Git's SHA-1 of the blob."""
    size: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch("([0-9a-f]{64})?", self.sha256) or not re.fullmatch("([0-9a-f]{40,64})?", self.oid):
            # It names files: what partial downloads are kept in, and the blob.
            raise problem(
                f"the hash of {self.name!r} is none",
                why="the source or the lock says something else in its place",
                do="check the endpoint's address; where a lock was edited, lock again",
            )

    @property
    def key(self) -> str:
        """Names the partial download: the content where it is known, else where it comes from."""
        return self.sha256 or hashlib.blake2b(f"{self.url}|{self.oid}|{self.size}".encode(), digest_size=20).hexdigest()


@dataclass(frozen=True, slots=True)
class Net:
    """How patient a download is: seconds without a byte, attempts without progress, files at once."""

    offline: bool = False
    timeout: float = 30
    tries: int = 6
    connections: int = 4
    pause: float = 0.2
    """Seconds before the second attempt; doubled from then on, up to 30."""


class Wrong(Exception):
    """The bytes that came are not those that were declared."""


def download(item: Item, root: Path, net: Net, check: Callable[[], None], moved: Callable[[int], None]) -> str:
    """The file is a blob of the store `root`; returns its sha256.

    `check` raises when the work is to stop; `moved` is told how many bytes came (negative when they are thrown away).
    Raises Problems; what was received stays for the next attempt unless it was wrong.
    """
    spoiled = _inode(root, item.sha256)
    with _Part.open(item, root, check) as part:
        # Another worker finished it while this one waited. A blob that was there before is known to be damaged.
        if _inode(root, item.sha256) not in (None, spoiled):
            part.discard()
            return item.sha256
        moved(part.have)
        part.moved = moved
        failures = restarts = 0
        while True:
            before = part.have
            try:
                _stream(item, part, net, check)
                sha256 = part.verified()
                part.sync()
                try:
                    store.add(root, part.path, sha256)
                finally:
                    if not part.path.exists():
                        part.meta.unlink(missing_ok=True)
                return sha256
            except Wrong as e:
                part.restart()
                restarts += 1
                if restarts > 1:
                    part.discard()
                    raise problem(
                        f"{http.shown(item.url)} serves other bytes than declared",
                        why=str(e),
                        do="check the source; if it was really changed, run `lab lock` or declare the new sha256",
                    ) from e
            except http.Transient as e:
                failures = 0 if part.have > before else failures + 1
                if failures >= net.tries:
                    raise http.unreachable(item.url, f"{e}, {failures} times; {part.have:,} bytes are kept") from e
                _wait(e.after or min(30.0, net.pause * 2 ** max(failures - 1, 0)), check)
            except OSError as e:
                raise store.disk(e, root) from e


def _inode(root: Path, sha256: str) -> int | None:
    try:
        return os.stat(store.path(root, sha256)).st_ino if sha256 else None
    except FileNotFoundError:
        return None


def _wait(seconds: float, check: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check()
        time.sleep(min(left, 0.2))


def _stream(item: Item, part: _Part, net: Net, check: Callable[[], None]) -> None:
    """One request's worth of bytes. Raises Transient unless the file is complete."""
    if item.size is not None and part.have >= item.size:
        return
    headers = dict(item.headers)
    if part.have:
        headers["Range"] = f"bytes={part.have}-"
        if part.etag and not part.etag.startswith("W/"):
            headers["If-Range"] = part.etag
    try:
        response = http.open_(item.url, headers, offline=net.offline, timeout=net.timeout)
    except http.Refused as e:
        if e.code != 416 or not part.have:
            raise
        if item.sha256 and item.size is None:
            return
        # The server has less than we hold: what we hold is from another file.
        part.restart()
        raise http.Transient("the range was refused") from e
    with response:
        total = _begin(item, part, response.status, dict(response.headers.items()))
        limit = item.size if item.size is not None else total
        clone.reserve(part.file.fileno(), limit or 0)
        _copy(response.read1, part, limit, net, check)
    if limit is not None and part.have < limit:
        raise http.Transient(f"the connection ended after {part.have:,} of {limit:,} bytes")


def _begin(item: Item, part: _Part, status: int, headers: Mapping[str, str]) -> int | None:
    """The part is ready for the body that follows; returns the file's whole length where the server says it."""
    if headers.get("Content-Encoding", "identity") not in ("identity", ""):
        raise problem(f"{http.shown(item.url)} is sent compressed", why="identity was asked for", do="use a mirror")
    etag = headers.get("ETag") or ""
    total = http.count(headers.get("Content-Length") or "")
    if status == 206:
        match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", headers.get("Content-Range") or "")
        if match is None or int(match[1]) != part.have or (part.etag and etag and etag != part.etag):
            part.restart()
            raise http.Transient("the server continued another file")
        total = int(match[3]) if match[3] != "*" else part.have + total if total is not None else None
    else:
        part.restart()
    if total is None and item.size is None and not item.sha256:
        raise problem(
            f"{http.shown(item.url)} does not say how long it is",
            why="without a length or a hash a cut-off file would look whole",
            do="declare its `sha256`",
        )
    part.note(etag)
    return total


def _copy(read: Callable[[int], bytes], part: _Part, limit: int | None, net: Net, check: Callable[[], None]) -> None:
    mark, since = part.have, time.monotonic()
    while limit is None or part.have < limit:
        check()
        try:
            data = read(CHUNK if limit is None else min(CHUNK, limit - part.have))
        except http.BROKEN as e:
            raise http.Transient(str(e) or type(e).__name__) from e
        if not data:
            return
        part.write(data)
        if (now := time.monotonic()) - since > 2 * net.timeout:
            if part.have - mark < 1024:
                raise http.Transient("the server sends almost nothing")
            mark, since = part.have, now


class _Part:
    """The bytes so far, their running hash, and what is known of where they came from."""

    def __init__(self, item: Item, path: Path, file: BinaryIO) -> None:
        self.item, self.path, self.file = item, path, file
        self.meta = path.with_suffix(".json")
        self.moved: Callable[[int], None] = lambda _: None
        self.hash = hashlib.sha256()
        self.have = self.synced = 0
        self.etag = ""

    @classmethod
    @contextlib.contextmanager
    def open(cls, item: Item, root: Path, check: Callable[[], None]) -> Iterator[_Part]:
        """The part, locked; waits while another process or thread works on the same content."""
        folder = Path(layout.incoming(str(root)))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{item.key}.part"
            while True:
                file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                        break
                except (BlockingIOError, FileNotFoundError):
                    _wait(0.1, check)
                file.close()
        except OSError as e:
            raise store.disk(e, root) from e
        with file:
            part = cls(item, path, file)
            try:
                part.resume()
                yield part
            finally:
                part.tidy()

    def resume(self) -> None:
        """What lies in the part is taken up where it is from the same source; its hash is computed anew."""
        try:
            known = json.loads(self.meta.read_bytes())
        except (OSError, ValueError):
            known = {}
        size = os.fstat(self.file.fileno()).st_size
        same = isinstance(known, dict) and (self.item.sha256 or known.get("url") == self.item.url)
        if not size or not same or not known:
            return self.restart()
        self.etag = str(known.get("etag", "")) if known.get("url") == self.item.url else ""
        if known.get("boot") != _boot():
            # After a power cut the tail may be zeros: only what was synced counts.
            synced = known.get("synced")
            size = min(size, synced) if isinstance(synced, int) else 0
        if self.item.size is not None and size > self.item.size:
            return self.restart()
        self.file.seek(0)
        while self.have < size and (data := self.file.read(min(CHUNK, size - self.have))):
            self.hash.update(data)
            self.have += len(data)
        self.file.truncate(self.have)
        return None

    def write(self, data: bytes) -> None:
        """The bytes follow those before."""
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]
        self.hash.update(data)
        self.have += len(data)
        self.moved(len(data))
        if self.have - self.synced >= SYNC:
            self.sync()
            self.note(self.etag)

    def sync(self) -> None:
        """The bytes so far are on disk; where that fails, nobody knows which are, so none is taken up again."""
        try:
            os.fsync(self.file.fileno())
        except OSError:
            self.discard()
            raise
        self.synced = self.have

    def note(self, etag: str) -> None:
        """Where the bytes come from is written beside them."""
        self.etag = etag
        known = {"url": self.item.url, "etag": etag, "boot": _boot(), "synced": self.synced}
        self.meta.write_text(json.dumps(known))

    def restart(self) -> None:
        """Nothing is held."""
        self.moved(-self.have)
        self.file.seek(0)
        self.file.truncate(0)
        self.hash, self.have, self.synced, self.etag = hashlib.sha256(), 0, 0, ""

    def verified(self) -> str:
        """The sha256 of the whole file; raises Wrong where it is not the declared one."""
        item, found = self.item, self.hash.hexdigest()
        if item.size is not None and self.have != item.size:
            raise Wrong(f"{self.have:,} bytes came, {item.size:,} are declared")
        if item.sha256 and found != item.sha256:
            raise Wrong(f"their sha256 is {found}, not {item.sha256}")
        if item.oid:
            self.file.seek(0)
            git = hashlib.sha1(b"blob %d\0" % self.have, usedforsecurity=False)
            while data := self.file.read(CHUNK):
                git.update(data)
            if git.hexdigest() != item.oid:
                raise Wrong(f"git's hash of them is {git.hexdigest()}, not {item.oid}")
        return found

    def tidy(self) -> None:
        """A part that holds no bytes is not left; under its name there may be another's by now."""
        with contextlib.suppress(OSError):
            if not self.have and os.fstat(self.file.fileno()).st_ino == os.stat(self.path).st_ino:
                self.discard()

    def discard(self) -> None:
        """Neither the part nor its note is left."""
        self.path.unlink(missing_ok=True)
        self.meta.unlink(missing_ok=True)


def _boot() -> str:
    """What changes when the machine starts anew."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        # macOS: the second the machine started; it stands while it is up.
        return str(round((time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)) / 60))

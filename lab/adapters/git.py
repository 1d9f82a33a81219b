"""Git: where the configuration comes from. Cheap facts are read directly; history goes through GitPython."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.core.problem import problem


@dataclass(frozen=True, slots=True)
class Head:
    """The commit a folder is at."""

    branch: str = ""
    revision: str = ""
    dirty: bool = False


def library() -> Any:
    """GitPython; a Problem where the `git` it starts is none."""
    try:
        import git
    except ImportError as e:
        why = str(e).strip().splitlines()[0]
        raise problem(
            "git does not work here", why=why, do="see what `git --version` says, and which git is on PATH"
        ) from e
    return git


def head(root: Path) -> Head:
    """The commit of the repository that holds `root`; an empty Head where there is none. Reads."""
    folder = _git_dir(root)
    if folder is None:
        return Head()
    try:
        text = (folder / "HEAD").read_text(errors="replace").strip()
    except OSError:
        return Head()
    common = folder
    with contextlib.suppress(OSError):
        common = (folder / (folder / "commondir").read_text(errors="replace").strip()).resolve()
    if not text.startswith("ref: "):
        return Head("detached", text, _dirty(root))
    name = text[5:]
    return Head(name.removeprefix("refs/heads/"), _revision(common, name), _dirty(root))


def _git_dir(root: Path) -> Path | None:
    for at in (root, *root.parents):
        found = at / ".git"
        if found.is_dir():
            return found
        if found.is_file():
            return (at / found.read_text(errors="replace").removeprefix("gitdir:").strip()).resolve()
    return None


def _revision(folder: Path, name: str) -> str:
    with contextlib.suppress(OSError):
        return (folder / name).read_text(errors="replace").strip()
    with contextlib.suppress(OSError):
        for line in (folder / "packed-refs").read_text(errors="replace").splitlines():
            if line.endswith(f" {name}"):
                return line.split()[0]
    return ""


def _dirty(root: Path) -> bool:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "status", "--porcelain", "--", "."],
            cwd=root,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return bool(done.stdout.strip())


def patch(root: Path, limit: int = 1 << 20) -> str:
    """What is not committed below `root`, as a diff against HEAD, new files included; cut at `limit` characters."""
    git = library()

    with (
        contextlib.suppress(git.exc.GitError, git.exc.ODBError, ValueError),
        git.Repo(root, search_parent_directories=True) as repo,
    ):
        text = str(repo.git.diff("HEAD", "--binary", "--", str(root)))
        for name in repo.git.ls_files("--others", "--exclude-standard", "--", str(root)).splitlines():
            with contextlib.suppress(OSError, UnicodeDecodeError):
                body = (Path(str(repo.working_tree_dir)) / name).read_text()
                lines = body.splitlines()
                text += f"\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n"
                text += "".join(f"+{line}\n" for line in lines)
        return text[:limit]
    return ""


def merged(root: Path, branches: tuple[str, ...] = ("main", "master")) -> bool:
    """Whether the checked-out commit is part of the main branch (its remote's where it has one)."""
    git = library()

    with (
        contextlib.suppress(git.exc.GitError, git.exc.ODBError, ValueError),
        git.Repo(root, search_parent_directories=True) as repo,
    ):
        for name in (*(f"origin/{b}" for b in branches), *branches):
            with contextlib.suppress(git.exc.GitError, git.exc.ODBError, ValueError, IndexError, KeyError):
                return bool(repo.is_ancestor(repo.head.commit, repo.commit(name)))
    return False


@contextlib.contextmanager
def exported(root: Path, revision: str, patch: str = "") -> Iterator[Path]:
    """The lab as it was at a commit (with `patch` on top), in a temporary folder."""
    import io
    import tarfile

    git = library()

    try:
        repo = git.Repo(root, search_parent_directories=True)
    except git.exc.GitError as e:
        raise problem(f"{root} is in no git repository", do="run `git init` and commit, then try again") from e
    with repo, tempfile.TemporaryDirectory(prefix="lab-") as folder:
        try:
            commit = repo.commit(revision)
        except (git.exc.GitError, git.exc.ODBError, ValueError, IndexError) as e:
            raise problem(f"git knows no revision `{revision}`", do="see `git log --oneline --all`") from e
        archive = io.BytesIO()
        repo.archive(archive, commit.hexsha)
        archive.seek(0)
        with tarfile.open(fileobj=archive) as tar:
            tar.extractall(folder, filter="data")
        if patch:
            done = subprocess.run(
                ["git", "apply", "--whitespace=nowarn", "-"],
                cwd=folder,
                input=patch,
                capture_output=True,
                text=True,
                errors="replace",
            )
            if done.returncode:
                raise problem(
                    "what was not committed then cannot be put back",
                    why=done.stderr.strip()[:300],
                    do="commit before apply",
                )
        lab = Path(folder) / root.resolve().relative_to(Path(str(repo.working_tree_dir)).resolve())
        if not (lab / "conf" / "lab.yaml").is_file():
            raise problem(f"there was no lab here at {revision}", do="see `git log -- conf/lab.yaml`")
        yield lab


def top(root: Path) -> Path:
    """The folder of the repository that holds `root`. Reads."""
    return next((p for p in (root.resolve(), *root.resolve().parents) if (p / ".git").exists()), root.resolve())


def bundle(root: Path, target: Path) -> None:
    """Every branch and tag of the repository, and what is checked out, lie in a git bundle."""
    _run(root, "the repository cannot be bundled", "bundle", "create", "-q", str(target), "--all", "HEAD")


def fetch(folder: Path, source: str, fetched: Callable[[], None]) -> str:
    """`folder` is a repository with all of `source`, its default branch checked out; returns the commit.

    `fetched` hears of it before the first file is checked out.
    """
    (folder / ".git").mkdir(parents=True, exist_ok=True)
    what = f"{source} cannot be cloned"
    _run(folder, what, "init", "-q")
    told = _run(folder, what, "ls-remote", "--symref", "--", source, "HEAD")
    line = next((x for x in told.splitlines() if x.startswith("ref: ")), "")
    refs = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    _run(folder, what, "fetch", "-q", "--no-tags", "--", source, *refs, "+HEAD:refs/remotes/origin/HEAD")
    commit = _run(folder, what, "rev-parse", "refs/remotes/origin/HEAD").strip()
    name = line[5:].split()[0].removeprefix("refs/heads/") if line else _branch_of(folder, commit)
    fetched()
    _run(folder, what, "checkout", "-q", "-f", "-B", name, commit)
    if (folder / ".gitmodules").exists():
        _run(folder, what, "submodule", "update", "-q", "--init", "--recursive")
    return commit


def _branch_of(folder: Path, commit: str) -> str:
    """A branch of the source at that commit, where it does not say which is its default: `main` before others."""
    lines = _run(folder, "", "for-each-ref", "--format=%(objectname) %(refname)", "refs/remotes/origin").splitlines()
    names = [n.split("refs/remotes/origin/", 1)[1] for sha, n in (x.split() for x in lines) if sha == commit]
    names = sorted(n for n in names if n != "HEAD")
    return next((n for n in ("main", "master") if n in names), names[0] if names else "main")


def _run(folder: Path, summary: str, *words: str) -> str:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    outside = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            env={**outside, **quiet},
            stdin=subprocess.DEVNULL,
        )
    except OSError as e:
        raise problem(summary, why=f"git cannot be run: {e.strerror}", do="install git") from e
    if done.returncode:
        lines = [x for x in done.stderr.splitlines() if x.strip()]
        why = next((x for x in lines if x.startswith("fatal:")), lines[-1] if lines else "")
        raise problem(summary, why=why.removeprefix("fatal: "), do="check its address and your access to it")
    return done.stdout


def remote(folder: Path, source: str) -> None:
    """The repository fetches from `source` as `origin`."""
    what = f"{source} cannot be the remote of {folder}"
    if "origin" not in _run(folder, what, "remote").split():
        _run(folder, what, "remote", "add", "--", "origin", source)

"""Git: where the configuration comes from. Cheap facts are read directly; history goes through GitPython."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.core.problem import problem


@dataclass(frozen=True, slots=True)
class Head:
    """The commit a folder is at."""

    branch: str = ""
    revision: str = ""
    dirty: bool = False


def head(root: Path) -> Head:
    """The commit of the repository that holds `root`; an empty Head where there is none. Reads."""
    folder = _git_dir(root)
    if folder is None:
        return Head()
    try:
        text = (folder / "HEAD").read_text().strip()
    except OSError:
        return Head()
    common = folder
    with contextlib.suppress(OSError):
        common = (folder / (folder / "commondir").read_text().strip()).resolve()
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
            return (at / found.read_text().removeprefix("gitdir:").strip()).resolve()
    return None


def _revision(folder: Path, name: str) -> str:
    with contextlib.suppress(OSError):
        return (folder / name).read_text().strip()
    with contextlib.suppress(OSError):
        for line in (folder / "packed-refs").read_text().splitlines():
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
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return bool(done.stdout.strip())


def patch(root: Path, limit: int = 1 << 20) -> str:
    """What is not committed below `root`, as a diff against HEAD, new files included; cut at `limit` characters."""
    import git

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
    import git

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

    import git

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
                ["git", "apply", "--whitespace=nowarn", "-"], cwd=folder, input=patch, capture_output=True, text=True
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

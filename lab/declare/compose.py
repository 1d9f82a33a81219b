"""Compose: the one module that knows Hydra: it composes the head and files that need it, and parses overrides."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lab.core.problem import Problem, Problems, problem
from lab.declare.overrides import Operation
from lab.declare.read import read

_BUILTIN = Path(__file__).parent / "builtin"
_TILDE = re.compile(r"(\$\{oc\.env:[A-Za-z_]\w*,)(~[\w./~-]*)(\})")
_lock = threading.Lock()
_tokens = itertools.count()
_memory: dict[str, Mapping[str, Any]] = {}
_seen: dict[str, set[str]] = {}


class LabSource(FileConfigSource):  # type: ignore[misc]
    """Files read by Lab's own reader; the query part of its path names a composition, whose files it notes."""

    def __init__(self, provider: str, path: str) -> None:
        ConfigSource.__init__(self, provider=provider, path=path)
        self.path: str
        self.path, _, self.token = self.path.rpartition("?")

    @staticmethod
    def scheme() -> str:
        """`lab://FOLDER?TOKEN`."""
        return "lab"

    def is_config(self, config_path: str) -> bool:
        """Whether the composition brings this config along, or the folder has it."""
        return (config_path == _MEMORY and self.token in _memory) or bool(super().is_config(config_path))

    def load_config(self, config_path: str) -> ConfigResult:
        """One config, read as Lab reads it."""
        where = f"{self.scheme()}://{self.path}"
        if config_path.removesuffix(".yaml") == _MEMORY and self.token in _memory:
            config = OmegaConf.create(dict(_memory[self.token]))
            return ConfigResult(config=config, path=where, provider=self.provider, header={"package": None})
        name = self._normalize_file_name(config_path)
        path = Path(self.path) / name
        if not path.is_file():
            raise ConfigLoadError(f"Config not found : {path}")
        if self.token in _seen:
            _seen[self.token].add(str(path))
        data = path.read_bytes()
        value = read(data, f"conf/{name}").value
        header = ConfigSource._get_header_dict(data.decode()[:512])
        config = OmegaConf.create(quote_home({} if value is None else value))
        return ConfigResult(config=config, path=where, provider=self.provider, header=header)


_MEMORY = "lab_composition_"


@dataclass(frozen=True, slots=True)
class Composed:
    """What Hydra made: plain, unresolved values, the options chosen per group, and the files read."""

    values: dict[str, Any]
    choices: dict[str, str] = field(default_factory=dict)
    files: frozenset[str] = frozenset()


def quote_home(value: Any) -> Any:
    """`${oc.env:X,~/y}` with its default quoted: OmegaConf's grammar has no `~` outside quotes. Pure."""
    if isinstance(value, str):
        return _TILDE.sub(r"\1'\2'\3", value) if ",~" in value else value
    if isinstance(value, dict):
        return {k: quote_home(v) for k, v in value.items()}
    if isinstance(value, list):
        return [quote_home(v) for v in value]
    return value


def compose(conf: Path, name: str | Mapping[str, Any], overrides: Sequence[str] = ()) -> Composed:
    """The config `name` of the folder `conf` (or one given in memory) as Hydra composes it; raises Problems. Reads."""
    token = str(next(_tokens))
    with _lock:
        version.setbase("1.3")
        Plugins.instance()
        SourcesRegistry.instance().register(LabSource)
    if not isinstance(name, str):
        _memory[token] = name
    _seen[token] = set()
    try:
        path = ConfigSearchPathImpl()
        path.append("hydra", "pkg://hydra.conf")
        path.append("main", f"lab://{conf}?{token}")
        path.append("lab", f"lab://{_BUILTIN}?")
        path.append("schema", "structured://")
        loader = ConfigLoaderImpl(path)
        config = loader.load_configuration(
            name if isinstance(name, str) else _MEMORY, list(overrides), RunMode.RUN, from_shell=False
        )
        choices = {str(k): str(v) for k, v in config.hydra.runtime.choices.items() if not str(k).startswith("hydra/")}
        with open_dict(config):
            del config["hydra"]
        values: dict[str, Any] = OmegaConf.to_container(config, resolve=False)
        return Composed(values, choices, frozenset(_seen[token]))
    except MissingConfigException as e:
        raise Missing(e.missing_cfg_file or "", list(getattr(e, "options", None) or ())) from None
    except (HydraException, OmegaConfBaseException) as e:
        raise problem("the head of the lab does not compose", why=_said(e), file="conf/lab.yaml", line=1) from None
    except (ValueError, TypeError, AttributeError, AssertionError, RecursionError) as e:
        raise problem("the head of the lab does not compose", why=_said(e), file="conf/lab.yaml", line=1) from None
    finally:
        _memory.pop(token, None)
        _seen.pop(token, None)


class Missing(Exception):
    """A config that a defaults list or an override names and that is not there."""

    def __init__(self, name: str, options: Sequence[str]) -> None:
        super().__init__(name)
        self.name, self.options = name, options


def parse(overrides: Sequence[str]) -> list[Operation]:
    """Overrides in Hydra's grammar as operations; raises Problems with every one that cannot be read. Pure."""
    parser = OverridesParser.create()
    out: list[Operation] = []
    problems: list[Problem] = []
    for text in overrides:
        try:
            found = parser.parse_override(text)
            if found.is_sweep_override():
                summary, do = f"`{text}` names several values", "give one; `lab sweep` tries several"
                problems.append(Problem(summary, file="command line", do=f"{do}; quote it if it is a text with commas"))
                continue
            value = found.value() if found.value_type is not None else None
        except (HydraException, OmegaConfBaseException, ValueError, TypeError, RecursionError):
            do = "quote values with spaces or special characters: 'key=\"a, b\"'"
            problems.append(
                Problem(
                    f"`{text}` is no valid override",
                    file="command line",
                    why="overrides are Hydra's: key=value, +key=value, ++key=value, ~key or ~key=value",
                    do=do if "=" in text else f"to choose a part of the lab, write `--only {text}`",
                )
            )
            continue
        out.append(Operation(text, found.type.name.lower(), found.key_or_group, found.package, _plain(value)))
    if problems:
        raise Problems(*problems)
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {(str(k) if not isinstance(k, (str, int, float, bool)) else k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, str) else value


def _said(error: BaseException) -> str:
    cause = error.__cause__ or error
    text = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return text[:200]

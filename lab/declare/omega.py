"""Omega: OmegaConf resolves one text of a plain tree, for the interpolations Lab's own resolver leaves to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from lab.declare.compose import quote_home
from lab.declare.unresolved import Unresolved

_RESOLVER = re.compile(r"\$\{\s*([A-Za-z_][\w.]*)\s*:")


def evaluate(tree: Mapping[str, Any], text: str, at: tuple[Any, ...], environ: Mapping[str, str]) -> Any:
    """What `text`, standing at `at` in `tree`, resolves to; raises Unresolved. Reads the environment."""
    shown = text if len(text) <= 80 else f"{text[:77]}…"
    if any(not name.startswith("oc.") for name in _RESOLVER.findall(text)):
        # Hydra registers `now` and others for the whole process; with them the same conf would not stay the same.
        raise Unresolved(f"`{shown}` uses a resolver that is not there", "use oc.env, oc.select, oc.decode, …", at)
    try:
        node: Any = OmegaConf.create(quote_home(dict(tree)))
        for step in at:
            node = node[step]
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except GrammarParseError:
        raise Unresolved(
            f"`{shown}` is no valid interpolation", "write ${a.b}, ${oc.env:NAME} or \\${ for text", at
        ) from None
    except UnsupportedInterpolationType:
        raise Unresolved(
            f"`{shown}` uses a resolver that is not there", "use oc.env, oc.select, oc.decode, …", at
        ) from None
    except InterpolationToMissingValueError:
        raise Unresolved(f"`{shown}` refers to a value that is `???`", "fill it in", at) from None
    except InterpolationKeyError:
        raise Unresolved(f"`{shown}` refers to what is not there", "mend the reference", at) from None
    except (OmegaConfBaseException, ValueError, TypeError, KeyError, RecursionError) as e:
        unset = "Environment variable" in str(e)
        why = "an environment variable it names is not set" if unset else "it cannot be resolved"
        raise Unresolved(f"`{shown}`: {why}", "set it, or give a default" if unset else "mend it", at) from None

"""A corpus without a download: the English prose about Python that every Python brings (`pydoc_data.topics`)."""

from __future__ import annotations

import json
from pathlib import Path


def make(folder: Path, every: int = 12) -> None:
    """`train.jsonl` and `test.jsonl` of `{topic, text}`; every so many-th topic is held out for the test."""
    from pydoc_data.topics import topics

    for name, part in (("train", lambda i: i % every), ("test", lambda i: not i % every)):
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as f:
            for i, topic in enumerate(sorted(topics)):
                if part(i):
                    f.write(json.dumps({"topic": topic, "text": topics[topic]}, ensure_ascii=False) + "\n")

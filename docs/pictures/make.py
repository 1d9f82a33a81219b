"""The pictures of the docs, made from the lab itself: run it in a lab whose demo is applied.

python docs/pictures/make.py          # recording.svg, graph.svg, kl_by_bits.svg beside this file
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMANDS = (
    "lab plan quantization.tiny_lm_q4.type=Q6_K",
    "lab status",
    "lab models compare tiny_lm",
    'lab generate quantization.tiny_lm.Q4_K_M "The for statement is used to" --max-tokens 24 --seed 1',
    "lab verify",
    "lab plan",
)


def said(command: str) -> str:
    """What a command prints, paths of this machine left out."""
    line = command.replace("lab ", f"{sys.executable} -m lab ", 1)
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.replace(str(ROOT), "~/lab").replace(str(Path.home()), "~").rstrip()


def recording() -> str:
    """A terminal in which the commands are typed one after the other."""
    lines: list[tuple[str, str]] = []
    for command in COMMANDS:
        lines.append(("#7ee787", f"$ {command}"))
        lines += [("#e6edf3", text) for text in said(command).splitlines()]
        lines.append(("", ""))
    wide = min(140, max(len(t) for _, t in lines)) * 8.0 + 40
    high = len(lines) * 18 + 56
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high}" font-size="13"',
        ' font-family="ui-monospace, Menlo, Consolas, monospace">',
        f'<rect width="100%" height="{high}" rx="10" fill="#0d1117"/>',
        *(
            f'<circle cx="{20 + 18 * i}" cy="18" r="6" fill="{c}"/>'
            for i, c in enumerate(("#ff5f57", "#febc2e", "#28c840"))
        ),
    ]
    for n, (colour, text) in enumerate(lines):
        if text:
            body = escape(text[:140])
            begin = f'<text xml:space="preserve" x="20" y="{52 + 18 * n}" fill="{colour}">{body}'
            out.append(
                f'{begin}<animate attributeName="opacity" from="0" to="1" dur="0.2s" begin="{n * 0.12:.2f}s"/></text>'
            )
    return "\n".join([*out, "</svg>"])


def kl_chart() -> str:
    """KL divergence from the original over bits per weight, a point a level, log scale."""
    table = json.loads(said("lab models compare tiny_lm --json"))
    rows = list({(r["format"], r["level"]): r for r in table["rows"] if r["kl"] > 1e-6}.values())
    wide, high, left, top = 700, 400, 70, 50
    bits = [r["bits_per_weight"] for r in rows]
    low, top_kl = (f(math.log10(r["kl"]) for r in rows) for f in (min, max))
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="12">'
    ]
    out.append(f'<rect width="{wide}" height="{high}" fill="#ffffff"/>')

    def at(row: dict[str, float]) -> tuple[float, float]:
        x = left + 15 + (wide - left - 120) * (row["bits_per_weight"] - min(bits)) / max(max(bits) - min(bits), 1e-9)
        y = top + 10 + (high - top - 70) * (top_kl - math.log10(row["kl"])) / max(top_kl - low, 1e-9)
        return x, y

    for row in rows:
        x, y = at(row)
        colour = "#2b6cb0" if row["format"] == "mlx" else "#c05621"
        label = str(row["level"])
        out.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="5" fill="{colour}"/>')
        out.append(f'<text x="{x + 8:.0f}" y="{y - 6:.0f}">{escape(label)}</text>')
    for e in range(math.floor(low), math.ceil(top_kl) + 1):
        y = top + 10 + (high - top - 70) * (top_kl - e) / max(top_kl - low, 1e-9)
        if top - 5 <= y <= high - 40:
            out.append(f'<line x1="{left - 8}" x2="{wide - 30}" y1="{y:.0f}" y2="{y:.0f}" stroke="#e2e8f0"/>')
            out.append(f'<text x="{left - 14}" y="{y + 4:.0f}" text-anchor="end">1e{e}</text>')
    out.append(f'<text x="{wide / 2}" y="{high - 12}" text-anchor="middle">bits per weight</text>')
    out.append(f'<text x="{left}" y="20" font-size="14">KL divergence from the original (GGUF orange, MLX blue)</text>')
    return "\n".join([*out, "</svg>"])


def main() -> None:
    """Writes the three pictures."""
    # All are made before one is written: the lab tells what is not committed.
    made = {"graph": said("lab graph --format svg"), "kl_by_bits": kl_chart(), "recording": recording()}
    for name, text in made.items():
        (HERE / f"{name}.svg").write_text(text + "\n")


if __name__ == "__main__":
    main()

"""Tokens per second: generation is bound by what is read per token, prompts by arithmetic.

Generation time per token = active weight bytes/(bandwidth·η) + cache bytes/(bandwidth·η_kv) + α·layers. Prompt time =
2·active parameters/(tflops·η_p) + attention. Constants were fitted to published measurements on M-series chips; a
calibration of the machine replaces them.
"""

from __future__ import annotations

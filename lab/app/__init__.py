"""Composition root: one function per verb; the Python API."""

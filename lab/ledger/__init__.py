"""Recorded state, its history and its lock."""

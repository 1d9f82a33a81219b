"""Wanted × recorded × observed → Plan → text, JSON, Markdown; pure."""

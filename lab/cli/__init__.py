"""Parses arguments, calls `app`, prints."""

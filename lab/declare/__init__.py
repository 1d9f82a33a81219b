"""Hydra composes, overrides and selections apply, blocks become declarations, problems are collected."""

"""Integrations: the tools that Lab joins, the kinds that use each, and the tests that try it.

`tried.json` beside this file holds when the tests of each last passed, and with which version; `pytest --keep-tried`
writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

KEPT = Path(__file__).with_name("tried.json")


@dataclass(frozen=True)
class Integration:
    """One tool: what it does for Lab, and where."""

    name: str
    does: str
    kinds: tuple[str, ...]
    """The kinds of resources it stands behind; `lab` for what no kind declares."""
    adapters: tuple[str, ...]
    """The modules of lab/ that speak to it."""
    tests: tuple[str, ...]
    """`FILE::FUNCTION`: all of them pass before it counts as tried."""
    package: str = ""
    """Its name on PyPI."""
    program: tuple[str, ...] = ()
    """The command that tells its version, where it is a program."""
    extra: str = ""
    """The extra of Lab that brings it; empty where it comes with Lab or from the system."""
    stand_in: str = ""
    """What answers in its place in the tests, where it is not the tool itself: such a one never counts as tried."""


@dataclass(frozen=True)
class Tried:
    """When all tests of an integration last passed in one run."""

    day: str
    version: str


INTEGRATIONS = (
    Integration(
        "Ansible", "host changes, as roles and one run per apply", ("guest", "access"),
        ("adapters/ansible.py",),
        ("tests/host/test_guests.py::test_through_lab_itself_one_or_many_are_one_ansible_run_and_then_there_is_nothing_to_do",
         "tests/host/test_playbooks.py::test_ansible_lint_finds_nothing"),
        package="ansible-core", extra="host",
    ),
    Integration(
        "BorgBackup", "snapshots", ("backup",), ("adapters/borg.py",),
        ("tests/host/test_backup_tools.py::test_what_borg_kept_comes_back_bit_for_bit_and_excludes_stay_out",
         "tests/host/test_backup_tools.py::test_damage_is_found_by_a_plain_check_of_borg"),
        program=("borg", "--version"),
    ),
    Integration(
        "conda-lock", "the lock files of conda environments", ("env",), ("adapters/condalock.py",),
        ("tests/envs/test_lock.py::test_conda_lock_and_rattler_read_our_lock",),
        package="conda-lock", extra="envs",
    ),
    Integration(
        "Dask", "trials on several hosts", ("sweep",), ("adapters/dask_trials.py", "adapters/dask_hosts.py"),
        ("tests/sweeps/test_executors.py::test_a_scheduler_by_its_address",),
        package="distributed", extra="dask",
    ),
    Integration(
        "Git", "the lab's declarations, and models that lie in repositories", ("lab", "model"),
        ("adapters/git.py", "adapters/gitsource.py"),
        ("tests/models/test_sources.py::test_a_git_repository_gives_one_commit_and_its_lfs_files",),
        program=("git", "--version"),
    ),
    Integration(
        "Hugging Face Hub", "models, datasets and their revisions", ("model", "dataset"), ("adapters/hub.py",),
        ("tests/models/test_sources.py::test_a_hub_model_is_locked_without_its_weights_and_fetched_as_locked",),
        stand_in="a server here that speaks its API",
    ),
    Integration(
        "Hydra", "composition, overrides and searches", ("lab", "sweep"), ("declare/compose.py",),
        ("tests/declare/test_equals_hydra.py::test_small_labs_of_any_shape",),
        package="hydra-core",
    ),
    Integration(
        "llama.cpp", "GGUF quantization, text, benchmarks, a server", ("quantization", "model"),
        ("adapters/llamacpp.py", "adapters/gguf_engine.py"),
        ("tests/engines/test_convert.py::test_llama_cpp_and_mlx_agree_on_logits",
         "tests/engines/test_quantize.py::test_the_table_of_types_is_what_the_installed_llama_cpp_offers"),
        package="llama-cpp-python", extra="llama",
    ),
    Integration(
        "lm-evaluation-harness", "evaluations in an env of its own", ("experiment",), ("adapters/score.py",),
        ("tests/experiments/test_harness.py::test_the_harness_runs_task_files_of_ones_own_in_its_own_env",),
        package="lm-eval",
    ),
    Integration(
        "MLflow", "runs, metrics, artifacts and registered models", ("experiment",),
        ("adapters/mlflow_local.py", "adapters/mlflow_remote.py", "adapters/mlflow_server.py"),
        ("tests/experiments/test_mlflow.py::test_a_plain_client_reads_every_point_in_order",
         "tests/experiments/test_mlflow.py::test_a_server_that_restarts_mid_way_gets_everything_once"),
        package="mlflow", extra="track",
    ),
    Integration(
        "MLX", "MLX quantization, text, training", ("quantization", "model", "experiment"),
        ("adapters/mlx.py", "adapters/mlx_quant.py"),
        ("tests/engines/test_quantize.py::test_mlx_quantizes_to_bits_and_runs_what_it_made",
         "tests/engines/test_quantize.py::test_mlx_gives_the_same_bytes_again"),
        package="mlx-lm", extra="mlx",
    ),
    Integration(
        "ModelScope", "models", ("model",), ("adapters/modelscope.py",),
        ("tests/models/test_sources.py::test_modelscope_speaks_its_own_protocol",),
        stand_in="a server here that speaks its API",
    ),
    Integration(
        "Ollama", "models of its registry and of its own folder", ("model", "framework"), ("adapters/ollama.py",),
        ("tests/models/test_sources.py::test_an_ollama_model_comes_from_the_registry_or_from_ollamas_own_folder",
         "tests/envs/test_frameworks.py::test_an_ollama_server_is_started_and_asked"),
        program=("ollama", "--version"), stand_in="a registry and a server here that speak its API",
    ),
    Integration(
        "OpenSSH", "access, other hosts", ("access",), ("adapters/ssh.py",),
        ("tests/host/test_host_remote.py::test_plan_and_apply_run_on_the_host_and_the_laptop_keeps_no_ledger",
         "tests/host/test_access.py::test_it_is_as_declared_and_each_device_gets_in"),
        program=("ssh", "-V"),
    ),
    Integration(
        "Optuna", "samplers, pruners and studies", ("sweep",), ("adapters/optuna_study.py", "adapters/optuna_sweep.py"),
        ("tests/sweeps/test_studies.py::test_options_of_a_sampler_are_optunas",
         "tests/sweeps/test_studies.py::test_two_objectives_are_searched_as_bare_optuna_searches_them"),
        package="optuna", extra="sweep",
    ),
    Integration(
        "PostgreSQL", "a ledger or a study on a server", ("lab", "sweep"), ("adapters/postgresql.py",),
        ("tests/engine/test_postgresql.py::test_a_server_that_restarts_during_an_apply",
         "tests/engine/test_postgresql.py::test_one_writer_wherever_they_are"),
        program=("psql", "--version"), extra="postgresql",
    ),
    Integration(
        "rattler", "solving and installing conda packages", ("env",), ("adapters/conda.py", "adapters/conda_child.py"),
        ("tests/envs/test_install.py::test_locked_installed_tampered_repaired_removed",
         "tests/envs/test_install.py::test_contradicting_envs_live_side_by_side"),
        package="py-rattler", extra="envs",
    ),
    Integration(
        "Ray", "trials on a cluster", ("sweep",), ("adapters/ray_trials.py",),
        ("tests/sweeps/test_executors.py::test_what_a_trial_declares_is_asked_of_the_engine",),
        package="ray", extra="ray",
    ),
    Integration(
        "restic", "snapshots", ("backup",), ("adapters/restic.py",),
        ("tests/host/test_backup.py::test_all_comes_back_bit_for_bit_and_the_database_is_whole",
         "tests/host/test_backup.py::test_damage_that_only_reading_shows_is_found_and_the_other_repository_restores"),
        program=("restic", "version"),
    ),
    Integration(
        "Tailscale", "access from elsewhere", ("access",), ("adapters/tailscale.py",),
        ("tests/host/test_access.py::test_tailscale_gets_exactly_the_declared_flags_once_and_the_key_by_file",),
        program=("tailscale", "version"), stand_in="a recorder of its arguments",
    ),
    Integration(
        "Time Machine", "snapshots on a Mac", ("backup",), ("adapters/time_machine.py",),
        ("tests/host/test_backup_tools.py::test_time_machine_is_asked_in_the_words_of_its_manual",),
        stand_in="a recorder of its arguments",
    ),
    Integration(
        "uv", "Python packages, locked by their hashes", ("env",), ("adapters/uv.py",),
        ("tests/envs/test_pins.py::test_pins_name_no_host_and_two_machines_are_equal",
         "tests/envs/test_pins.py::test_another_file_under_the_pinned_name_is_refused"),
        package="uv", extra="envs",
    ),
    Integration(
        "Weights & Biases", "each run as its offline directory as well", ("experiment",),
        ("adapters/wandb_offline.py",),
        ("tests/experiments/test_wandb.py::test_the_same_code_is_tracked_by_both",),
        package="wandb", extra="wandb",
    ),
)  # fmt: skip


def tried() -> Mapping[str, Tried]:
    """Which integrations were tried, by name, and when they last passed. Reads."""
    return {name: Tried(**one) for name, one in json.loads(KEPT.read_text(encoding="utf-8")).items()}

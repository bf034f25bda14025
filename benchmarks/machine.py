"""On what, and with which versions, a result was measured. Nothing here says when, or whose machine it was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch

from benchmarks import limits

PACKAGES = ("holdfast", "torch", "lightning", "safetensors", "numpy")


def describe(folder: str) -> dict[str, Any]:
    """Return the machine and the versions, for the head of a result."""
    return {
        "machine": {
            "cpu": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
            "filesystem": filesystem(folder),
            "o_direct": limits.takes_direct(folder),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "torch_threads": torch.get_num_threads(),
    }


def filesystem(folder: str) -> str:
    """Return the type of the filesystem that holds a folder."""
    best, kind = "", "unknown"
    real = os.path.realpath(folder)
    for line in _lines("/proc/mounts"):
        _, mount, type_, *_ = line.split()
        if len(mount) > len(best) and f"{real}/".startswith(f"{mount.rstrip('/')}/"):
            best, kind = mount, type_
    return kind


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _field(path: str, name: str) -> str:
    for line in _lines(path):
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []

"""The command line: ``catgrad-hw``."""

from __future__ import annotations

from catgrad_hw.cli.app import main

__all__ = ["main"]

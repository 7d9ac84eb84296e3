"""Models made elsewhere, as diagrams of this package."""

from __future__ import annotations

from catgrad_hw.importers.catgrad import from_catgrad, import_catgrad
from catgrad_hw.importers.torch import Imported, from_torch

__all__ = ["Imported", "from_catgrad", "from_torch", "import_catgrad"]

"""The one exception family of the package.

Every error that a user can cause derives from :class:`CatgradError`. Its text is one line that names the
operation, what was expected, what was found and what to change; the command line prints it without a traceback.
"""

from __future__ import annotations


class CatgradError(Exception):
    """Base of all errors that a user can cause."""


class IllTypedError(CatgradError, TypeError):
    """Types do not fit: at composition, or between a program and the arrays it is given."""


class DataError(CatgradError, ValueError):
    """Data are unusable: NaN or infinite values, wrong shapes or dtypes, an unreadable file."""


class ModelError(CatgradError, ValueError):
    """A model, workload or option is invalid, or cannot be found."""


class UnsupportedError(CatgradError, NotImplementedError):
    """A target has no spelling for an operation. Raised before anything is written."""


class CapacityError(CatgradError, ValueError):
    """A width, lane count or memory is out of range for the machine or the device."""


class ScheduleError(CatgradError):
    """A schedule breaks a rule of the machine (a hazard, or a port used twice in a cycle)."""


class ToolError(CatgradError):
    """An external tool is missing, too old, or failed."""


class SimulationError(CatgradError):
    """The simulated hardware did not answer as its protocol demands."""


class LinkError(CatgradError):
    """A board, or the line to it, does not answer as the protocol demands."""


class BoardLostError(LinkError):
    """The board is silent, unplugged or was reset: what it held is lost, and can be loaded again."""

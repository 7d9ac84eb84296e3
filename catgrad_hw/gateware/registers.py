"""The core's register map: what the gateware answers to and what every host driver uses.

The bus has an 8-bit address and 32-bit words; read data are valid :data:`READ_CYCLES` cycles after the address, which
stays until then, and for as long as it stays.
"""

from enum import IntEnum, IntFlag

READ_CYCLES = 7
"""From a register's address to its value: counters lie in a memory, which counts in between."""


class Register(IntEnum):
    """Addresses. ``SATURATIONS + i`` is the i-th counter of ``IntegerProgram.counters``."""

    IDENTITY_LOW = 0  # the design's 64-bit hash
    IDENTITY_HIGH = 1
    STATUS = 2
    COMMAND = 3  # write only; ignored while busy
    COUNT = 4  # steps of the next Command.STEP; ignored while it runs
    CYCLES = 5  # exact while idle; counts while a run command is busy, cleared when one is written
    KEY = 6  # random key of the next step; the core adds KEY_INCREMENT after every step (0 if it draws none)
    STEPS = 7  # steps done since reset
    DATA_MODE = 8
    SATURATIONS = 16


class Status(IntFlag):
    BUSY = 1
    WAITING = 2  # for samples


class Command(IntEnum):
    STEP = 1
    PREDICT = 2
    READ_PARAMETERS = 3
    READ_PREDICTIONS = 4
    FORGET_SAMPLES = 5
    REWIND_PARAMETERS = 6
    CLEAR_SATURATIONS = 7


class DataMode(IntEnum):
    STREAM = 0  # a slot of samples is freed once used
    RESIDENT = 1  # slots stay loaded and are used in rotation


KEY_INCREMENT = 0x9E3779B1
"""Added to the key, modulo 2**32, after every step: 2**32 divided by the golden ratio, made odd."""

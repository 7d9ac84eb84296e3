"""The serial link: a core becomes a device that a host trains. ``docs/link.md`` describes the protocol."""

from catgrad_hw.gateware.link.device import Device
from catgrad_hw.gateware.link.settings import LinkSettings

__all__ = ["Device", "LinkSettings"]

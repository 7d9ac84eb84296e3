"""What a board holds, whatever the board: a core behind a link."""

from amaranth.hdl import Module, ResetInserter
from amaranth.lib.wiring import Component, In, Out, connect

from catgrad_hw.gateware.core import Core
from catgrad_hw.gateware.link.link import Link
from catgrad_hw.gateware.link.settings import LinkSettings
from catgrad_hw.schedule.program import Program


class Device(Component):
    """A core for ``program``, and its link: serial line ``rx``, ``tx``, and three lamps (see :class:`Link`).

    All in the domain ``sync``, at ``settings.clock_hz``. Besides the memories of the core and of the data set it holds
    two block RAMs.
    """

    rx: In(1, init=1)
    tx: Out(1, init=1)
    alive: Out(1)
    training: Out(1)
    error: Out(1)

    def __init__(self, program: Program, settings: LinkSettings):
        self.program, self.settings = program, settings
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.link = link = Link(self.program, self.settings)
        core = Core(self.program)
        m.submodules.core = ResetInserter(link.core_reset)(core)
        connect(m, link.core, core)
        m.d.comb += [
            link.rx.eq(self.rx),
            self.tx.eq(link.tx),
            self.alive.eq(link.alive),
            self.training.eq(link.training),
            self.error.eq(link.error),
        ]
        return m

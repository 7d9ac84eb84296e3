"""What a board holds, whatever the board: a core behind a link."""

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Module, ResetInserter, ResetSignal, Signal
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
        if platform is None:
            m.submodules.core = ResetInserter(link.core_reset)(core)
        else:
            m.submodules.core = self._reset_apart(m, core, link.core_reset, platform)
        connect(m, link.core, core)
        m.d.comb += [
            link.rx.eq(self.rx),
            self.tx.eq(link.tx),
            self.alive.eq(link.alive),
            self.training.eq(link.training),
            self.error.eq(link.error),
        ]
        return m

    def _reset_apart(self, m, core, reset, platform):
        """``core`` in a domain of its own, whose reset comes from one register. (In a simulator, a clock that is passed
        on is late.)"""
        either = Signal(init=1, reset_less=True)
        m.d.sync += either.eq(ResetSignal() | reset)
        m.domains.core = domain = ClockDomain(local=True, async_reset=resets_asynchronously(platform))
        m.d.comb += [domain.clk.eq(ClockSignal()), domain.rst.eq(either)]
        return DomainRenamer("core")(core)


def resets_asynchronously(platform):
    """Whether flip-flops are to be reset asynchronously: a synchronous reset of an iCE40's asks for their enable, which
    takes logic in front of it."""
    return platform.family == "iCE40"

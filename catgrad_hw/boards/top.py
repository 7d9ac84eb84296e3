"""The top level of a board: pins, PLL, reset, and the device that all boards share."""

from amaranth.hdl import ClockDomain, Const, Elaboratable, Instance, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from catgrad_hw.boards.description import Board
from catgrad_hw.boards.pll import MHZ, Pll
from catgrad_hw.gateware.link.device import resets_asynchronously

START_UP = 15e-6
"""Seconds for which the iCE40 stays in reset once its clock is stable: block RAM reads as 0 before (Lattice TN1250)."""


class ClockMultiplier(Elaboratable):
    """The chip's PLL. ``clock`` out, and ``locked`` once it is stable.

    ``source`` is the crystal's port: SB_PLL40_PAD is a part of the pin itself, all others take it through a buffer.
    """

    def __init__(self, board: Board, pll: Pll, source, clock):
        self.board, self.pll, self.source, self.clock = board, pll, source, clock
        self.locked = Signal()

    def elaborate(self, platform):
        m = Module()
        if self.board.chip.pll == "SB_PLL40_PAD":
            m.submodules.pll = self._ice40(i_PACKAGEPIN=self.source.io)
            return m
        m.submodules.buffer = buffer = io.Buffer("i", self.source)
        build = {"SB_PLL40_CORE": lambda i: self._ice40(i_REFERENCECLK=i), "EHXPLLL": self._ecp5, "rPLL": self._gowin}
        m.submodules.pll = build[self.board.chip.pll](buffer.i)
        return m

    def _ice40(self, **source):
        widths = {"DIVR": 4, "DIVF": 7, "DIVQ": 3, "FILTER_RANGE": 3}
        return Instance(
            self.board.chip.pll,
            p_FEEDBACK_PATH="SIMPLE",
            **{f"p_{name}": Const(value, widths[name]) for name, value in self.pll.dividers.items()},
            **source,
            i_RESETB=Const(1),
            i_BYPASS=Const(0),
            o_PLLOUTGLOBAL=self.clock,
            o_LOCK=self.locked,
        )

    def _ecp5(self, source):
        feedback = Signal()
        return Instance(
            "EHXPLLL",
            # What Lattice's tool writes for the loop filter, and Project Trellis after it.
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            a_FREQUENCY_PIN_CLKI=f"{float(self.pll.input) / MHZ:g}",
            a_FREQUENCY_PIN_CLKOS=f"{float(self.pll.output) / MHZ:g}",
            p_PLLRST_ENA="DISABLED",
            p_INTFB_WAKE="DISABLED",
            p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA",
            p_OUTDIVIDER_MUXB="DIVB",
            p_OUTDIVIDER_MUXC="DIVC",
            p_OUTDIVIDER_MUXD="DIVD",
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_CPHASE=self.pll.dividers["CLKOP_DIV"] // 2,
            p_CLKOP_FPHASE=0,
            p_CLKOS_ENABLE="ENABLED",
            p_CLKOS_CPHASE=0,
            p_CLKOS_FPHASE=0,
            p_FEEDBK_PATH="CLKOP",
            **{f"p_{name}": value for name, value in self.pll.dividers.items()},
            i_CLKI=source,
            i_CLKFB=feedback,
            i_RST=Const(0),
            i_STDBY=Const(0),
            i_PHASESEL0=Const(0),
            i_PHASESEL1=Const(0),
            i_PHASEDIR=Const(1),
            i_PHASESTEP=Const(1),
            i_PHASELOADREG=Const(1),
            i_PLLWAKESYNC=Const(0),
            i_ENCLKOP=Const(0),
            o_CLKOP=feedback,
            o_CLKOS=self.clock,
            o_LOCK=self.locked,
        )

    def _gowin(self, source):
        part = self.board.new_platform()
        return Instance(
            "rPLL",
            p_DEVICE=f"{part.series}-{part.size}{part.subseries_f}",
            p_FCLKIN=f"{float(self.pll.input) / MHZ:g}",
            **{f"p_{name}": value for name, value in self.pll.dividers.items()},
            i_CLKIN=source,
            i_CLKFB=Const(0),
            i_RESET=Const(0),
            i_RESET_P=Const(0),
            i_FBDSEL=Const(0, 6),
            i_IDSEL=Const(0, 6),
            i_ODSEL=Const(0, 6),
            i_PSDA=Const(0, 4),
            i_DUTYDA=Const(0, 4),
            i_FDLY=Const(0, 4),
            o_CLKOUT=self.clock,
            o_LOCK=self.locked,
        )


class Top(Elaboratable):
    """``device`` (ports rx, tx, alive, training, error; domain sync) on the pins of ``board``, clocked by ``pll``.

    Reset ends a few cycles after the PLL has locked; a board's reset button, where it has one, restarts the device.
    """

    def __init__(self, board: Board, device, pll: Pll):
        self.board, self.device, self.pll = board, device, pll

    def elaborate(self, platform):
        m = Module()
        board, device = self.board, self.device
        m.submodules.device = device

        m.domains.sync = sync = ClockDomain("sync", async_reset=resets_asynchronously(platform))
        core_clock = Signal(attrs={"keep": "true"})
        source = platform.request(platform.default_clk, dir="-")
        m.submodules.multiplier = multiplier = ClockMultiplier(board, self.pll, source, core_clock)
        platform.add_clock_constraint(core_clock, float(self.pll.output))
        m.d.comb += sync.clk.eq(core_clock)

        stopped = Signal()
        m.d.comb += stopped.eq(~multiplier.locked)
        if platform.default_rst is not None:
            m.submodules.button = button = io.Buffer("i", platform.request(platform.default_rst, dir="-"))
            m.d.comb += stopped.eq(~multiplier.locked | button.i)
        if board.family == "ice40":
            m.domains.start = start = ClockDomain("start")
            m.d.comb += start.clk.eq(core_clock)
            cycles = Signal(range(int(START_UP * float(self.pll.output)) + 2))
            over = Signal()
            with m.If(~over):
                m.d.start += [cycles.eq(cycles + 1), over.eq(cycles.all())]
            m.submodules.start_reset = ResetSynchronizer(stopped, domain="start")
            m.submodules.reset = ResetSynchronizer(~over, domain="sync")
        else:
            m.submodules.reset = ResetSynchronizer(stopped, domain="sync")

        uart = self._port(platform, board.uart)
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [device.rx.eq(rx.i), tx.o.eq(device.tx)]
        lights = {
            3: [device.alive, device.training, device.error],
            2: [device.alive | device.training, device.error],
            1: [(device.alive | device.training) ^ device.error],
            0: [],
        }[len(board.leds)]
        outputs = [*zip(board.leds, lights, strict=True), *((port, Const(1)) for port in board.high)]
        for number, (port, value) in enumerate(outputs):
            m.submodules[f"output_{number}"] = buffer = io.Buffer("o", self._port(platform, port))
            m.d.comb += buffer.o.eq(value)
        return m

    @staticmethod
    def _port(platform, port):
        resource = platform.request(port[0], port[1], dir="-")
        return getattr(resource, port[2]) if len(port) == 3 else resource

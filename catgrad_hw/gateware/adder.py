"""A sum that may leave a term out, in as many LUTs as it has bits."""

from amaranth.hdl import Const, Instance, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out

ADDS, SUBTRACTS = 0xA6AA, 0x96CC
"""The LUTs of a CCU2C. With D high they tell whether a carry goes on, by ``addend`` (A), ``base`` (B) and ``alone``, or
where it subtracts its inverse (C); their lowest four bits, by A and B, what the carry is where it does not."""


class Adder(Component):
    """``sum``: ``addend`` where ``alone`` is high, else ``base + addend``, or ``base - addend`` where it ``subtracts``;
    of ``width`` bits, wrapping.

    On an ECP5 the LUTs of the carry chain choose (CCU2C in Lattice's FPGA Libraries Reference Guide), where Yosys adds
    a LUT for each bit.
    Where it subtracts, ``base`` is to be 0 while ``alone`` is high.
    """

    def __init__(self, width, subtracts=False):
        self.width, self.subtracts = width, subtracts
        super().__init__(
            {
                "base": In(signed(width)),
                "addend": In(signed(width)),
                "alone": In(1),
                "sum": Out(signed(width)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if getattr(platform, "family", None) == "ecp5":
            self._ecp5(m)
        else:
            changed = self.base - self.addend if self.subtracts else self.base + self.addend
            m.d.comb += self.sum.eq(Mux(self.alone, self.addend, changed))
        return m

    def _ecp5(self, m):
        # The negative is the inverse and one more: a bit below all makes the carry.
        inverts = ~self.alone
        below = [(inverts, inverts, Const(0), Signal())] if self.subtracts else []
        chooses = inverts if self.subtracts else self.alone
        bits = [*below, *((a, b, chooses, s) for a, b, s in zip(self.addend, self.base, self.sum, strict=True))]
        if len(bits) % 2:
            bits.append((Const(0), Const(0), Const(0), Signal()))
        table = Const(SUBTRACTS if self.subtracts else ADDS, 16)
        carry = Const(0)
        for number, pair in enumerate(zip(bits[::2], bits[1::2], strict=True)):
            following = Signal()
            ports = {}
            for half, (a, b, c, s) in enumerate(pair):
                ports |= {f"i_A{half}": a, f"i_B{half}": b, f"i_C{half}": c, f"i_D{half}": Const(1), f"o_S{half}": s}
            m.submodules[f"carry_{number}"] = Instance(
                "CCU2C",
                p_INIT0=table,
                p_INIT1=table,
                p_INJECT1_0="NO",
                p_INJECT1_1="NO",
                i_CIN=carry,
                o_COUT=following,
                **ports,
            )
            carry = following

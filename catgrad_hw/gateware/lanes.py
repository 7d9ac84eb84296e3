"""Lanes: multiply-accumulate units, and the tree that sums across them."""

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.adder import Adder

ECP5_BITS = 18
"""Of the operands of an ECP5's multiplier block."""


class Multiplier(Component):
    """A signed multiplier with registers on its operands and on its product: two cycles.

    One register after the product and no more: Yosys' iCE40 flow absorbs a second one wrongly. On an ECP5 the registers
    are those of its multiplier block (Lattice FPGA-TN-02205), where Yosys would leave them outside.
    """

    latency = 2

    def __init__(self, width):
        self.width = width
        super().__init__({"a": In(signed(width)), "b": In(signed(width)), "product": Out(signed(2 * width))})

    def elaborate(self, platform):
        m = Module()
        if getattr(platform, "family", None) == "ecp5" and self.width <= ECP5_BITS:
            m.submodules.block = self._ecp5()
            return m
        a = Signal(signed(self.width), reset_less=True)
        b = Signal(signed(self.width), reset_less=True)
        product = Signal(signed(2 * self.width), reset_less=True)
        m.d.sync += [a.eq(self.a), b.eq(self.b), product.eq(a * b)]
        m.d.comb += self.product.eq(product)
        return m

    def _ecp5(self):
        def wide(operand):
            return Cat(operand, operand[-1].replicate(ECP5_BITS - self.width))

        clocked = {f"p_REG_{register}_CLK": "CLK0" for register in ("INPUTA", "INPUTB", "OUTPUT")}
        product = [*self.product, *(Signal() for _ in range(2 * (ECP5_BITS - self.width)))]
        return Instance(
            "MULT18X18D",
            **clocked,
            i_CLK0=ClockSignal(),
            i_CE0=Const(1),
            i_RST0=Const(0),
            i_SIGNEDA=Const(1),
            i_SIGNEDB=Const(1),
            i_SOURCEA=Const(0),
            i_SOURCEB=Const(0),
            **{f"i_A{i}": bit for i, bit in enumerate(wide(self.a))},
            **{f"i_B{i}": bit for i, bit in enumerate(wide(self.b))},
            **{f"i_C{i}": Const(0) for i in range(ECP5_BITS)},
            **{f"o_P{i}": bit for i, bit in enumerate(product)},
        )


class Lane(Component):
    """A multiplier and an accumulator of ``accumulator`` bits, which wraps.

    ``total`` changes in the cycle after ``accumulate``: to the product where ``first`` is high, else by the product;
    or, where ``picks`` is high, to the product if that is greater. ``place`` is then the ``index`` that came with it.

    Args:
        picks: whether ``picks`` ever is high.
        index_bits: of ``index``; 0 where no place is asked for.
    """

    def __init__(self, width, accumulator, picks=False, index_bits=0):
        self.width, self.bits, self.may_pick, self.index_bits = width, accumulator, picks, index_bits
        super().__init__(
            {
                "a": In(signed(width)),
                "b": In(signed(width)),
                "accumulate": In(1),
                "first": In(1),
                "product": Out(signed(2 * width)),
                "total": Out(signed(accumulator)),
            }
            | ({"picks": In(1)} if picks else {})
            | ({"index": In(index_bits), "place": Out(index_bits)} if index_bits else {})
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.multiplier = multiplier = Multiplier(self.width)
        total = Signal(signed(self.bits), reset_less=True)
        m.d.comb += [
            multiplier.a.eq(self.a),
            multiplier.b.eq(self.b),
            self.product.eq(multiplier.product),
            self.total.eq(total),
        ]
        if self.may_pick:
            # What is picked are words, multiplied by 1.
            picked = multiplier.product[: self.width].as_signed()
            greater = Signal()
            m.d.comb += greater.eq(picked > total[: self.width].as_signed())
            with m.If(self.accumulate):
                with m.If(self.first | (self.picks & greater)):
                    m.d.sync += total.eq(multiplier.product)
                    if self.index_bits:
                        m.d.sync += self.place.eq(self.index)
                with m.Elif(~self.picks):
                    m.d.sync += total.eq(total + multiplier.product)
        else:
            m.submodules.adder = adder = Adder(self.bits)
            m.d.comb += [adder.base.eq(total), adder.addend.eq(multiplier.product), adder.alone.eq(self.first)]
            with m.If(self.accumulate):
                m.d.sync += total.eq(adder.sum)
        return m


class Tree(Component):
    """Sums ``lanes`` words of ``width`` bits; a register after each of its ceil(log2(lanes)) levels.

    ``sum`` is 0 where ``enable`` was low in the cycle before, or with a single lane, where it is.
    """

    def __init__(self, lanes, width):
        self.lanes, self.width = lanes, width
        self.latency = (lanes - 1).bit_length()
        super().__init__(
            {
                "words": In(data.ArrayLayout(signed(width), lanes)),
                "enable": In(1, init=1),
                "sum": Out(signed(width + self.latency)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        terms = [self.words[i] for i in range(self.lanes)]
        for level in range(self.latency):
            width = self.width + level + 1
            following = []
            for i in range(0, len(terms), 2):
                node = Signal(signed(width), reset_less=True, name=f"sum_{level}_{i // 2}")
                total = sum(terms[i + 1 : i + 2], terms[i])
                m.d.sync += node.eq(Mux(self.enable, total, 0) if level == self.latency - 1 else total)
                following.append(node)
            terms = following
        m.d.comb += self.sum.eq(terms[0] if self.latency else Mux(self.enable, terms[0], 0))
        return m


class SumAccumulator(Component):
    """Accumulates words of ``width`` bits in ``bits`` bits, wrapping: ``total`` becomes the word where ``first`` is
    high, else grows by it; a word of 0 changes nothing.

    It has no enable: the eight cells of an iCE40's tile have 32 inputs, which this takes; with one more, the carry
    chain leaves every other tile through a LUT.
    """

    def __init__(self, width, bits):
        self.width, self.bits = width, bits
        super().__init__({"word": In(signed(width)), "first": In(1), "total": Out(signed(bits))})

    def elaborate(self, platform):
        m = Module()
        total = Signal(signed(self.bits), reset_less=True)
        m.d.sync += total.eq(Mux(self.first, self.word, total + self.word))
        m.d.comb += self.total.eq(total)
        return m

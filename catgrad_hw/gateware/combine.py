"""What stands before the narrowing: sums with words that are read, words in place of sums, and masks."""

from amaranth.hdl import Cat, Const, Mux, Signal, signed

from catgrad_hw.gateware.tag import Choice, member
from catgrad_hw.schedule.program import Operand


def added(m, total, other, choice: Choice, name):
    """``total`` plus, minus or without ``other * 2**shift``, by the (kind, shift) that ``choice`` makes.

    Two kinds take one adder: what is subtracted is added inverted, with a carry.
    """
    kinds = {kind for kind, _ in choice.values}
    if kinds == {"alone"}:
        return total
    widest = max(len(total), *(len(other) + shift for kind, shift in choice.values if kind != "alone"))
    bits = widest + ("subtract" in kinds)
    addend = Signal(signed(bits), name=f"{name}_addend")

    def term(value):
        kind, shift = value
        return Const(0) if kind == "alone" else other << shift if kind == "add" else ~(other << shift)

    m.d.comb += addend.eq(choice.of(term))
    if "subtract" not in kinds:
        return (total + addend)[:bits].as_signed()
    carry = Signal(name=f"{name}_carry")
    m.d.comb += carry.eq(choice.of(lambda value: Const(int(value[0] == "subtract"))))
    wide = Signal(signed(bits), name=f"{name}_wide")
    m.d.comb += wide.eq(total)
    return (Cat(carry, wide).as_signed() + Cat(carry, addend).as_signed())[1 : bits + 1].as_signed()


def kinds_of(combinations: dict):
    """The (kind, shift) of each kernel's combination, for :func:`added`."""
    return {i: (c.kind, c.shift) for i, c in combinations.items()}


def positive(word):
    """Whether a signed word is above 0."""
    return ~word[-1] & word.any()


def condition_operands(combinations: dict):
    """The streams of conditions that are read, by kernel."""
    return {i: c.condition for i, c in combinations.items() if isinstance(c.condition, Operand)}


def other_operands(combinations: dict):
    """The streams of words that are combined, by kernel."""
    return {i: c.other for i, c in combinations.items() if isinstance(c.other, Operand)}


def boosted_shifts(shifts: dict, combinations: dict):
    """Of each kernel's narrowing (shift, boost, whether the value's own sign decides), for :class:`BoostedShift`."""
    return {i: (shift, combinations[i].boost, combinations[i].rectified) for i, shift in shifts.items()}


class BoostedShift:
    """The shift by which ``value`` is rounded, from a :class:`Choice` of :func:`boosted_shifts`: a boosted value is
    shifted by as much less. ``condition``: whether that of the kernel holds."""

    def __init__(self, choice: Choice, value, condition):
        self.choice, self.value, self.condition = choice, value, condition
        self.values = sorted({shift for chosen in choice.values for shift in self.shifts(*chosen[:2])})

    @staticmethod
    def shifts(shift, boost):
        """Where the condition holds, and elsewhere."""
        return shift - max(boost, 0), shift + min(boost, 0)

    def of(self, results):
        def chosen(values):
            shift, boost, own = values
            if not boost:
                return results(shift)
            # A value of 0 stays 0, boosted or not.
            holds = ~self.value[-1] if own else self.condition
            return Mux(holds, *(results(shift) for shift in self.shifts(shift, boost)))

        return self.choice.of(chosen)


class Combiner:
    """The full-width path's combination for one kernel of many: what they share, decoded once for all lanes.

    ``kernel`` is that of the cycle before the sums; ``position`` comes with them. Words in the cycle of the sums.
    """

    def __init__(self, m, kernel, combinations: dict, position):
        self.position = position
        self.kinds = Choice(m, kernel, kinds_of(combinations), "kind")
        sources = {i: self.source(c.other) for i, c in combinations.items() if c.other is not None}
        self.sources = Choice(m, kernel, sources, "other_source") if sources else None
        conditions = {i: self.source(c.condition) for i, c in combinations.items() if c.condition is not None}
        self.conditions = Choice(m, kernel, conditions, "condition_source") if conditions else None

        def flag(name, test):
            users = [i for i, c in combinations.items() if test(c)]
            if not users or len(users) == len(combinations):
                return Const(int(bool(users)))
            kept = Signal(name=name, reset_less=True)
            m.d.sync += kept.eq(member(m, kernel, users, f"{name}_ahead"))
            return kept

        self.replaces = flag("replaces", lambda c: c.kind == "replace")
        self.selects = flag("selects", lambda c: c.kind == "select")
        self.masks = flag("masks", lambda c: c.condition is not None and c.kind != "select" and not c.boost)
        self.places = flag("places", lambda c: c.position is not None)
        self.takes = any(c.kind in ("replace", "select") for c in combinations.values())
        self.compares = any(c.position is not None for c in combinations.values())

    @staticmethod
    def source(operand):
        """Where a word comes from: ``row``, ``word``, ``factor`` or ``reduced``."""
        return operand if isinstance(operand, str) else "row" if operand.row else "word"

    def lane(self, m, total, words: dict, conditions: dict, name):
        """The value of one lane, whether it counts (before it is rectified), and whether its condition holds.

        ``words``, ``conditions``: by source; the latter are bits.
        """
        holds = Const(1)
        if self.conditions is not None:
            holds = self.conditions.of(lambda source: conditions[source])
        value = total
        if self.sources is not None:
            other = self.sources.of(lambda source: words[source])
            if self.takes:
                taken = Signal(name=f"{name}_taken")
                m.d.comb += taken.eq(self.replaces | (self.selects & holds))
                shifts = sorted({s for kind, s in self.kinds.values if kind in ("replace", "select")})
                bits = max(len(total), len(other) + shifts[-1])
                instead = Signal(signed(bits), name=f"{name}_instead")
                m.d.comb += instead.eq(
                    self.kinds.of(lambda v: other << v[1] if v[0] in ("replace", "select") else Const(0))
                )
            plain = _Only(self.kinds, ("add", "subtract"))
            value = added(m, total, other, plain, name)
            if self.takes:
                value = Mux(taken, instead, value)
        counts = holds | ~self.masks
        if self.compares:
            counts &= ~self.places | (total == self.position)
        return value, counts, holds


class _Only:
    """A :class:`Choice` of (kind, shift) in which kinds other than ``kinds`` are ``alone``."""

    def __init__(self, choice: Choice, kinds):
        self.choice, self.kinds = choice, kinds
        self.values = [self.seen(value) for value in choice.values]

    def seen(self, value):
        return value if value[0] in self.kinds else ("alone", 0)

    def of(self, results):
        return self.choice.of(lambda value: results(self.seen(value)))

"""Attach sums to the kernels that write what they sum.

A pass over kernels. Precondition: :func:`catgrad_hw.ir.kernel_check.check`. A bias gradient is the sum over the batch
of a product that a kernel computes anyway; beside the write of the product it needs no kernel, no read and no cycle of
its own. The bits are the same either way, since sums are exact in integer kernels::

    d: for j, b: r = e[b, j] * s[b, j]             d: for j, b: r = e[b, j] * s[b, j]
       d[b, j] = r                                    d[b, j] = r
    g: for j: r = sum over b of d[b, j]      →        side sum r of d over b:
       g[j] = r                                         g[j] = r

Only kernels that compute something and reduce nothing take a side sum.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from catgrad_hw.ir.kernel import Access, Kernel, Read, Reduced, SideSum, expression_under, under
from catgrad_hw.ir.kernel_check import reads, results, stores


def attach_side_sums(kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
    """The kernels, in order, with sums attached to their producers where that breaks no order of reads and writes."""
    result: list[Kernel | None] = list(kernels)
    order = _Order(kernels)
    for index, kernel in enumerate(kernels):
        if kernel.reduction != "sum" or not isinstance(kernel.body, Read) or len(kernel.writes) != 1:
            continue
        if kernel.body.access.bounds:
            continue
        for position in order.written[kernel.body.access.array]:
            producer = result[position] if position < index else None
            if producer is None or producer.reduction is not None or _copies(producer):
                continue
            attached = _attach(producer, kernel, kernel.body.access)
            if attached is not None and order.allows(kernel, position, index):
                result[position], result[index] = attached, None
                order.move(kernel, position, index)
                break
    return tuple(kernel for kernel in result if kernel is not None)


class _Order:
    """Which kernels read and write each array, by position."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.read: dict[str, list[int]] = defaultdict(list)
        self.written: dict[str, list[int]] = defaultdict(list)
        for position, kernel in enumerate(kernels):
            self._add(kernel, position)

    def _add(self, kernel: Kernel, position: int) -> None:
        for expression in (kernel.body, *(value for _, value in results(kernel))):
            for access in reads(expression):
                self.read[access.array].append(position)
        for access in stores(kernel):
            self.written[access.array].append(position)

    def allows(self, kernel: Kernel, producer: int, index: int) -> bool:
        """Whether the sum at ``index`` may run with the producer: nothing in between writes what it reads besides the
        sum's source, or reads what it writes; and nothing else writes that."""
        (write,) = kernel.writes
        written = write.access.array
        alone = self.written[written] == [index]
        unread = not any(producer <= position < index for position in self.read[written])
        ready = not any(
            producer <= position < index for access in reads(write.value) for position in self.written[access.array]
        )
        return alone and unread and ready

    def move(self, kernel: Kernel, producer: int, index: int) -> None:
        """Note that the sum at ``index`` now runs with the producer."""
        for expression in (kernel.body, *(value for _, value in results(kernel))):
            for access in reads(expression):
                self.read[access.array].remove(index)
        for access in stores(kernel):
            self.written[access.array].remove(index)
        self._add(kernel, producer)


def _copies(kernel: Kernel) -> bool:
    """Whether a kernel without a reduction copies words, and nothing else."""
    return isinstance(kernel.body, Read) and all(write.value == Reduced() for write in kernel.writes)


def _attach(producer: Kernel, kernel: Kernel, summed: Access) -> Kernel | None:
    (write,) = kernel.writes
    for source, stored in enumerate(producer.writes):
        loops = _match(producer, stored.access, kernel, summed)
        if loops is not None:
            over = [i for group in loops[len(loops) - kernel.reduced :] for i in group]
            names = tuple(loop.name for i, loop in enumerate(producer.loops) if i in over)
            kept = [i for group in loops[: len(loops) - kernel.reduced] for i in group]
            if len(kept) != len(loops) - kernel.reduced:
                continue  # the sum keeps a loop that is several of the producer's
            order = [kept.index(i) if i in kept else None for i in range(len(producer.loops))]
            side = SideSum(source, names, under(write.access, order), expression_under(write.value, order))
            return replace(producer, side_sums=(*producer.side_sums, side))
    return None


def _match(producer: Kernel, stored: Access, kernel: Kernel, summed: Access) -> list[list[int]] | None:
    """For each loop of the sum the producer's loops that run over the same words, outermost first; None where they
    differ."""
    if stored.array != summed.array or stored.offset != summed.offset:
        return None
    places = {
        (stride, loop.size): i for i, (stride, loop) in enumerate(zip(stored.strides, producer.loops, strict=True))
    }
    if len(places) < len(producer.loops):
        return None
    result = []
    for stride, loop in zip(summed.strides, kernel.loops, strict=True):
        group: list[int] = []
        size = loop.size
        while size > 1 or not group:  # from the innermost of the producer's loops outwards
            found = next((place for place in places if place[0] == stride and size % place[1] == 0), None)
            if found is None:
                return None
            group.insert(0, places.pop(found))
            stride, size = stride * found[1], size // found[1]
        result.append(group)
    return None if places else result

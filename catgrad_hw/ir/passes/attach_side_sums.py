"""Attach sums to the kernels that write what they sum.

A pass over kernels. Precondition: :func:`catgrad_hw.ir.kernel_check.check`. A bias gradient is the sum over the batch
of a product that a kernel computes anyway; beside the write of the product it needs no kernel, no read and no cycle of
its own. The bits are the same either way, since sums are exact in integer kernels::

    d: for j, b: r = e[b, j] * s[b, j]             d: for j, b: r = e[b, j] * s[b, j]
       d[b, j] = r                                    d[b, j] = r
    g: for j: r = sum over b of d[b, j]      →        side sum r of d over b:
       g[j] = r                                         g[j] = r

Only kernels that multiply and reduce nothing take a side sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from catgrad_hw.ir.kernel import Access, Apply, Expression, Kernel, Read, SideSum
from catgrad_hw.ir.kernel_check import reads, results, stores


def attach_side_sums(kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
    """The kernels, in order, with sums attached to their producers where that breaks no order of reads and writes."""
    result = list(kernels)
    index = 0
    while index < len(result):
        attached = _attach(result, index)
        if attached is None:
            index += 1
        else:
            producer, kernel = attached
            result[producer] = kernel
            del result[index]
    return tuple(result)


def _attach(kernels: Sequence[Kernel], index: int) -> tuple[int, Kernel] | None:
    kernel = kernels[index]
    if kernel.reduction != "sum" or not isinstance(kernel.body, Read) or len(kernel.writes) != 1 or kernel.side_sums:
        return None
    summed, write = kernel.body.access, kernel.writes[0]
    for position in range(index):
        producer = kernels[position]
        if producer.reduction is not None or not isinstance(producer.body, Apply):
            continue
        for source, stored in enumerate(producer.writes):
            loops = _match(producer, stored.access, kernel, summed)
            if loops is None or not _in_order(kernels, position, index):
                continue
            kept = len(kernel.loops) - kernel.reduced
            over = {loops[i] for i in range(kept, len(loops))}
            names = tuple(loop.name for i, loop in enumerate(producer.loops) if i in over)
            count = len(producer.loops)
            side = SideSum(source, names, _move(write.access, loops, count), _moved(write.value, loops, count))
            return position, replace(producer, side_sums=(*producer.side_sums, side))
    return None


def _match(producer: Kernel, stored: Access, kernel: Kernel, summed: Access) -> list[int] | None:
    """For each loop of the sum the producer's loop that runs over the same words; None where they differ."""
    if stored.array != summed.array or stored.offset != summed.offset or len(producer.loops) != len(kernel.loops):
        return None
    places = [(stride, loop.size) for stride, loop in zip(stored.strides, producer.loops, strict=True)]
    wanted = [(stride, loop.size) for stride, loop in zip(summed.strides, kernel.loops, strict=True)]
    if len(set(places)) < len(places) or sorted(places) != sorted(wanted):
        return None
    return [places.index(place) for place in wanted]


def _in_order(kernels: Sequence[Kernel], producer: int, index: int) -> bool:
    """Whether the sum at ``index`` may run with the producer: it reads nothing that is written in between, and
    writes nothing that is read or written from the producer on."""
    kernel = kernels[index]
    written = kernel.writes[0].access.array
    needed = {access.array for access in reads(kernel.writes[0].value)}
    for other in [*kernels[producer:index], *kernels[index + 1 :]]:
        if any(access.array == written for access in stores(other)):
            return False
    for other in kernels[producer:index]:
        values = [other.body, *(value for _, value in results(other))]
        if any(access.array in needed for access in stores(other)):
            return False
        if any(access.array == written for value in values for access in reads(value)):
            return False
    return True


def _move(access: Access, loops: Sequence[int], count: int) -> Access:
    strides = [0] * count
    for old, new in enumerate(loops):
        strides[new] = access.strides[old]
    return Access(access.array, access.offset, tuple(strides))


def _moved(expression: Expression, loops: Sequence[int], count: int) -> Expression:
    match expression:
        case Read(access):
            return Read(_move(access, loops, count))
        case Apply(name, arguments):
            return Apply(name, tuple(_moved(argument, loops, count) for argument in arguments))
    return expression

"""String diagrams as SVG.

Operations are boxes, wires run from left to right; copying is a dot that splits a wire, discarding a dot that ends it.
The layout is that of layered graph drawing (Sugiyama, Tagawa and Toda, 1981): ranks by longest path, orders within
ranks by barycentres, heights by averaging over neighbours.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from catgrad_hw.compile import factor_parameters
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.hypergraph import Flat, Generator, OpenHypergraph
from catgrad_hw.ir.optics import rdiff
from catgrad_hw.ir.types import NdArrayType

RANK = 54
"""Pixels between the columns of boxes, beside the boxes' widths."""

PORT = 20
"""Pixels between the wires at a box."""

GAP = 14
"""Pixels between neighbours in a column, at least."""

MARGIN = 16
TITLE = 26
SWEEPS = 24

COLOURS = {
    "Parameter": "#fde7c7",
    "Constant": "#f1f3f4",
    "Compose": "#d9e8fb",
    "MatrixMultiply": "#d9e8fb",
    "Convolution": "#d9e8fb",
    "Multiply": "#d9e8fb",
    "Add": "#e2f3e5",
    "Subtract": "#e2f3e5",
    "NAdd": "#e2f3e5",
}
"""Of boxes; products blue, sums green, parameters orange, the rest violet."""
OTHER = "#ece6f6"


@dataclass(eq=False)
class _Vertex:
    """A box, an end of the diagram, or a bend of a long wire; ``y`` is its middle."""

    rank: int
    inputs: int
    outputs: int
    operation: Generator | None = None
    y: float = 0.0
    before: list[tuple[_Vertex, float, float]] = field(default_factory=list)
    after: list[tuple[_Vertex, float, float]] = field(default_factory=list)

    @property
    def is_dot(self) -> bool:
        return isinstance(self.operation, ops.Copy | ops.Discard)

    @property
    def height(self) -> float:
        if self.operation is None or self.is_dot:
            return 8.0
        return max(26.0, PORT * max(self.inputs, self.outputs))

    @property
    def width(self) -> float:
        if self.operation is None:
            return 0.0
        return 8.0 if self.is_dot else max(26.0, 7.0 * len(label(self.operation)) + 14)

    def port(self, index: int, count: int) -> float:
        """The height of a port relative to the middle."""
        return 0.0 if self.is_dot else PORT * (index - (count - 1) / 2)


def label(operation: Generator) -> str:
    """What a box says."""
    match operation:
        case ops.Constant():
            return f"{operation.x:g}"
        case ops.Parameter():
            return "parameter"
    return type(operation).__name__


def svg(f: OpenHypergraph, title: str = "") -> str:
    """A diagram as a standalone SVG image."""
    body, width, height = _panel(f.flat, title)
    return _image(body, width, height)


def panels(diagrams: Sequence[tuple[str, OpenHypergraph]]) -> str:
    """Several diagrams with titles, one below the other, as one SVG image."""
    parts, width, height = [], 0.0, 0.0
    for title, f in diagrams:
        body, w, h = _panel(f.flat, title)
        parts.append(f'<g transform="translate(0 {height:g})">\n{body}\n</g>')
        width, height = max(width, w), height + h
    return _image("\n".join(parts), width, height)


def _image(body: str, width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


def draw_model(model: OpenHypergraph) -> str:
    """A model with its parameters inside, and its reverse derivative, as one SVG image."""
    _, f = factor_parameters(model)
    return panels(
        [
            (f"model : {model.source} → {model.target}", model),
            (f"reverse derivative : {f.source} ● {f.target} → {f.source}", rdiff(f)),
        ]
    )


# --- layout -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wire:
    """A wire through vertices of consecutive ranks, with the heights of its ends relative to their middles."""

    vertices: tuple[_Vertex, ...]
    start: float
    end: float
    type: NdArrayType


def _ranks(flat: Flat) -> list[int]:
    """The column of each edge, from 1: after what it reads, and late where that makes no wire longer."""
    producer = {node: i for i, edge in enumerate(flat.edges) for node in edge.targets}
    index = {id(edge): i for i, edge in enumerate(flat.edges)}
    rank = [1] * len(flat.edges)
    order = [index[id(edge)] for edge in flat.schedule()]
    for i in order:
        rank[i] = 1 + max((rank[producer[n]] for n in flat.edges[i].sources if n in producer), default=0)
    readers: dict[int, list[int]] = {}
    for i, edge in enumerate(flat.edges):
        for node in edge.sources:
            readers.setdefault(node, []).append(i)
    for i in reversed(order):
        edge = flat.edges[i]
        later = [rank[j] for node in edge.targets for j in readers.get(node, [])]
        if later and len(edge.sources) <= len(edge.targets):
            rank[i] = min(later) - 1
    return rank


def _graph(flat: Flat) -> tuple[list[list[_Vertex]], list[_Wire]]:
    """Vertices by column, ends of the diagram first and last, and the wires between them."""
    rank = _ranks(flat)
    last = max(rank, default=0) + 1
    columns: list[list[_Vertex]] = [[] for _ in range(last + 1)]

    def add(vertex: _Vertex) -> _Vertex:
        columns[vertex.rank].append(vertex)
        return vertex

    from_node: dict[int, tuple[_Vertex, float]] = {}
    for node in flat.sources:
        from_node[node] = (add(_Vertex(0, 0, 1)), 0.0)
    boxes = []
    for edge, r in zip(flat.edges, rank, strict=True):
        box = add(_Vertex(r, len(edge.sources), len(edge.targets), edge.operation))
        boxes.append(box)
        for i, node in enumerate(edge.targets):
            from_node[node] = (box, box.port(i, len(edge.targets)))
    wires = []

    def connect(node: int, end: _Vertex, height: float) -> None:
        if node not in from_node:
            return
        start, offset = from_node[node]
        bends = [add(_Vertex(r, 1, 1)) for r in range(start.rank + 1, end.rank)]
        path = (start, *bends, end)
        wires.append(_Wire(path, offset, height, flat.nodes[node]))
        heights = [offset, *(0.0 for _ in bends), height]
        for a, b, at, to in zip(path, path[1:], heights, heights[1:], strict=False):
            a.after.append((b, at, to))
            b.before.append((a, at, to))

    for edge, box in zip(flat.edges, boxes, strict=True):
        for i, node in enumerate(edge.sources):
            connect(node, box, box.port(i, len(edge.sources)))
    for node in flat.targets:
        connect(node, add(_Vertex(last, 1, 0)), 0.0)
    return columns, wires


def _wanted(vertex: _Vertex) -> float | None:
    """The height at which a vertex's wires would be straight, on average."""
    heights = [v.y + at - to for v, at, to in vertex.before] + [v.y + to - at for v, at, to in vertex.after]
    return sum(heights) / len(heights) if heights else None


def _place(columns: list[list[_Vertex]]) -> None:
    for column in columns:
        _stack(column)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for number in range(len(columns)) if forward else range(len(columns) - 1, -1, -1):
            column = columns[number]
            fixed = number in (0, len(columns) - 1)  # the order of the diagram's ends is given
            heights = {id(v): v.y if (wanted := _wanted(v)) is None else wanted for v in column}
            if not fixed and sweep < SWEEPS // 2:
                column.sort(key=lambda v: heights[id(v)])
            for v in column:
                v.y = heights[id(v)]
            _separate(column)
    top = min((v.y - v.height / 2 for column in columns for v in column), default=0.0)
    for column in columns:
        for v in column:
            v.y -= top


def _stack(column: list[_Vertex]) -> None:
    y = 0.0
    for v in column:
        v.y = y + v.height / 2
        y += v.height + GAP


def _separate(column: list[_Vertex]) -> None:
    """Keep neighbours apart: blocks of vertices that would overlap move to their mean (pool adjacent violators)."""
    blocks: list[tuple[float, list[tuple[_Vertex, float]], float]] = []  # wanted top, members with offsets, height
    for v in column:
        wanted, members, height = v.y - v.height / 2, [(v, 0.0)], v.height + GAP
        while blocks and blocks[-1][0] + blocks[-1][2] > wanted:
            top, earlier, above = blocks.pop()
            n, m = len(earlier), len(members)
            wanted = (top * n + (wanted - above) * m) / (n + m)
            members = earlier + [(u, offset + above) for u, offset in members]
            height += above
        blocks.append((wanted, members, height))
    for top, members, _ in blocks:
        for v, offset in members:
            v.y = top + offset + v.height / 2


# --- drawing ----------------------------------------------------------------------------------------------------


def _panel(flat: Flat, title: str) -> tuple[str, float, float]:
    """The elements of one diagram with its title, and the size."""
    columns, wires = _graph(flat)
    _place(columns)
    labels = [[_shape(flat.nodes[n]) for n in ends] for ends in (flat.sources, flat.targets)]
    left, right = (MARGIN + 7 * max(map(len, side), default=0) for side in labels)
    head = TITLE if title else 0
    centre, x = [], float(left)
    for number, column in enumerate(columns):
        width = max((v.width for v in column), default=0.0)
        centre.append(x + width / 2)
        x += width + (RANK if number + 1 < len(columns) else 0)
    down = MARGIN + head
    lines = [f'<text x="{MARGIN}" y="{MARGIN + 6}" font-weight="bold">{escape(title)}</text>'] if title else []
    for wire in wires:
        lines.append(_curve(wire, centre, down))
    for column in columns:
        for v in column:
            if v.operation is not None:
                lines.append(_box(v, v.operation, centre[v.rank], down))
    for side, ends, at, anchor in (
        (labels[0], columns[0], left - 6, "end"),
        (labels[1], columns[-1] if len(columns) > 1 else [], x + 6, "start"),
    ):
        shown = [v for v in ends if v.operation is None]
        for text, v in zip(side, shown, strict=False):
            lines.append(f'<text x="{at:g}" y="{v.y + down + 4:.1f}" text-anchor="{anchor}" fill="#555">{text}</text>')
    bottom = max((v.y + v.height / 2 for column in columns for v in column), default=0.0)
    wide = x + right + MARGIN
    return "\n".join(lines), max(wide, MARGIN * 2 + 7.5 * len(title)), bottom + down + MARGIN


def _shape(T: NdArrayType) -> str:
    name = "" if T.dtype.is_floating() else f"{T.dtype.name} "
    return name + ("×".join(map(str, T.shape)) or "scalar")


def _curve(wire: _Wire, centre: Sequence[float], down: float) -> str:
    first, last = wire.vertices[0], wire.vertices[-1]
    points = [(centre[first.rank] + first.width / 2, first.y + wire.start)]
    points += [(centre[v.rank], v.y) for v in wire.vertices[1:-1]]
    points.append((centre[last.rank] - last.width / 2, last.y + wire.end))
    path = f"M{points[0][0]:.1f} {points[0][1] + down:.1f}"
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        middle = (x0 + x1) / 2
        path += f"C{middle:.1f} {y0 + down:.1f} {middle:.1f} {y1 + down:.1f} {x1:.1f} {y1 + down:.1f}"
    return (
        f'<path d="{path}" fill="none" stroke="#456" stroke-width="1.4"><title>{escape(str(wire.type))}</title></path>'
    )


def _box(v: _Vertex, operation: Generator, x: float, down: float) -> str:
    y, hint = v.y + down, f"<title>{escape(_hint(operation))}</title>"
    if v.is_dot:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#234">{hint}</circle>'
    colour = COLOURS.get(type(operation).__name__, OTHER)
    return (
        f'<g>{hint}<rect x="{x - v.width / 2:.1f}" y="{y - v.height / 2:.1f}" width="{v.width:g}" '
        f'height="{v.height:g}" rx="5" fill="{colour}" stroke="#345"/>'
        f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(label(operation))}</text></g>'
    )


def _hint(operation: Generator) -> str:
    return f"{type(operation).__name__} : {operation.source()} → {operation.target()}"

"""C for the dtypes besides float32: int32, which wraps, and bool, the field Z_2.

Signed overflow is undefined in C, so int32 is added and multiplied as uint32; converting back wraps on every compiler
in use (C leaves it to them). An element of Z_2 is a byte that is 0 or 1; sums of products are taken mod 256, and their
last bit is the parity.
"""

from __future__ import annotations

from collections.abc import Mapping

from catgrad_hw.ir.kernel import Apply, Array, Constant, Expression, Kernel, Reduced
from catgrad_hw.ir.types import Dtype
from catgrad_hw.targets.c import WORDS, FloatRenderer
from catgrad_hw.targets.clike import Scope, bare

BOOLEAN: Mapping[str, str] = {
    "add": "({} ^ {})",
    "subtract": "({} ^ {})",
    "multiply": "({} & {})",
    "divide": "({} & {})",
    "greater": "({} & ({} ^ 1))",
    "power": "({} | ({} ^ 1))",
    "invert": "({} ^ 1)",
    "select": "({} ? {} : {})",
}
"""Elementwise functions on Z_2."""

INTEGER: Mapping[str, str] = {
    "add": "int32_t {name}(int32_t x, int32_t y) {{ return (int32_t)((uint32_t)x + (uint32_t)y); }}",
    "subtract": "int32_t {name}(int32_t x, int32_t y) {{ return (int32_t)((uint32_t)x - (uint32_t)y); }}",
    "multiply": "int32_t {name}(int32_t x, int32_t y) {{ return (int32_t)((uint32_t)x * (uint32_t)y); }}",
    "greater": "int32_t {name}(int32_t x, int32_t y) {{ return x > y; }}",
    "select": "int32_t {name}(int32_t c, int32_t x, int32_t y) {{ return c > 0 ? x : y; }}",
    "invert": "int32_t {name}(int32_t x) {{ return ~x; }}",
    "divide": """\
int32_t {name}(int32_t x, int32_t y) {{ /* rounded down; 0 where y is 0 */
  if (y == 0)
    return 0;
  if (y == -1)
    return (int32_t)(0u - (uint32_t)x);
  return x / y - (x % y != 0 && (x < 0) != (y < 0));
}}""",
    "power": """\
int32_t {name}(int32_t x, int32_t y) {{ /* for y >= 0 */
  uint32_t result = 1, base = (uint32_t)x;
  for (; y > 0; y >>= 1, base *= base)
    if (y & 1)
      result *= base;
  return (int32_t)result;
}}""",
}
"""Elementwise functions on int32."""


class TypedRenderer(FloatRenderer):
    """Kernels of any dtype. ``functions`` collects the source of the integer functions that they call, in order."""

    def __init__(self, target: str, places: Mapping[str, str], arrays: Mapping[str, Array]) -> None:
        super().__init__(target, places)
        self.arrays = arrays
        self.functions: dict[str, str] = {}

    def dtype(self, kernel: Kernel) -> Dtype:
        return self.arrays[kernel.writes[0].access.array].dtype

    def declaration(self, expression: Expression, kernel: Kernel) -> str:
        return WORDS[self.dtype(kernel)]

    def accumulator(self, kernel: Kernel) -> str:
        if self.dtype(kernel) is Dtype.int32 and kernel.reduction == "sum":
            return "uint32_t"
        return WORDS[self.dtype(kernel)]

    def term(self, text: str, kernel: Kernel) -> str:
        if self.dtype(kernel) is Dtype.bool:  # & binds less tightly than +
            return f"({text})"
        return f"(uint32_t){text}" if self.accumulator(kernel) == "uint32_t" else text

    def least(self, kernel: Kernel) -> str:
        return {Dtype.float32: "-INFINITY", Dtype.int32: "INT32_MIN", Dtype.bool: "0"}[self.dtype(kernel)]

    def expression(self, expression: Expression, kernel: Kernel, scope: Scope) -> str:
        text = super().expression(expression, kernel, scope)
        if not isinstance(expression, Reduced) or kernel.reduction != "sum" or expression in scope.names:
            return text
        return {Dtype.float32: text, Dtype.int32: f"(int32_t){text}", Dtype.bool: f"({text} & 1)"}[self.dtype(kernel)]

    def spell(self, expression: Expression, kernel: Kernel, scope: Scope) -> str:
        dtype = self.dtype(kernel)
        match expression:
            case Constant(value) if dtype is Dtype.bool:
                return str(int(value) % 2)
            case Constant(value) if dtype is Dtype.int32:
                least = value == -(2**31)
                return "INT32_MIN" if least else f"({value})" if value < 0 else str(value)
            case Apply(operation, arguments) if dtype is Dtype.bool and operation in BOOLEAN:
                return BOOLEAN[operation].format(*(self.expression(e, kernel, scope) for e in arguments))
            case Apply(operation, arguments) if dtype is Dtype.int32 and operation in INTEGER:
                name = f"{operation}_int32"
                self.functions[name] = f"static inline {INTEGER[operation].format(name=name)}\n"
                return f"{name}({', '.join(bare(self.expression(e, kernel, scope)) for e in arguments)})"
            case Apply(operation, _) if not dtype.is_floating():
                raise self.refuse(f"{operation} of {dtype.name}", kernel)
        return super().spell(expression, kernel, scope)

r"""Nearest of at most 16 points without memory look-ups: a table that fits one register (AVX-512).

Sixteen values at once find their codes by bisection over the 15 midpoints. Each of its four steps fetches 16
midpoints with one permutation of a register instead of 16 loads, and one more permutation fetches the points.
The compiler does not find this by itself, hence the instructions spelled out here. They compare exactly what
the tables of `sqlib.kernels.nearest` encode, so both give the same bits; without AVX-512 those are used.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

LANES = 16

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)


def _available() -> bool:
    settings: Any = config
    if settings.CPU_NAME or settings.CPU_FEATURES or not settings.ENABLE_AVX:
        return False  # Numba was told to compile for something else than this processor
    try:
        return bool(binding.get_host_cpu_features().get("avx512f", False))
    except RuntimeError:  # LLVM cannot tell on this kind of machine
        return False


AVAILABLE = _available()


def _search(typingctx, x, i, mean, scale, thresholds, levels, out):  # type: ignore[no-untyped-def]
    """For j < 16: ``out[i + j] = levels[count(thresholds < (x[i + j] - mean) * scale)]``.

    All float32. `thresholds`, sorted, and `levels` have 16 entries, the last threshold infinite. NaN counts
    none.
    """
    signature = types.void(x, i, mean, scale, thresholds, levels, out)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def pointer(position: int, offset: Any = None) -> Any:
            array = context.make_array(signature.args[position])(context, builder, args[position])
            data = array.data if offset is None else builder.gep(array.data, [offset])
            return builder.bitcast(data, _FLOATS.as_pointer())

        def splat(value: Any) -> Any:
            undefined = ir.Constant(_FLOATS, ir.Undefined)
            first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(first, undefined, constant(0))

        def constant(value: int) -> Any:
            return ir.Constant(_INTEGERS, [value] * LANES)

        permute = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_FLOATS, [_FLOATS, _INTEGERS]), "llvm.x86.avx512.permvar.sf.512"
        )
        values = builder.load(pointer(0, args[1]), align=4)
        t = builder.fmul(builder.fsub(values, splat(args[2])), splat(args[3]))
        table = builder.load(pointer(4), align=4)
        code = constant(0)
        for step in (8, 4, 2, 1):
            threshold = builder.call(permute, [table, builder.add(code, constant(step - 1))])
            above = builder.fcmp_ordered(">", t, threshold)
            code = builder.select(above, builder.add(code, constant(step)), code)
        found = builder.call(permute, [builder.load(pointer(5), align=4), code])
        builder.store(found, pointer(6, args[1]), align=4)
        return context.get_dummy_value()

    return signature, codegen


search: Any = intrinsic(_search)

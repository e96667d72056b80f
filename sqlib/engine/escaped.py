"""Products that no intercepted call makes: found below all names, where torch dispatches its operations.

The first pass of calibration runs in a dispatch mode, which sees every operation of its thread, whatever
called it: a scripted function, an operator by its overload, a library in C++. What cannot be intercepted gets
a row in the report. A tensor that no operation of this thread has made is the trace of another thread.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sqlib.engine.ops import Op
from sqlib.engine.tracing import Tracer

ESCAPED = "not quantized: called by a name that sqlib does not intercept"
CUSTOM = "not quantized: an operator of another library, whose products cannot be seen"
OUTSIDE = "not quantized: a tensor comes in that another thread has computed"
THREAD = "not quantized: called from another thread"

_PRODUCTS = {
    *("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution", "conv_tbc"),
    *("cudnn_convolution", "cudnn_convolution_transpose", "miopen_convolution", "_slow_conv2d_forward"),
    *("slow_conv3d_forward", "slow_conv_transpose2d", "slow_conv_transpose3d", "slow_conv_dilated2d"),
    *("slow_conv_dilated3d", "conv_depthwise3d", "_conv_depthwise2d", "_nnpack_spatial_convolution"),
    *("linear", "mkldnn_linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot"),
    *("vdot", "_int_mm", "_scaled_mm", "_grouped_mm", "_scaled_grouped_mm", "_addmm_activation"),
    *("_trilinear", "_cdist_forward", "_euclidean_dist", "_sparse_mm", "sspaddmm", "mkldnn_rnn_layer"),
    *("_cudnn_rnn", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell", "_native_multi_head_attention"),
    *("_transformer_encoder_layer_fwd", "_flash_attention_forward", "_efficient_attention_forward"),
}
_ATTENTION = "_scaled_dot_product"
_OWN = {"aten", "prim", "prims", "profiler", "higher_order"}


class Escaped(TorchDispatchMode):
    """Gives call sites to what the running `tracer` does not intercept."""

    supports_higher_order_operators = True

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer
        self._known: dict[int, weakref.ref[Any]] = {}
        self._collecting = False

    def __enter__(self) -> Escaped:
        # What is there before the pass leaves the youngest generation, what the pass makes stays in it: so
        # parameters, inputs and constants need not be looked for among the million objects of a process.
        self._collecting = gc.isenabled()
        gc.collect(0)
        gc.disable()
        return super().__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self._collecting:
            gc.enable()
        self._known.clear()  # or every tensor of the process would keep a trace of every first pass

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "overloadpacket", func).__name__
        if self.tracer.site is None:
            if getattr(func, "namespace", "aten") not in _OWN:
                self._add(name, CUSTOM)
            elif name in _PRODUCTS or name.startswith(_ATTENTION):
                self._add(name, ESCAPED)
        # `torch.tensor` makes its tensor first, then lifts it in an operation: a constant, or NumPy's.
        for t in tree_leaves((args, kwargs)) if name != "lift_fresh" else []:
            matters = isinstance(t, Tensor) and t.is_floating_point() and t.ndim > 1
            if matters and not self._know(t) and any(o is t for o in gc.get_objects(generation=0)):
                self._add("outside", OUTSIDE)
        out = func(*args, **kwargs)
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                self._know(t)
        return out

    def _add(self, name: str, rule: str) -> None:
        self.tracer.enter(Op(name, ())).rule = rule

    def _know(self, t: Tensor) -> bool:
        """Whether the tensor's memory is known; it is from now on, for as long as it lives."""
        try:
            storage = t.untyped_storage()
        except (RuntimeError, NotImplementedError):  # sparse and the like have no memory of one piece
            return True
        if storage._cdata in self._known:
            return True
        known, key = self._known, storage._cdata
        known[key] = weakref.ref(storage, lambda _: known.pop(key, None))
        return False

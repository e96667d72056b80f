"""Call sites: where in a network a product happens, named so that people and files can refer to it.

A forward pass runs under a torch function mode, which sees every ``conv2d``, ``linear``, ``matmul``, ...
however it is called: by a module, a functional call or an operator. Hooks on the modules tell which module
is running. A site is named by that module's path; the operation is appended unless the module is itself the
layer ("body.0.conv1", but "attn.matmul"), and "#k" counts further calls within one forward pass.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from sqlib.engine import checkpointing, ops
from sqlib.engine.ops import Op, Operand
from sqlib.engine.running import running
from sqlib.engine.site import Handler, Site
from sqlib.errors import InputError, SqlibError


class Elsewhere:
    """Told of modules that run in a thread without a tracer, while `tell` is set."""

    tell: Callable[[str, nn.Module], None] | None = None


class _Enter:
    def __init__(self, path: str, elsewhere: Elsewhere) -> None:
        self.path, self.elsewhere = path, elsewhere
        self.hidden = False  # ran without gradients in a pass with gradients

    def __call__(self, module: nn.Module, args: Any) -> None:
        stack, tracer = running.stack, running.tracer
        if stack is not None:
            layer = isinstance(module, (_ConvNd, nn.Linear))
            stack.append((self.path, type(module).__name__, layer))
            self.hidden |= tracer is not None and tracer.hides()
        elif self.hidden and torch._C._current_graph_task_id() != -1:
            raise InputError(
                f"module {self.path!r} runs again in the backward pass, by a checkpoint function of the "
                "network's own, where its quantizers cannot be put in place: use torch.utils.checkpoint, or "
                "switch checkpointing off"
            )
        elif self.elsewhere.tell is not None:
            self.elsewhere.tell(self.path, module)


class _Leave:
    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        stack = running.stack
        if stack is None:
            return
        # An exception caught inside the network leaves entries of modules that never finished.
        while len(stack) > 1 and stack.pop()[0] != self.path:
            pass


def add_hooks(network: nn.Module) -> Elsewhere:
    """Make every submodule announce itself while `Tracer` runs; the hooks do nothing at other times."""
    elsewhere = Elsewhere()
    for path, module in network.named_modules():
        if path:
            # First in and last out, so that calls made by other hooks (old weight_norm) count as the
            # module's own.
            module.register_forward_pre_hook(_Enter(path, elsewhere), prepend=True)
            module.register_forward_hook(_Leave(path))
    return elsewhere


class Tracer(TorchFunctionMode):
    """Intercepts one forward pass and hands every quantizable call to a `Handler`.

    Parameters
    ----------
    network : nn.Module
        What runs.
    handler : Handler
        Is told.
    recomputes : bool
        Whether activation checkpoints do as they are meant to. If not, they keep everything: for handlers
        that do not give the same twice, and for parts of a network whose input needs no gradient.
    """

    def __init__(self, network: nn.Module, handler: Handler, *, recomputes: bool = True) -> None:
        super().__init__()
        self.handler, self.recomputes = handler, recomputes
        self.site: Site | None = None
        """The call site that runs at the moment."""
        self._graph = self._in_checkpoint = False
        self.root = ("", type(network).__name__, isinstance(network, (_ConvNd, nn.Linear)))
        self.counts: Counter[tuple[str, str]] = Counter()

    def running(self) -> AbstractContextManager[None]:
        """Trace the calls inside the ``with`` block."""
        self._graph = torch.is_grad_enabled()
        if self._graph:
            checkpointing.install()
        return self._trace([self.root])

    @contextmanager
    def _trace(self, stack: list[tuple[str, str, bool]]) -> Iterator[None]:
        outer = running.stack, running.tracer
        running.stack, running.tracer = stack, self
        try:
            with self:
                yield
        finally:
            running.stack, running.tracer = outer

    def snapshot(self) -> Callable[[], AbstractContextManager[None]]:
        """What traces, in a ``with`` block at any time and in any thread, as this tracer would now."""
        twin, stack = copy.copy(self), list(running.stack or [self.root])
        twin.counts = Counter(self.counts)
        path = running.path

        @contextmanager
        def resume() -> Iterator[None]:
            again = copy.copy(twin)
            again.counts = Counter(twin.counts)
            outer, running.path = running.path, path
            try:
                with again._trace(list(stack)):
                    yield
            finally:
                running.path = outer

        return resume

    @property
    def reentrant(self) -> bool:
        """Whether a checkpoint runs that gives only what it returns a gradient."""
        return self._graph and self._in_checkpoint and not torch.is_grad_enabled()

    @contextmanager
    def checkpointed(self) -> Iterator[None]:
        """Inside, modules run in a checkpoint that will trace them the second time, too."""
        outer, self._in_checkpoint = self._in_checkpoint, True
        try:
            yield
        finally:
            self._in_checkpoint = outer

    def hides(self) -> bool:
        """Whether the network has switched gradients off, for all that is known to compute them later."""
        return self._graph and not self._in_checkpoint and not torch.is_grad_enabled()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        op = ops.OPS.get(func)
        if op is not None:
            return self._product(op, func, args, kwargs)
        if func in ops.COMPOSITE:
            with self:
                return ops.opened(func)(*args, **kwargs)
        if func in ops.FUSED:
            raise SqlibError(
                f"torch ran the fused kernel {func.__name__}, whose products cannot be quantized; "
                "call torch.backends.mha.set_fastpath_enabled(False) and try again"
            )
        if func in ops.UNSUPPORTED:
            with self._in(self.enter(Op(ops.UNSUPPORTED[func], ()))):
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    @contextmanager
    def _in(self, site: Site) -> Iterator[None]:
        outer, self.site = self.site, site
        try:
            yield
        finally:
            self.site = outer

    def enter(self, op: Op) -> Site:
        """The call site of a call of `op` now; without operands, one that is not quantized."""
        path, module_type, layer = (running.stack or [self.root])[-1]
        call = self.counts[path, op.name]
        self.counts[path, op.name] += 1
        base = path if layer and path else f"{path}.{op.name}".lstrip(".")
        name = f"{base}#{call}" if call else base

        def make() -> Site:
            return Site(name, base, path, module_type, op.name, -1, call, supported=bool(op.operands))

        return self.handler.enter(name, make)

    def _product(self, op: Op, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if op is ops.EINSUM and not ops.two_operands(args):
            op = Op(op.name, ())  # one, three or more operands: reported, not quantized
        values = [_argument(args, kwargs, o) for o in op.operands]
        if not all(isinstance(v, Tensor) and v.is_floating_point() for v in values):
            op, values = Op(op.name, ()), values[:1]  # integer arithmetic is already discrete
        site = self.enter(op)
        if op.operands and site.supported:
            pairs = zip(op.operands, values, strict=True)
            replaced = [self.handler.operand(site, o, v) for o, v in pairs]
            if op is ops.ATTENTION and site.active:
                new_args, rest = _replace(args, kwargs, op, replaced)
                mapped = Operand(-1, "attention", "attention")
                return ops.attention(
                    *new_args, **rest, on_map=lambda w: self.handler.operand(site, mapped, w)
                )
            args, kwargs = _replace(args, kwargs, op, replaced)
        with self._in(site):
            return func(*args, **kwargs)


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], operand: Operand) -> Any:
    return args[operand.position] if operand.position < len(args) else kwargs.get(operand.keyword)


def _replace(
    args: tuple[Any, ...], kwargs: dict[str, Any], op: Op, values: list[Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    new_args, new_kwargs = list(args), dict(kwargs)
    for operand, value in zip(op.operands, values, strict=True):
        if operand.position < len(args):
            new_args[operand.position] = value
        else:
            new_kwargs[operand.keyword] = value
    return tuple(new_args), new_kwargs

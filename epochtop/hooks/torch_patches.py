"""Where the hooks enter torch: optimizer steps, backward passes, gradient scalers and data loaders.

Never imports torch: it gets the modules when the script has imported them. torch.compile inlines `after_step`, where it
does nothing, and skips every other function of this package, so graphs, guards and recompilations stay as they are.
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from time import perf_counter

from epochtop.hooks.losses import LossReader
from epochtop.hooks.step_hook import make_step_hook
from epochtop.hooks.steps import StepMeter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from epochtop.hooks.steps import Emit


class TorchPatches:
    """Feeds a :class:`StepMeter` from torch."""

    def __init__(self, emit: Emit, report: Callable[[str], None]) -> None:
        self._report = report
        self.optimizers: weakref.WeakSet[Any] = weakref.WeakSet()
        """Optimizers that exist."""
        self.meter = StepMeter(emit, report, variable_name, lambda: len(self.optimizers))
        self.losses = LossReader()
        self.spans: Any | None = None
        """What measures the parts of a step; None outside an analysis. While there is one, no step is on the fast path."""
        self._optimizers: Any = None
        """torch.optim.optimizer until steps are hooked."""
        self._compiler: Any = None
        """torch.compiler, once it is imported."""

    def patches(self) -> dict[str, Callable[[Any], None]]:
        """Patch by the module that it changes."""
        return {
            "torch.optim.optimizer": self.patch_optimizer,
            "torch.compiler": self.patch_compiler,
            "torch.autograd": self.patch_autograd,
            "torch.amp.grad_scaler": self.patch_scaler,
            "torch.utils.data.dataloader": self.patch_data_loader,
            "torch._dynamo.trace_rules": self.patch_trace_rules,
        }

    def patch_optimizer(self, module: Any) -> None:
        """See every optimizer and every step."""
        if not hasattr(module, "register_optimizer_step_post_hook"):
            self._report("this torch has no hooks for all optimizers; losses need torch 2.0 or later")
            return
        original, optimizers = module.Optimizer.__init__, self.optimizers

        @functools.wraps(original)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(self, *args, **kwargs)
            optimizers.add(self)

        module.Optimizer.__init__ = __init__
        self._optimizers = module
        self._add_step_hook()

    def patch_compiler(self, module: Any) -> None:
        """Ask it in every step whether it compiles. It is imported after the optimizers."""
        self._compiler = module
        self._add_step_hook()

    def _add_step_hook(self) -> None:
        """Let torch call the meter after every step, once both modules are known. Torch 2.0 does not call it while compiling."""
        optimizers, compiler = self._optimizers, self._compiler
        if optimizers is None:
            return
        version = tuple(map(int, sys.modules["torch"].version.__version__.split(".")[:2]))
        if compiler is None and version >= (2, 1):
            return
        is_compiling = _never
        if compiler is not None:
            is_compiling = compiler.is_dynamo_compiling if version >= (2, 4) else compiler.is_compiling
        optimizers.register_optimizer_step_post_hook(make_step_hook(is_compiling, self.meter))
        self._optimizers = None

    def patch_autograd(self, module: Any) -> None:
        """See every backward pass: `Tensor.backward` looks `torch.autograd.backward` up here.

        The first one of a usual step takes the fast path.
        """
        original, losses, meter = module.backward, self.losses, self.meter
        waiting, fast = meter.waiting, meter.fast

        @functools.wraps(original)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if fast.inside:  # a backward pass within another one, as in a checkpointed model
                return original(tensors, *args, **kwargs)
            fast.inside = True
            spans = self.spans
            began = perf_counter() if spans is not None else 0.0
            try:
                loss = losses.read(tensors)
                if type(loss) is float and not isinstance(tensors, (tuple, list)):
                    fast.loss_class = tensors.__class__
            except Exception as error:
                loss = None
                self._report(f"a loss was not recorded: {type(error).__name__}: {error}")
            try:
                result = original(tensors, *args, **kwargs)
            finally:
                fast.inside = False
                if spans is not None:
                    spans.add("backward", began)
            if loss is not None:
                fast.leave(waiting)
                waiting.append(loss)
                if len(waiting) >= meter.many:
                    self._look()
            return result

        @functools.wraps(original)
        def first_backward(
            tensors: Any,
            grad_tensors: Any = None,
            retain_graph: Any = None,
            create_graph: Any = False,
            grad_variables: Any = None,
            inputs: Any = None,
        ) -> Any:
            path = fast
            if tensors.__class__ is not path.expected_class or grad_tensors is not None or not tensors.is_cpu:
                return backward(tensors, grad_tensors, retain_graph, create_graph, grad_variables, inputs)
            try:
                loss = tensors.item()
            except Exception:  # not one value: torch refuses it, with its own words
                return original(tensors, grad_tensors, retain_graph, create_graph, grad_variables, inputs)
            path.inside, path.expected_class = True, None
            try:
                result = original(tensors, grad_tensors, retain_graph, create_graph, grad_variables, inputs)
            finally:
                path.inside = False
            path.loss = loss
            return result

        module.backward = first_backward if _names(original) == _names(first_backward) else backward

    def _look(self) -> None:
        try:
            self.meter.look()
        except Exception as error:  # a fault of ours must not end the script
            self._report(f"a loss was not recorded: {type(error).__name__}: {error}")

    def patch_scaler(self, module: Any) -> None:
        """Remember the loss before a gradient scaler multiplies it."""
        original, scaled_loss = module.GradScaler.scale, self.scaled

        @functools.wraps(original)
        def scale(self: Any, outputs: Any) -> Any:
            scaled = original(self, outputs)
            scaled_loss(self, outputs, scaled)
            return scaled

        module.GradScaler.scale = scale

    def scaled(self, scaler: Any, loss: Any, result: Any) -> None:
        """A gradient scaler has multiplied a loss."""
        self.meter.fast.close()
        self.losses.scaled(scaler, loss, result)

    def patch_data_loader(self, module: Any) -> None:
        """Time the wait for the next batch."""
        iterator, meter = module._BaseDataLoaderIter, self.meter
        original = iterator.__next__

        @functools.wraps(original)
        def __next__(loader: Any) -> Any:  # noqa: N807
            began = perf_counter()
            try:
                return original(loader)
            finally:
                meter.data_wait_s += perf_counter() - began
                meter.fast.close()
                if self.spans is not None:
                    self.spans.add("data_wait", began)

        iterator.__next__ = __next__

    @staticmethod
    def patch_trace_rules(module: Any) -> None:
        """Tell torch.compile to skip the functions of this package."""
        for name in ("torch_patches", "losses", "steps"):
            module.add(f"epochtop.hooks.{name}")


def _never() -> bool:
    """Stands for torch.compiler, where there is none."""
    return False


def _names(function: Callable[..., Any]) -> list[str]:
    """Names of its parameters, in order."""
    return list(inspect.signature(function, follow_wrapped=False).parameters)


def variable_name(optimizer: Any) -> str:
    """Name of the variable or attribute that holds an optimizer in a calling function; empty if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(("torch.", "epochtop.")):
            for scope in (frame.f_locals, getattr(frame.f_locals.get("self"), "__dict__", {}), frame.f_globals):
                for name, value in list(scope.items()):
                    if value is optimizer and name != "self":
                        return str(name)
        frame = frame.f_back
    return ""

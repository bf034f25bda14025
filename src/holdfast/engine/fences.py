"""Before an optimizer's step: wait for what still has to be copied of the state it will change."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook


class watch_optimizers:  # noqa: N801 - used like a function
    """Call ``fence`` before the step of every optimizer of the process, until ``remove`` is called.

    A step that is given a closure runs forward and backward inside, so for torch's own optimizers, which
    all call it before they change anything, the fence moves to the closure's end. Lightning always
    steps that way.
    """

    def __init__(self, fence: Callable[[], None]) -> None:
        """Register torch's hook. It does not keep alive whose method ``fence`` is, and goes with it."""
        self._fence = weakref.WeakMethod(fence)
        self._handle = register_optimizer_step_pre_hook(self._before)
        weakref.finalize(fence.__self__, self._handle.remove).atexit = False  # type: ignore[attr-defined]

    def remove(self) -> None:
        """Remove the hook."""
        self._handle.remove()

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the step's arguments, its closure fenced; or None, the fence behind us."""
        ours = type(optimizer).__module__.startswith("torch.optim")
        if ours and args[1:] and callable(args[1]):
            return (args[0], self._fenced(args[1]), *args[2:]), kwargs
        if ours and callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._fenced(kwargs["closure"])}
        self._call()
        return None

    def _call(self) -> None:
        fence = self._fence()
        if fence is not None:
            fence()

    def _fenced(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def closure_and_fence() -> Any:
            result = closure()
            self._call()
            return result

        return closure_and_fence

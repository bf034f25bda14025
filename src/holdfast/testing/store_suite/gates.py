"""The gate of a write: asked once, when all bytes are there and none is seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.storage import Blob, Store
from holdfast.testing.store_suite.base import Exam
from holdfast.testing.store_suite.material import (
    POOL,
    Sudden,
    aligned,
)


class Gates(Exam):
    """The gate of a write: asked once, when all bytes are there and none is seen."""

    @pytest.mark.parametrize("size", [0, 5, 5 << 20])
    def test_the_gate(self, store: Store, size: int) -> None:
        """The gate is called once, after the last byte was taken, while the old blob is still what all see."""
        store.put("x.ckpt", [b"old"])
        seen: list[Any] = []

        def chunks() -> Iterator[bytes | memoryview]:
            yield from (aligned(POOL[:size]), POOL[:100])
            seen.append("all bytes")

        def gate() -> None:
            seen.append((store.read("x.ckpt", 0, 99), store.blobs()))

        store.put("x.ckpt", chunks(), gate=gate)
        store.put("y.ckpt", [], gate=lambda: seen.append(store.exists("y.ckpt")))
        assert seen == ["all bytes", (b"old", [Blob("x.ckpt", 3)]), False]
        assert store.read("x.ckpt", 0, size + 999) == POOL[:size] + POOL[:100]
        assert store.exists("y.ckpt")

    @pytest.mark.parametrize("error", [OSError("the gate is shut"), RuntimeError("odd"), Sudden()], ids=type)
    @pytest.mark.parametrize("size", [3, 5 << 20])
    def test_a_gate_that_is_shut(self, store: Store, error: BaseException, size: int) -> None:
        """If the gate raises, its error comes out, the old blob stays, and nothing new is there under any name."""
        store.put("x.ckpt", [b"old"])

        def gate() -> None:
            raise error

        for name in ("x.ckpt", "y.ckpt"):
            with pytest.raises(type(error)) as caught:
                store.put(name, [aligned(POOL[:size]), b"end"], gate=gate)
            assert caught.value is error
        assert store.read("x.ckpt", 0, 99) == b"old"
        assert self.everything(store) == ["x.ckpt"]
        store.put("y.ckpt", [b"next"])
        assert store.read("y.ckpt", 0, 99) == b"next"

"""Strategies that write directories of shards themselves (FSDP, FSDP2, tensor parallel): committed and verified by us.

Lightning gives them no extension point: they call ``torch.distributed.checkpoint`` past every ``CheckpointIO``. So the
one strategy of the one Trainer gets these two methods in the place of its own. The names in the files stay Lightning's,
so that its own loading, and plain DCP, read them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

import torch

from holdfast.errors import SaveError
from holdfast.front.saving import plain_facts
from holdfast.front.sharded import Shares, asked_for, begin_shards, brought, check_shards, save_shards
from holdfast.front.words import is_local, ranks_here
from holdfast.integrations.lightning_io import CheckpointIOCore, Expectation
from holdfast.integrations.trainer_facts import shards_as_fsdp, writes_itself

REST = "meta.pt"  # Lightning's name for the file of all that is neither model nor optimizer
_KNOWN = ("FSDPStrategy.save_checkpoint", "ModelParallelStrategy.save_checkpoint")


class Shards:
    """Saves and loads for one strategy.

    Args:
        strategy: whose methods these stand in for.
        files: the ``CheckpointIO`` that knows what a callback expects.

    """

    def __init__(self, strategy: Any, files: CheckpointIOCore) -> None:
        """Remember the strategy's own way of loading."""
        self._strategy = strategy
        self._files = files
        self._load: Callable[..., dict[str, Any]] = strategy.load_checkpoint

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Commit a checkpoint of all ranks, or begin to: as ``CheckpointIO.save_checkpoint``, on every rank.

        Raises:
            TypeError: if ``storage_options`` are given.
            SaveError: on every rank, naming the path and the cause.

        """
        if storage_options is not None:
            msg = f"`storage_options` (values not shown) cannot be passed to {type(self._strategy).__name__}"
            raise TypeError(msg)
        path = ranks_here().agree(lambda: os.fspath(filepath), at="save_checkpoint")
        facts = plain_facts(checkpoint, reason="requested", kind="lightning")
        shares = self._shares(checkpoint)
        expected = self._files.expected_at(path)
        if expected is None or expected.behind is None:
            save_shards(path, shares, facts)
            return
        try:
            self._begin(expected, shares)
        except SaveError as error:
            expected.error = error

    def _begin(self, expected: Expectation, shares: Shares) -> None:
        assert expected.behind is not None  # noqa: S101 - the caller has looked
        expected.saver = self._files.open_shards(expected.behind.mode.images)
        expected.flight = begin_shards(expected.saver, shares, expected.facts, expected.behind)

    def _shares(self, checkpoint: dict[str, Any]) -> Shares:
        """Split a checkpoint as Lightning's strategies do: the model, each optimizer, and the rest."""
        rest = dict(checkpoint)
        state = {"model" if shards_as_fsdp(self._strategy) else "state_dict": rest.pop("state_dict")}
        for place, optimizer in enumerate(rest.pop("optimizer_states", [])):
            state[f"optimizer_{place}"] = optimizer
        if not ranks_here().leads:
            return Shares(state, {})
        buffer = io.BytesIO()
        torch.save(rest, buffer)
        return Shares(state, {REST: buffer.getvalue()})

    def load_checkpoint(
        self,
        checkpoint_path: str | os.PathLike[str],
        weights_only: bool | None = None,  # noqa: FBT001 - Lightning's signature
    ) -> dict[str, Any]:
        """Load what is whole and safe, by Lightning's own way. ``weights_only=None`` means True: no code is run.

        What holdfast has not committed has no checksums, and is loaded as it is.

        Raises:
            DamagedCheckpointError: on every rank, naming the file and the tensor, before anything is loaded.
            UnsafeCheckpointError: on every rank, naming the classes to allow.

        """
        path = ranks_here().agree(lambda: os.fspath(checkpoint_path), at="load_checkpoint")
        if not is_local(path):  # Lightning's own way knows only folders
            with brought(asked_for(path), getattr(self._strategy, "local_rank", 0)) as here:
                return self._load_here(here, weights_only)
        return self._load_here(path, weights_only)

    def _load_here(self, path: str, weights_only: bool | None) -> dict[str, Any]:  # noqa: FBT001 - handed on
        safe = weights_only is not False
        check_shards(path, self._files.allowed if safe else None, deep=self._files.verify)
        with self._files.permitted():
            return self._load(path, weights_only=safe)


def install_shards(strategy: Any, files: CheckpointIOCore) -> None:
    """Have a strategy that may shard save its directories, and load all it loads, through us; once."""
    known = type(strategy).save_checkpoint.__qualname__ in _KNOWN  # else it is of the user's own making
    if known and not isinstance(getattr(strategy.load_checkpoint, "__self__", None), Shards):
        shards = Shards(strategy, files)
        strategy.load_checkpoint = shards.load_checkpoint
        if writes_itself(strategy):
            strategy.save_checkpoint = shards.save_checkpoint


def shards_through_us(strategy: Any) -> bool:
    """Tell whether a strategy saves directories of shards, and we write them."""
    return isinstance(getattr(strategy.save_checkpoint, "__self__", None), Shards)

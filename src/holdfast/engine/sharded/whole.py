"""A sharded checkpoint as one nested state whose tensors stay on the disk: each is read when its turn comes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, create_default_local_load_plan
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from holdfast.engine.sharded.loading import Filling, check_covered, nested
from holdfast.engine.sharded.reading import Reading
from holdfast.engine.sharded.resting import Resting
from holdfast.engine.streaming import Promises
from holdfast.errors import DamagedCheckpointError
from holdfast.folders import FolderSource
from holdfast.format.shards import Region
from holdfast.records import Manifest

_TO_COME = object()  # stands where a value is going to be


class Whole:
    """A sharded checkpoint, ours or plain DCP's, for those who want all of it and have memory for a part.

    Every byte that is read is checked, as ``read_sharded`` checks it; what plain DCP wrote has no digests.

    Args:
        path: the directory.
        allow: further classes that values may need.
        allow_unsafe: whether a value may name any code at all.

    Raises:
        CheckpointNotFoundError: if there is none.

    """

    def __init__(self, path: str | os.PathLike[str], allow: Sequence[Any] = (), *, allow_unsafe: bool = False) -> None:
        """Look whether it is there."""
        self._resting = _Remembering(path)
        self._reading = Reading(self._resting, allow, allow_unsafe=allow_unsafe)
        self.promises = Promises()

    @property
    def manifest(self) -> Manifest | None:
        """What holdfast says of it; None for what plain DCP has written."""
        return self._resting.manifest

    @property
    def _metadata(self) -> Metadata:
        return self._resting.metadata

    @cached_property
    def state(self) -> dict[Any, Any]:
        """The nested state: all values as they are, and stand-ins from ``promises`` for all tensors.

        Raises:
            DamagedCheckpointError: naming file and value.
            UnsafeCheckpointError: if a value needs classes that are not allowed.

        """
        values: dict[str, Any] = {}
        every: dict[str, Any] = {}
        for name, saved in self._metadata.state_dict_metadata.items():
            if isinstance(saved, TensorStorageMetadata):
                every[name] = self._promise(name, saved)
            else:
                every[name] = _TO_COME
                values[name] = None
        state, found = nested(self._resting, every)
        filling = Filling(self._reading, found, self._metadata)
        filling.state_dict = values
        self._reading.read(create_default_local_load_plan(values, self._metadata, strict=False).items, filling)
        return state

    def _promise(self, name: str, saved: TensorStorageMetadata) -> torch.Tensor:
        try:
            return self.promises.promise(saved.size, saved.properties.dtype, partial(self.read, name))
        except (RuntimeError, MemoryError) as error:  # more than there are addresses for
            problem = f"the metadata say it is of {list(saved.size)}: {str(error).partition(chr(10))[0]}"
            raise DamagedCheckpointError(self._resting.path, name, problem) from error

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor by its flat name, put together from all files that have a part of it.

        Raises:
            DamagedCheckpointError: naming file and tensor.

        """
        saved = self._metadata.state_dict_metadata[name]
        assert isinstance(saved, TensorStorageMetadata)  # noqa: S101 - promised for no other
        check_covered(self._resting.path, name, saved)
        flat = {name: torch.empty(saved.size, dtype=saved.properties.dtype, device="cpu")}
        planner = DefaultLoadPlanner()
        planner.state_dict, planner.metadata = flat, self._metadata
        self._reading.read(create_default_local_load_plan(flat, self._metadata, strict=False).items, planner)
        return flat[name]


class _Remembering(Resting):
    """Keeps the tables of the files: each tensor has parts in all of them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._tables: dict[str, dict[int, Region]] = {}

    def regions(self, name: str, source: FolderSource) -> dict[int, Region]:
        if name not in self._tables:
            self._tables[name] = super().regions(name, source)
        return self._tables[name]

"""A sharded save of two ranks to a server that is told to fail."""

import os

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from holdfast.dcp import StorageWriter
from tests.ranks.jobs_there import tell


def saved(options, patience, url, value):
    """Save what each rank has; return what it was told: "" if all went well."""
    tell(options)
    os.environ["HOLDFAST_PATIENCE"] = patience
    state = {f"w{dist.get_rank()}": torch.full((2000,), float(value)), "n": value}
    try:
        dcp.save(state, storage_writer=StorageWriter(f"{url}/x.ckpt", step=value))
    except (CheckpointException, OSError) as error:
        return str(error) or repr(error)
    return ""

"""A rank whose other rank ends, by an exception that nobody catches or in order; prints what it is told."""

from __future__ import annotations

import os
import sys
import time

import torch.distributed as dist

from holdfast.errors import RankError
from holdfast.ranks import ranks_here

how, path = sys.argv[1:]
rank = int(os.environ["RANK"])
dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
ranks = ranks_here()
ranks.exchange(rank)
if rank == 1:
    time.sleep(0.5)  # rank 0 waits by now
    if how == "uncaught":
        raise MemoryError("no room on this GPU")
    sys.exit(0)
try:
    ranks.agree(lambda: None, at="step 100")
except RankError as error:
    sys.stdout.write(f"{error.rank} {error}\n")

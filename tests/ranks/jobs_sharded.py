"""What the ranks do in the tests of sharded saving and loading."""

import copy
import os
import resource
import signal
import time
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh

from holdfast.engine import Order, SaveStats, ShardedSaver, quiesce, read_sharded, write_sharded
from holdfast.engine.shard_sharing import lease_shards, release_shards
from holdfast.errors import HoldfastError
from holdfast.ranks import ranks_here
from holdfast.records import Facts
from holdfast.snapshot import stepped
from holdfast.storage import open_store
from holdfast.storage.local import LocalStore

KINDS = {"b": torch.bfloat16, "f8": torch.float8_e4m3fn, "c": torch.complex64, "i": torch.int64, "o": torch.bool}


def state_of(seed=1):
    """A state with every kind of thing in it; what is sharded does not divide by the number of ranks."""
    torch.manual_seed(seed)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    whole = {"w": torch.randn(7, 300), "v": torch.randn(5), "big": torch.randn(300, 301)}
    whole |= {name: torch.randn(6, 4).to(kind) for name, kind in KINDS.items()}
    model = {name: distribute_tensor(value, mesh, [Shard(0)], src_data_rank=None) for name, value in whole.items()}
    model["columns"] = distribute_tensor(torch.randn(6, 5), mesh, [Shard(1)], src_data_rank=None)
    model["same"] = distribute_tensor(torch.randn(6, 5), mesh, [Replicate()], src_data_rank=None)
    return {
        "model": model,
        "buffer": torch.arange(10.0) * seed,
        "scalar": torch.tensor(3.0 * seed),
        "none": torch.zeros(0, 3),
        "turned": torch.randn(4, 6).t(),
        "part": torch.randn(9, 9)[2:5, 3:],
        "opt": {
            "state": {0: {"step": torch.tensor(1.0 * seed), "n": 5 * seed}, 1: {}},
            "groups": [{"lr": 0.1 * seed, "params": [0, 1]}],
        },
        "text": "x" * seed,
        "empty": {},
        f"rng.{dist.get_rank()}": torch.full((3,), seed * 10 + dist.get_rank()),
    }


def same(one, other):
    """Tell whether two states are bit-identical, this rank's parts of them."""
    if isinstance(one, DTensor):
        one, other = one.to_local(), other.to_local()
    if isinstance(one, torch.Tensor):
        raw = [x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (one, other)]
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*raw)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def save(folder, names, also=""):
    """Save some states one after the other; return what each rank knows of each."""
    ranks = ranks_here()
    saver = ShardedSaver(ranks)
    known = []
    for seed, name in enumerate(names, 1):
        flight = saver.submit(Order(open_store(folder), name, state_of(seed), Facts(step=seed), also=also))
        flight.wait()
        known.append((flight.committed, str(flight.error or ""), str(flight.link_error or ""), flight.stamp))
    saver.close()
    return known


def load(folder, name, seed):
    """Load into another state, and compare with the one that was saved."""
    into = state_of(seed + 5)
    del into["opt"]["state"][1]
    into["opt"]["state"][1] = {}
    wanted = state_of(seed)
    mine = f"rng.{dist.get_rank()}"
    missing = read_sharded(os.path.join(folder, name), into, ranks=ranks_here(), partial=True)
    if missing:
        assert missing == (mine,)
        del into[mine], wanted[mine]
    assert same(wanted, into)
    return missing


def load_plainly(folder, name, seed):
    """Load with DCP alone: what it can take of it, as it knows texts for keys only."""
    warnings.simplefilter("ignore")
    wanted, into = state_of(seed), state_of(seed + 5)
    for state in (wanted, into):
        state["opt"] = state["opt"]["groups"]
        del state[f"rng.{dist.get_rank()}"]
    saved = {**wanted, "opt": {"groups": wanted["opt"]}}
    into["opt"] = {"groups": into["opt"]}
    dcp.load(into, checkpoint_id=os.path.join(folder, name))
    assert same(saved, into)


def save_plainly(folder, name, seed):
    """Save with DCP alone."""
    dcp.save(state_of(seed), checkpoint_id=os.path.join(folder, name))


def fail_to_save(folder, name, where):
    """Save while one rank cannot; return the error that each has, and whether the next save works."""
    ranks = ranks_here()
    saver = ShardedSaver(ranks)
    state = state_of(1)
    store = open_store(folder)
    if where == "disk" and ranks.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if where == "plan" and ranks.rank == 1:
        state = {**state, "a": {"b": 1}, "a.b": 2}
    if where == "pickle" and ranks.rank == 1:
        state[f"rng.{ranks.rank}"] = lambda: 0
    if where == "apart" and ranks.rank == 1:
        del state["model"]["w"]
    try:
        flight = saver.submit(Order(store, name, state, Facts()))
        flight.wait()
        error = flight.error
    except HoldfastError as problem:
        error = problem
    saver.close()
    return type(error).__name__, str(error)


def refuse(folder, names):
    """Load what is damaged; return the error that each rank has, of each."""
    return [_refused(os.path.join(folder, name)) for name in names]


def _refused(path):
    try:
        read_sharded(path, state_of(3), ranks=ranks_here(), partial=True)
    except HoldfastError as error:
        return type(error).__name__, str(error)
    return "", ""


def save_at_once(folder, name):
    """Save and wait for the commit; return what the manifest says."""
    manifest = write_sharded(
        ranks_here(), Order(open_store(folder), name, state_of(1), Facts(step=3)), {"meta.pt": b"m"}
    )
    return manifest.facts.ranks, sorted(record.name for record in manifest.records)


def save_many_ways(folder):
    """Save through two savers side by side, with two states on their way each; return what was seen of it."""
    ranks = ranks_here()
    savers = [ShardedSaver(ranks, images=2) for _ in range(2)]
    rounds = []
    for name in ("gather", "agree"):
        real = getattr(ranks, name)
        setattr(ranks, name, lambda *args, real=real, name=name, **words: rounds.append(name) or real(*args, **words))
    store = open_store(folder)
    states = [state_of(seed) for seed in range(1, 7)]
    flights = []
    for number, state in enumerate(states):
        if number == 4:
            rounds.clear()  # from here on each saver knows its plan
        flights.append(savers[number % 2].submit(Order(store, f"{number}.ckpt", state, Facts(step=number))))
        with torch.no_grad():  # what is taken is taken: training may change everything at once
            for value in (*state["model"].values(), state["buffer"]):
                (value.to_local() if isinstance(value, DTensor) else value).zero_()
    memory = [saver.memory for saver in savers]
    for flight in flights:
        flight.wait()
    for number in range(6):
        into, wanted = state_of(9), state_of(number + 1)
        into["opt"]["state"][1] = {}
        read_sharded(os.path.join(folder, f"{number}.ckpt"), into, ranks=ranks)
        assert same(wanted, into), number
    for saver in savers:
        saver.close()
    errors = [str(flight.error) for flight in flights if flight.error]
    return rounds, errors, memory[0] > 0, [saver.memory for saver in savers]


def change_shape(folder):
    """Save a state that grows and shrinks from save to save; each is what it was."""
    ranks = ranks_here()
    saver = ShardedSaver(ranks)
    for number, size in enumerate((10, 10, 5000, 3, 100_000, 10)):
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        rows = torch.arange(float(size * 3)).view(size, 3)
        state = {"x": distribute_tensor(rows, mesh, [Shard(0)], src_data_rank=None), "n": "y" * size}
        state |= {f"more{place}": torch.full((place,), float(size)) for place in range(number)}
        flight = saver.submit(Order(open_store(folder), f"{number}.ckpt", state, Facts(step=number)))
        flight.wait()
        assert flight.error is None, flight.error
        empty = distribute_tensor(torch.zeros(size, 3), mesh, [Shard(0)], src_data_rank=None)
        into = {**state, "x": empty, "n": "", **{f"more{place}": torch.zeros(place) for place in range(number)}}
        read_sharded(os.path.join(folder, f"{number}.ckpt"), into, ranks=ranks)
        assert same(into, state)
    saver.close()


def fork_in_the_middle(folder):
    """A child that is forked while a save is on its way does not wait for it, and leaves it alone."""
    ranks = ranks_here()
    saver = ShardedSaver(ranks)
    flight = saver.submit(Order(open_store(folder), "a.ckpt", state_of(1), Facts()))
    child = os.fork()
    if not child:
        saver.close()
        os._exit(7 if flight.done and flight.error is not None else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    flight.wait()
    saver.close()
    return code, flight.committed


class Trained(torch.nn.Module):
    """A sharded model, its optimizer, and steps that use no rank but this one."""

    def __init__(self):
        super().__init__()
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        torch.manual_seed(3)
        parts = [distribute_tensor(torch.randn(401, 300), mesh, [Shard(0)], src_data_rank=None) for _ in range(4)]
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(part) for part in parts])
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)

    def step(self):
        for weight in self.weights:
            weight.grad = weight.detach() * 0.1
        self.optimizer.step()

    def state(self):
        return {"model": self.state_dict(), "optimizer": self.optimizer.state_dict()}


def overlap(folder):
    """Save while the copies are made beside the training; rank 1 once changes a weight behind the copy's back."""
    ranks, model = ranks_here(), Trained()
    saver, stats, seen = ShardedSaver(ranks), SaveStats(), []
    for number in range(5):
        model.step()
        wanted = copy.deepcopy(model.state())
        known = stepped(model, [model.optimizer])
        order = Order(
            open_store(folder), f"{number}.ckpt", model.state(), Facts(step=number), stepped=known, stats=stats
        )
        flight = saver.submit(order)
        late = len(flight.taken.later)
        if number == 3 and ranks.rank == 1:
            with torch.no_grad():
                model.weights[2].to_local().add_(1.0)
        model.step()  # its fence waits for the copies
        flight.wait()
        saver.poll()
        seen.append((late > 0, type(flight.error).__name__))
        if flight.committed:
            into = model.state()
            into = {key: copy.deepcopy(value) for key, value in into.items()}
            read_sharded(os.path.join(folder, f"{number}.ckpt"), into, ranks=ranks)
            assert same(wanted, into), number
    saver.close()
    return seen, stats.given_up


def quiesced(folder):
    """Begin a save on a disk that takes its time; what it is before and after all that save have been waited for."""
    put = LocalStore.put

    def slow(store, name, chunks, **words):
        time.sleep(0.3)
        return put(store, name, chunks, **words)

    LocalStore.put = slow
    owner = Owner()
    saver = lease_shards(owner, ranks_here())
    flight = saver.submit(Order(open_store(folder), "a.ckpt", state_of(), Facts()))
    before = flight.done
    quiesce()
    told = before, flight.committed
    release_shards(owner, saver)
    return told


class Owner:
    """Whoever saves."""

"""What differs between the ranks of one training: taken from each at a save, given back to each at a resume.

The random number generators always do. Of the user's own objects those do whose states are not the same on all
ranks, such as the position in a part of the data; what is the same everywhere is saved once, as rank 0 has it.
So do a model's buffers where nobody keeps them alike: the running statistics of a BatchNorm whose data differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from holdfast.front.loop_state import Parts, Restored, bare, give_back, restore, unpacked
from holdfast.ranks import Ranks
from holdfast.snapshot import fingerprint, is_sharded, on_host, rng_state

RANKS = "ranks"  # the key of what each rank has for itself, in the order of the ranks


@dataclass(frozen=True)
class Own:
    """What one rank has, besides model, optimizers and schedulers.

    Attributes:
        rng: its random number generators.
        stateful: the states of all further objects, by name.
        differing: the names of those that are not the same on all ranks.
        buffers: those of the model that are not, by name.

    """

    rng: Mapping[str, Any]
    stateful: Mapping[str, Any]
    differing: tuple[str, ...] = ()
    buffers: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def share(self) -> dict[str, Any]:
        """What no other rank could say."""
        share = {"rng": self.rng, "stateful": {name: self.stateful[name] for name in self.differing}}
        return {**share, "buffers": dict(self.buffers)} if self.buffers else share


def take(parts: Parts, ranks: Ranks, *, weights_only: bool = False) -> Own:
    """Take what this rank has. Every rank calls it. What has sharded tensors belongs to all ranks together.

    Raises:
        RankError: if an object on some rank does not give its state; there its own error.

    """

    def look() -> tuple[Own, dict[str, bytes], dict[str, bytes]]:
        loose = {} if ranks.alone else _loose_buffers(parts.model)
        seen = {name: fingerprint(buffer) for name, buffer in loose.items()}
        if weights_only:
            return Own({}, {}, buffers=loose), {}, seen
        own = Own(rng_state(), {name: item.state_dict() for name, item in parts.others.items()}, buffers=loose)
        asked = {} if ranks.alone else own.stateful
        return own, {name: fingerprint(state) for name, state in asked.items() if not is_sharded(state)}, seen

    own, prints, seen = ranks.together(look, at="the states of a save")
    everybody = ranks.exchange((prints, fingerprint(seen)), at="what differs by rank")
    differing = [name for name in prints if any(other.get(name) != prints[name] for other, _ in everybody)]
    buffers: dict[str, torch.Tensor] = {}
    if any(other != everybody[0][1] for _, other in everybody):
        all_seen = ranks.exchange(seen, at="the buffers that differ by rank")
        both = seen.keys() & all_seen[0].keys()  # what rank 0 has not is not of one model
        apart = [name for name in seen if name in both and any(one.get(name) != seen[name] for one in all_seen)]
        buffers = {name: own.buffers[name] for name in apart}
    return Own(own.rng, own.stateful, tuple(differing), buffers)


def _loose_buffers(model: Any) -> dict[str, torch.Tensor]:
    """Return the model's buffers, as its state has them, that nothing keeps alike on all ranks."""
    inside = bare(model)
    if not isinstance(inside, torch.nn.Module):
        return {}
    named = {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, module in inside.named_modules(remove_duplicate=False)
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set  # noqa: SLF001 - there is no other way to ask
    }
    if inside is not model and model.broadcast_buffers:  # rank 0's are everybody's at the next forward
        named = {name: buffer for name, buffer in named.items() if name in model.parameters_to_ignore}
    return {name: buffer for name, buffer in named.items() if not is_sharded([buffer])}


def gather(own: Own, ranks: Ranks) -> list[dict[str, Any]]:
    """Return what each rank has for itself, in their order, on rank 0; nothing on the others, and for one alone."""
    return [] if ranks.alone else ranks.gather(own.share if ranks.leads else on_host(own.share), at="the ranks' shares")


@dataclass(frozen=True)
class Given:
    """What a checkpoint has for one rank.

    Attributes:
        rng: its random number generators; None where there are none for it.
        stateful: the states of further objects, by name.
        why: what to say of what is missing.
        buffers: those of the model that are its own, by name.
        common: whether it gets those that rank 0 had in the place of its own.

    """

    rng: Mapping[str, Any] | None
    stateful: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    buffers: Mapping[str, torch.Tensor] = field(default_factory=dict)
    common: bool = False


def give(state: Mapping[str, Any], ranks: Ranks) -> Given:
    """Find what a saved state has for this rank.

    Another number of ranks takes what all had in common: there is no telling whose the rest would be.
    """
    shared = {name: unpacked(value) for name, value in dict(state.get("stateful") or {}).items()}
    if state.get("rng") is None and state.get(RANKS) is None:
        return Given(None, shared)
    shares = _shares(state)
    if len(shares) != ranks.size:
        differing = {name for share in shares if share for name in share["stateful"]}
        rest = {name: value for name, value in shared.items() if name not in differing}
        here = "here is 1" if ranks.alone else f"here are {ranks.size}"
        saved = "1 rank" if len(shares) == 1 else f"each of {len(shares)} ranks"
        common = any(share.get("buffers") for share in shares if share)
        return Given(None, rest, f" ({saved} had its own, and {here})", common=common)
    mine = shares[ranks.rank] or {}
    return Given(mine.get("rng"), {**shared, **mine.get("stateful", {})}, buffers=mine.get("buffers", {}))


def _shares(state: Mapping[str, Any]) -> list[Mapping[str, Any] | None]:
    """Return what each rank had for itself; None for those of whom nothing was read."""
    found = state.get(RANKS)
    if found is None:
        return [{"rng": state.get("rng"), "stateful": {}}]
    items = found if isinstance(found, list) else [found[str(rank)] for rank in range(len(found))]
    return [unpacked(item) for item in items]


def put_back(parts: Parts, state: Mapping[str, Any], path: str, ranks: Ranks) -> Restored:
    """Put a state back on every rank; return what was restored everywhere, and what could not be on any of them.

    Raises:
        LoadError: if the checkpoint has no weights for the model, or not those of this model.
        RankError: if it failed on another rank.

    """

    def mine() -> Restored:
        common = restore(parts, state, path)
        given = give(state, ranks)
        own = give_back(parts, given.rng, given.stateful, given.why)
        buffers = _loose_buffers(parts.model)
        for name in given.buffers.keys() & buffers.keys():
            buffers[name].copy_(given.buffers[name])
        if given.common:
            own.take(f"the model's buffers that differed by rank{given.why}", there=False)
        return Restored(common.done + own.done, common.missed + own.missed)

    every = ranks.exchange(ranks.together(mine, at="putting a state back"), at="what was restored")
    missed = list(dict.fromkeys(name for one in every for name in one.missed))
    done = [name for name in every[0].done if all(name in one.done for one in every)]
    restored = Restored(done, missed)
    restored.take("loop position", there="global_step" in state)
    return restored

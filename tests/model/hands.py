"""What people do to the checkpoints of a run by hand: pins, tags, late metrics, other names, and pruning."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

import holdfast
from holdfast import All, Best, EverySteps, Latest

SCORES = st.one_of(st.integers(-3, 3).map(float), st.just(math.nan))
RULES = st.none() | st.lists(
    st.one_of(
        st.integers(0, 2).map(Latest),
        st.builds(Best, st.integers(0, 2), st.just("loss"), mode=st.sampled_from(["min", "max"])),
        st.integers(1, 4).map(EverySteps),
        st.just(All()),
    ),
    max_size=2,
)


class Hands:
    """Rules of a machine that has a ``home``, a ``shelf``, and a run ``ckpt`` if one is alive."""

    @precondition(lambda self: self.home.contents())
    @rule(data=st.data())
    def pin(self, data):
        """Somebody pins a checkpoint, or takes the pin away; a run that is alive may do it as well."""
        pinned = data.draw(st.booleans())
        self._say(data, "pin" if pinned else "unpin", pinned=pinned)

    @precondition(lambda self: self.home.contents())
    @rule(data=st.data(), name=st.sampled_from(["paper", "figure 3"]))
    def tag(self, data, name):
        """Somebody tags a checkpoint."""
        self._say(data, "tag", name, tags=lambda tags: tags | {name})

    @precondition(lambda self: self.home.contents())
    @rule(data=st.data(), name=st.sampled_from(["paper", "figure 3"]))
    def untag(self, data, name):
        """Somebody takes a tag away, from one that need not have it."""
        self._say(data, "untag", name, tags=lambda tags: tags - {name})

    @precondition(lambda self: self.home.contents())
    @rule(data=st.data(), score=SCORES)
    def measure(self, data, score):
        """The monitored metric is measured once more, after the save: the ranking follows."""
        self._say(data, "add_metrics", {"loss": score}, late=score)

    @precondition(lambda self: self.ckpt is None and self.home.contents())
    @rule(data=st.data(), keep=RULES)
    def rename(self, data, keep):
        """A checkpoint has another name for a while: what is said of it follows, and no rules remove it there."""
        value, is_last, path = self._choose(data)
        if value is None:
            return
        there = self.home.rename(path, "by hand.ckpt")
        assert self.told(holdfast.open(there)) == self.expected(value, is_last=is_last)
        plan = {item.name: item.keep for item in holdfast.prune(self.home.root, keep)}
        assert plan["by hand.ckpt"]
        assert self.home.rename(there, path.rpartition("/")[2]) == path

    @precondition(lambda self: self.ckpt is None)
    @rule(keep=RULES)
    def prune(self, keep):
        """Between two lives: what is removed is what the model says, and what a dry run has said before."""
        foretold = self._try(keep)
        answers = holdfast.prune(self.home.root, keep, dry_run=False)
        assert [item.path for item in answers if item.removed] == foretold
        assert not any(item.spared for item in answers)
        assert {item.path for item in answers if not item.removed} >= {item.path for item in self._catalog()}
        self.shelf.prune(keep)

    @rule(keep=RULES)
    def prune_dry(self, keep):
        """A dry run changes nothing, whoever lives."""
        before = self.home.everything()
        self._try(keep)
        assert self.home.everything() == before

    @precondition(lambda self: self.ckpt is not None and self.home.locks)
    @rule(keep=RULES)
    def prune_under_a_run(self, keep):
        """While a run is alive nothing is removed, and that is said where something would have been."""
        before = self.home.everything()
        with pytest.raises(holdfast.errors.DirectoryInUseError) if self._try(keep) else nothing():
            holdfast.prune(self.home.root, keep, dry_run=False)
        assert self.home.everything() == before

    def told(self, checkpoint):
        """What a checkpoint tells of itself that people have said."""
        late = checkpoint.late_metrics.get("loss")
        return checkpoint.pinned, set(checkpoint.tags), repr(late)

    def expected(self, value, *, is_last):
        """What the model says that people have said."""
        said = self.shelf.noted_of(self.shelf.of(value, is_last=is_last))
        return said.pinned, set(said.tags), repr(said.late)

    def _try(self, keep):
        """Return what would be removed; it is what the model says, as far as it can still be read."""
        answers = holdfast.prune(self.home.root, keep)
        going = [item for item in answers if not item.keep]
        assert not any(item.removed or item.spared for item in answers)
        gone = self.shelf.dropped(keep)
        assert len(going) == len(gone), (going, gone)
        assert {value_in(item.path) for item in going} - {None} == {item.value for item in gone if not item.damaged}
        return [item.path for item in going]

    def _say(self, data, act, *words, tags=None, **news):
        value, is_last, path = self._choose(data)
        if value is None:
            return
        if self.ckpt is not None and data.draw(st.booleans()):
            getattr(self.ckpt, act)(path, *words)
        else:
            getattr(holdfast.open(path), act)(*words)
        if tags is not None:
            said = self.shelf.noted_of(self.shelf.of(value, is_last=is_last))
            news["tags"] = tags(said.tags)
        self.shelf.say(value, is_last=is_last, **news)

    def _choose(self, data):
        """One of the checkpoints that are listed; its value is None if it is damaged."""
        path, is_last = data.draw(st.sampled_from(sorted(self.home.contents())))
        return value_in(path), is_last, path


def value_in(path):
    """The value that a checkpoint holds; None if it is refused."""
    try:
        return int(holdfast.load(path)["state_dict"]["weight"])
    except holdfast.LoadError:
        return None


class nothing:  # noqa: N801 - used like a function
    """A block in which nothing is expected."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

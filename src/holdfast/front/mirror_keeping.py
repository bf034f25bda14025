"""What is kept in the second tier: the rules, asked of what both tiers have together. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

from holdfast.clock import Clock, SystemClock
from holdfast.front.catalog import Catalog
from holdfast.front.explaining import decide
from holdfast.front.pruning import Pruned, prune_listed, remove_planned, resumed_from
from holdfast.policy import tiers
from holdfast.records import RANKED
from holdfast.scanning import look
from holdfast.storage import Store


def kept_there(
    listed: Catalog, there: Store, keep: object, now: datetime | None = None, protected: Collection[str] = ()
) -> set[str]:
    """Return which of the checkpoints of a directory the rules would keep at another place, by name.

    They are asked as if all were there already, beside those that are there alone: so that nothing is brought there
    that would be removed next.

    Args:
        listed: those of the directory.
        there: the other place.
        keep: rules; None for those that each run has recorded.
        now: the time; that of the system's clock by default.
        protected: names of checkpoints that a run resumed from, besides those that the manifests tell of.

    Raises:
        ConfigurationError: for what is no rule.

    """
    names = {checkpoint.name for checkpoint in listed}
    together = [*listed, *(item for item in Catalog(there.root, there) if item.name not in names)]
    at = SystemClock().now() if now is None else now
    known = {*protected, *resumed_from(together)}
    decisions = decide(there, together, at, keep=keep, resumed_from=known)
    return {
        item.name
        for item, decision in zip(listed, decisions, strict=False)
        if decision.keep or item.role != RANKED or item.facts is None
    }


def prune_there(  # noqa: PLR0913 - what is there, and how it is to be pruned
    there: Store,
    keep: object,
    *,
    now: datetime | None = None,
    protected: Collection[str] = (),
    dry_run: bool = False,
    run: str = "",
    outlived: bool = False,
) -> list[Pruned]:
    """Remove what the rules do not keep at a place, by what is committed there; return what goes, or would.

    What ``prune`` leaves whatever the rules say is left here, but for what the run itself would remove.

    Args:
        there: the place.
        keep: rules; None for those that each run has recorded.
        now: the time; that of the system's clock by default.
        protected: names of checkpoints that a run resumed from, besides those that the manifests tell of.
        dry_run: remove nothing.
        run: leave what is of other runs; "": those of all.
        outlived: whether a ``last`` of an older name and what a signal had saved go as well, as in a run's directory.

    Raises:
        ConfigurationError: for what is no rule.
        OSError: if the place does not answer.

    """
    at = SystemClock().now() if now is None else now
    listed = Catalog(there.root, there)
    plan = prune_listed(listed, keep, at, resumed=protected, dry_run=dry_run, run=run)
    gone = [item for item in plan if not item.keep]
    mine = [item for item in listed if run in ("", item.run)] if outlived else []
    reasons = tiers.overtaken(mine, {*protected, *resumed_from(listed)})
    for item in mine:
        if item.name in reasons:
            drop = Pruned(item.name, item.path, item.size, keep=False, reason=reasons[item.name], file_id=item.file_id)
            gone.append(drop if dry_run else remove_planned(drop, item, lambda _: None))
    return gone


class MirrorRules:
    """The rules of a mirror, for ``Mirror(wants=rules.wants, after=rules.apply)``. For its thread.

    Args:
        local: the directory of the run.
        remote: the mirror.
        keep: rules for the mirror; None for those that each run has recorded.
        protected: returns the names of the checkpoints that the run resumed from.
        clock: tells the time that rules about age go by.
        run: returns the run whose checkpoints may be removed there; "": those of all.

    """

    def __init__(  # noqa: PLR0913 - what there is, and how it is kept
        self,
        local: Store,
        remote: Store,
        keep: object = None,
        *,
        protected: Callable[[], Collection[str]] = tuple,
        clock: Clock | None = None,
        run: Callable[[], str] = str,
    ) -> None:
        """Look at nothing yet."""
        self._run = run
        self._local, self._remote, self._keep = local, remote, keep
        self._protected = protected
        self._clock = clock or SystemClock()
        self._newest: tuple[str, int] = ("", -1)

    def wants(self, name: str) -> bool:
        """Tell whether a checkpoint is worth bringing there: the newest always is, and costs no listing."""
        facts = look(self._local, name).facts
        if facts is None:
            return True
        if facts.run != self._newest[0] or facts.sequence >= self._newest[1]:
            self._newest = (facts.run, facts.sequence)
            return True
        listed = Catalog(self._local.root, self._local)
        return name in kept_there(listed, self._remote, self._keep, self._clock.now(), self._protected())

    def apply(self, name: str = "") -> list[Pruned]:
        """Remove there what the rules do not keep, now that something was committed there; return what they dropped.

        Raises:
            OSError: if the mirror does not answer.

        """
        del name
        known = self._protected()
        now, run = self._clock.now(), self._run()
        return prune_there(self._remote, self._keep, now=now, protected=known, run=run, outlived=True)

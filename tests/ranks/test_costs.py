"""What sharded saves cost, as ``EverySeconds("auto")`` is told of it."""

from holdfast.engine import Order, SaveStats, ShardedSaver
from holdfast.front.costs import Costs
from holdfast.policy.seconds import EverySeconds
from holdfast.policy.when import Triggers
from holdfast.ranks import ranks_here
from holdfast.records import Facts
from holdfast.storage import open_store
from tests.ranks import jobs_sharded as jobs
from tests.support.ranks import run_ranks


def costs(folder):
    """Save twice; return what is known of the costs, before and after."""
    stats, known, saver = SaveStats(), Costs(), ShardedSaver(ranks_here())
    when = Triggers.of([EverySeconds("auto", least=1, most=9)])
    found = [known.look(when, stats, 2)]
    for name in ("a.ckpt", "b.ckpt"):
        saver.submit(Order(open_store(folder), name, jobs.state_of(), Facts(), stats=stats)).wait()
        found.append(known.look(when, stats, 2))
    saver.close()
    return found


def test_sharded_saves_count_their_stall_and_how_long_a_commit_takes(tmp_path):
    """On every rank each save is counted with its stall and the time to its commit, and nothing is known beforehand."""
    for before, one, two in run_ranks(2, costs, str(tmp_path)):
        assert (before.saves, before.stall, before.commit) == (0, 0.0, 0.0)
        assert (one.saves, two.saves) == (1, 2)
        assert one.stall > 0
        assert min(one.commit, two.commit) > 0

"""The policy's values that an integration has to speak: words, moments, names."""

from holdfast.policy.haste import left_for_uploads
from holdfast.policy.ledger import Entry, Ledger
from holdfast.policy.moment import Event, Moment
from holdfast.policy.naming import NameStyle, check_inside, file_name, name_pattern, template_keys
from holdfast.policy.ranking import admits
from holdfast.policy.retention import Decision
from holdfast.policy.seconds import Spent
from holdfast.policy.settings import Settings, make_settings
from holdfast.policy.terms import Term
from holdfast.policy.trigger import time_asks
from holdfast.policy.when import Triggers
from holdfast.ranks import ranks_here
from holdfast.storage import (
    StorageOptions,
    is_local,
    join_path,
    open_store,
    real_path,
    same_place,
    split_path,
    use_options,
)

__all__ = [
    "Decision",
    "Entry",
    "Event",
    "Ledger",
    "Moment",
    "NameStyle",
    "Settings",
    "Spent",
    "StorageOptions",
    "Term",
    "Triggers",
    "admits",
    "check_inside",
    "file_name",
    "is_local",
    "join_path",
    "left_for_uploads",
    "make_settings",
    "name_pattern",
    "open_store",
    "ranks_here",
    "real_path",
    "same_place",
    "split_path",
    "template_keys",
    "time_asks",
    "use_options",
]

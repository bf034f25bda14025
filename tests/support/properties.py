"""How long the property tests search: a little by default, more where HOLDFAST_EXAMPLES says so."""

from holdfast.testing.store_suite.material import FACTOR, chance, examples

__all__ = ["FACTOR", "chance", "examples"]

"""Every mutant, by name, and what its lives should do more of."""

from tests.torture.log.mutants import journal, upkeep
from tests.torture.log.mutants.registry import FOCUS, MUTANTS

__all__ = ["FOCUS", "MUTANTS", "journal", "upkeep"]

"""What a running consumer has done so far."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """Counts of a running consumer, for status pages. `dead` has the expired ones too; `odd` counts headers that say
    nothing that can be used, by name."""

    handled: int = 0
    retried: int = 0
    moved: int = 0
    dead: int = 0
    expired: int = 0
    repeated: int = 0
    committed: int = 0
    unwritten: int = 0
    odd: Counter[str] = field(default_factory=Counter)

"""Changes of the segments while they are read: rows that appear late, are inserted, vanish, or are swapped."""

import msgspec

from segment_fetch.simulator.checks import check_not_negative, check_positive, check_share


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """The rates of change, by the simulator's clock. Raises `ValueError`, naming the value, if one is out of range.

    `late_share`: this share of the segments appears only some time after its close, at most `late_delay_s`.
    `inserts_per_s`: new segments a second, closed within the last `recent_s`.
    `removals_per_s`: segments that vanish a second, of those closed within the last `recent_s`.
    `swaps_per_s`: a segment vanishes and another appears at the same moment; the count stays the same.
    `shuffle_ties`: segments with the same close time are in a different order in each answer.
    """

    late_share: float = 0.0
    late_delay_s: float = 86_400.0
    inserts_per_s: float = 0.0
    removals_per_s: float = 0.0
    swaps_per_s: float = 0.0
    recent_s: float = 86_400.0
    shuffle_ties: bool = False
    seed: int = 1

    @property
    def changes(self) -> bool:
        """True if answers change without a call of `insert` or `remove`."""
        rates = self.late_share, self.inserts_per_s, self.removals_per_s, self.swaps_per_s
        return self.shuffle_ties or any(rates)

    def __post_init__(self) -> None:
        check_share("late_share", self.late_share)
        check_positive("late_delay_s", self.late_delay_s)
        check_positive("recent_s", self.recent_s)
        for name in ("inserts_per_s", "removals_per_s", "swaps_per_s"):
            check_not_negative(name, getattr(self, name))

"""Whether a device goes on measuring more than its limit allows."""

PART = 0.02  # of the limit, and
LEAST_KW = 0.1  # how far above it a measurement may be: no meter is exact


class Excess:
    """Looks at one device's measurements.

    Attributes:
        is_lasting: its measurements have been above the present limit for longer than it takes to follow.
    """

    def __init__(self, settle_seconds: float) -> None:
        """`settle_seconds` is how long a device may take to follow a limit."""
        self.is_lasting = False
        self._settle_seconds = settle_seconds
        self._limit_kw: float | None = None
        self._limited_at = 0.0
        self._since: float | None = None  # the first of the measurements that are all above

    def look(self, measured: tuple[float, float] | None, limit_kw: float | None, now: float) -> None:
        """Take what is known now.

        Args:
            measured: power in kW, + is consumption, and when it came, seconds since 1970; None: nothing recent.
            limit_kw: None without a limit.
            now: seconds since 1970.
        """
        if limit_kw != self._limit_kw:
            self._limit_kw, self._limited_at, self._since = limit_kw, now, None
        if measured is None or limit_kw is None or measured[0] <= limit_kw + LEAST_KW + PART * abs(limit_kw):
            self._since, self.is_lasting = None, False
            return
        if measured[1] < self._limited_at:
            return  # it had not heard of this limit
        if self._since is None:
            self._since = measured[1]
        self.is_lasting = self.is_lasting or measured[1] - self._since > self._settle_seconds

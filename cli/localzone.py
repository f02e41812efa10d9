"""The zone of this machine as a ``tzinfo`` that knows when its clocks are set back and forward."""

from datetime import UTC, datetime, timedelta, tzinfo


class LocalZone(tzinfo):
    """Local time by the C library (TZ, /etc/localtime); the offset is that of the instant asked about."""

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        """Return the offset from UTC that is in force at a local time."""
        return None if when is None else when.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, when: datetime | None) -> timedelta | None:  # noqa: ARG002
        """Return None: the offset has it all."""
        return None

    def tzname(self, when: datetime | None) -> str | None:
        """Return the zone's short name at a local time."""
        return None if when is None else when.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, when: datetime) -> datetime:
        """Return local time for a time in UTC."""
        instant = when.replace(tzinfo=UTC)
        local = instant.astimezone().replace(tzinfo=None)
        # Of an hour that occurs twice, say which one it is.
        return local.replace(tzinfo=self, fold=0 if local.astimezone() == instant else 1)


LOCAL_ZONE = LocalZone()

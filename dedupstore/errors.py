"""The exception tree, and the policy behind it.

::

    DedupstoreError
    ├── UsageError            the request makes no sense; say it otherwise
    ├── NotFoundError         no such snapshot, path or object
    │   ├── RepositoryNotFound    there is no repository at that place
    │   └── ObjectNotFound        an object that should be in the store is not
    ├── AccessError           not allowed
    │   ├── WrongPassphrase       no key slot opens with this secret
    │   └── ReadOnlyError         the place refuses writes
    ├── IntegrityError        stored bytes are not what was written (damage, or an attack)
    │   ├── ObjectDamaged         an object as a whole: truncated, flipped, swapped
    │   └── ChunkDamaged          one chunk or record inside a pack
    ├── FormatError           a version or feature this program does not know
    ├── StoreError            the place itself fails
    │   ├── StoreFull             no space left, or over quota
    │   └── ObjectExists          create-only write found the name taken
    ├── SessionError          another writer or a collector got in the way
    │   ├── RepositoryBusy        somebody holds what is needed
    │   └── SessionFenced         this write session was ended from outside
    ├── SourceError           something to be backed up could not be read
    │   ├── SourceVanished        it was listed, then gone
    │   └── SourceChanged         it changed while it was read
    ├── TargetError           something could not be written back
    └── Interrupted           asked to stop

Policy. Few classes; each has a stable ``code`` (scripts may rely on it) and says whether trying
the same again can help (``retryable``). Data goes in attributes, the message is one sentence that
names the thing and ends in the next step. A third party's exception is wrapped in the file that
owns that package, with ``from``. Trouble with one file is collected as a finding and the run goes
on; damage is never downgraded to a warning. Exit codes and HTTP codes are tables in the front ends.
"""

from typing import ClassVar


class DedupstoreError(Exception):
    """Base of everything this package raises on purpose."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **data: object) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class UsageError(DedupstoreError):
    """The request makes no sense as said."""

    code = "usage"


class NotFoundError(DedupstoreError):
    """No such snapshot, path or object."""

    code = "not-found"


class RepositoryNotFound(NotFoundError):
    """There is no repository at that place."""

    code = "no-repository"


class ObjectNotFound(NotFoundError):
    """An object is not in the store."""

    code = "object-not-found"


class AccessError(DedupstoreError):
    """Not allowed."""

    code = "access"


class WrongPassphrase(AccessError):
    """No key slot opens with the secret that was given."""

    code = "wrong-passphrase"


class ReadOnlyError(AccessError):
    """The place refuses writes."""

    code = "read-only"


class IntegrityError(DedupstoreError):
    """Stored bytes are not what was written."""

    code = "damage"


class ObjectDamaged(IntegrityError):
    """An object of the store is truncated, altered or not the one that its name says."""

    code = "object-damaged"


class ChunkDamaged(IntegrityError):
    """One record or chunk inside a pack does not open, or is not what its id says."""

    code = "chunk-damaged"


class FormatError(DedupstoreError):
    """A format version or feature that this program does not know."""

    code = "format"


class StoreError(DedupstoreError):
    """The place where objects lie failed."""

    code = "store"
    retryable = True


class StoreFull(StoreError):
    """No space left at the store or in the local cache."""

    code = "store-full"
    retryable = False


class ObjectExists(StoreError):
    """A create-only write found the name taken."""

    code = "object-exists"
    retryable = False


class SessionError(DedupstoreError):
    """Another writer or a collector got in the way."""

    code = "session"
    retryable = True


class RepositoryBusy(SessionError):
    """Somebody else holds what this command needs."""

    code = "busy"


class SessionFenced(SessionError):
    """The write session was ended from outside before it could commit."""

    code = "fenced"


class SourceError(DedupstoreError):
    """Something that was to be backed up could not be read."""

    code = "source"


class SourceVanished(SourceError):
    """It was there when its folder was listed, and gone when it was to be read."""

    code = "source-vanished"


class SourceChanged(SourceError):
    """It changed while it was read."""

    code = "source-changed"


class TargetError(DedupstoreError):
    """Something could not be written back."""

    code = "target"


class Interrupted(DedupstoreError):
    """The user or the system asked to stop."""

    code = "interrupted"

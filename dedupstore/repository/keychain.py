"""The keys of an open repository, and the sealing of its small objects with them."""

from collections.abc import Callable, Sequence

from dedupstore.clock import Clock
from dedupstore.errors import FormatError
from dedupstore.format.crypto import Cipher, chunk_id, get_cipher
from dedupstore.format.envelope import open_object, read_envelope_header, seal_object
from dedupstore.format.keys import EpochKeys, derive_epoch
from dedupstore.ids import ChunkId
from dedupstore.model import ChunkKind, Data


class Keychain:
    """Every epoch's keys, derived when first asked for. Threads: any."""

    def __init__(
        self, repo_id: bytes, cipher: int, epochs: Sequence[tuple[int, bytes]], clock: Clock
    ) -> None:
        self.repo_id = repo_id
        self.cipher: Cipher = get_cipher(cipher)
        self._secrets = dict(epochs)
        self._derived: dict[int, EpochKeys] = {}
        self._clock = clock
        self.current = self.epoch(max(self._secrets))

    def epoch(self, number: int) -> EpochKeys:
        """Return one epoch's keys; raises `FormatError` if this configuration does not hold them."""
        keys = self._derived.get(number)
        if keys is None:
            if number not in self._secrets:
                raise FormatError(
                    f"key epoch {number} is not in this configuration: open the repository again"
                )
            keys = self._derived[number] = derive_epoch(number, self._secrets[number])
        return keys

    def chunk_id(self, kind: ChunkKind, data: Data) -> ChunkId:
        """Return the id that a chunk with this plaintext gets here now, by the newest epoch's key."""
        keys = self.current
        return chunk_id(keys.id_data if kind is ChunkKind.DATA else keys.id_tree, data)

    def names(self, kind: ChunkKind, data: Data, chunk: ChunkId) -> bool:
        """Say whether ``chunk`` is the id of this plaintext under any epoch's key.

        A chunk keeps the id that it was first stored with, also when it is packed anew under a later epoch.
        """
        if self.chunk_id(kind, data) == chunk:
            return True
        for number in self._secrets:
            if number != self.current.number:
                keys = self.epoch(number)
                if chunk_id(keys.id_data if kind is ChunkKind.DATA else keys.id_tree, data) == chunk:
                    return True
        return False

    def namer(self, kind: ChunkKind) -> Callable[[Data, ChunkId], bool]:
        """Return `names` for one kind, made for many calls: mostly one hash and one comparison."""
        keys = self.current
        key = keys.id_data if kind is ChunkKind.DATA else keys.id_tree

        def names(data: Data, chunk: ChunkId) -> bool:
            return chunk_id(key, data) == chunk or self.names(kind, data, chunk)

        return names

    def seal(self, kind: int, payload: Data, name: bytes = b"") -> bytes:
        """Return the stored bytes of a small object, bound to its kind, this repository and ``name``."""
        return seal_object(
            kind,
            payload,
            cipher=self.cipher,
            epoch=self.current.number,
            key=self.current.meta,
            repo_id=self.repo_id,
            name=name,
            salt=self._clock.random(32),
        )

    def open(self, kind: int, data: Data, name: bytes = b"") -> bytes:
        """Return a small object's payload; raises `ObjectDamaged` or `FormatError`."""
        keys = self.epoch(read_envelope_header(data).epoch)
        return open_object(kind, data, key=keys.meta, repo_id=self.repo_id, name=name)

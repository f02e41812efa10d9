import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import FormatError, IntegrityError, ObjectDamaged
from dedupstore.format import constants as c
from dedupstore.format.crypto import get_cipher
from dedupstore.format.envelope import open_object, read_envelope_header, seal_object
from dedupstore.format.padding import padme
from tests.unit.format.cases import REPO, damaged, refuses

KEY = bytes(range(100, 132))
OTHER = bytes(32)


def sealed(payload: bytes = b"payload", *, cipher: int = 1, name: bytes = b"name") -> bytes:
    return seal_object(
        c.OBJECT_SESSION, payload, cipher=get_cipher(cipher), epoch=3, key=KEY, repo_id=REPO, name=name
    )


def opened(data: bytes) -> bytes:
    return open_object(c.OBJECT_SESSION, data, key=KEY, repo_id=REPO, name=b"name")


@given(st.binary(max_size=3000), st.sampled_from([1, 2]))
def test_round_trip_and_size(payload: bytes, cipher: int) -> None:
    data = sealed(payload, cipher=cipher)
    assert opened(data) == payload
    assert open_object(c.OBJECT_SESSION, bytearray(data), key=KEY, repo_id=REPO, name=b"name") == payload
    assert len(data) == c.ENVELOPE_HEADER_SIZE + padme(4 + len(payload)) + get_cipher(cipher).tag_size
    header = read_envelope_header(data)
    assert (header.kind, header.cipher, header.epoch) == (c.OBJECT_SESSION, cipher, 3)


def test_equal_payloads_look_different() -> None:
    assert sealed() != sealed()


@pytest.mark.parametrize("cipher", [1, 2])
def test_every_damage_is_noticed(cipher: int) -> None:
    for data in damaged(sealed(cipher=cipher)):
        assert refuses(opened, data)


def test_it_belongs_to_one_place() -> None:
    data = sealed()
    for key, repo, name in [
        (OTHER, REPO, b"name"),
        (KEY, OTHER[:16], b"name"),
        (KEY, REPO, b""),
        (KEY, REPO, b"n"),
    ]:
        with pytest.raises(ObjectDamaged, match="session does not open"):
            open_object(c.OBJECT_SESSION, data, key=key, repo_id=repo, name=name)


def test_a_kind_can_not_stand_for_another() -> None:
    with pytest.raises(ObjectDamaged, match="a session lies where a snapshot should be"):
        open_object(c.OBJECT_SNAPSHOT, sealed(), key=KEY, repo_id=REPO, name=b"name")
    forged = bytearray(sealed())
    forged[6] = c.OBJECT_SNAPSHOT
    with pytest.raises(ObjectDamaged, match="snapshot does not open"):
        open_object(c.OBJECT_SNAPSHOT, forged, key=KEY, repo_id=REPO, name=b"name")


def test_a_later_version_is_named() -> None:
    data = bytearray(sealed())
    data[4] = 2
    with pytest.raises(FormatError, match="version 2"):
        opened(bytes(data))
    data = bytearray(sealed())
    data[7] = 77
    with pytest.raises(FormatError, match="cipher number 77"):
        opened(bytes(data))


def test_a_length_that_lies_is_refused() -> None:
    class Lying:
        """A cipher that seals a body whose length field says too much."""

        number = 1
        tag_size = 32

        def seal_into(self, out: bytearray, offset: int, plain: bytearray, **rest: object) -> int:
            plain[:4] = b"\xff\xff\xff\xff"
            return get_cipher(1).seal_into(out, offset, plain, **rest)  # type: ignore[arg-type]

    data = seal_object(
        c.OBJECT_SESSION,
        b"x",
        cipher=Lying(),
        epoch=0,
        key=KEY,
        repo_id=REPO,
        name=b"name",  # type: ignore[arg-type]
    )
    with pytest.raises(ObjectDamaged, match="wrong length"):
        opened(data)


@given(st.binary(max_size=300))
def test_noise(data: bytes) -> None:
    with pytest.raises((IntegrityError, FormatError)):
        opened(data)
    with pytest.raises((IntegrityError, FormatError)):
        opened(c.ENVELOPE_MAGIC + b"\x01\x00\x04\x01" + data)

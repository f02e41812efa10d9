import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import FormatError, ObjectDamaged, UsageError
from dedupstore.format import constants as c
from dedupstore.format.crypto import plain_hash
from dedupstore.format.keys import (
    Argon2Cost,
    KeyFile,
    Passphrase,
    decode_slot,
    derive_epoch,
    encode_slot,
    format_key_file,
    open_slot,
    parse_key_file,
)
from tests.unit.format.cases import REPO, ROOT_KEY, WHEN, damaged, refuses

FILE = KeyFile(bytes(range(64, 96)))
SMALLEST = Argon2Cost(c.ARGON2_MEMORY_MIN, c.ARGON2_PASSES_MIN)


def key_file_slot(cipher: int = 1, label: str = "laptop") -> bytes:
    return encode_slot(ROOT_KEY, FILE, repo_id=REPO, cipher=cipher, label=label, created=WHEN, salt=bytes(16))


def rehashed(slot: bytes, place: int, new: bytes) -> bytes:
    """Return the slot with bytes exchanged and the hash at its end set right, as an attacker would."""
    body = slot[:place] + new + slot[place + len(new) : -c.HASH_SIZE]
    return body + plain_hash(body)


@pytest.mark.parametrize("cipher", [1, 2])
def test_key_file_slot_round_trip(cipher: int) -> None:
    slot = decode_slot(key_file_slot(cipher, "büro"))
    assert open_slot(slot, FILE) == ROOT_KEY
    assert (slot.kind, slot.cipher, slot.repo_id, slot.label) == (c.SLOT_KEY_FILE, cipher, REPO, "büro")
    assert slot.created == WHEN
    assert slot.cost is None


def test_passphrase_slot_round_trip() -> None:
    secret = Passphrase(b"correct horse\xff battery")
    data = encode_slot(
        ROOT_KEY, secret, repo_id=REPO, cipher=1, label="", created=WHEN, cost=SMALLEST, salt=None
    )
    slot = decode_slot(data)
    assert slot.cost == SMALLEST
    assert open_slot(slot, secret) == ROOT_KEY
    assert open_slot(slot, Passphrase(b"correct horse\xff battery ")) is None
    assert open_slot(slot, FILE) is None


def test_two_slots_for_one_secret_share_nothing() -> None:
    one, other = (
        decode_slot(encode_slot(ROOT_KEY, FILE, repo_id=REPO, cipher=1, label="a", created=WHEN))
        for _ in range(2)
    )
    assert one.salt != other.salt
    assert one.commitment != other.commitment
    assert one.sealed != other.sealed


def test_another_secret_does_not_open() -> None:
    slot = decode_slot(key_file_slot())
    assert open_slot(slot, KeyFile(bytes(32))) is None
    assert open_slot(slot, Passphrase(FILE.key)) is None


@pytest.mark.parametrize(
    "cost",
    [
        Argon2Cost(c.ARGON2_MEMORY_MIN - c.KIB, 3),
        Argon2Cost(c.ARGON2_MEMORY_MIN, 2),
        Argon2Cost(c.ARGON2_MEMORY_MAX + c.KIB, 3),
        Argon2Cost(c.ARGON2_MEMORY_MIN, 65),
        Argon2Cost(c.ARGON2_MEMORY_MIN + 1, 3),
    ],
)
def test_a_cost_out_of_bounds_is_refused_on_both_ways(cost: Argon2Cost) -> None:
    with pytest.raises(UsageError, match="out of bounds"):
        encode_slot(
            ROOT_KEY, Passphrase(b"x"), repo_id=REPO, cipher=1, label="", created=WHEN, cost=cost, salt=None
        )
    # A slot that asks for it is refused before any work is done for it.
    data = encode_slot(
        ROOT_KEY,
        Passphrase(b"x"),
        repo_id=REPO,
        cipher=1,
        label="",
        created=WHEN,
        cost=SMALLEST,
        salt=bytes(16),
    )
    wanted = b"\xce" + SMALLEST.memory.to_bytes(4, "big") + bytes([SMALLEST.passes])
    place = data.index(wanted)
    if cost.memory < 1 << 32:
        hostile = rehashed(data, place, b"\xce" + cost.memory.to_bytes(4, "big") + bytes([cost.passes]))
        with pytest.raises(ObjectDamaged, match="out of bounds"):
            decode_slot(hostile)


def test_every_damage_to_a_slot_is_noticed() -> None:
    for data in damaged(key_file_slot()):
        assert refuses(decode_slot, data)


def test_what_is_altered_with_its_hash_set_right_still_does_not_open() -> None:
    data = key_file_slot()
    for place in range(len(data) - c.HASH_SIZE):
        altered = rehashed(data, place, bytes([data[place] ^ 1]))
        try:
            slot = decode_slot(altered)
        except (ObjectDamaged, FormatError):
            continue
        assert refuses(lambda _, slot=slot: _opened(slot), b"")


def _opened(slot: object) -> None:
    if open_slot(slot, FILE) is None:  # type: ignore[arg-type]
        raise ObjectDamaged("not for this secret any more")


def test_later_versions_and_kinds_are_named() -> None:
    data = key_file_slot()
    with pytest.raises(FormatError, match="version 2"):
        decode_slot(rehashed(data, 8, b"\x02"))
    with pytest.raises(FormatError, match="kind 3"):
        decode_slot(rehashed(data, 10, bytes([c.SLOT_RECIPIENT])))
    with pytest.raises(FormatError, match="cipher number 99"):
        decode_slot(rehashed(data, 11, b"\x63"))


def test_a_label_has_an_end() -> None:
    with pytest.raises(UsageError, match="label"):
        key_file_slot(label="x" * (c.SLOT_LABEL_MAX + 1))


def test_key_file_text() -> None:
    text = format_key_file(FILE, REPO)
    assert text == f"dstore-key v1 {REPO.hex()} QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=\n"
    assert parse_key_file(text) == KeyFile(FILE.key, REPO)
    assert parse_key_file(f"  {text}\n", REPO) == KeyFile(FILE.key, REPO)


def test_a_key_file_of_another_repository_is_named() -> None:
    text = format_key_file(FILE, REPO)
    with pytest.raises(UsageError, match=REPO.hex()):
        parse_key_file(text, bytes(16))
    with pytest.raises(UsageError, match=REPO.hex()):
        encode_slot(
            ROOT_KEY, KeyFile(FILE.key, REPO), repo_id=bytes(16), cipher=1, label="", created=WHEN, salt=None
        )
    slot = decode_slot(key_file_slot())
    with pytest.raises(UsageError, match="00" * 16):
        open_slot(slot, KeyFile(FILE.key, bytes(16)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dstore-key",
        "hello",
        "dstore-key v2 {id} {key}",
        "dstore-key v1 {id}",
        "dstore-key v1 zz {key}",
        "dstore-key v1 {id} !!!!",
        "dstore-key v1 {id} AAAA",
        "dstore-key v1 00 {key}",
        "dstore-key v1 {id} {key} x",
    ],
)
def test_bad_key_files_are_refused_and_not_repeated(text: str) -> None:
    key = format_key_file(FILE, REPO).split()[3]
    with pytest.raises(UsageError, match="key file") as caught:
        parse_key_file(text.format(id=REPO.hex(), key=key))
    assert key not in str(caught.value)


@given(st.text())
def test_noise_is_no_key_file(text: str) -> None:
    with pytest.raises(UsageError):
        parse_key_file(text)


def test_secrets_do_not_show() -> None:
    keys = derive_epoch(1, ROOT_KEY)
    for value in (FILE, Passphrase(b"hunter22"), keys):
        assert "hunter22" not in repr(value)
        assert repr(FILE.key) not in repr(value)
    assert repr(keys) == "EpochKeys(number=1)"


def test_epoch_keys_are_apart() -> None:
    one, other = derive_epoch(1, ROOT_KEY), derive_epoch(2, ROOT_KEY[::-1])
    names = ["id_data", "id_tree", "chunker", "data", "tree", "meta", "names", "pad"]
    keys = [getattr(epoch, name) for epoch in (one, other) for name in names]
    assert len(set(keys)) == 16
    assert [len(key) for key in keys[:8]] == [32, 32, 16, 32, 32, 32, 32, 32]

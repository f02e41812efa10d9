import sys
from pathlib import Path

import pytest

from cli import secrets
from cli.settings import Settings
from dedupstore.errors import UsageError
from dedupstore.format.keys import KeyFile, Passphrase, format_key_file

KEY = KeyFile(bytes(range(32)), bytes(16))


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_bytes(b"correct horse\n")
    return path


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(format_key_file(KEY, bytes(16)))
    return path


def test_a_password_file_loses_its_line_end_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "password"
    for raw, text in [(b" a b \n", b" a b "), (b"a\r\n", b"a"), (b"a\n\n", b"a\n"), (b"\xff", b"\xff")]:
        path.write_bytes(raw)
        assert secrets.read_secret(Settings(password_file=path), {}) == Passphrase(text)


def test_a_password_command(tmp_path: Path) -> None:
    command = f"{sys.executable} -c \"print('two words')\""
    assert secrets.read_secret(Settings(password_command=command), {}) == Passphrase(b"two words")
    for bad in (f"{sys.executable} -c 'raise SystemExit(1)'", str(tmp_path / "absent"), "'", ""):
        with pytest.raises(UsageError):
            secrets.read_secret(Settings(password_command=bad), {})


def test_a_key_file(key_file: Path) -> None:
    assert secrets.read_secret(Settings(key_file=key_file), {}) == KEY
    assert secrets.read_secret(Settings(), {"DSTORE_KEY_FILE": str(key_file)}) == KEY


def test_the_environment_and_credentials(tmp_path: Path) -> None:
    assert secrets.read_secret(Settings(), {"DSTORE_PASSWORD": "x\udcff"}) == Passphrase(b"x\xff")
    (tmp_path / "dstore-password").write_bytes(b"from the service\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert secrets.read_secret(Settings(), environ) == Passphrase(b"from the service")


def test_options_come_before_the_environment(password: Path, key_file: Path) -> None:
    environ = {"DSTORE_PASSWORD": "other"}
    assert secrets.read_secret(Settings(password_file=password), environ) == Passphrase(b"correct horse")
    assert secrets.read_secret(Settings(key_file=key_file), environ) == KEY


def test_sources_of_one_rank_contradict_each_other(password: Path, key_file: Path) -> None:
    for settings in (
        Settings(password_file=password, key_file=key_file),
        Settings(password_file=password, password_command="true"),
        Settings(key_file=key_file, password_command="true"),
    ):
        with pytest.raises(UsageError, match="contradict"):
            secrets.read_secret(settings, {})
    with pytest.raises(UsageError, match="both"):
        secrets.read_secret(Settings(), {"DSTORE_PASSWORD": "x", "DSTORE_KEY_FILE": str(key_file)})


def test_no_source_and_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/null") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(UsageError, match="--password-file"):
            secrets.read_secret(Settings(), {})


def test_what_can_not_be_a_secret_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"\n")
    with pytest.raises(UsageError, match="empty"):
        secrets.read_secret(Settings(password_file=empty), {})
    with pytest.raises(UsageError, match="No such file"):
        secrets.read_secret(Settings(password_file=tmp_path / "absent"), {})
    with pytest.raises(UsageError, match="key file"):
        secrets.read_secret(Settings(key_file=empty), {})
    empty.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not text"):
        secrets.read_secret(Settings(key_file=empty), {})


def test_a_new_repository_takes_a_passphrase_only(password: Path, key_file: Path) -> None:
    assert secrets.new_passphrase(Settings(password_file=password), {}) == Passphrase(b"correct horse")
    assert secrets.new_passphrase(Settings(), {"DSTORE_PASSWORD": "x"}) == Passphrase(b"x")
    with pytest.raises(UsageError, match="--recovery-key"):
        secrets.new_passphrase(Settings(key_file=key_file), {})

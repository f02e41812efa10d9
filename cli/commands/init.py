"""``dstore init``."""

from contextlib import closing
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dedupstore.chunker.base import DEFAULT_AVERAGE, Params
from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.errors import UsageError
from dedupstore.format import constants as c
from dedupstore.format.codec import Compression
from dedupstore.format.config import ChunkerConfig, Epoch, RepoConfig
from dedupstore.format.crypto import fastest_cipher, get_cipher
from dedupstore.objectstore.url import open_store
from dedupstore.repository.keyring import create

from ..context import Front
from ..keyfiles import add_key_file, check_new
from ..quantities import parse_size
from ..secrets import new_passphrase
from ..whoami import host_name, user_name


class CipherName(StrEnum):
    """Ciphers a repository can be made with."""

    AEGIS256 = "aegis256"
    XCHACHA20 = "xchacha20"


NUMBERS = {CipherName.AEGIS256: c.CIPHER_AEGIS256, CipherName.XCHACHA20: c.CIPHER_XCHACHA20}


def run(
    ctx: typer.Context,
    cipher: Annotated[
        CipherName | None, typer.Option(metavar="NAME", help="aegis256, xchacha20 (default: the faster).")
    ] = None,
    chunk_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Average chunk size (default: 256K).")
    ] = None,
    compression: Annotated[str | None, typer.Option(metavar="HOW", help="none, lz4 or zstd[:LEVEL].")] = None,
    recovery_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a key file that opens it.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What 'key list' calls the first key.")
    ] = None,
) -> None:
    """Make a repository.

    Cipher and chunk size can not be changed later; a run of 'snapshot' can choose another compression.
    """
    front = Front.of(ctx)
    url = front.settings.repository_url()
    average = DEFAULT_AVERAGE if chunk_size is None else parse_size(chunk_size)
    if recovery_key is not None:
        check_new(recovery_key)
    number = NUMBERS[cipher] if cipher is not None else fastest_cipher()
    config = _config(number, average, compression)
    secret = new_passphrase(front.settings)
    with closing(open_store(url, create=True)) as store:
        repository, keyring = create(
            store,
            secret,
            config,
            SYSTEM_CLOCK.random(c.KEY_SIZE),
            cache=front.settings.cache,
            label=label or f"{user_name()}@{host_name()}",
        )
        with repository:
            if recovery_key is not None:
                add_key_file(keyring, recovery_key, repository.id, "recovery key")
    front.output.document(
        {
            "repository": config.id.hex(),
            "url": url,
            "cipher": get_cipher(number).name,
            "chunk_size": average,
            "compression": config.compression,
            "recovery_key": None if recovery_key is None else str(recovery_key),
        }
    )
    front.output.line(f"repository {config.id.hex()} made at {url}")
    front.output.remark(_advice(recovery_key))


def _config(cipher: int, average: int, compression: str | None) -> RepoConfig:
    """Return the configuration of a new repository: a new id, and one epoch of keys."""
    if not 128 <= average <= 4 << 20:  # what the format and the chunker take
        raise UsageError(f"chunk size {average} is out of range: choose one from 128 to 4M")
    params = Params.for_average(average)
    config = RepoConfig(
        id=SYSTEM_CLOCK.random(c.REPO_ID_SIZE),
        cipher=cipher,
        chunker=ChunkerConfig(params.min_size, params.normal, params.max_size, params.strict, params.loose),
        created=SYSTEM_CLOCK.now(),
        epochs=(Epoch(1, SYSTEM_CLOCK.random(c.KEY_SIZE)),),
    )
    largest = 2 * params.max_size  # a pack must hold the largest chunk even if it does not compress
    config = replace(
        config, pack_size=max(config.pack_size, largest), pack_size_max=max(config.pack_size_max, largest)
    )
    return config if compression is None else replace(config, compression=str(Compression.parse(compression)))


def _advice(recovery_key: Path | None) -> str:
    if recovery_key is not None:
        return f"keep {recovery_key} away from this machine: it opens the repository without the passphrase"
    return (
        "nobody can open it without the passphrase: keep that safe, or make a recovery key with "
        "'dstore key export FILE' and keep it away from this machine"
    )

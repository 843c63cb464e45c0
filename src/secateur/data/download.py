"""Downloads a data set that the user asked for by name; every file's hash is checked. Nothing else uses the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from secateur.errors import EnvironmentFailure, MissingExtraError


@dataclass(frozen=True)
class Remote:
    """Where a set is published: base addresses, tried in turn, and `algorithm:digest` per file.

    `places` holds, for files that are published under another name, what stands behind the base address.
    """

    hosts: tuple[str, ...]
    hashes: Mapping[str, str]
    places: Mapping[str, str] = field(default_factory=dict)


def fetch(name: str, remote: Remote, folder: Path) -> list[Path]:
    """Fetch every file of `remote` into `folder`; files that are there with the right hash are kept.

    Raises MissingExtraError (no pooch) or EnvironmentFailure (no network, changed file, folder not writable).
    """
    try:
        import pooch
    except ImportError as error:
        raise MissingExtraError(f"{name}: downloading needs pooch; pip install 'secateur[compress]'") from error
    done = []
    for file, digest in remote.hashes.items():
        problems = []
        for host in remote.hosts:
            try:
                address = host + remote.places.get(file, file)
                done.append(Path(pooch.retrieve(address, known_hash=digest, fname=file, path=folder)))
                break
            except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
                problems.append(f"{host}: {error}")
        else:
            raise EnvironmentFailure(
                f"{name}: {file} could not be downloaded ({'; '.join(problems)}); "
                f"check the network or copy the file into {folder} yourself"
            )
    return done

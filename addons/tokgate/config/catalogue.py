"""The catalogue of services inside the package: one YAML file a service, named after it.

A policy takes from it the services that its bans name and its files don't define. The source is `policies/services/`;
the wheel has a copy beside this package's modules, an editable install reads the source itself.
"""

import hashlib
from pathlib import Path
from typing import Final

from tokgate.config.sections import Sections
from tokgate.config.yaml.nodes import compose
from tokgate.config.yaml.source import Report, Source, read_file
from tokgate.policy.services import Catalogue, Service
from tokgate.policy.snapshot import Policy

_PACKAGE: Final = Path(__file__).resolve().parents[1]
_SHIPPED: Final = _PACKAGE / "catalogue"
_SOURCE: Final = _PACKAGE.parents[1] / "policies" / "services"


def catalogue_folder() -> Path:
    """The folder with the catalogue's files; an installation without them has an empty catalogue."""
    return _SHIPPED if _SHIPPED.is_dir() else _SOURCE


def catalogue_files() -> dict[str, Path]:
    """The file of each service in the catalogue, by the service's name."""
    return {path.stem: path for path in sorted(catalogue_folder().glob("*.yaml"))}


def catalogue_version() -> str:
    """12 hexadecimal digits of SHA-256 over the names and contents of the catalogue's files."""
    whole = hashlib.sha256()
    for name, path in catalogue_files().items():
        whole.update(f"{name}\0{hashlib.sha256(_content(path) or b'').hexdigest()}\n".encode())
    return whole.hexdigest()[:12]


def complete(sections: Sections, report: Report) -> Catalogue | None:
    """Add the services that bans name and no file defines; None if the catalogue has none of them."""
    named = {word for ban in sections.bans.values() for key in ("services", "except") for word, _ in ban.items(key)}
    named -= sections.services.keys()
    shipped = catalogue_files() if named else {}
    taken = tuple(sorted(named & shipped.keys()))
    for name in taken:
        data = read_file(shipped[name], report)
        if data is not None:
            source = Source(f"catalogue/{name}.yaml", data.decode("utf-8", "replace"), shipped[name])
            root = compose(source, report)
            if root is not None:
                sections.add(source, root, report)
    return Catalogue(catalogue_version(), taken) if taken else None


def own_definitions(policy: Policy) -> tuple[Service, ...]:
    """The services that the policy's files define in their own way although the catalogue has them."""
    shipped = catalogue_files()
    taken = () if policy.catalogue is None else policy.catalogue.services
    return tuple(
        service
        for name, service in sorted(policy.services.items())
        if name in shipped and name not in taken and service.origin is not None
        if (content := _content(Path(service.origin.file))) is None or content != _content(shipped[name])
    )


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None

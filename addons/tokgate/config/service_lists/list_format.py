"""The formats of lists that can be imported."""

from enum import StrEnum


class ListFormat(StrEnum):
    """The formats, by the words of `--format` and of `source.format`."""

    DOMAIN_LIST = "domain-list-community"
    HOSTS = "hosts"
    ADBLOCK = "adblock"
    ADGUARD = "adguard"

"""What of a list becomes patterns of a service, and the file made of it.

Nothing is dropped in silence, and nothing is taken that is a stranger's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypedDict

import yaml
from pydantic_core import PydanticCustomError

from tokgate.config.format import services
from tokgate.config.format.services import ListFormat
from tokgate.config.service_lists.lists import Entry, Problem, ServiceList
from tokgate.policy.services import PatternKind, Service, ServiceSource, is_public_suffix
from tokgate.policy.values.hostname import DomainName, normalise
from tokgate.policy.values.text import shown

NAME_KINDS: Final = (PatternKind.SUFFIX, PatternKind.EXACT, PatternKind.REGEX)
"""The kinds that lists have."""

Names = Mapping[PatternKind, list[str]]
"""Patterns by kind."""


@dataclass(slots=True)
class Selection:
    """The patterns by kind, each once and in order, and what was not taken, with its reason."""

    patterns: Names
    dropped: list[Problem] = field(default_factory=list)
    unreadable: list[Problem] = field(default_factory=list)
    repeated: int = 0
    """Entries that another entry holds as well."""

    @property
    def count(self) -> int:
        """How many patterns of all kinds were taken."""
        return sum(map(len, self.patterns.values()))


def select(found: ServiceList, attributes: Iterable[str] = (), *, subdomains: bool = False) -> Selection:
    """Choose from a list. Public suffixes, shared hosts and keywords are dropped.

    Taken are only entries with one of the `attributes`, and none with one of those that begin with `-`; without any,
    all. With `subdomains` single hosts are taken with all names below them.
    """
    kept: dict[PatternKind, dict[str, Entry]] = {kind: {} for kind in NAME_KINDS}
    selection = Selection({}, unreadable=list(found.unreadable))
    wanted = {word for word in attributes if not word.startswith("-")}
    refused = {word[1:] for word in attributes if word.startswith("-")}
    for entry in found.entries:
        if not refused & entry.attributes and (not wanted or wanted & entry.attributes):
            if subdomains and entry.kind is PatternKind.EXACT:
                entry = replace(entry, kind=PatternKind.SUFFIX)
            _take(entry, kept, selection)
    suffixes = kept[PatternKind.SUFFIX]
    for kind in (PatternKind.SUFFIX, PatternKind.EXACT):
        inner = [value for value in kept[kind] if _above(value, suffixes, itself=kind is PatternKind.EXACT)]
        for value in inner:
            selection.repeated += 1
            del kept[kind][value]
    selection.patterns = {kind: sorted(values) for kind, values in kept.items()}
    selection.dropped.sort(key=lambda each: (each.place.file, each.place.line))
    selection.unreadable.sort(key=lambda each: (each.place.file, each.place.line))
    return selection


def _take(entry: Entry, kept: dict[PatternKind, dict[str, Entry]], selection: Selection) -> None:
    kind, value = entry.kind, entry.value
    if kind is None:
        _drop(selection, entry, "a keyword matches parts of strangers' names")
        return
    if kind is not PatternKind.REGEX:
        name = normalise(value)
        if not isinstance(name, DomainName):
            why = getattr(name, "problem", "an address, not a name")
            selection.unreadable.append(Problem(entry.place, value, f"no host name: {why}"))
            return
        value = name.value
        if "." not in value or is_public_suffix(value):
            _drop(selection, entry, "a public suffix: everybody's names are below it")
            return
        shared = shared_host(value) if kind is PatternKind.SUFFIX else None
        if shared is not None:
            what = "a shared host" if shared == value else f"it holds the shared host {shared}"
            _drop(selection, entry, f"{what}: other customers' names are below it")
            return
    else:
        try:
            value = services.regex(value)
        except PydanticCustomError as error:
            selection.unreadable.append(Problem(entry.place, entry.value, error.message()))
            return
    if value in kept[kind]:
        selection.repeated += 1
    else:
        kept[kind][value] = entry


def _drop(selection: Selection, entry: Entry, why: str) -> None:
    selection.dropped.append(Problem(entry.place, entry.value, why))


def _above(value: str, suffixes: dict[str, Entry], *, itself: bool) -> str | None:
    """The nearest suffix that holds a name."""
    if itself and value in suffixes:
        return value
    parents = (value.split(".", depth)[-1] for depth in range(1, value.count(".") + 1))
    return next((parent for parent in parents if parent in suffixes), None)


_KEPT: Final = """
    akadns.net akamai.net akamaiedge.net akamaihd.net akamaitechnologies.com akamaized.net edgekey.net edgesuite.net
    fastly.net fastlylb.net map.fastly.net global.ssl.fastly.net cloudfront.net amazonaws.com awsglobalaccelerator.com
    elasticbeanstalk.com azure.com azureedge.net azurefd.net azurewebsites.net windows.net core.windows.net cloudapp.net
    trafficmanager.net msedge.net l-msedge.net s-msedge.net a-msedge.net b-cdn.net bunnycdn.com cdn77.org cdn77.com
    cdninstance.com cloudflare.com cloudflare.net cloudflarestorage.com cdn.cloudflare.net pages.dev workers.dev r2.dev
    googleapis.com googleusercontent.com gstatic.com appspot.com web.app firebaseapp.com firebaseio.com run.app
    1e100.net ggpht.com ghs.googlehosted.com withgoogle.com edgecastcdn.net epsiloncdn.net systemcdn.net llnwd.net
    llnwi.net lldns.net footprint.net lumen.com stackpathdns.com stackpathcdn.com hwcdn.net kxcdn.com imgix.net
    cloudinary.com jsdelivr.net unpkg.com cachefly.net incapdns.net impervadns.net sucuri.net cdnsun.net gcdn.co
    gcorelabs.com edgecdn.ru cdnvideo.ru ngenix.net yandexcloud.net mycdn.me selcdn.ru selstorage.ru bizmrg.com
    aliyuncs.com alicdn.com alikunlun.com kunlunar.com kunlunca.com kunlunsl.com kunlunle.com cdngslb.com
    myqcloud.com qcloudcdn.com cdntip.com dnsv1.com tdnsv5.com qcloudcos.com bcebos.com bdydns.com jomodns.com
    myhuaweicloud.com cdnhwc1.com cdnhwc2.com cdn20.com wsdvs.com wscdns.com wswebpic.com lxdns.com chinacache.net
    ccgslb.com qiniucdn.com qbox.me clouddn.com upaiyun.com aicdn.com ksyuncdn.com ksyun.com volcdns.com
    herokuapp.com herokudns.com netlify.app netlify.com vercel.app vercel-dns.com github.io githubusercontent.com
    gitlab.io onrender.com fly.dev digitaloceanspaces.com ondigitalocean.app linodeobjects.com backblazeb2.com
    wasabisys.com wpengine.com wordpress.com wixsite.com squarespace.com myshopify.com shopify.com blogspot.com
    zendesk.com freshdesk.com statuspage.io atlassian.net salesforce.com force.com hubspot.com onelink.me app.link
    sentry.io auth0.com okta.com statsigapi.net segment.io segment.com amplitude.com mixpanel.com appsflyer.com
    adjust.com branch.io app-measurement.com arkoselabs.com omtrdc.net 2o7.net demdex.net livekit.cloud
    datadoghq.com newrelic.com nr-data.net intercom.io intercomcdn.com stripe.com qualtrics.com azure-dns.com
    awsdns.com nsone.net dnsmadeeasy.com domaincontrol.com translate.goog s3.amazonaws.com blob.core.windows.net
"""
SHARED_HOSTS: Final = tuple(_KEPT.split())
"""Kept by hand: below each are names of many customers."""
_HOLDS: Final = {host: host for host in SHARED_HOSTS}
for _host in SHARED_HOSTS:
    for _depth in range(1, _host.count(".") + 1):
        _HOLDS.setdefault(_host.split(".", _depth)[-1], _host)


def shared_host(suffix: str) -> str | None:
    """The shared host that a suffix would take in: itself, or one below it; None if there is none."""
    return _HOLDS.get(suffix)


_HEAD: Final = """\
# yaml-language-server: $schema=../../schema/policy.schema.json
#
# Made by `tokgate service import`. `tokgate service update {name} LIST` shows what a newer list changes; with
# --write it writes this file again, without comments of yours.
"""


def names_of(service: Service) -> Names:
    """What a service has by now; labels, which no list has, are not among them."""
    return {kind: [each.value for each in service.patterns if each.kind is kind] for kind in NAME_KINDS}


def service_file(name: str, title: str, source: ServiceSource, names: Names, before: Service | None = None) -> str:
    """The text of the file. Description, labels, addresses and listings are those of `before`: no list has any."""
    said: dict[str, Any] = {"title": title}
    if before is not None and before.description is not None:
        said["description"] = before.description
    said["source"] = {key: value for key, value in source_keys(source).items() if value}
    said["source"]["format"] = ListFormat(source.format).value  # text, which YAML can write
    by_kind: dict[str, list[str]] = {kind.value: list(names.get(kind, ())) for kind in NAME_KINDS}
    stores: dict[str, list[str]] = {}
    if before is not None:
        by_kind["label"] = [each.value for each in before.patterns if each.kind is PatternKind.LABEL]
        for listing in before.stores:
            stores.setdefault(listing.store, []).append(listing.identifier)
    said["names"] = {kind: values for kind, values in by_kind.items() if values}
    said["addresses"] = [] if before is None else [str(prefix) for prefix in before.addresses]
    said["store"] = stores
    said = {key: value for key, value in said.items() if value}
    body = yaml.safe_dump({"version": 1, "services": {name: said}}, sort_keys=False, allow_unicode=True, width=1 << 20)
    return _HEAD.format(name=name) + body


class SourceOutput(TypedDict):
    """The list from which the names were imported; the keys are those of `source` in YAML."""

    list: str
    format: ListFormat
    revision: str | None
    licence: str | None
    date: str | None
    attributes: "list[str]"
    subdomains: bool


def source_keys(source: ServiceSource) -> SourceOutput:
    """The keys of `source` as they stand in YAML, and in JSON."""
    return shown(SourceOutput, source)

"""Vector, Fluent Bit and Splunk: what can be tried of their configurations without them."""

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from vector_vrl import execute_vrl, validate_config

from labs.builders import present
from labs.examples import chained, stamped
from labs.logs import refusal, repeats
from labs.samples import SNAPSHOT
from labs.siem import leaves
from tokgate.blocklog.records.lifecycle import started
from tokgate.blocklog.records.log_schema import log_schema
from tokgate.blocklog.records.record import EventAction, encode
from tokgate.policy.observation import Stage

SIEM = Path(__file__).parents[2] / "deploy" / "siem"
RECORDS = [
    chained(refusal(), 7),
    chained(repeats(9, "2023-03-10T11:00:00Z", "2023-03-10T11:00:59Z"), 8),
    chained(refusal(stage=Stage.DNS), 9),
    chained(refusal(stage=Stage.HTTP), 10),
    chained(started(stamped(), 1, SNAPSHOT.policy), 11),
]
LINES = [encode(record).decode().removesuffix("\n") for record in RECORDS]


def loaded(name: str) -> dict[str, Any]:
    found = yaml.safe_load((SIEM / name).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def through(transform: str, *lines: str) -> list[dict[str, Any]]:
    """Lines through one of Vector's transforms, by its own compiler; nested objects come as JSON."""
    events = [json.dumps({"message": line, "file": "/var/log/tokgate/block.ndjson"}) for line in lines]
    return execute_vrl(loaded("vector/vector.yaml")["transforms"][transform]["source"], events)


def test_vectors_language_compiles() -> None:
    """Every transform, by Vector's own compiler."""
    checked = validate_config(loaded("vector/vector.yaml"))
    assert checked.ok
    assert len(checked.checked) == 2
    assert not checked.skipped


def test_vector_hands_lines_on_as_they_are() -> None:
    """Byte for byte, what a crash tore too."""
    lines = [*LINES, LINES[0][:50], 'ünïcode "quotes" \\ and \u2028']
    assert [event["line"] for event in through("tokgate_line", *lines)] == lines


def test_vector_takes_lines_apart() -> None:
    """All fields, none else, and an id that is the same whenever the line is sent."""
    for record, event in zip(RECORDS, through("tokgate_record", *LINES), strict=True):
        made = {key: _parsed(value) if key not in ("message", "_id") else value for key, value in event.items()}
        chain, sequence = record["tokgate"]["chain"], record["event"]["sequence"]
        assert made.pop("_id") == f"{chain}-{sequence}"
        assert made == record
    unchained = refusal()
    (event,) = through("tokgate_record", encode(unchained).decode().strip())
    assert event["_id"] == unchained["event"]["id"]
    (torn,) = through("tokgate_record", LINES[0][:50])
    assert "unable to parse json" in torn["error"]


@pytest.mark.parametrize("sink", sorted((SIEM / "vector" / "sinks").glob("*.yaml")), ids=lambda path: path.stem)
def test_vectors_sinks_are_fed(sink: Path) -> None:
    """Their inputs are sources and transforms that there are, and no password is written down."""
    whole = loaded("vector/vector.yaml")
    for settings in yaml.safe_load(sink.read_text(encoding="utf-8"))["sinks"].values():
        assert set(settings["inputs"]) <= set(whole["sources"]) | set(whole["transforms"])
    for secret in re.findall(r"(?:password|token): (\S+)", sink.read_text(encoding="utf-8")):
        assert secret.strip('"}').startswith("${")


def test_fluent_bits_tags_are_of_something() -> None:
    """Each filter and output matches a tag that an input or a filter makes; patterns fit lines of the log."""
    pipeline = loaded("fluent-bit/fluent-bit.yaml")["pipeline"]
    rules = [entry["rule"].split() for entry in pipeline["filters"] if entry["name"] == "rewrite_tag"]
    tags = {entry["tag"] for entry in pipeline["inputs"]} | {tag for _, _, tag, _ in rules}
    for entry in [*pipeline["filters"], *pipeline["outputs"]]:
        assert entry["match"] in tags
    for field, pattern, _, keep in rules:
        assert (field, keep) == ("$line", "true")
        assert all(re.search(pattern, line) for line in LINES)
    assert {entry["parser"] for entry in pipeline["filters"] if entry["name"] == "parser"} == {parser()["Name"]}


def parser() -> dict[str, str]:
    """Fluent Bit's parser, by the names of its options."""
    text = (SIEM / "fluent-bit" / "parsers.conf").read_text(encoding="utf-8")
    return dict(re.findall(r"^ +(\S+) +(\S.*)$", text, re.MULTILINE))


def test_fluent_bit_sends_the_time_of_the_record() -> None:
    """It is taken from each line before copies of it are made; without it an output sends when the line was read."""
    first = loaded("fluent-bit/fluent-bit.yaml")["pipeline"]["filters"][0]
    assert (first["name"], first["match"], first["key_name"]) == ("parser", "tokgate.line", "line")
    assert first["preserve_key"] is first["reserve_data"] is True
    pattern = parser()["Regex"].replace("(?<", "(?P<")
    for line, record in zip(LINES, RECORDS, strict=True):
        found = present(re.search(pattern, line))
        assert found.groupdict() == {parser()["Time_Key"]: record["@timestamp"]}


def test_fluent_bit_leaves_it_to_elasticsearch_to_take_lines_apart() -> None:
    """Its output adds an @timestamp: in a record that had one already it would stand twice, which is refused."""
    pipeline = loaded("fluent-bit/fluent-bit.yaml")["pipeline"]
    (output,) = (entry for entry in pipeline["outputs"] if entry["name"] == "es")
    (change,) = (entry for entry in pipeline["filters"] if entry["match"] == output["match"])
    assert (change["name"], change["rename"]) == ("modify", "line message")
    taking_apart = json.loads((SIEM / "elastic" / "pipeline.json").read_text(encoding="utf-8"))["processors"][0]["json"]
    assert (taking_apart["field"], taking_apart["add_to_root_conflict_strategy"]) == ("message", "replace")


def stanzas(name: str) -> configparser.ConfigParser:
    """A .conf file of the Splunk app."""
    text = (SIEM / "splunk" / name).read_text(encoding="utf-8")
    found = configparser.ConfigParser(interpolation=None, strict=True, comment_prefixes=("#",), delimiters=("=",))
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(re.sub(r" *\\\n *", " ", text), source=name)
    return found


@pytest.mark.parametrize(
    "path", sorted((SIEM / "splunk").glob("*/*.conf")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_splunks_files_can_be_read(path: Path) -> None:
    """No stanza and no setting twice, none without a value."""
    found = stanzas(f"{path.parent.name}/{path.name}")
    assert found.sections()
    assert all(value for section in found.sections() for value in found[section].values())


def test_splunk_finds_time_and_host() -> None:
    """The timestamp stands behind its prefix and within its look-ahead; the host is the gateway."""
    props, transforms = stanzas("default/props.conf")["tokgate:block"], stanzas("default/transforms.conf")
    for line, record in zip(LINES, RECORDS, strict=True):
        before = present(re.search(props["TIME_PREFIX"], line))
        looked_at = line[before.end() :][: int(props["MAX_TIMESTAMP_LOOKAHEAD"])]
        assert looked_at == record["@timestamp"]
        host = present(re.search(transforms["tokgate_host"]["REGEX"], line))
        assert host[1] == record["observer"]["hostname"]
    assert len(re.split(props["LINE_BREAKER"], "\n".join(LINES))[::2]) == len(LINES)


def test_splunks_aliases_are_of_fields_that_the_log_has() -> None:
    """A slip would make a field of the data model that is always empty."""
    fields = {name for name, _ in leaves(log_schema()["properties"])}
    props = stanzas("default/props.conf")["tokgate:block"]
    aliases = [
        named
        for key, value in props.items()
        if key.startswith("FIELDALIAS")
        for named in re.findall(r"(\S+) AS \S+", value)
    ]
    evaluated = [
        name for key, value in props.items() if key.startswith("EVAL") for name in re.findall(r"'([^']+)'", value)
    ]
    assert len(aliases) > 15
    assert set(aliases) | set(evaluated) <= fields


def test_splunk_knows_every_action() -> None:
    header, *rows = (SIEM / "splunk" / "lookups" / "tokgate_severity.csv").read_text(encoding="utf-8").split()
    assert header == "event.action,severity"
    assert {row.split(",")[0] for row in rows} == {action.value for action in EventAction}


def test_splunks_searches_use_macros_that_there_are() -> None:
    """And every event type has its tags."""
    macros = set(stanzas("default/macros.conf").sections())
    for name in ("default/savedsearches.conf", "default/macros.conf"):
        text = (SIEM / "splunk" / name).read_text(encoding="utf-8")
        assert set(re.findall(r"`(tokgate_[a-z]+)`", text)) <= macros
    types = {f"eventtype={name}" for name in stanzas("default/eventtypes.conf").sections()}
    assert types == set(stanzas("default/tags.conf").sections())


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value[:1] in ("{", "[") else value

"""Comments that silence a warning where it stands: `# tokgate: ignore CODE reason`."""

import re
from typing import Any, Final

import yaml

from tokgate.config.diagnostics import Code
from tokgate.config.yaml.source import Report, Source, TextSpan
from tokgate.config.yaml.suggestions import did_you_mean

_IGNORE: Final = re.compile(r"(?:^|[ \t])(?P<all>#[ \t]*tokgate:[ \t]*ignore\b[ \t]*(?P<code>\S*)[ \t]*(?P<reason>.*))")
_FORM: Final = "# tokgate: ignore CODE reason"
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_ignores(source: Source, report: Report, *, is_yaml: bool = True) -> None:
    """Note what the comments of a file silence: on their own line, or alone on it on the next that is no comment.

    Comments without a known code or without a reason silence nothing, and are told.
    """
    if "tokgate:" not in source.text:
        return
    texts = _texts(source) if is_yaml else []
    for number, line in enumerate(source.lines, 1):
        found = _IGNORE.search(line)
        if found is None or any(start <= (number, found.start("all")) < end for start, end in texts):
            continue
        code, place = found["code"], TextSpan(number, found.start("all") + 1, len(found["all"].rstrip()))
        if code not in Code:
            why = f": there is no diagnostic `{code}`{did_you_mean(code, list(Code))}" if code else f": write `{_FORM}`"
            report.warning(source, place, Code.BAD_IGNORE, f"this silences nothing{why}")
        elif not found["reason"].strip():
            message = f"this silences nothing without a reason: write `{_FORM.replace('CODE', code)}`"
            report.warning(source, place, Code.BAD_IGNORE, message)
        else:
            while source.lines[number - 1].lstrip().startswith("#") and number < len(source.lines):
                number += 1
            report.ignored.add((source.file, number, Code(code)))


def _texts(source: Source) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where each text begins and ends, in which `#` is no comment: lines from 1, columns from 0."""
    try:
        events: list[Any] = [
            each for each in yaml.parse(source.text, Loader=_LOADER) if isinstance(each, yaml.ScalarEvent)
        ]
    except yaml.YAMLError:
        return []
    marks = ((each.start_mark, each.end_mark) for each in events)
    return [((start.line + 1, start.column), (end.line + 1, end.column)) for start, end in marks]

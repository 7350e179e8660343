"""`tokgate run` as a command: what it takes, and how it says no. What it does is tested in tests/proxy."""

from pathlib import Path

import pytest

from tokgate.cli.main import build_parser


def test_defaults() -> None:
    """Without options: ./policies, drained within half a minute; the rest is the launcher's."""
    args = build_parser(("run",)).parse_args(["run"])

    assert (args.policies, args.mode, args.log, args.confdir) == (Path("policies"), None, None, None)
    assert (args.listen_host, args.listen_port, args.drain) == (None, None, 30.0)


def test_everything_said() -> None:
    """Each option reaches its place, and modes add up."""
    said = (
        "run --mode regular@8080 --mode transparent@8443 --policies p --log l --confdir c --drain 1.5 --listen-port 0 "
        "--name-server 203.0.113.53 --name-server 2001:db8::53"
    )
    args = build_parser(("run",)).parse_args(said.split())

    assert args.mode == ["regular@8080", "transparent@8443"]
    assert (args.policies, args.log, args.confdir) == (Path("p"), Path("l"), Path("c"))
    assert (args.drain, args.listen_port) == (1.5, 0)
    assert [str(address) for address in args.name_server] == ["203.0.113.53", "2001:db8::53"]


@pytest.mark.parametrize(
    "said",
    [
        ("--listen-port", "65536"),
        ("--listen-port", "-1"),
        ("--listen-port", "http"),
        ("--drain", "-1"),
        ("--drain", "nan"),
        ("--drain", "soon"),
        ("--name-server", "resolver.example.org"),
        ("unexpected",),
    ],
)
def test_usage_errors(said: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Values that make no sense end with 2 and a line that names the option."""
    with pytest.raises(SystemExit) as leaving:
        build_parser(("run",)).parse_args(["run", *said])

    assert leaving.value.code == 2
    assert said[0] in capsys.readouterr().err

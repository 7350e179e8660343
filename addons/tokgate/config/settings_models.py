"""The format of `settings:` as pydantic models: what holds for the whole policy."""

from pydantic import ConfigDict, Field

from tokgate.config.model_base import Model
from tokgate.config.values import (
    ClientsShownChoice,
    DayCount,
    DirectoryUrl,
    EchOuterChoice,
    EncryptedDnsChoice,
    Flag,
    Lasting,
    Line,
    Link,
    MissingSniChoice,
    OnErrorChoice,
    Outlet,
    Program,
    UnknownClientsChoice,
    WholePath,
)
from tokgate.policy.bans import (
    LONGEST_OVERRIDE,
    REMINDERS,
    ClientsShown,
    EchOuter,
    EncryptedDns,
    MissingSni,
    OnError,
    UnknownClients,
)


class OverridesModel(Model):
    """What overrides may be."""

    longest: Lasting = Field(
        default_factory=lambda: LONGEST_OVERRIDE,
        description="The longest override that may be made (ISO 8601). Default: `PT24H`.",
        examples=["PT8H"],
    )


class NotifyModel(Model):
    """Who is told of bans that are about to end. Enforcement waits for neither."""

    webhook: Link | None = Field(
        default=None,
        description="Where reminders are posted as JSON.",
        examples=["https://chat.example.org/hooks/tokgate"],
    )
    command: Program = Field(
        default=[],
        description="A program that gets each reminder as JSON on its standard input: its path and arguments. It runs "
        "as the user that tokgate runs as.",
        examples=[["/usr/local/bin/mail-reminder", "servicedesk@example.org"]],
    )


class LogModel(Model):
    """How the block log is kept. Read when tokgate starts."""

    clients: ClientsShownChoice = Field(
        default=ClientsShown.PLAIN,
        description="How clients are named: by address, by a keyed pseudonym, or by the network around them.",
    )
    pseudonym_days: DayCount = Field(
        default=30, description="How many days a pseudonym stays the same. Default: `30`.", examples=[7]
    )
    retention_days: DayCount | None = Field(
        default=None, description="After how many days rotated files are deleted. Default: never.", examples=[180]
    )
    checkpoint_to: list[Outlet] = Field(
        default=[],
        description="Where signed checkpoints are sent besides the log, so that a tail that was cut off shows: "
        "`journald`, `syslog` (this machine's), `syslog://host:port` (UDP).",
        examples=[["journald", "syslog://loghost.example.org:514"]],
    )
    key: WholePath | None = Field(
        default=None,
        description="The private key that signs the checkpoints; made if it isn't there. Default: beside the log.",
        examples=["/etc/tokgate/log.key"],
    )
    forward_security: Flag = Field(
        default=False,
        description="Each key signs one checkpoint, then the next key overwrites it: a key that is stolen can't "
        "sign what came before.",
    )
    near_misses: Flag = Field(
        default=False,
        description="`true`: names that resemble a banned service and match none of its rules are written to the log "
        "once an hour, without clients, as candidates for its file. This names allowed traffic: see docs/privacy.md.",
    )


class LdapModel(Model):
    """An LDAP directory that knows users and their groups. Reached by TLS, with the server's name checked."""

    url: DirectoryUrl = Field(
        description="Where it is. `ldap://` switches to TLS (StartTLS) before anything else, except on loopback.",
        examples=["ldaps://ldap.example.org"],
    )
    base: Line = Field(description="Below which users are looked for.", examples=["ou=people,dc=example,dc=org"])
    bind: Line | None = Field(
        default=None,
        description="The DN that searches. Default: anonymous.",
        examples=["cn=tokgate,ou=services,dc=example,dc=org"],
    )
    password: WholePath | None = Field(
        default=None, description="The file with the password for `bind`.", examples=["/etc/tokgate/ldap.password"]
    )
    user_attribute: Line = Field(
        default="uid", description="The attribute that holds the name of a user.", examples=["sAMAccountName"]
    )
    group_attribute: Line = Field(
        default="memberOf",
        description="The attribute of a user that holds the groups. Networks name a group by its `cn` or its whole DN.",
        examples=["memberOf"],
    )
    authorities: WholePath | None = Field(
        default=None,
        description="The certificates (PEM) against which the directory's is verified. Default: the system's.",
        examples=["/etc/tokgate/ldap-ca.pem"],
    )


class ProxyAuthModel(Model):
    """How users of an explicit proxy prove who they are. With it, nobody passes without."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["htpasswd"]}, {"required": ["ldap"]}]})

    htpasswd: WholePath | None = Field(
        default=None,
        description="The file of users and passwords, in Apache's format, with bcrypt (`htpasswd -B`).",
        examples=["/etc/tokgate/htpasswd"],
    )
    groups: WholePath | None = Field(
        default=None,
        description="The file of groups, in Apache's format: `group: user user`.",
        examples=["/etc/tokgate/groups"],
    )
    ldap: LdapModel | None = Field(
        default=None,
        description="A directory, instead of files.",
        examples=[{"url": "ldaps://ldap.example.org", "base": "ou=people,dc=example,dc=org"}],
    )


class SettingsModel(Model):
    """What holds for the whole policy."""

    unknown_clients: UnknownClientsChoice = Field(
        default=UnknownClients.ALLOW,
        description="A client in no network.",
    )
    on_error: OnErrorChoice = Field(
        default=OnError.BLOCK,
        description="What an internal error decides for names of banned services; all else passes.",
    )
    missing_sni: MissingSniChoice = Field(
        default=MissingSni.CHECK_ADDRESS,
        description="A TLS connection that names no host.",
    )
    ech_outer: EchOuterChoice = Field(
        default=EchOuter.ALLOW,
        description="A TLS connection whose real name is encrypted (ECH, RFC 9849).",
    )
    encrypted_dns: EncryptedDnsChoice = Field(
        default=EncryptedDns.DISCOURAGE,
        description="What tokgate's DNS answers when clients under a ban look for an encrypted resolver "
        "(`use-application-dns.net`, which Firefox asks for, and RFC 9462).",
    )
    overrides: OverridesModel = Field(
        default_factory=OverridesModel,
        description="Limits on what `tokgate override` makes.",
        examples=[{"longest": "PT8H"}],
    )
    reminders: list[Lasting] = Field(
        default_factory=lambda: list(REMINDERS),
        description="How long before a ban ends there are reminders, one for each entry. "
        "Default: `[P30D, P7D, P1D]`; `[]`: none. `tokgate check` looks as far ahead as the longest.",
        examples=[["P30D", "P7D", "P1D"]],
    )
    notify: NotifyModel = Field(
        default_factory=NotifyModel,
        description="Where reminders go besides the log.",
        examples=[{"webhook": "https://chat.example.org/hooks/tokgate"}],
    )
    log: LogModel = Field(
        default_factory=LogModel,
        description="How the block log is kept.",
        examples=[{"checkpoint_to": ["journald"]}],
    )
    proxy_auth: ProxyAuthModel | None = Field(
        default=None,
        description="How users of an explicit proxy prove who they are. Default: nobody has to.",
        examples=[{"htpasswd": "/etc/tokgate/htpasswd", "groups": "/etc/tokgate/groups"}],
    )

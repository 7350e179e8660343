"""The texts of the block page by language. Plain text: the template escapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

DEFAULT: Final = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strings:
    """All words of one language. `{…}` are filled in with values from the policy and the request."""

    title: str
    this_address: str
    """Stands for the service in the title where no service is known."""
    refused: str
    lead: str
    why: str
    nothing_else: str
    inspected: str
    """What the policy opens besides, where it does."""
    opened: str
    asked: str
    service: str
    ban: str
    authority: str
    basis: str
    reference: str
    since: str
    extends: str
    """Before an earlier term of the same measure."""
    pauses: str
    window: str
    """Until when a measure applies that has windows."""
    until: str
    lifted: str
    overdue: str
    contact: str
    event: str
    event_note: str
    without_ban: Mapping[str, str]
    months: tuple[str, ...]
    moment: str
    through: str
    """Until the end of a date, inclusive."""
    date: str = "{day} {month} {year}"
    first: str = "{day}"
    """The day of the month where it is the first: `1er` in French."""


_EN: Final = Strings(
    title="{what} is not available on this network",
    this_address="This address",
    refused="Refused",
    lead="Your request to {what} was refused. This is not a fault of your device or of the website.",
    why="Why",
    nothing_else="Nothing was sent to the website. Encrypted connections to other services pass this network unopened.",
    inspected="Connections to app stores, and those that hide their destination, are an exception: "
    "they can be opened to see which app or name is asked for.",
    opened="To show you this page, this filter opened the encrypted connection to this one name, and to no other.",
    asked="Address asked for",
    service="Service",
    ban="Measure",
    authority="Decided by",
    basis="Legal basis",
    reference="Read more",
    since="In force since",
    extends="Extends",
    pauses="Applies now until",
    window="{moment}; it applies at set times of the week only",
    until="End",
    lifted="no end is set: until it is lifted",
    overdue="was to end on {moment}, and is kept until it is lifted",
    contact="Questions or objections",
    event="Reference of this refusal",
    event_note="Give this reference when you ask. It is in the log of this filter.",
    without_ban={
        "unknown-client": "Your device belongs to no network for which this filter has rules.",
        "missing-sni": "The connection does not say which website it is meant for, and a measure is in force.",
        "ech-outer": "The connection hides which website it is meant for, and a measure is in force.",
        "internal-error": "The filter could not decide about this request, and refuses it to be on the safe side.",
        "": "The rules of this network do not allow this request.",
    },
    months=(
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ),
    moment="{day} {month} {year}, {time} ({zone})",
    through="until the end of {date} ({zone})",
)
_FR: Final = Strings(
    title="{what} n’est pas accessible sur ce réseau",
    this_address="Cette adresse",
    refused="Refusé",
    lead="Votre requête vers {what} a été refusée. Ni votre appareil ni le site ne sont en panne.",
    why="Pourquoi",
    nothing_else="Rien n’a été envoyé au site. Les connexions chiffrées vers d’autres services "
    "traversent ce réseau sans être ouvertes.",
    inspected="Font exception les connexions vers les magasins d’applications et celles qui cachent leur "
    "destination : elles peuvent être ouvertes pour savoir quelle application ou quel nom est demandé.",
    opened="Pour afficher cette page, ce filtre a ouvert la connexion chiffrée vers ce seul nom, et aucune autre.",
    asked="Adresse demandée",
    service="Service",
    ban="Mesure",
    authority="Décidée par",
    basis="Base juridique",
    reference="En savoir plus",
    since="En vigueur depuis le",
    extends="Prolonge",
    pauses="S’applique actuellement jusqu’au",
    window="{moment} ; elle ne s’applique qu’à des heures fixes de la semaine",
    until="Fin",
    lifted="aucune fin n’est fixée : jusqu’à sa levée",
    overdue="devait prendre fin le {moment} ; maintenue jusqu’à sa levée",
    contact="Questions ou objections",
    event="Référence de ce refus",
    event_note="Indiquez cette référence dans votre demande. Elle figure dans le journal de ce filtre.",
    without_ban={
        "unknown-client": "Votre appareil n’appartient à aucun réseau pour lequel ce filtre a des règles.",
        "missing-sni": "La connexion n’indique pas à quel site elle est destinée, alors qu’une mesure est en vigueur.",
        "ech-outer": "La connexion cache à quel site elle est destinée, alors qu’une mesure est en vigueur.",
        "internal-error": "Le filtre n’a pas pu statuer sur cette requête et la refuse par prudence.",
        "": "Les règles de ce réseau n’autorisent pas cette requête.",
    },
    months=(
        "janvier",
        "février",
        "mars",
        "avril",
        "mai",
        "juin",
        "juillet",
        "août",
        "septembre",
        "octobre",
        "novembre",
        "décembre",
    ),
    moment="{day} {month} {year} à {time} ({zone})",
    through="jusqu’au {date} inclus ({zone})",
    first="1er",
)
_NL: Final = Strings(
    title="{what} is niet beschikbaar op dit netwerk",
    this_address="Dit adres",
    refused="Geweigerd",
    lead="Uw verzoek aan {what} is geweigerd. Er is niets mis met uw toestel of met de website.",
    why="Waarom",
    nothing_else="Er is niets naar de website verzonden. Versleutelde verbindingen met andere diensten "
    "passeren dit netwerk ongeopend.",
    inspected="Uitgezonderd zijn verbindingen met app-winkels en verbindingen die hun bestemming verbergen: "
    "die kunnen worden geopend om te zien welke app of naam wordt gevraagd.",
    opened="Om u deze pagina te tonen heeft deze filter de versleutelde verbinding met alleen deze naam geopend, "
    "en geen andere.",
    asked="Gevraagd adres",
    service="Dienst",
    ban="Maatregel",
    authority="Beslist door",
    basis="Rechtsgrond",
    reference="Meer lezen",
    since="Van kracht sinds",
    extends="Verlengt",
    pauses="Geldt nu tot",
    window="{moment}; ze geldt alleen op vaste tijden in de week",
    until="Einde",
    lifted="er is geen einde vastgelegd: tot de opheffing ervan",
    overdue="zou eindigen op {moment}, en blijft gelden tot de opheffing ervan",
    contact="Vragen of bezwaren",
    event="Referentie van deze weigering",
    event_note="Vermeld deze referentie bij uw vraag. Ze staat in het logboek van deze filter.",
    without_ban={
        "unknown-client": "Uw toestel hoort bij geen enkel netwerk waarvoor deze filter regels heeft.",
        "missing-sni": "De verbinding vermeldt niet voor welke website ze bedoeld is, en er geldt een maatregel.",
        "ech-outer": "De verbinding verbergt voor welke website ze bedoeld is, en er geldt een maatregel.",
        "internal-error": "De filter kon over dit verzoek niet beslissen en weigert het voor de zekerheid.",
        "": "De regels van dit netwerk staan dit verzoek niet toe.",
    },
    months=(
        "januari",
        "februari",
        "maart",
        "april",
        "mei",
        "juni",
        "juli",
        "augustus",
        "september",
        "oktober",
        "november",
        "december",
    ),
    moment="{day} {month} {year} om {time} ({zone})",
    through="tot en met {date} ({zone})",
)
_DE: Final = Strings(
    title="{what} ist in diesem Netz nicht verfügbar",
    this_address="Diese Adresse",
    refused="Abgelehnt",
    lead="Ihre Anfrage an {what} wurde abgelehnt. Weder Ihr Gerät noch die Website ist gestört.",
    why="Warum",
    nothing_else="An die Website wurde nichts gesendet. Verschlüsselte Verbindungen zu anderen Diensten "
    "passieren dieses Netz ungeöffnet.",
    inspected="Ausgenommen sind Verbindungen zu App-Stores und solche, die ihr Ziel verbergen: "
    "Sie können geöffnet werden, um zu sehen, welche App oder welcher Name angefragt wird.",
    opened="Um Ihnen diese Seite zu zeigen, hat dieser Filter die verschlüsselte Verbindung zu diesem einen Namen "
    "geöffnet, und keine andere.",
    asked="Angefragte Adresse",
    service="Dienst",
    ban="Maßnahme",
    authority="Beschlossen von",
    basis="Rechtsgrundlage",
    reference="Mehr dazu",
    since="In Kraft seit",
    extends="Verlängert",
    pauses="Gilt jetzt bis",
    window="{moment}; sie gilt nur zu festen Zeiten der Woche",
    until="Ende",
    lifted="kein Ende ist festgelegt: bis zur Aufhebung",
    overdue="sollte am {moment} enden und gilt bis zur Aufhebung weiter",
    contact="Fragen oder Einwände",
    event="Aktenzeichen dieser Ablehnung",
    event_note="Geben Sie dieses Aktenzeichen bei Rückfragen an. Es steht im Protokoll dieses Filters.",
    without_ban={
        "unknown-client": "Ihr Gerät gehört zu keinem Netz, für das dieser Filter Regeln hat.",
        "missing-sni": "Die Verbindung nennt nicht, für welche Website sie bestimmt ist; eine Maßnahme ist in Kraft.",
        "ech-outer": "Die Verbindung verbirgt, für welche Website sie bestimmt ist; eine Maßnahme ist in Kraft.",
        "internal-error": "Der Filter konnte über diese Anfrage nicht entscheiden und lehnt sie sicherheitshalber ab.",
        "": "Die Regeln dieses Netzes lassen diese Anfrage nicht zu.",
    },
    months=(
        "Januar",
        "Februar",
        "März",
        "April",
        "Mai",
        "Juni",
        "Juli",
        "August",
        "September",
        "Oktober",
        "November",
        "Dezember",
    ),
    moment="{day}. {month} {year}, {time} Uhr ({zone})",
    through="bis einschließlich {date} ({zone})",
    date="{day}. {month} {year}",
)

STRINGS: Final[Mapping[str, Strings]] = {"en": _EN, "fr": _FR, "nl": _NL, "de": _DE}
"""By language tag, the default first."""

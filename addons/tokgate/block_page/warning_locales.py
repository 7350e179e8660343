"""The texts of the warning page by language, besides those of a refusal. Plain text: the template escapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tokgate.policy.schedule import Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningStrings:
    """All words of one language. `{…}` are filled in."""

    warned: str
    title: str
    lead: str
    blocked_from: str
    choice: str
    holds: str
    holds_less: str
    """Where the ban blocks or ends before `continue_for` is over."""
    recorded: str
    button: str
    nothing_yet: str
    event: str
    units: Mapping[str, tuple[str, str]]
    """One, and several of each unit of time."""
    comma: str = ", "

    def lasting(self, duration: Duration) -> str:
        """A duration as it is written: `1 day, 12 hours`."""
        said = [(value, self.units[unit]) for unit, value in duration.items() if value]
        return self.comma.join(f"{value} {one if value == 1 else several}" for value, (one, several) in said)


WARNING_STRINGS: Final[Mapping[str, WarningStrings]] = {
    "en": WarningStrings(
        warned="Warning",
        title="Before you continue to {what}",
        lead="A measure on this network concerns {what}. Please read it first. You may continue.",
        blocked_from="Blocked from",
        choice="Your choice",
        holds="If you continue, this page is not shown again for {lasting}: until {moment}.",
        holds_less="If you continue, this page is not shown again until {moment}.",
        recorded="It is recorded that this device continued, when, and until when. Its connections then pass unopened, "
        "and each is recorded as a warning. If you don’t want that, close this page.",
        button="Continue to {what}",
        nothing_yet="This request has not been sent to the website. Encrypted connections to other services pass this "
        "network unopened.",
        event="Reference of this warning",
        units={
            "years": ("year", "years"),
            "months": ("month", "months"),
            "weeks": ("week", "weeks"),
            "days": ("day", "days"),
            "hours": ("hour", "hours"),
            "minutes": ("minute", "minutes"),
            "seconds": ("second", "seconds"),
            "nanoseconds": ("nanosecond", "nanoseconds"),
        },
    ),
    "fr": WarningStrings(
        warned="Avertissement",
        title="Avant de continuer vers {what}",
        lead="Une mesure en vigueur sur ce réseau concerne {what}. Veuillez d’abord en prendre connaissance. "
        "Vous pouvez continuer.",
        blocked_from="Bloqué à partir du",
        choice="À vous de choisir",
        holds="Si vous continuez, cette page n’apparaîtra plus pendant {lasting} : jusqu’au {moment}.",
        holds_less="Si vous continuez, cette page n’apparaîtra plus jusqu’au {moment}.",
        recorded="Le fait que cet appareil a continué est enregistré, avec l’heure et l’échéance. Ses connexions "
        "passent ensuite sans être ouvertes, et chacune est enregistrée comme avertissement. Si vous ne le souhaitez "
        "pas, fermez cette page.",
        button="Continuer vers {what}",
        nothing_yet="Cette requête n’a pas été envoyée au site. Les connexions chiffrées vers d’autres services "
        "traversent ce réseau sans être ouvertes.",
        event="Référence de cet avertissement",
        units={
            "years": ("an", "ans"),
            "months": ("mois", "mois"),
            "weeks": ("semaine", "semaines"),
            "days": ("jour", "jours"),
            "hours": ("heure", "heures"),
            "minutes": ("minute", "minutes"),
            "seconds": ("seconde", "secondes"),
            "nanoseconds": ("nanoseconde", "nanosecondes"),
        },
    ),
    "nl": WarningStrings(
        warned="Waarschuwing",
        title="Voordat u doorgaat naar {what}",
        lead="Een maatregel op dit netwerk betreft {what}. Lees hem eerst. U mag doorgaan.",
        blocked_from="Geblokkeerd vanaf",
        choice="Uw keuze",
        holds="Als u doorgaat, verschijnt deze pagina {lasting} niet meer: tot {moment}.",
        holds_less="Als u doorgaat, verschijnt deze pagina niet meer tot {moment}.",
        recorded="Er wordt vastgelegd dat dit toestel is doorgegaan, wanneer, en tot wanneer. De verbindingen ervan "
        "passeren daarna ongeopend, en elke verbinding wordt als waarschuwing vastgelegd. Wilt u dat niet, sluit dan "
        "deze pagina.",
        button="Doorgaan naar {what}",
        nothing_yet="Dit verzoek is niet naar de website verzonden. Versleutelde verbindingen met andere diensten "
        "passeren dit netwerk ongeopend.",
        event="Referentie van deze waarschuwing",
        units={
            "years": ("jaar", "jaar"),
            "months": ("maand", "maanden"),
            "weeks": ("week", "weken"),
            "days": ("dag", "dagen"),
            "hours": ("uur", "uur"),
            "minutes": ("minuut", "minuten"),
            "seconds": ("seconde", "seconden"),
            "nanoseconds": ("nanoseconde", "nanoseconden"),
        },
    ),
    "de": WarningStrings(
        warned="Warnung",
        title="Bevor Sie {what} öffnen",
        lead="Eine Maßnahme in diesem Netz betrifft {what}. Bitte lesen Sie sie zuerst. Sie dürfen fortfahren.",
        blocked_from="Gesperrt ab",
        choice="Ihre Wahl",
        holds="Wenn Sie fortfahren, erscheint diese Seite nicht wieder: {lasting} lang, bis {moment}.",
        holds_less="Wenn Sie fortfahren, erscheint diese Seite bis {moment} nicht wieder.",
        recorded="Es wird festgehalten, dass dieses Gerät fortgefahren ist, wann, und bis wann. Seine Verbindungen "
        "passieren danach ungeöffnet, und jede wird als Warnung festgehalten. Wenn Sie das nicht möchten, schließen "
        "Sie diese Seite.",
        button="{what} öffnen",
        nothing_yet="Diese Anfrage wurde nicht an die Website gesendet. Verschlüsselte Verbindungen zu anderen "
        "Diensten passieren dieses Netz ungeöffnet.",
        event="Aktenzeichen dieser Warnung",
        units={
            "years": ("Jahr", "Jahre"),
            "months": ("Monat", "Monate"),
            "weeks": ("Woche", "Wochen"),
            "days": ("Tag", "Tage"),
            "hours": ("Stunde", "Stunden"),
            "minutes": ("Minute", "Minuten"),
            "seconds": ("Sekunde", "Sekunden"),
            "nanoseconds": ("Nanosekunde", "Nanosekunden"),
        },
    ),
}
"""By language tag."""

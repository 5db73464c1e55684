"""WhatsApp's export as text, of phones and of its page in a browser.

A message begins with its date and time, in the order and with the signs of the phone's region::

    31/12/2020, 23:59 - Ada Example: text          Android
    [12/31/20, 11:59:59 PM] Ada Example: text      iOS
    [23:59, 31/12/2020] Ada Example: text          copied in a browser

Other lines belong to the message before them. U+200E comes before what the app itself wrote.
"""

from __future__ import annotations

import re
from typing import Iterable, Iterator, List, Optional, Set, Tuple

from fastrnn.lm.data.chats.message import MARKS, Item, LeftOut, MisfitError, item

# Phones that write from right to left put marks beside the signs.
_SIGN = rf"[{MARKS}]*[./-][{MARKS}]*\s?"
_DATE = rf"\d{{1,4}}{_SIGN}\d{{1,2}}{_SIGN}\d{{1,4}}[{MARKS}]*\.?"
_WORD = r"[^\W\d_]{1,4}\.?"  # such as AM, p. m., klo, 下午
_TIME = rf"(?:{_WORD}\s?)?\d{{1,2}}[:.]\d\d(?:[:.]\d\d)?(?:\s?{_WORD}(?:\s?{_WORD})?)?"
_BOTH = rf"({_DATE})[,،]?\s{{1,2}}{_TIME}"
_HEADER = re.compile(
    rf"[{MARKS}]*(?:\[{_BOTH}\]|\[{_TIME},\s({_DATE})\]|{_BOTH}\s[-–])\s?(.*)", re.DOTALL
)
# A sender has no quotation marks; the subject of a group, which system lines tell, has them.
_SENDER = re.compile(r"([^\"“”„«»\n]{1,80}?):(?:\s|$)(.*)", re.DOTALL)

_APP = "\u200e"
# Android's <Media omitted> in any language; iOS's "image omitted"; a place on the map.
_MEDIA = re.compile(
    r"<[^<>\n]*(?: |[^\x00-\x7f])[^<>\n]*>"
    r"|(?:image|video( note)?|audio|sticker|GIF|document|contact card|Bild|Video|Audio|Dokument"
    r"|Kontaktkarte|imagen|vídeo|documento|vidéo|immagine|imagem|áudio|figurinha|afbeelding"
    r"|görüntü|изображение|видео|аудио) "
    r"(?:omitted|weggelassen|ausgelassen|omitid[oa]|absente?|omis|retiré|manquant|omess[oa]|esclusa"
    r"|ocultad[oa]|weggelaten|dahil edilmedi|отсутствует|пропущено)"
    r"|[^\s:]+: https?://maps\.google\.com/\S+",
    re.IGNORECASE,
)
# Android: a name and "(file attached)"; iOS: <attached: a name>.
_ATTACHED = re.compile(
    r"(?:\u200e[^\n]+|(?:IMG|VID|AUD|PTT|STK|DOC)-\d{8}-WA\d{4})\.\w{2,5} \([^()\n]+\)$"
    r"|\u200e?<[^<>\n]+\.\w{2,5}>$"
)
_DELETED = re.compile(
    r"(?:this message was deleted|you deleted this message|diese nachricht wurde gelöscht"
    r"|du hast diese nachricht gelöscht|se eliminó este mensaje|eliminaste este mensaje"
    r"|ce message a été supprimé|vous avez supprimé ce message"
    r"|questo messaggio è stato eliminato|hai eliminato questo messaggio"
    r"|(?:esta )?mensagem (?:foi )?apagada|(?:você )?apagou esta mensagem|dit bericht is verwijderd"
    r"|[uj]e? hebt dit bericht verwijderd|bu mesaj silindi|bu mesajı sildiniz"
    r"|(?:данное )?сообщение удалено|вы удалили данное сообщение"
    r"|ta wiadomość została usunięta|usunięto tę wiadomość|pesan ini (?:telah )?dihapus"
    r"|anda (?:telah )?menghapus pesan ini)\.?",
    re.IGNORECASE,
)
_EDITED = re.compile(
    r"(?<!\s)\s*(?:\u200e<[^<>\n]+>"
    r"|\u200e[^\n]{1,30} (?:omitted|weggelassen|omitid[oa]|absente?|omess[oa])"
    r"|<(?:this message was edited|diese nachricht wurde bearbeitet|se editó este mensaje"
    r"|ce message a été modifié|questo messaggio è stato modificato|mensagem editada"
    r"|dit bericht is bewerkt|bu mesaj düzenlendi|(?:данное )?сообщение изменено"
    r"|ta wiadomość została edytowana|pesan ini diedit)\.?>)\s*$",
    re.IGNORECASE,
)
TITLE = "WhatsApp"


def fits(head: str) -> bool:
    """Whether the first line is dated, and at least one line has a sender."""
    lines = head.lstrip().split("\n")
    if not _HEADER.match(lines[0]):
        return False
    headers = filter(None, map(_HEADER.match, lines))
    return any(_SENDER.match(header[header.lastindex or 0]) for header in headers)


def read(lines: Iterable[str]) -> Iterator[Item]:
    """The messages, each when the next begins."""
    date: Optional[str] = None
    said: List[str] = []
    for number, line in enumerate(lines, 1):
        header = _HEADER.match(line)
        if header:
            if date is not None:
                yield from _items("\n".join(said), date)
            date = header[1] or header[2] or header[3]
            said = [header[4]]
        elif date is not None:
            said.append(line)
        elif line.strip(MARKS + " \t"):
            raise MisfitError(number, line)
    if date is None:
        raise MisfitError(1, "")
    yield from _items("\n".join(said), date)


def _items(said: str, date: str) -> Iterator[Item]:
    found = _SENDER.match(said)
    if not found:
        yield LeftOut("system lines")
        return
    sender, text = found[1], found[2].strip(" \t\n")
    first, _, caption = text.partition("\n")
    plain = first.strip(MARKS + " ")
    if _ATTACHED.match(first.strip()) or _MEDIA.fullmatch(plain):
        yield LeftOut("media")
        text = caption
        if not caption:
            return
    elif _DELETED.fullmatch(plain):
        yield LeftOut("deleted messages")
        return
    elif text.startswith(_APP):
        yield LeftOut("system lines")
        return
    yield item(sender, _EDITED.sub("", text), date)


def span(dates: Set[str]) -> Tuple[str, str]:
    """The first and last date; in both orders of day and month, as the larger numbers show."""
    triples = [[int(number) for number in re.findall(r"\d+", date)] for date in dates]
    month_first = any(second > 12 for first, second, _ in triples if first < 32)
    found = []
    for first, second, third in triples:
        if first > 31:
            year, month, day = first, second, third
        else:
            day, month = (second, first) if month_first else (first, second)
            year = third
        found.append(f"{year if year > 99 else 2000 + year}-{month:02}-{day:02}")
    return min(found), max(found)

"""Parser for TwiML, as far as a call with a media stream needs it. Pure.

Problems have Twilio's own error codes. As strict as Twilio: an unknown verb or attribute is a problem, even if the call
continues.

Source: Twilio's TwiML reference, `<Connect>`, `<Stream>`, `<Start>`, `<Hangup>`, `<Reject>`; debugger codes 12100, 12200.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

_ATTRIBUTES: Final = {
    "Connect": {"action", "method"},
    "Stream": {"url", "name", "track", "statusCallback", "statusCallbackMethod"},
    "Parameter": {"name", "value"},
    "Reject": {"reason"},
    "Hangup": set(),
    "Pause": {"length"},
    "Say": {"voice", "language", "loop"},
    "Play": {"loop", "digits"},
    "Redirect": {"method"},
    "Number": {"url", "method"},
    "Sip": {"url", "method"},
    "Gather": {"action", "method", "numDigits", "timeout", "input", "finishOnKey", "actionOnEmptyResult"},
    "Dial": {"action", "method", "timeout", "callerId", "timeLimit", "hangupOnStar", "answerOnBridge"},
    "Start": {"action", "method"},
}
#: Characters of a parameter's name and value in sum; Twilio's documentation of `<Parameter>`.
_PARAMETER_LIMIT: Final = 500


@dataclass(frozen=True)
class Stream:
    """`<Connect><Stream>`: destination of the call's audio."""

    url: str
    name: str
    parameters: dict[str, str]
    status_callback: str
    action: str


@dataclass(frozen=True)
class Verb:
    """Any other verb: name, attributes, text. `nouns`: the elements in it, such as the numbers of a `<Dial>`."""

    name: str
    attributes: dict[str, str]
    text: str
    nouns: tuple[Verb, ...] = ()


@dataclass(frozen=True)
class Document:
    """Verbs in sequence, and the debugger's entries: code and sentence."""

    verbs: list[Stream | Verb] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)


def parse(text: str, content_type: str = "text/xml") -> Document:
    """Parse a document. A malformed one has no verbs and a problem."""
    document = Document()
    if content_type.split(";")[0].strip().lower() not in ("text/xml", "application/xml"):
        document.problems.append((12300, f"invalid content type {content_type!r}"))
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        document.problems.append((12100, f"document parse failure: {error}"))
        return document
    if root.tag != "Response":
        document.problems.append((12100, f"the root element is {root.tag!r}, not 'Response'"))
        return document
    for element in root:
        _check(element, document)
        if element.tag == "Connect" and len(element) == 1 and element[0].tag == "Stream":
            document.verbs.append(_stream(element, element[0], document))
        else:
            for noun in element:
                _check(noun, document)
            document.verbs.append(_verb(element))
    return document


def _verb(element: ElementTree.Element) -> Verb:
    text = "".join(element.itertext()).strip()
    return Verb(element.tag, dict(element.attrib), text, tuple(_verb(noun) for noun in element))


def _check(element: ElementTree.Element, document: Document) -> None:
    allowed = _ATTRIBUTES.get(element.tag)
    if allowed is None:
        document.problems.append((12200, f"unknown verb or noun {element.tag!r}"))
        return
    document.problems.extend(
        (12200, f"{element.tag} has no attribute {name!r}") for name in element.attrib if name not in allowed
    )


def _stream(connect: ElementTree.Element, stream: ElementTree.Element, document: Document) -> Stream:
    _check(stream, document)
    url = stream.get("url", "")
    parts = urlsplit(url)
    if parts.scheme not in ("", "wss") and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        document.problems.append((31922, f"the scheme of {url!r} is not wss"))
    if parts.query:
        document.problems.append((31920, f"{url!r} has a query string"))
    parameters: dict[str, str] = {}
    for element in stream:
        _check(element, document)
        name, value = element.get("name", ""), element.get("value", "")
        if element.tag != "Parameter" or not name:
            document.problems.append((12200, f"{element.tag} inside Stream is not a named Parameter"))
        elif len(name) + len(value) >= _PARAMETER_LIMIT:
            document.problems.append((12200, f"the parameter {name!r} is {len(name) + len(value)} characters long"))
        else:
            parameters[name] = value
    return Stream(url, stream.get("name", ""), parameters, stream.get("statusCallback", ""), connect.get("action", ""))

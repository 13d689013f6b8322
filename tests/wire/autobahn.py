"""Conformance cases of a websocket: sections 1 to 7 and 10 of Autobahn.

Written after the case descriptions of crossbario/autobahn-testsuite.

A case is the frames one end sends, and all that it must read from the other: echoes, pongs, one close code. Autobahn accepts some
behaviour as "non-strict"; here only the strict one passes. Sections 9, 12 and 13 measure speed and compression.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
#: First bytes of frames: FIN and opcode.
WHOLE_TEXT, WHOLE_BINARY, FIRST_TEXT, MORE, LAST = 0x81, 0x82, 0x01, 0x00, 0x80
A_PING, A_PONG, A_CLOSE = 0x89, 0x8A, 0x88

Frames = tuple[tuple[int, bytes], ...]

#: Ways to send: all frames in one write, a write for each frame, or a write for each byte.
TOGETHER, BY_FRAME, BY_BYTE = 0, -1, 1


class Case(NamedTuple):
    """One case: first bytes and payloads `sent`; opcodes and payloads of the `answers`; `code` of the close frame, 0 for none.

    `chop`: how it is sent, a positive number being bytes a write. `held`: bytes at the end that are not sent at all.
    """

    name: str
    sent: Frames
    answers: Frames = ()
    code: int = 1000
    chop: int = TOGETHER
    held: int = 0


def _closing(code: int, reason: bytes = b"") -> tuple[int, bytes]:
    return A_CLOSE, code.to_bytes(2) + reason


#: Ends every case that breaks no rule.
END: Final = _closing(1000)


def _payloads() -> Iterator[Case]:
    for part, first, byte in ((1, WHOLE_TEXT, b"*"), (2, WHOLE_BINARY, b"\xfe")):
        for n, (size, chop) in enumerate(
            ((0, 0), (125, 0), (126, 0), (127, 0), (128, 0), (65535, 0), (65536, 0), (65536, 997)), 1
        ):
            yield Case(f"1.{part}.{n}", ((first, byte * size), END), ((first & 15, byte * size),), chop=chop)


def _pings() -> Iterator[Case]:
    binary = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
    for n, payload in enumerate((b"", b"Hello, world!", binary, b"\xfe" * 125), 1):
        yield Case(f"2.{n}", ((A_PING, payload), END), ((PONG, payload),))
    yield Case("2.5", ((A_PING, b"\xfe" * 126),), code=1002)
    yield Case("2.6", ((A_PING, b"\xfe" * 125), END), ((PONG, b"\xfe" * 125),), chop=BY_BYTE)
    yield Case("2.7", ((A_PONG, b""), END))
    yield Case("2.8", ((A_PONG, b"unsolicited"), END))
    yield Case("2.9", ((A_PONG, b"unsolicited"), (A_PING, b"payload"), END), ((PONG, b"payload"),))
    ten = [b"payload-%d" % n for n in range(10)]
    for n, chop in ((10, TOGETHER), (11, BY_BYTE)):
        yield Case(f"2.{n}", (*((A_PING, payload) for payload in ten), END), tuple((PONG, payload) for payload in ten), chop=chop)


def _reserved() -> Iterator[Case]:
    """Reserved bits and opcodes, alone or behind a good message, which is answered first."""
    hello, ping, echo = (WHOLE_TEXT, b"Hello, world!"), (A_PING, b""), ((TEXT, b"Hello, world!"),)
    chops = {2: TOGETHER, 3: BY_FRAME, 4: BY_BYTE}
    yield Case("3.1", ((WHOLE_TEXT | 0x10, b"Hello, world!"),), code=1002)
    for bits, chop in chops.items():
        yield Case(f"3.{bits}", (hello, (WHOLE_TEXT | bits << 4, b"Hello, world!"), ping), echo, 1002, chop)
    yield Case("3.5", ((WHOLE_BINARY | 0x50, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),), code=1002)
    yield Case("3.6", ((A_PING | 0x60, b"Hello, world!"),), code=1002)
    yield Case("3.7", ((A_CLOSE | 0x70, b""),), code=1002)
    for part, opcode in ((1, 3), (2, 11)):
        yield Case(f"4.{part}.1", ((0x80 | opcode, b""),), code=1002)
        yield Case(f"4.{part}.2", ((0x80 | opcode + 1, b"reserved"),), code=1002)
        for n, (payload, chop) in enumerate(((b"", TOGETHER), (b"reserved", BY_FRAME), (b"reserved", BY_BYTE)), 2):
            yield Case(f"4.{part}.{n + 1}", (hello, (0x80 | opcode + n, payload), ping), echo, 1002, chop)


def _fragments() -> Iterator[Case]:
    first, last, echo = (FIRST_TEXT, b"fragment1"), (LAST, b"fragment2"), (TEXT, b"fragment1fragment2")
    ping, pong = (A_PING, b"ping"), (PONG, b"ping")
    ways = (TOGETHER, BY_FRAME, BY_BYTE)
    yield Case("5.1", ((PING, b"fragment1"), last), code=1002)
    yield Case("5.2", ((PONG, b"fragment1"), last), code=1002)
    for n, chop in enumerate(ways):
        yield Case(f"5.{3 + n}", (first, last, END), (echo,), chop=chop)
        yield Case(f"5.{6 + n}", (first, ping, last, END), (pong, echo), chop=chop)
        yield Case(f"5.{9 + n}", ((LAST, b"nothing to continue"), (WHOLE_TEXT, b"Hello")), code=1002, chop=chop)
        yield Case(f"5.{12 + n}", ((MORE, b"nothing to continue"), (WHOLE_TEXT, b"Hello")), code=1002, chop=chop)
    yield Case("5.15", (first, last, (MORE, b"fragment3"), (WHOLE_TEXT, b"fragment4")), (echo,), 1002)
    for n, wrong in ((16, MORE), (17, LAST)):
        yield Case(f"5.{n}", ((wrong, b"fragment1"), (FIRST_TEXT, b"fragment2"), (LAST, b"fragment3")) * 2, code=1002)
    yield Case("5.18", (first, (WHOLE_TEXT, b"fragment2")), code=1002)
    parts = [b"fragment%d" % n for n in range(1, 6)]
    five: Frames = (
        (FIRST_TEXT, parts[0]), (MORE, parts[1]), (A_PING, b"pongme 1!"),
        (MORE, parts[2]), (MORE, parts[3]), (A_PING, b"pongme 2!"), (LAST, parts[4]), END,
    )  # fmt: skip
    answers = ((PONG, b"pongme 1!"), (PONG, b"pongme 2!"), (TEXT, b"".join(parts)))
    yield Case("5.19", five, answers, chop=BY_FRAME)
    yield Case("5.20", five, answers)


_COSME: Final = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode()
_CONTINUATIONS: Final = bytes(range(0x80, 0xC0))
_CUT_SHORT: Final = ("c0", "e080", "f08080", "f8808080", "fc80808080", "df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf")
_SURROGATES: Final = ("eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf")

#: Section 6 from 6.5 on: texts sent in one frame. Valid if Python's decoder accepts them; `test_autobahn` counts both kinds.
_TEXTS: Final[dict[int, list[bytes]]] = {
    5: [b"hello" + char.encode() + b"world" for char in "$¢€\U00024b62"] + [_COSME],
    6: [_COSME[:n] for n in range(1, 12)],
    7: [chr(code).encode() for code in (0, 0x80, 0x800, 0x10000)],
    8: [bytes.fromhex(text) for text in ("f888808080", "fc8480808080")],
    9: [chr(code).encode() for code in (0x7F, 0x7FF, 0xFFFF, 0x10FFFF)],
    10: [bytes.fromhex(text) for text in ("f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf")],
    11: [bytes.fromhex(text) for text in ("ed9fbf", "ee8080", "efbfbd", "f48fbfbf", "f4908080")],
    12: [b"\x80", b"\xbf", *((b"\x80\xbf" * 3)[:n] for n in range(2, 7)), _CONTINUATIONS],
    13: [
        b"".join(bytes((byte, 0x20)) for byte in range(first, last))
        for first, last in ((0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0xF8), (0xF8, 0xFC), (0xFC, 0xFE))
    ],
    14: [bytes.fromhex(text) for text in _CUT_SHORT],
    15: [bytes.fromhex("".join(_CUT_SHORT))],
    16: [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"],
    17: [bytes.fromhex(text) for text in ("c0af", "e080af", "f08080af", "f8808080af", "fc80808080af")],
    18: [bytes.fromhex(text) for text in ("c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf")],
    19: [bytes.fromhex(text) for text in ("c080", "e08080", "f0808080", "f880808080", "fc8080808080")],
    20: [bytes.fromhex(text) for text in _SURROGATES],
    21: [bytes.fromhex(high + low) for high in _SURROGATES[:4] for low in ("edb080", "edbfbf")],
    22: [chr(plane << 16 | low).encode() for plane in range(17) for low in (0xFFFE, 0xFFFF)],
    23: [chr(code).encode() for code in range(0xFFF9, 0x10000)],
}


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _in_fragments(pieces: list[bytes]) -> Frames:
    """Build the frames of one text message."""
    last = len(pieces) - 1
    return tuple(((LAST if n == last else MORE) | (TEXT if n == 0 else 0), piece) for n, piece in enumerate(pieces))


def _octets(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


def _utf8() -> Iterator[Case]:
    hello, bad = "Hello-µ@ßöäüàá-UTF-8!!".encode(), _COSME + b"\xed\xa0\x80edited"
    middle = b"middle frame payload"
    at = len("Hello-µ@ßöä".encode())
    for name, pieces in {
        "6.1.1": [b""],
        "6.1.2": [b"", b"", b""],
        "6.1.3": [b"", middle, b""],
        "6.2.1": [hello],
        "6.2.2": [hello[:at], hello[at:]],
        "6.2.3": _octets(hello),
        "6.2.4": _octets(_COSME),
    }.items():
        yield Case(name, (*_in_fragments(pieces), END), ((TEXT, b"".join(pieces)),))
    yield Case("6.3.1", ((WHOLE_TEXT, bad),), code=1007)
    yield Case("6.3.2", _in_fragments(_octets(bad)), code=1007, chop=BY_FRAME, held=len(b"edited"))
    for n, (prefix, wrong, rest) in enumerate(
        ((_COSME, b"\xf4\x90\x80\x80", b"edited"), (_COSME + b"\xf4", b"\x90", b"\x80\x80edited")), 1
    ):
        yield Case(f"6.4.{n}", _in_fragments([prefix, wrong, rest]), code=1007, chop=BY_FRAME, held=len(rest))
        yield Case(f"6.4.{n + 2}", ((WHOLE_TEXT, prefix + wrong + rest),), code=1007, chop=len(prefix), held=len(rest))
    for part, texts in _TEXTS.items():
        for n, text in enumerate(texts, 1):
            valid = Case(f"6.{part}.{n}", ((WHOLE_TEXT, text), END), ((TEXT, text),))
            yield valid if _is_utf8(text) else valid._replace(answers=(), code=1007)


def _closes() -> Iterator[Case]:
    hello, echo = (WHOLE_TEXT, b"Hello World!"), ((TEXT, b"Hello World!"),)
    yield Case("7.1.1", (hello, END), echo)
    yield Case("7.1.2", (END, END))
    yield Case("7.1.3", (END, (A_PING, b"late")))
    yield Case("7.1.4", (END, hello))
    yield Case("7.1.5", ((FIRST_TEXT, b"fragment1"), END, (LAST, b"fragment2")))
    long = b"BAsd7&jh23" * 26_214
    yield Case("7.1.6", ((WHOLE_TEXT, long), END, (A_PING, b"late")), ((TEXT, long),))
    yield Case("7.3.1", ((A_CLOSE, b""),), code=0)
    yield Case("7.3.2", ((A_CLOSE, b"a"),), code=1002)
    yield Case("7.3.3", (_closing(1000),))
    yield Case("7.3.4", (_closing(1000, b"Hello World!"),))
    yield Case("7.3.5", (_closing(1000, b"*" * 123),))
    yield Case("7.3.6", (_closing(1000, b"*" * 124),), code=1002)
    yield Case("7.5.1", (_closing(1000, _COSME + b"\xed\xa0\x80edited"),), code=1007)
    for n, code in enumerate((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999), 1):
        yield Case(f"7.7.{n}", (_closing(code),), code=code)
    for n, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
        yield Case(f"7.9.{n}", (_closing(code),), code=1002)
    for n, code in enumerate((5000, 65535), 1):
        yield Case(f"7.13.{n}", (_closing(code),), code=1002)


def _automatic() -> Iterator[Case]:
    text = b"*" * 65536
    pieces = [text[at : at + 1300] for at in range(0, len(text), 1300)]
    yield Case("10.1.1", (*_in_fragments(pieces), END), ((TEXT, text),))


CASES: Final = [
    *_payloads(), *_pings(), *_reserved(), *_fragments(), *_utf8(), *_closes(), *_automatic(),
]  # fmt: skip

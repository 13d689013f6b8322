"""Search for the dearest input of each parser, in CPU time of one slice.

    tests/fuzz/worst.py [--seconds 20] [--target ai_read,form]

An input is a prefix, a unit repeated up to the size of one read, and a suffix. Hill climbing changes the three, from the kept
corpus and a few dictionaries; the time of an input is the least of three runs. Prints a table, and writes each worst input to
out/fuzz/worst. Exit code 1: an input over 1 ms.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import monotonic, thread_time
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT)]

from gw import bus  # noqa: E402
from gw.errors import GatewayError  # noqa: E402
from gw.media import webhooks  # noqa: E402
from gw.protocol import openai_realtime, signature, token, twilio  # noqa: E402
from gw.protocol.http import ChunkedReader, HeadReader  # noqa: E402
from gw.protocol.webhook_form import parse_form  # noqa: E402
from gw.protocol.websocket.frames import TEXT, MessageCutter, frame  # noqa: E402
from gw.protocol.websocket.handshake import ClientHandshake  # noqa: E402
from tests.fuzz.targets import CORPUS  # noqa: E402

LIMIT_US: Final = 1000
_READ_BYTES: Final = 8192
_KEY: Final = b"\x01\x80\xff\x37"
_MESSAGE_BYTES: Final = 1 << 20
_SECRETS: Final = signature.SigningSecrets(("token", "the token before it"))
_SIGNATURE: Final = signature.Signature("AAAA")


class Slice(NamedTuple):
    """One measured operation. `corpora`: folders of the corpus that begin the search."""

    run: Callable[[bytes], None]
    size_bytes: int
    corpora: tuple[str, ...]
    words: tuple[bytes, ...]


_JSON: Final = (
    b'{"a":',
    b"[",
    b"]",
    b"}",
    b'"',
    b"\\u0041",
    b"\\ud83d",
    b"\\n",
    b"0",
    b"1e9",
    b"-0.1e-300,",
    b",",
    b"null,",
    b"{},",
    b"\xc3\xa9",
)
_FIELDS: Final = (
    b"a:\r\n",
    b"A-b: c\r\n",
    b"Connection: a,b\r\n",
    b"Connection:" + b"," * 31 + b"\r\n",
    b":",
    b",",
    b"\r\n",
    b"\t",
    b"%41",
    b"/",
)
_SIZES: Final = (b"1\r\nx\r\n", b"0\r\n", b"1;a\r\nx\r\n", b'1;a="\\x"\r\nx\r\n', b";a=b", b"X:\r\n", b"\r\n", b'"', b"\\\\")
_FORM: Final = (b"a=b&", b"&", b"=", b"%41", b"%e2%82%ac", b"%", b"+", b"a", b"\xc3\xa9", b";", b"%zz")
_MSGPACK: Final = (
    b"\x81",
    b"\x91",
    b"\x80",
    b"\x90",
    b"\xc0",
    b"\xa1a",
    b"\xdd\x00\x00\x10\x00",
    b"\x00",
    b"\xcb",
    b"\x00\x00\x00\x01",
)


def _read(parse: Callable[[bytes], object], *, is_client: bool) -> Callable[[bytes], None]:
    """Build one slice of a leg's reader: frames of a read, and each of their messages parsed."""

    def run(data: bytes) -> None:
        cutter = MessageCutter(_MESSAGE_BYTES, is_client=is_client)
        for message in cutter.receive(data, 1.0):
            parse(bytes(message.data))

    return run


def _frames(run: Callable[[bytes], None], key: bytes) -> Callable[[bytes], Callable[[], None]]:
    """Take the input's lines as payloads of text messages."""

    def prepare(data: bytes) -> Callable[[], None]:
        stream = b"".join(frame(TEXT, line, key) for line in data.split(b"\n") if line)[:_READ_BYTES]
        return lambda: run(stream)

    return prepare


def _form(data: bytes) -> None:
    text = signature.form_text(parse_form(data))
    signature.webhook_valid(_SECRETS, _SIGNATURE, "https://example.com", "/twilio/voice", text)


def _handshake(data: bytes) -> None:
    ClientHandshake("example.com", "/", (), bytes(16)).receive(data)


def _query(data: bytes) -> None:
    webhooks._requested_agent({"QUERY_STRING": data.decode("latin-1")})


def _signed_path(data: bytes) -> None:
    signature.stream_valid(_SECRETS, _SIGNATURE, "https://example.com/a", data.decode("latin-1"))


def _token(data: bytes) -> None:
    token.check(b"key", data.decode("latin-1"), "CA1", 1.0)


_phone = _read(twilio.parse, is_client=False)
_ai = _read(openai_realtime.parse, is_client=True)
SLICES: Final[dict[str, Slice]] = {
    "http_head": Slice(lambda data: void(HeadReader().feed(data)), 16 << 10, ("http_head",), _FIELDS),
    "http_body": Slice(lambda data: void(ChunkedReader().feed(data)), 18 << 10, ("http_body",), _SIZES),
    "handshake": Slice(_handshake, 16 << 10, ("handshake",), _FIELDS),
    "form": Slice(_form, 32 << 10, ("form",), _FORM),
    "query": Slice(
        lambda data: void(webhooks._requested_agent({"QUERY_STRING": data.decode("latin-1")})), 8192, ("form",), _FORM
    ),
    "signed_path": Slice(
        lambda data: void(signature.stream_valid(_SECRETS, _SIGNATURE, "https://example.com/a", data.decode("latin-1"))),
        8192,
        ("signature",),
        _FORM,
    ),
    "token": Slice(
        lambda data: void(token.check(b"key", data.decode("latin-1"), "CA1", 1.0)), 8192, ("token",), (b".", b"a", b"0")
    ),
    "twilio": Slice(lambda data: void(twilio.parse(data)), _READ_BYTES, ("twilio",), _JSON),
    "ai": Slice(lambda data: void(openai_realtime.parse(data)), _READ_BYTES, ("ai",), _JSON),
    "phone_read": Slice(_phone, _READ_BYTES, ("twilio",), (*_JSON, b"\n")),
    "ai_read": Slice(_ai, _READ_BYTES, ("ai",), (*_JSON, b"\n")),
    "phone_frames": Slice(
        _phone, _READ_BYTES, ("websocket_server",), (b"\x89\x80\0\0\0\0", b"\x81\x80\0\0\0\0", b"\x00\x80\0\0\0\0")
    ),
    "ai_frames": Slice(_ai, _READ_BYTES, ("websocket_client",), (b"\x89\0", b"\x81\0", b"\0\0", b"\x8a\0", b"\x01\x01a")),
    "bus_events": Slice(lambda data: void(bus.Reader.of_events().feed(data)), _READ_BYTES, ("bus_events",), _MSGPACK),
    "bus_commands": Slice(lambda data: void(bus.Reader.of_commands().feed(data)), _READ_BYTES, ("bus_commands",), _MSGPACK),
}
_FRAMED: Final = {"phone_read": _KEY, "ai_read": b""}


def void(value: object) -> None:
    """Drop a value."""


class Genome(NamedTuple):
    prefix: bytes
    unit: bytes
    suffix: bytes

    def build(self, size: int) -> bytes:
        room = size - len(self.prefix) - len(self.suffix)
        return (self.prefix + (self.unit * (room // max(1, len(self.unit)))) + self.suffix)[:size]


def search(name: str, seconds: float, random: Random) -> tuple[float, bytes]:
    """Return the greatest time found, in microseconds, and its input."""
    one = SLICES[name]
    prepare = _frames(one.run, _FRAMED[name]) if name in _FRAMED else None
    seeds = [path.read_bytes() for folder in one.corpora for path in sorted((CORPUS / folder).iterdir())]

    def cost(genome: Genome, tries: int) -> float:
        data = genome.build(one.size_bytes)
        call = prepare(data) if prepare else lambda: one.run(data)
        return min(_time_us(call) for _ in range(tries))

    starts = [Genome(b"", seed, b"") for seed in seeds] + [Genome(b"", seed + b"\n", b"") for seed in seeds]
    for seed in seeds:
        for _ in range(4):
            at = random.randint(0, len(seed))
            starts.append(Genome(seed[:at], random.choice(one.words), seed[at:]))
    population = sorted(((cost(genome, 2), genome) for genome in starts), reverse=True)[:12]
    until = monotonic() + seconds
    while monotonic() < until:
        parent = random.choice(population)[1]
        child = _change(parent, random, one.words, seeds)
        taken = cost(child, 1)
        if (
            taken > population[-1][0]
            and (taken := cost(child, 3)) > population[-1][0]
            and child not in [g for _, g in population]
        ):
            population = sorted([*population[:-1], (taken, child)], reverse=True)
    best = max(population, key=lambda item: cost(item[1], 7))[1]
    return cost(best, 15), best.build(one.size_bytes)


def _change(genome: Genome, random: Random, words: tuple[bytes, ...], seeds: list[bytes]) -> Genome:
    part = random.randrange(3)
    data = bytearray(genome[part])
    start = random.randint(0, len(data))
    end = min(len(data), start + random.choice((0, 0, 1, 2, 8, 40)))
    match random.randrange(6):
        case 0:
            del data[start:end]
        case 1:
            data[start:start] = random.choice(words) * random.choice((1, 1, 2, 10, 60))
        case 2:
            data[start:end] = random.choice(words)
        case 3:
            data[start:start] = data[start:end] * random.choice((1, 3, 20))
        case 4:
            seed = random.choice(seeds)
            at = random.randint(0, len(seed))
            data[start:end] = seed[at : at + random.randint(1, 40)]
        case _:
            data[start:end] = random.randbytes(max(1, end - start))
    return genome._replace(**{genome._fields[part]: bytes(data[:4000])})


def _time_us(call: Callable[[], None]) -> float:
    began_s = thread_time()
    try:
        call()
    except (GatewayError, ValueError):
        pass
    return (thread_time() - began_s) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description="Search for the dearest input of each parser.")
    parser.add_argument("--seconds", type=float, default=20, help="for each target (default: 20)")
    parser.add_argument("--target", default="", help=f"separated by commas; of {', '.join(SLICES)}")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = ROOT / "out" / "fuzz" / "worst"
    folder.mkdir(parents=True, exist_ok=True)
    gc.disable()
    over = False
    print(f"{'slice':<14}{'us':>8}{'bytes':>8}  begins with")
    for name in options.target.split(",") if options.target else SLICES:
        taken_us, data = search(name, options.seconds, Random(options.seed))
        (folder / name).write_bytes(data)
        over |= taken_us > LIMIT_US
        print(f"{name:<14}{taken_us:>8.0f}{len(data):>8}  {data[:70]!r}", flush=True)
        gc.collect()
    return int(over)


if __name__ == "__main__":
    sys.exit(main())

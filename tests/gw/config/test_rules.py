"""gw.config.rules: checks that involve several keys."""

import msgspec
import pytest

from gw.config import (
    ENVIRONMENT,
    AccountSecrets,
    Agent,
    Config,
    Greeting,
    Ops,
    Overflow,
    Recording,
    Secrets,
    Server,
    Store,
    Subaccount,
    Turns,
    Twilio,
)
from gw.config.rules import MAX_SUBACCOUNTS, broken_rules, is_loopback, without_password

SID = "AC" + "0123456789abcdef" * 2
CREDENTIALS = {"twilio": Twilio(account_sid=SID), "secrets": Secrets(twilio_auth_token="t")}


def _keys(config: Config, *, needed: frozenset[str] = frozenset(ENVIRONMENT)) -> list[str]:
    """The first word of each sentence: the key it names."""
    return [sentence.split()[0].rstrip(":") for _, sentence in broken_rules(config, needed=needed)]


def _agent(**keys) -> Config:
    return Config(agents={"default": Agent(**keys)})


def test_the_defaults_break_nothing():
    assert _keys(Config()) == []


@pytest.mark.parametrize(
    "config",
    [
        Config(server=Server(listen="[::1]:0"), ops=Ops(listen="[::1]:0")),
        Config(server=Server(listen="localhost:80", public_url="http://127.0.0.1:8080")),
        Config(server=Server(public_url="https://voice.example.com/gateway")),
        Config(server=Server(listen=":8080", public_url="https://voice.example.com"), **CREDENTIALS),
        Config(**CREDENTIALS),
        Config(ops=Ops(listen="0.0.0.0:9464"), secrets=Secrets(ops_token="t")),
        Config(overflow=Overflow(answer="queue", queue="support", text="")),
        Config(overflow=Overflow(answer="dial", dial="+15551234567", text="")),
        Config(overflow=Overflow(answer="dial", dial="sip:desk@pbx.example.com")),
        Config(twilio=Twilio(api_base="http://127.0.0.1:5000")),
        Config(store=Store(url="sqlite:////var/lib/submilli.db")),
        Config(store=Store(url="mysql+pymysql://me@db.example.com:3306/calls?ssl=true")),
        Config(store=Store(url="mysql+pymysql://me@/calls?unix_socket=/run/mysqld.sock")),
        _agent(fallback="transfer", transfer_to="+15551234567"),
        _agent(provider="openai", base_url="ws://127.0.0.1:9000/v1/realtime"),
        msgspec.structs.replace(_agent(provider="openai"), secrets=Secrets(openai_api_key="k")),
    ],
)
def test_valid_configurations(config):
    assert _keys(config) == []


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (Config(server=Server(listen="nowhere")), ["server.listen"]),
        (Config(ops=Ops(listen="nowhere")), ["ops.listen"]),
        (Config(ops=Ops(listen="0.0.0.0:9464")), ["ops.listen"]),
        (Config(ops=Ops(listen="127.0.0.1:8080")), ["ops.listen"]),
        (Config(server=Server(public_url="voice.example.com")), ["server.public_url"]),
        (Config(server=Server(public_url="wss://voice.example.com")), ["server.public_url"]),
        (Config(server=Server(public_url="HTTPS://voice.example.com")), ["server.public_url"]),  # a stream's URL is made of it
        (Config(server=Server(public_url="https://voice.example.com ")), ["server.public_url"]),
        (Config(server=Server(public_url="https://voice.example.com?x=1")), ["server.public_url"]),
        (Config(server=Server(public_url="https://voice.example.com:port")), ["server.public_url"]),
        (Config(server=Server(public_url="http://voice.example.com")), ["server.public_url"]),
        (
            Config(server=Server(listen="0.0.0.0:8080", public_url="http://localhost"), **CREDENTIALS),
            ["server.public_url"],
        ),
        (Config(server=Server(listen="0.0.0.0:8080"), **CREDENTIALS), ["server.public_url"]),
        (Config(twilio=Twilio(account_sid="AC123"), secrets=Secrets(twilio_auth_token="t")), ["twilio.account_sid"]),
        (Config(twilio=Twilio(account_sid=SID)), ["twilio.account_sid"]),
        (Config(twilio=Twilio(api_base="http://api.twilio.com")), ["twilio.api_base"]),
        (Config(twilio=Twilio(api_base="api.twilio.com")), ["twilio.api_base"]),
        (Config(store=Store(url="sqlite://")), ["store.url"]),
        (Config(store=Store(url="sqlite:///")), ["store.url"]),
        (Config(store=Store(url="sqlite:///:memory:")), ["store.url"]),
        (Config(store=Store(url="postgresql://me@db/calls")), ["store.url"]),
        (Config(store=Store(url="mysql+pymysql://db/calls")), ["store.url"]),
        (Config(store=Store(url="mysql+pymysql://me@db/calls?charset=utf8mb4")), ["store.url"]),
        (Config(store=Store(url="mysql+pymysql://me@db")), ["store.url"]),
        (Config(store=Store(url="mysql+pymysql://me@/calls")), ["store.url"]),
        (Config(store=Store(url="mysql+pymysql://me:secret@db/calls")), ["store.url"]),
        (Config(store=Store(url="mysql+pymysql://me@db/calls?ssl=1&password=secret")), ["store.url"]),
        (Config(store=Store(url="mysql+pymysql://me@db/calls?passwd=secret")), ["store.url"]),
        (Config(ops=Ops(admin_socket="x" * 108)), ["ops.admin_socket"]),
        (Config(ops=Ops(var_dir="é" * 50)), ["ops.var_dir"]),
        (Config(agents={"sales": Agent()}), ["agents.default"]),
        (Config(agents={"default": Agent(), "a b": Agent()}), ["agents.'a"]),
        (_agent(base_url="https://api.openai.com"), ["agents.default.base_url"]),
        (_agent(base_url="ws://api.openai.com/v1/realtime"), ["agents.default.base_url"]),
        (_agent(base_url="wss://me:secret@api.openai.com"), ["agents.default.base_url"]),
        (_agent(provider="openai"), ["agents.default.provider"]),
        (_agent(fallback="transfer"), ["agents.default.transfer_to"]),
        (_agent(turns=Turns(interruptions="gateway", min_speech_ms=2000)), ["agents.default.turns.resume_after_s"]),
        (_agent(turns=Turns(interruptions="gateway", min_speech_ms=1999)), []),
        (_agent(turns=Turns(min_speech_ms=2000)), []),
        (_agent(fallback="transfer", transfer_to="5551234"), ["agents.default.transfer_to"]),
        (_agent(greeting=Greeting()), ["agents.default.greeting"]),
        (_agent(greeting=Greeting(say="Hello.", prompt="Greet.")), ["agents.default.greeting"]),
        (_agent(greeting=Greeting(file="hello.wav")), ["agents.default.greeting.text"]),
        (_agent(greeting=Greeting(say="Hello.", text="Hello.")), ["agents.default.greeting.text"]),
        (_agent(greeting=Greeting(file="hello.wav", text="Hello.")), []),
        (_agent(greeting=""), []),
    ],
)
def test_broken_rules_name_their_keys(config, keys):
    assert _keys(config) == keys
    assert "secret" not in str(list(broken_rules(config, needed=frozenset(ENVIRONMENT))))


def _with_accounts(sids: dict[str, str], *, main: str = SID, **tokens: str) -> Config:
    """A configuration with subaccounts and their tokens; without a token for one, its name is the token."""
    secrets = {name: AccountSecrets(twilio_auth_token=tokens.get(name, name)) for name in sids}
    return Config(
        twilio=Twilio(account_sid=main, accounts={name: Subaccount(account_sid=sid) for name, sid in sids.items()}),
        secrets=Secrets(twilio_auth_token="main" if main else "", accounts=secrets),
    )


def _sids(count: int) -> dict[str, str]:
    return {f"a{n}": f"AC{n:032x}" for n in range(1, count + 1)}


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (_with_accounts(_sids(MAX_SUBACCOUNTS)), []),
        (_with_accounts(_sids(MAX_SUBACCOUNTS + 1)), ["twilio.accounts"]),
        (_with_accounts(_sids(1), main=""), ["twilio.accounts"]),
        (_with_accounts({"a": ""}), ["twilio.accounts.a.account_sid"]),
        (_with_accounts({"a": SID}), ["twilio.accounts.a.account_sid"]),
        (
            _with_accounts({"a": f"AC{'a' * 32}", "b": f"AC{'A' * 32}"}),
            ["twilio.accounts.b.account_sid"],
        ),
        (_with_accounts(_sids(1), a1=""), ["twilio.accounts.a1"]),
        (_with_accounts(_sids(1), a1="main"), ["twilio.accounts.a1"]),
        (_with_accounts(_sids(2), a2="a1"), ["twilio.accounts.a2"]),
        *((_with_accounts({name: f"AC{'1' * 32}"}), [f"twilio.accounts.{name!r}"]) for name in ("old", "a_old", "A", "1", "a-b")),
    ],
)
def test_broken_rules_of_accounts_name_their_keys(config: Config, keys: list[str]) -> None:
    assert _keys(config) == keys


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", ":8080", "[::]:8080", "10.0.0.5:8080", "voice.example.com:80"])
def test_without_credentials_loopback_only(listen):
    server = Server(listen=listen, public_url="https://voice.example.com")
    ((keys, sentence),) = broken_rules(Config(server=server), needed=frozenset(ENVIRONMENT))
    assert keys == {"server.listen", "twilio.account_sid"}
    assert "TWILIO_AUTH_TOKEN" in sentence
    assert "127.0.0.1" in sentence


def test_a_reading_command_needs_no_secret():
    config = Config(
        server=Server(listen=":8080", public_url="https://voice.example.com"),
        twilio=Twilio(account_sid=SID),
        agents={"default": Agent(provider="openai")},
    )
    assert _keys(config) == ["twilio.account_sid", "agents.default.provider"]
    assert _keys(config, needed=frozenset()) == []


def test_loopback():
    assert all(is_loopback(host) for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "::1"))
    assert not any(is_loopback(host) for host in ("", "0.0.0.0", "::", "10.0.0.1", "localhost.example.com"))


def test_without_password():
    assert without_password("mysql+pymysql://me:a:b@c@host/db") == "mysql+pymysql://me:***@host/db"
    assert without_password("mysql+pymysql://me@host/db?a=1&passwd=x&Password=y") == (
        "mysql+pymysql://me@host/db?a=1&passwd=***&Password=***"
    )
    assert without_password("mysql+pymysql://me@host/db") == "mysql+pymysql://me@host/db"
    assert without_password("sqlite:///var/a:b@c.db") == "sqlite:///var/a:b@c.db"


@pytest.mark.parametrize(
    ("overflow", "key"),
    [
        (Overflow(text=""), "overflow.text"),
        (Overflow(answer="queue"), "overflow.queue"),
        (Overflow(answer="dial"), "overflow.dial"),
        (Overflow(answer="dial", dial="desk"), "overflow.dial"),
        (Overflow(answer="dial", dial="sip:desk"), "overflow.dial"),
    ],
)
def test_an_overflow_without_its_destination(overflow: Overflow, key: str):
    assert _keys(Config(overflow=overflow)) == [key]


def test_proxies_are_networks():
    assert _keys(Config(server=Server(proxies="10.0.0.0/24, 2001:db8::/64,192.0.2.7"))) == []
    assert _keys(Config(server=Server(proxies="10.0.0.0/24, 10.0.0.1/24, haproxy"))) == ["server.proxies", "server.proxies"]


@pytest.mark.parametrize(
    ("store_days", "twilio_days", "broken"), [(90, 91, True), (90, 90, False), (0, 400, False), (30, 0, False)]
)
def test_a_recording_is_deleted_before_its_call(store_days: int, twilio_days: int, broken: bool) -> None:
    config = Config(store=Store(keep_days=store_days), recording=Recording(keep_days=twilio_days))
    assert _keys(config) == (["recording.keep_days"] if broken else [])

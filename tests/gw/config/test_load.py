"""gw.config.load: all errors together, each with its key; the example equals the defaults; secrets stay secret."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.config import (
    ACCOUNT_ENVIRONMENT,
    ENVIRONMENT,
    SECRETS_OF,
    AccountSecrets,
    Agent,
    Config,
    EventHook,
    Greeting,
    Keys,
    Media,
    Ops,
    Say,
    Secrets,
    Server,
    Store,
    Tool,
    Turns,
    field_of,
)
from gw.config.credentials import FOLDERS
from gw.config.load import (
    CONFIG_VARIABLE,
    FOLDER_VARIABLE,
    admin_socket,
    environment_example,
    example,
    load,
    problems,
    show,
    variables_of,
)
from gw.errors import ConfigError

SID = "AC" + "0123456789abcdef" * 2
OTHER = "AC" + "f" * 32
#: Two accounts.
ACCOUNTS = f'[twilio]\naccount_sid = "{SID}"\n[twilio.accounts.support]\naccount_sid = "{OTHER}"\n'
TOKEN = "f" * 32


@pytest.fixture
def write(tmp_path):
    def write(text, name="submilli.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def _one(found):
    assert len(found) == 1, found
    return found[0]


# -- what is in force -------------------------------------------------------------------------------------------------


def beside(folder: Path) -> Config:
    """Return the defaults with the paths of a file in `folder`."""
    ops = Ops(admin_socket=f"{folder}/var/admin.sock", var_dir=f"{folder}/var")
    return Config(ops=ops, store=Store(url=f"sqlite:///{folder}/var/submilli.db"))


def test_without_a_file_all_keys_have_defaults():
    assert load(None, {}) == beside(Path.cwd())


def test_relative_paths_begin_at_the_folder_of_the_file(write, tmp_path, monkeypatch):
    path = write('[ops]\nvar_dir = "v"\nadmin_socket = "/run/a.sock"\n[recording]\nfetch_dir = "calls"\n')
    monkeypatch.chdir(tmp_path.parent)
    for named, environ in ((path, {}), (Path(path.parent.name, path.name), {}), (path, {FOLDER_VARIABLE: str(tmp_path)})):
        config = load(named, environ)
        assert (config.ops.var_dir, config.ops.admin_socket) == (f"{tmp_path}/v", "/run/a.sock")
        assert config.recording.fetch_dir == f"{tmp_path}/calls"
        assert config.store.url == f"sqlite:///{tmp_path}/var/submilli.db"


def test_the_admin_socket_of_a_file_with_errors_elsewhere(write, tmp_path):
    own = '[ops]\nadmin_socket = "a.sock"\n'
    assert admin_socket(write(own), {}) == (tmp_path / "a.sock", [])
    assert admin_socket(None, {}) == (Path.cwd() / "var/admin.sock", [])
    for wrong in ("[media]\nlead = 5\n", "[server]\nworkers = 'many'\n", "[media]\nlead_ms = \n", "x = 'y\n", "{\n"):
        for text in (wrong + own, own + wrong):
            path, found = admin_socket(write(text), {})
            assert (path, len(found)) == (tmp_path / "a.sock", 1), text


@pytest.mark.parametrize(
    "text",
    [
        '[ops]\nadmin_socket = "a.sock\n',
        '[ops]\nadmin_sockte = "a.sock"\n',
        "[ops]\nadmin_socket = 5\n",
        '[ops\nadmin_socket = "a.sock"\n',
        '[ops]\nadmin_socket = "a.sock"\n' + "x = \n" * 30,
        b"\xff",
    ],
)
def test_a_socket_that_may_be_another_one_is_refused(tmp_path, text):
    path = tmp_path / "submilli.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for named in (path, tmp_path / "missing.toml"):
        with pytest.raises(ConfigError) as raised:
            admin_socket(named, {})
        assert raised.value.problems[-1] == "a running gateway can be named with --socket too"


def test_keys_of_the_file_and_secrets_of_the_environment(write):
    path = write(f"""
        [server]
        workers = "auto"
        public_url = "https://voice.example.com"
        stop_timeout_s = 5
        [twilio]
        account_sid = "{SID}"
        [agents.default]
        provider = "openai"
        [agents.sales]
        voice = "cedar"
        [agents.sales.turns]
        backchannels = ["aha"]
        [agents.sales.keys]
        mode = "each"
    """)
    config = load(
        path, {"TWILIO_AUTH_TOKEN": TOKEN, "OPENAI_API_KEY": "key", "SUBMILLI_DB_PASSWORD": "p", "SUBMILLI_TOKEN_KEY": "k"}
    )
    assert config.server == Server(workers="auto", public_url="https://voice.example.com", stop_timeout_s=5.0)
    assert isinstance(config.server.stop_timeout_s, float)
    sales = Agent(voice="cedar", turns=Turns(backchannels=("aha",)), keys=Keys(mode="each"))
    assert config.agents == {"default": Agent(provider="openai"), "sales": sales}
    assert config.secrets == Secrets(twilio_auth_token=TOKEN, openai_api_key="key", db_password="p", token_key="k")
    assert config.signed


def test_the_environment_names_the_file_unless_a_path_is_given(write):
    named = write("[media]\nlead_ms = 40\n", "named.toml")
    given = write("[media]\nlead_ms = 60\n", "given.toml")
    assert load(None, {CONFIG_VARIABLE: str(named)}).media == Media(lead_ms=40)
    assert load(given, {CONFIG_VARIABLE: str(named)}).media == Media(lead_ms=60)
    assert load(None, {CONFIG_VARIABLE: ""}) == beside(Path.cwd())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("'Greet.'", Greeting(prompt="Greet.")),
        ("{ prompt = 'Greet.' }", Greeting(prompt="Greet.")),
        ("{ say = 'Hello.' }", Greeting(say="Hello.")),
        ("''", Greeting()),
    ],
)
def test_first_words(write, text, words):
    assert load(write(f"[agents.default]\ngreeting = {text}\n"), {}).agents["default"].first_words == words


def test_a_notice_is_words_or_a_file_beside_the_configuration(write, tmp_path):
    notice = load(write("[recording]\nconsent = 'We record.'\n"), {}).recording.notice
    assert (notice.file, notice.text) == ("", "We record.")
    notice = load(write("[recording]\nconsent = { file = 'notice.wav', text = 'We record.' }\n"), {}).recording.notice
    assert (notice.file, notice.text) == (str(tmp_path / "notice.wav"), "We record.")
    assert not load(None, {}).recording.notice.is_set
    with pytest.raises(ConfigError, match=r"recording\.consent has neither file nor text"):
        load(write("[recording]\nconsent = {}\n"), {})


def test_a_greetings_file_is_beside_the_configuration(write, tmp_path):
    """Also for a child process, which reads the configuration by a descriptor."""
    text = "[agents.default]\ngreeting = { file = 'sounds/hello.wav', text = 'Hello.' }\n"
    path = write(text)
    assert load(path, {}).agents["default"].first_words.file == f"{tmp_path}/sounds/hello.wav"
    assert load(path, {FOLDER_VARIABLE: "/etc/submilli"}).agents["default"].first_words.file == "/etc/submilli/sounds/hello.wav"
    absolute = write(text.replace("sounds", "/srv"))
    assert load(absolute, {}).agents["default"].first_words.file == "/srv/hello.wav"


# -- errors -----------------------------------------------------------------------------------------------------------


def test_all_errors_together(write):
    path = write("""
        [server]
        lissten = "127.0.0.1:8080"
        workers = 0
        [media]
        lead_ms = 501
        [rubbish]
        [agents.default]
        provider = "hal"
        [agents.default.turns]
        silence_ms = "long"
    """)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert (
        caught.value.problems
        == problems(path, {})
        == [
            "server.lissten is unknown: did you mean server.listen?",
            'server.workers = 0: expected a whole number, 1 to 1024, or "auto"',
            "media.lead_ms = 501: expected a whole number, 0 to 500",
            "rubbish is unknown; the keys are agents, budget, events, hooks, media, ops, outbound, overflow, prices, recording, "
            "route, routes, server, store, tools, twilio",
            'agents.default.provider = "hal": expected "openai" or "parrot"',
            'agents.default.turns.silence_ms = "long": expected a whole number, 100 to 10000',
        ]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nlead_ms = 5", "server.lead_ms is unknown: did you mean media.lead_ms?"),
        ("lead_ms = 5", "lead_ms is unknown: did you mean media.lead_ms?"),
        ("[agent]", "agent is unknown: did you mean agents?"),
        ("[agents.default]\nmodle = 'x'", "agents.default.modle is unknown: did you mean agents.default.model?"),
        ("[store]\nzzz = 1", "store.zzz is unknown; the keys are connect_timeout_s, keep_days, statement_timeout_s, url"),
        ("[server]\ndrain_s = 5", "server.drain_s was renamed; use server.stop_timeout_s"),
        ("[server]\ndrain_timeout_s = 5", "server.drain_timeout_s was renamed; use server.reload_timeout_s"),
        ("server = 5", "server = 5: expected a table, for example [server]"),
        ("agents = 'x'", 'agents = "x": expected tables, for example [agents.default]'),
        ("[agents]\ndefault = 7", "agents.default = 7: expected a table, for example [agents.default]"),
        ("[media]\nlead_ms = -1", "media.lead_ms = -1: expected a whole number, 0 to 500"),
        ("[media]\nlead_ms = true", "media.lead_ms = true: expected a whole number, 0 to 500"),
        ("[media]\nlead_ms = 1.5", "media.lead_ms = 1.5: expected a whole number, 0 to 500"),
        ("[media]\nidle_limit_s = 0", "media.idle_limit_s = 0: expected a number, above 0 and up to 86400"),
        ("[media]\nidle_limit_s = nan", "media.idle_limit_s = NaN: expected a number, above 0 and up to 86400"),
        ("[media]\nidle_limit_s = inf", "media.idle_limit_s = Infinity: expected a number, above 0 and up to 86400"),
        ("[media]\nidle_limit_s = 1979-05-27", 'media.idle_limit_s = "1979-05-27": expected a number, above 0 and up to 86400'),
        ("[server]\nstop_timeout_s = {}", "server.stop_timeout_s = a table: expected a number, 0 to 86400"),
        ("[recording]\nenabled = 1", "recording.enabled = 1: expected true or false"),
        ("[ops]\nvar_dir = ''", 'ops.var_dir = "": expected text in quotes, not empty'),
        ("[ops]\nvar_dir = 5", "ops.var_dir = 5: expected text in quotes, not empty"),
        ("[twilio]\napi_base = 5", "twilio.api_base = 5: expected text in quotes"),
        ("[agents.default]\nsilence_ms = 5", "agents.default.silence_ms was renamed; use agents.default.turns.silence_ms"),
        (
            "[agents.default]\n[agents.sales]\nsilence_ms = 5",
            "agents.sales.silence_ms was renamed; use agents.sales.turns.silence_ms",
        ),
        ("[agents.default]\nturns = 5", "agents.default.turns = 5: expected a table, for example [agents.default.turns]"),
        (
            "[agents.default]\neagerness = 'low'",
            "agents.default.eagerness is unknown: did you mean agents.default.turns.eagerness?",
        ),
        (
            "[agents.default.turns]\nmax_digits = 5",
            "agents.default.turns.max_digits is unknown: did you mean agents.default.keys.max_digits?",
        ),
        (
            "[agents.default.turns]\nsilence = 1",
            "agents.default.turns.silence is unknown: did you mean agents.default.turns.silence_ms?",
        ),
        ("[agents.default.turns]\nthreshold = 1.1", "agents.default.turns.threshold = 1.1: expected a number, 0 to 1"),
        ("[agents.default.turns]\nresume_after_s = 0", "agents.default.turns.resume_after_s = 0: expected a number, 0.1 to 30"),
        ("[agents.default.turns]\nidle_prompts = -1", "agents.default.turns.idle_prompts = -1: expected a whole number, 0 to 10"),
        (
            "[agents.default.turns]\ninterruptions = 'no'",
            'agents.default.turns.interruptions = "no": expected "gateway" or "model" or "none"',
        ),
        (
            "[agents.default.turns]\nbackchannels = ['']",
            'agents.default.turns.backchannels = [""]: expected a list of up to 100 texts in quotes, each of 1 to 40 characters',
        ),
        ("[agents.default.keys]\nmax_digits = 0", "agents.default.keys.max_digits = 0: expected a whole number, 1 to 64"),
        ("[tools]\nlookup = 5", "tools.lookup = 5: expected a table, for example [tools.lookup]"),
        ("tools = 5", "tools = 5: expected tables, for example [tools.name]"),
        (
            "[hooks]\nallow_networks = '10.0.0.0/8'",
            'hooks.allow_networks = "10.0.0.0/8": expected a list of up to 100 texts in quotes, each of 1 to 50 characters',
        ),
        ("[tool]", "tool is unknown: did you mean tools?"),
        ("[hooks]\nidempotent = true", "hooks.idempotent is unknown: did you mean tools.NAME.idempotent?"),
        (
            "hook_secret = 'x'",
            "hook_secret is a secret: set SUBMILLI_HOOK_SECRET in the environment, and remove it from the file",
        ),
        (
            "[agents.default]\ngreeting = { sey = 'x' }",
            "agents.default.greeting = a table: expected text in quotes, or a table of prompt, say, file, text",
        ),
        ("[media]\nai_answer_s = 0", "media.ai_answer_s = 0: expected a number, above 0 and up to 86400"),
    ],
)
def test_an_error_names_the_key_the_value_and_the_expectation(write, text, expected):
    assert _one(problems(write(text), {})) == expected


def test_a_long_value_is_cut(write):
    assert len(_one(problems(write(f"[media]\nlead_ms = '{'x' * 5000}'"), {}))) < 200


def test_a_failed_key_causes_no_second_sentence(write):
    """`server.listen` has its default while `public_url` is checked."""
    found = problems(write("[server]\nlisten = 5\n[agents.default]\nprovider = 'openai'\nbase_url = 7"), {})
    assert [sentence.split()[0] for sentence in found] == ["server.listen", "agents.default.base_url"]


def test_files_that_cannot_be_read(write, tmp_path):
    assert re.fullmatch(r".*/submilli\.toml is not valid TOML: .*line 2.*", _one(problems(write("[server]\nlisten 5"), {})))
    assert _one(problems(tmp_path / "none.toml", {})).endswith("none.toml cannot be read: No such file or directory")
    assert _one(problems(tmp_path, {})).endswith("cannot be read: Is a directory")
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# caf\xe9\n")
    assert _one(problems(path, {})).endswith("latin.toml is not UTF-8, at byte 5")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
).filter(lambda value: value is not None)
_keys = st.sampled_from(
    ["listen", "public_url", "workers", "url", "base_url", "provider", "turns", "silence_ms", "account_sid", "api_base", "x"]
) | st.text(max_size=6)
_names = st.sampled_from(["server", "ops", "twilio", "media", "store", "agents", "secrets"]) | st.text(max_size=6)


@given(
    st.dictionaries(
        _names, _values | st.dictionaries(_keys, _values | st.dictionaries(_keys, _values, max_size=2), max_size=3), max_size=4
    )
)
def test_any_document_gives_a_configuration_or_problems(document):
    from gw.config import load as config_load

    found: list[str] = []
    values, failed = config_load._decode(document, found)
    rules = list(config_load.broken_rules(Config(**values), needed=frozenset(ENVIRONMENT)))
    assert all(isinstance(sentence, str) and sentence for sentence in found)
    assert all(keys and sentence for keys, sentence in rules)
    assert found or not failed


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "variable"),
    [
        ("[twilio]\nauth_token = 'hush'", "twilio.auth_token", "TWILIO_AUTH_TOKEN"),
        ("[twilio]\nTWILIO_AUTH_TOKEN = 'hush'", "twilio.TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN"),
        ("[agents.default]\napi_key = 'hush'", "agents.default.api_key", "OPENAI_API_KEY"),
        ("openai_api_key = 'hush'", "openai_api_key", "OPENAI_API_KEY"),
        ("[store]\npassword = 'hush'", "store.password", "SUBMILLI_DB_PASSWORD"),
        ("[store]\nurl = 'mysql+pymysql://me:hush@db/calls'", "store.url", "SUBMILLI_DB_PASSWORD"),
        ("[secrets]\ntoken_key = 'hush'", "secrets.token_key", "SUBMILLI_TOKEN_KEY"),
        ("[secrets]\nother = 'hush'", "secrets.other", "environment"),
        ("[agents.default]\nvoice = 'sk-proj-hush0123456789hush0123'", "agents.default.voice", "OPENAI_API_KEY"),
        ("[media]\nlead_ms = ['sk-proj-hush0123456789hush0123']", "media.lead_ms", "OPENAI_API_KEY"),
        ("[agents.default.turns]\napi_key = 'hush'", "agents.default.turns.api_key", "OPENAI_API_KEY"),
    ],
)
def test_a_secret_in_the_file_is_an_error_that_names_its_variable(write, text, key, variable):
    sentence = _one(problems(write(text), {}))
    assert sentence.startswith(f"{key} ")
    assert variable in sentence
    assert "hush" not in sentence


@pytest.mark.parametrize("value", ["hush ", "\thush", "hu\nsh", "hush\n"])
def test_a_secret_with_stray_space_is_reported_but_not_quoted(value):
    sentence = _one(problems(None, {"TWILIO_AUTH_TOKEN": value}))
    assert sentence.startswith("TWILIO_AUTH_TOKEN ")
    assert "hush" not in sentence


def test_a_token_in_place_of_an_account_is_not_shown(write):
    assert TOKEN not in _one(problems(write(f"[twilio]\naccount_sid = '{TOKEN}'"), {}))


def test_show_hides_secrets(write):
    config = load(write(f"[twilio]\naccount_sid = '{SID}'"), {"TWILIO_AUTH_TOKEN": "hush-hush"})
    shown = show(config)
    assert shown["secrets"] == {
        "twilio_auth_token": "set",
        "twilio_auth_token_old": "not set",
        "twilio_shared_key": "not set",
        "openai_api_key": "not set",
        "db_password": "not set",
        "ops_token": "not set",
        "token_key": "not set",
        "talk_key": "not set",
        "hook_secret": "not set",
        "hook_secret_old": "not set",
    }
    assert shown["twilio"]["account_sid"] == SID
    assert shown["agents"]["default"]["provider"] == "parrot"
    assert "hush" not in str(shown)
    assert "hush" not in repr(config)


def test_show_hides_a_password_in_a_url():
    config = msgspec.structs.replace(
        Config(), store=msgspec.structs.replace(Config().store, url="mysql+pymysql://me:hu@sh@db/calls")
    )
    assert show(config)["store"]["url"] == "mysql+pymysql://me:***@db/calls"


TOOL = """
    [agents.default]
    tools = ["lookup_order", "hang_up"]
    [tools.lookup_order]
    description = "Finds an order by its number."
    url = "https://api.example.com/voice/lookup_order"
"""


def test_every_key_of_a_tool(write):
    text = """
        parameters = '{"type":"object","properties":{"number":{"type":"string"}},"required":["number"]}'
        timeout_s = 0.5
        mode = "background"
        filler_after_s = 2.0
        filler = { say = "One moment." }
        idempotent = true
        on_interrupt = "cancel"
        max_result_bytes = 100
        [hooks]
        allow_networks = ["10.0.3.0/24", "::1/128"]
    """
    config = load(write(TOOL + text), {"SUBMILLI_HOOK_SECRET": "new", "SUBMILLI_HOOK_SECRET_OLD": "old"})
    tool = config.tools["lookup_order"]
    assert (tool.filler, tool.idempotent, tool.timeout_s, tool.mode) == (Say(say="One moment."), True, 0.5, "background")
    assert config.agents["default"].tools == ("lookup_order", "hang_up")
    assert config.hooks.allow_networks == ("10.0.3.0/24", "::1/128")
    assert (config.secrets.hook_secret, config.secrets.hook_secret_old) == ("new", "old")
    assert (
        load(write(TOOL), {}, process="worker").tools["lookup_order"]
        == load(write(TOOL), {}, serving=False).tools["lookup_order"]
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("timeout_s = 0.4", "timeout_s = 0.4: expected a number, 0.5 to 60"),
        ("timeout_s = 61", "timeout_s = 61: expected a number, 0.5 to 60"),
        ("mode = 'later'", 'mode = "later": expected "background" or "wait"'),
        ("filler = 'song'", 'filler = "song": expected "none" or "sound", or { say = "text" }'),
        ("filler = { play = 'x' }", 'filler = a table: expected "none" or "sound", or { say = "text" }'),
        ("max_result_bytes = 0", "max_result_bytes = 0: expected a whole number, 1 to 65536"),
        ("on_interrupt = 'stop'", 'on_interrupt = "stop": expected "cancel" or "keep"'),
        ("timeout = 5.0", "timeout is unknown: did you mean tools.lookup_order.timeout_s?"),
    ],
)
def test_an_error_in_a_tool_names_it(write, line: str, expected: str):
    assert _one(problems(write(f"{TOOL}\n{line}"), {"SUBMILLI_HOOK_SECRET": "s"})) == f"tools.lookup_order.{expected}"


def test_a_worker_imports_no_library_of_schemas(write):
    code = (
        "import sys\nfrom pathlib import Path\nfrom gw.config.load import load\n"
        "load(Path(sys.argv[1]), {'SUBMILLI_HOOK_SECRET': 's'}, process=sys.argv[2])\nprint('jsonschema' in sys.modules)"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code, str(path), process], capture_output=True, text=True, check=True
        ).stdout.strip()
        for path, process in ((write(TOOL), "worker"), (write(TOOL), "control"), (write("[hooks]", "none.toml"), "control"))
    ]
    assert found == ["False", "True", "False"]


# -- the example ------------------------------------------------------------------------------------------------------


def test_the_example_equals_the_defaults(write):
    path = write(example())
    assert load(path, {}) == beside(path.parent)


def test_the_example_names_every_key():
    document = tomllib.loads(example())
    defaults = msgspec.json.decode(msgspec.json.encode(Config()))
    defaults.pop("secrets")
    assert defaults["twilio"].pop("accounts") == {}, "tables with names of the user's choice are commented out"
    assert defaults.pop("tools") == {}
    assert defaults.pop("events") == []
    assert defaults.pop("prices") == {}
    assert defaults.pop("routes") == []
    assert defaults["agents"]["default"].pop("mcp") == []
    assert document == defaults


def test_the_example_explains_every_key():
    lines = example().splitlines()
    for number, line in enumerate(lines):
        if " = " in line and not line.startswith("#"):
            assert re.fullmatch(r"# \S.*\.", lines[number - 1]), line
            assert len(lines[number - 1]) <= 130


def test_the_environment_example_lists_every_variable():
    documented = set(re.findall(r"^#([A-Z_]+)=$", environment_example(), re.MULTILINE))
    assert documented == {*ENVIRONMENT.values(), *variables_of("name").values(), FOLDERS[0], CONFIG_VARIABLE}
    assert [*ENVIRONMENT, "accounts", "mcp"] == [field.name for field in msgspec.structs.fields(Secrets)]
    assert list(ACCOUNT_ENVIRONMENT) == [field.name for field in msgspec.structs.fields(AccountSecrets)]
    assert set().union(*SECRETS_OF.values()) == set(ENVIRONMENT), "each secret belongs to a process"
    assert all(f"#   {variable}: " in example() for variable in documented)


def test_the_example_of_an_account_is_commented_out():
    of_one = example().partition("#[twilio.accounts.NAME]\n")[2].partition("\n\n")[0].splitlines()
    assert of_one[1:] == ['#account_sid = ""']
    assert of_one[0].startswith("# AC and 32 hex digits.")


def test_the_example_of_a_tool_is_commented_out(write):
    of_one = example().partition("#[tools.NAME]\n")[2].partition("\n\n")[0].splitlines()
    keys = {line.partition(" = ")[0] for line in of_one if not line.startswith("# ")}
    assert keys == {f"#{field.name}" for field in msgspec.structs.fields(Tool)}
    tool = "[tools.lookup]\n" + "\n".join(line[1:] for line in of_one if not line.startswith("# "))
    sentences = problems(write(tool), {"SUBMILLI_HOOK_SECRET": "s"})
    assert [sentence.split()[0] for sentence in sentences] == ["tools.lookup.description", "tools.lookup.url"]
    tool = tool.replace('description = ""', 'description = "d"').replace('url = ""', 'url = "https://example.com/x"')
    assert load(write(tool), {"SUBMILLI_HOOK_SECRET": "s"}).tools == {
        "lookup": Tool(description="d", url="https://example.com/x")
    }


def test_endpoints_of_events_are_a_list(write):
    text = '[[events]]\nurl = "https://a.example/x"\n[[events]]\nurl = "https://b.example/x"\ntypes = ["tool.called"]\n'
    first, second = load(write(text), {"SUBMILLI_HOOK_SECRET": "s"}).events
    assert first == EventHook(url="https://a.example/x")
    assert (second.types, second.give_up_h) == (("tool.called",), 24)
    wrong = '[[events]]\nurl = "https://a.example/x"\nhours = 5\ngive_up_h = 0\n'
    assert [sentence.split(":")[0] for sentence in problems(write(wrong), {"SUBMILLI_HOOK_SECRET": "s"})] == [
        "events[1].hours is unknown",
        "events[1].give_up_h = 0",
    ]
    assert problems(write("events = 5"), {}) == ["events = 5: expected a list of tables, for example [[events]]"]
    of_one = example().partition("#[[events]]\n")[2].partition("\n\n")[0].splitlines()
    keys = {line.partition(" = ")[0] for line in of_one if not line.startswith("# ")}
    assert keys == {f"#{field.name}" for field in msgspec.structs.fields(EventHook)}


def test_all_accounts_have_their_secrets(write):
    config = load(write(ACCOUNTS), {"TWILIO_AUTH_TOKEN": "one", "TWILIO_AUTH_TOKEN_SUPPORT": "two"})
    accounts = [(account.name, account.sid, account.secrets.twilio_auth_token) for account in config.accounts]
    assert accounts == [("", SID, "one"), ("support", OTHER, "two")]
    assert load(write(ACCOUNTS), {}, serving=False).accounts == (), "none without credentials"


def test_every_variable_of_an_account_reaches_its_field(write):
    path = write(ACCOUNTS)
    for field, variable in variables_of("support").items():
        secrets = load(path, {variable: "value"}, serving=False).secrets
        assert secrets == Secrets(accounts={"support": AccountSecrets(**{field: "value"})})
        assert field_of(variable) == field
    for field, variable in ENVIRONMENT.items():
        assert field_of(variable) == field
    assert field_of("PATH") is None


def test_the_secrets_of_accounts_are_not_printed(write):
    config = load(write(ACCOUNTS), {"TWILIO_AUTH_TOKEN": "hush", "TWILIO_AUTH_TOKEN_SUPPORT": "hush too"})
    assert show(config)["secrets"]["accounts"]["support"] == {
        "twilio_auth_token": "set",
        "twilio_auth_token_old": "not set",
        "twilio_shared_key": "not set",
    }
    assert "hush" not in f"{show(config)}{config!r}{config.accounts!r}"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("accounts = 5", "twilio.accounts = 5: expected tables, for example [twilio.accounts.name]"),
        (
            "[twilio.accounts]\nsupport = 5",
            "twilio.accounts.support = 5: expected a table, for example [twilio.accounts.support]",
        ),
        ("[twilio.accounts.support]\naccount_sid = 5", "twilio.accounts.support.account_sid = 5: expected text in quotes"),
        ("[twilio.accounts.support]\nsid = 5", "twilio.accounts.support.sid is unknown; the keys are account_sid"),
        (
            '[twilio.accounts.support]\nauth_token = "hush"',
            "twilio.accounts.support.auth_token is a secret: set TWILIO_AUTH_TOKEN_SUPPORT in the environment",
        ),
    ],
)
def test_an_error_in_an_account_names_it(write, lines: str, sentence: str):
    found = problems(write(f"[twilio]\n{lines}\n"), {})
    assert any(problem.startswith(sentence) for problem in found), found
    assert "hush" not in str(found)


@pytest.mark.parametrize("process", SECRETS_OF)
def test_a_process_needs_only_its_own_secrets_of_an_account(write, process: str):
    path = write(ACCOUNTS)
    with pytest.raises(ConfigError, match="TWILIO_AUTH_TOKEN_SUPPORT"):
        load(path, {"TWILIO_AUTH_TOKEN": "one"}, process=process)
    environ = {"TWILIO_AUTH_TOKEN": "one", **dict(zip(variables_of("support").values(), ("two", "old", "key"), strict=True))}
    own = load(path, environ, process=process).secrets.accounts["support"]
    assert own == (
        AccountSecrets(twilio_auth_token="two")
        if process == "control"
        else AccountSecrets(twilio_auth_token="two", twilio_auth_token_old="old", twilio_shared_key="key")
    )


def test_every_variable_reaches_its_field():
    for field, variable in ENVIRONMENT.items():
        assert load(None, {variable: "value"}).secrets == Secrets(**{field: "value"})


@pytest.mark.parametrize("process", SECRETS_OF)
def test_a_process_reads_and_needs_only_its_own_secrets(process: str, tmp_path):
    environ = dict.fromkeys(ENVIRONMENT.values(), "value")
    assert load(None, environ, process=process).secrets == Secrets(**dict.fromkeys(SECRETS_OF[process], "value"))
    path = tmp_path / "submilli.toml"
    sid = "AC" + "0" * 32
    path.write_text(f'[ops]\nlisten = ":9464"\n[twilio]\naccount_sid = "{sid}"\n[agents.default]\nprovider = "openai"\n')
    assert len(problems(path, {})) == 3
    own = {ENVIRONMENT[field]: "value" for field in SECRETS_OF[process]}
    assert load(path, own, process=process).twilio.account_sid == sid
    with pytest.raises(ConfigError):
        load(path, {}, process=process)


MCP_FILE = """
[[agents.default.mcp]]
server_label = "crm"
server_url = "https://crm.example.com/mcp"
authorization_env = "CRM_TOKEN"
approve = ["find_customer"]
"""


def test_a_token_of_an_mcp_server_is_a_secret_of_workers(tmp_path):
    path = tmp_path / "gw.toml"
    path.write_text('[agents.default]\nprovider = "openai"\nbase_url = "ws://127.0.0.1/"\n' + MCP_FILE)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "CRM_TOKEN").write_text("from a file\n")
    environ = {"CRM_TOKEN": "from the environment", "SUBMILLI_CREDENTIALS": str(tmp_path / "secrets")}
    assert load(path, environ, process="worker").secrets.mcp == {"CRM_TOKEN": "from a file"}
    assert load(path, {"CRM_TOKEN": "t"}, process="worker").secrets.mcp == {"CRM_TOKEN": "t"}
    assert load(path, environ, process="control").secrets.mcp == {}
    assert show(load(path, environ))["secrets"]["mcp"] == {"CRM_TOKEN": "set"}
    assert problems(path, {"CRM_TOKEN": "two\nlines"}) == [
        "CRM_TOKEN begins or ends with a space, or contains a line break: remove it"
    ]
    (line,) = problems(path, {})
    assert line.startswith('agents.default.mcp[1].authorization_env = "CRM_TOKEN" is not set')


def test_a_list_of_tables_in_an_agent_is_read_key_by_key(tmp_path):
    path = tmp_path / "gw.toml"
    path.write_text('[agents.default]\nmcp = 3\n[[agents.other.mcp]]\nserver_labell = "x"\n[[agents.other.mcp]]\napprove = 1\n')
    found = problems(path, {}, serving=False)
    assert "agents.default.mcp = 3: expected a list of tables, for example [[agents.default.mcp]]" in found
    assert "agents.other.mcp[1].server_labell is unknown: did you mean agents.other.mcp[1].server_label?" in found
    assert any(line.startswith("agents.other.mcp[2].approve = 1: expected a list of up to") for line in found)

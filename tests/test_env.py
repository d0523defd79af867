"""Settings, secrets, and what is said about wrong ones. Failure modes CF-02, CF-05, SX-01, SX-02, SX-04 to SX-07."""

from __future__ import annotations

import copy
import json
import os
import pickle
import stat
import subprocess
import traceback
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from pmkit.config.env import VARIABLES, Mode, Period, Secret, Settings, Venue, Where, secrets_of
from pmkit.errors import ConfigError
from pmkit.logging.redact import Redactor

CANARY = "c0ffee" + "ab12" * 14 + "77"  # a valid private key that turns up nowhere else
ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"  # test vector of EIP-55
ED25519_KEY = ed25519.Ed25519PrivateKey.generate()
PEM = ED25519_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def load(**environ: str) -> Settings:
    return Settings.load(environ=environ)


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No .env of the checkout is read by accident."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def env_file(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / ".env"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


# -- Secret


def test_sx_02_a_secret_shows_itself_nowhere() -> None:
    secret = Secret(CANARY)
    holder = load(POLYMARKET_PRIVATE_KEY=CANARY)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>30}", f"{secret!r}", format(secret, "<9"), repr(holder),
             repr([secret]), repr(asdict(holder)), repr(copy.deepcopy(secret)), repr(dir(secret))]  # fmt: skip
    assert all(CANARY not in text for text in shown)
    assert repr(secret) == str(secret) == "Secret(***)"
    assert not hasattr(secret, "__dict__")


@pytest.mark.parametrize(
    "dump",
    [pickle.dumps, json.dumps, msgspec.json.encode, msgspec.to_builtins, vars, "".join, len, iter, bytes],
)
def test_sx_02_a_secret_does_not_leave_by_accident(dump: object) -> None:
    with pytest.raises((TypeError, AttributeError)) as caught:
        dump([Secret(CANARY)] if dump == "".join else Secret(CANARY))  # type: ignore[operator]
    assert CANARY not in str(caught.value)


def test_a_secret_is_equal_to_the_same_secret_only() -> None:
    assert Secret("abc") == Secret("abc")
    assert hash(Secret("abc")) == hash(Secret("abc"))
    assert Secret("abc") != Secret("abd")
    assert Secret("abc") != "abc"
    assert copy.copy(Secret("a")) == pickle_free_copy(Secret("a"))
    with pytest.raises(AttributeError):
        Secret("abc").text = "x"  # type: ignore[attr-defined]
    with pytest.raises(TypeError) as caught:
        Secret(12345678)  # type: ignore[arg-type]
    assert "12345678" not in str(caught.value)


def pickle_free_copy(secret: Secret) -> Secret:
    return copy.deepcopy(secret)


# -- values


@pytest.mark.parametrize(
    "text",
    [CANARY, "0x" + CANARY, "0X" + CANARY.upper(), f'"0x{CANARY}"', f"'{CANARY}'", f"  {CANARY}\r\n", f"\ufeff{CANARY}",
     f'" {CANARY} "', f"\u200b0x{CANARY}\u200b"],
)  # fmt: skip
def test_sx_06_variants_of_a_key_are_one_key(text: str) -> None:
    key = load(POLYMARKET_PRIVATE_KEY=text).polymarket_private_key
    assert key is not None
    assert key.reveal() == CANARY


@pytest.mark.parametrize(
    "text",
    [CANARY[:-1], CANARY + "0", CANARY[:-1] + "g", "0" * 64, "f" * 64, ADDRESS, "word " * 12, f"0x0x{CANARY}",
     CANARY[:32]],
)  # fmt: skip
def test_sx_06_bad_keys_give_one_clear_error_without_the_key(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(POLYMARKET_PRIVATE_KEY=text)
    assert len(caught.value.problems) == 1
    assert "POLYMARKET_PRIVATE_KEY" in str(caught.value)
    assert "expects" in str(caught.value)
    assert text.strip() not in everything_about(caught.value)


def everything_about(error: BaseException) -> str:
    """Message, chain and the locals of every frame, as a crash reporter shows them."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame.locals or {} for frame in shown.stack if "/pmkit/" in frame.filename]
    # `environ` is what the test handed in; it is None where the real environment is read.
    parts = [*shown.format_exception_only()]
    parts += [f"{name}={text}" for frame in frames for name, text in frame.items() if name != "environ"]
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    return "".join(parts)


SECRET_VARIABLES = [name for name, variable in VARIABLES.items() if variable.secret]


@pytest.mark.parametrize("name", VARIABLES)
def test_sx_01_no_error_about_a_variable_holds_a_secret(name: str, empty_directory: Path) -> None:
    """A key pasted into the wrong variable: refused or taken, but never shown."""
    for text in (f"0x{CANARY}zz", f"{CANARY} {CANARY}", f"-----BEGIN PRIVATE KEY-----{CANARY}"):
        for source in ("file", "environment"):
            path = env_file(empty_directory, f"{name}='{text}'\n" if source == "file" else "")
            settings, error = try_load(path, {} if source == "file" else {name: text})
            if error is not None:
                assert name in str(error)
                assert CANARY not in everything_about(error)
            if settings is not None:
                assert not VARIABLES[name].secret or CANARY not in repr(settings)
                assert all(CANARY not in warning for warning in settings.warnings)


def try_load(path: Path, environ: dict[str, str]) -> tuple[Settings | None, ConfigError | None]:
    try:
        return Settings.load(path, environ), None
    except ConfigError as error:
        return None, error


def test_every_variable_becomes_a_field() -> None:
    settings = load(
        POLYMARKET_PRIVATE_KEY=CANARY,
        POLYMARKET_FUNDER_ADDRESS=ADDRESS.removeprefix("0x"),
        POLYMARKET_SIGNATURE_TYPE="'2'",
        POLYMARKET_API_KEY="0f1e2d3c-aaaa-bbbb-cccc-1234567890ab",
        POLYMARKET_API_SECRET="c2VjcmV0LXNlY3JldC1zZWNyZXQ",
        POLYMARKET_API_PASSPHRASE="a phrase"[:1] + "bcdef",
        POLYMARKET_RELAYER_API_KEY="relayer-key-0001",
        POLYMARKET_BUILDER_API_KEY="builder-key-0001",
        POLYMARKET_BUILDER_SECRET="YnVpbGRlci1zZWNyZXQtMDAwMQ==",
        POLYMARKET_BUILDER_PASSPHRASE="builder-pass",
        KALSHI_API_KEY_ID="11111111-2222-3333-4444-555555555555",
        KALSHI_PRIVATE_KEY=PEM.replace("\n", "\\n"),
        POLYGON_RPC_URL="https://polygon.example/v2/abcdefghijklmnop",
        PMKIT_WHERE="Real",
        PMKIT_MODE="Dry Run",
        PMKIT_VENUES="kalshi, polymarket kalshi",
        PMKIT_ASSETS="btc,eth BTC",
        PMKIT_INTERVAL="15m",
        PMKIT_PERIOD="7d",
        PMKIT_LOG_LEVEL="debug",
        PMKIT_LOG_DIR="/var/log/pm",
        PMKIT_TRADE_DIR="~/trades",
        PMKIT_DATA_DIR="data dir",
    )
    assert settings.warnings == ()
    assert (settings.where, settings.mode) == (Where.REAL, Mode.DRY_RUN)
    assert settings.venues == (Venue.KALSHI, Venue.POLYMARKET)
    assert settings.assets == ("BTC", "ETH")
    assert (settings.interval, settings.log_level) == ("15m", "DEBUG")
    assert settings.period is not None
    assert settings.period.bounds(datetime(2026, 11, 20, tzinfo=UTC))[0] == datetime(2026, 11, 13, tzinfo=UTC)
    assert settings.log_dir == Path("/var/log/pm")
    assert settings.trade_dir == Path.home() / "trades"
    assert settings.data_dir == Path("data dir")
    assert settings.polymarket_funder_address == ADDRESS
    assert settings.polymarket_signature_type == 2
    assert settings.kalshi_private_key == Secret(PEM)
    assert set(settings.sources) == set(VARIABLES) - {"KALSHI_PRIVATE_KEY_PATH"}
    known = secrets_of(settings)
    assert {CANARY, PEM, "abcdefghijklmnop", "c2VjcmV0LXNlY3JldC1zZWNyZXQ"} <= set(known)
    assert {"relayer-key-0001", "builder-key-0001", "YnVpbGRlci1zZWNyZXQtMDAwMQ==", "builder-pass"} <= set(known)
    assert ADDRESS not in known


def test_blank_values_are_not_set_and_nothing_has_a_dangerous_default() -> None:
    settings = load(**dict.fromkeys(VARIABLES, "  '' "))
    assert settings == load()
    assert settings.sources == {}
    assert (settings.mode, settings.where, settings.venues) == (None, None, ())
    assert (settings.log_level, settings.log_dir, settings.trade_dir) == ("INFO", Path("logs"), Path("trades"))


def test_all_wrong_values_are_told_at_once_with_what_is_expected() -> None:
    with pytest.raises(ConfigError) as caught:
        load(PMKIT_MODE="yes", PMKIT_WHERE="here", PMKIT_INTERVAL="15M", PMKIT_PERIOD="2026-11-08..2026-11-01",
             PMKIT_ASSETS="B!", PMKIT_VENUES="polymarkt", PMKIT_LOG_LEVEL="loud", POLYMARKET_SIGNATURE_TYPE="4",
             POLYMARKET_FUNDER_ADDRESS="0x12", POLYGON_RPC_URL="polygon", KALSHI_PRIVATE_KEY="nope")  # fmt: skip
    assert len(caught.value.problems) == 11
    text = str(caught.value)
    for part in ("dry-run or live, not 'yes'", "local, real or demo", "'15M'", "polymarket or kalshi", "BEGIN"):
        assert part in text
    assert "nope" not in text


def test_a_mistyped_address_is_found_by_its_checksum() -> None:
    assert load(POLYMARKET_FUNDER_ADDRESS=ADDRESS.lower()).polymarket_funder_address == ADDRESS.lower()
    with pytest.raises(ConfigError, match="mistyped"):
        load(POLYMARKET_FUNDER_ADDRESS=ADDRESS.replace("E94C", "E95C"))


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("36h", "2026-11-18T12:00", "2026-11-20T00:00"),
        ("4w", "2026-10-23T00:00", "2026-11-20T00:00"),
        ("2026-11-01..2026-11-08", "2026-11-01T00:00", "2026-11-08T00:00"),
        ("2026-11-01T06:00..", "2026-11-01T06:00", "2026-11-20T00:00"),
        ("full", "1970-01-01T00:00", "2026-11-20T00:00"),
        ("2026-11-01T06:00+02:00..2026-11-02", "2026-11-01T04:00", "2026-11-02T00:00"),
    ],
)
def test_periods(text: str, start: str, end: str) -> None:
    period = load(PMKIT_PERIOD=text).period
    assert isinstance(period, Period)
    now = datetime(2026, 11, 20, tzinfo=UTC)
    assert period.bounds(now) == tuple(datetime.fromisoformat(moment).replace(tzinfo=UTC) for moment in (start, end))


@pytest.mark.parametrize("text", ["0d", "7", "d", "-7d", "7y", "2026-13-01..", "..2026-11-01", "1e3d", "9999999d"])
def test_bad_periods(text: str) -> None:
    with pytest.raises(ConfigError, match="PMKIT_PERIOD"):
        load(PMKIT_PERIOD=text)


# -- files


def test_the_file_is_read_and_the_environment_wins(empty_directory: Path) -> None:
    env_file(
        empty_directory,
        "\ufeff# comment\nexport PMKIT_MODE=live # not this\r\nPMKIT_ASSETS='BTC'\n"
        'PMKIT_WHERE="real"\nPMKIT_DATA_DIR=$HOME\n'
        f'KALSHI_PRIVATE_KEY="{PEM}"\n',
    )
    settings = Settings.load(environ={"PMKIT_MODE": "dry-run", "PMKIT_WHERE": ""})
    assert settings.mode is Mode.DRY_RUN
    assert settings.where is None, "a blank in the environment takes the file's value away"
    assert settings.assets == ("BTC",)
    assert settings.data_dir == Path("$HOME"), "nothing is expanded: a secret may hold a dollar sign"
    assert settings.kalshi_private_key == Secret(PEM)
    assert "PMKIT_MODE" not in os.environ
    assert settings.sources["PMKIT_MODE"] == "environment"
    assert settings.sources["PMKIT_ASSETS"] == str(settings.env_file)


def test_cf_05_only_the_file_of_this_directory_and_shadowed_names_are_told(
    empty_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file(empty_directory, f"PMKIT_ASSETS=BTC\nPOLYMARKET_PRIVATE_KEY={CANARY}\n")
    settings = Settings.load(environ={"POLYMARKET_PRIVATE_KEY": "1" * 64})
    assert any("POLYMARKET_PRIVATE_KEY" in warning and "environment" in warning for warning in settings.warnings)
    assert CANARY not in repr(settings.warnings)
    inner = empty_directory / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    assert Settings.load(environ={}).assets == ()
    assert Settings.load(environ={}).env_file is None


@pytest.mark.parametrize("kind", ["missing", "directory", "binary", "fifo", "huge"])
def test_a_named_file_that_cannot_be_read_is_an_error_at_once(kind: str, empty_directory: Path) -> None:
    path = empty_directory / "my.env"
    if kind == "directory":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"POLYMARKET_PRIVATE_KEY=\xff\xfe" + CANARY.encode())
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "huge":
        path.write_bytes(b"#" * (2 * 1024 * 1024))
    with pytest.raises(ConfigError, match=r"my\.env") as caught:
        Settings.load(path, environ={})
    assert CANARY not in everything_about(caught.value)


def test_typos_get_a_warning_with_the_nearest_name(empty_directory: Path) -> None:
    text = "KALSHI_KEY_ID=abc\nPMKIT_MOD=live\nOTHER=1\nnonsense\nPMKIT_MODE=live\nPMKIT_MODE=live"
    path = env_file(empty_directory, text)
    settings = Settings.load(path, environ={"PMKIT_ASSET": "BTC", "HOME": "/", "PMKIT_RECORDINGS": "x"})
    text = "\n".join(settings.warnings)
    assert "KALSHI_KEY_ID" in text
    assert "did you mean KALSHI_API_KEY_ID?" in text
    assert "did you mean PMKIT_MODE?" in text
    assert "did you mean PMKIT_ASSETS?" in text
    assert "line 4 is not NAME=value" in text
    assert "PMKIT_MODE is there twice" in text
    assert "OTHER" not in text
    assert "RECORDINGS" not in text
    assert settings.mode is Mode.LIVE


def test_an_unquoted_pem_is_told_and_none_of_its_lines_is_shown(empty_directory: Path) -> None:
    path = env_file(empty_directory, f"KALSHI_PRIVATE_KEY={PEM}")
    with pytest.raises(ConfigError) as caught:
        Settings.load(path, environ={})
    assert PEM.split("\n")[1] not in everything_about(caught.value)
    path = env_file(empty_directory, f"PMKIT_MODE=live\n{PEM}")
    warnings = "\n".join(Settings.load(path, environ={}).warnings)
    assert "PEM key needs quotes" in warnings
    assert PEM.split("\n")[1] not in warnings


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o644, True)])
def test_sx_04_a_readable_env_file_warns(mode: int, warned: bool, empty_directory: Path) -> None:
    path = env_file(empty_directory, "PMKIT_MODE=live\n", mode)
    warnings = Settings.load(path, environ={}).warnings
    assert any("chmod 600" in warning and f"{mode:04o}" in warning for warning in warnings) is warned
    key = empty_directory / "key.pem"
    key.write_text(PEM)
    key.chmod(mode)
    settings = load(KALSHI_API_KEY_ID="abcd-efgh", KALSHI_PRIVATE_KEY_PATH=str(key))
    assert any(str(key) in warning for warning in settings.warnings) is warned


def test_sx_04_a_tracked_env_file_warns(empty_directory: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=empty_directory, check=True, capture_output=True)

    path = env_file(empty_directory, "PMKIT_MODE=live\n")
    (empty_directory / "other.env").write_text("")
    git("init", "-q")
    git("add", "other.env")
    assert not any("git" in warning for warning in Settings.load(path, environ={}).warnings)
    git("add", "-f", ".env")
    assert any("tracked by git" in warning for warning in Settings.load(path, environ={}).warnings)


# -- what a mode needs


LIVE_POLYMARKET = {"POLYMARKET_PRIVATE_KEY": CANARY}
LIVE_KALSHI = {"KALSHI_API_KEY_ID": "11111111-2222-3333-4444-555555555555", "KALSHI_PRIVATE_KEY": PEM}


def test_cf_02_everything_missing_is_told_at_once_by_name_and_with_where_to_get_it() -> None:
    with pytest.raises(ConfigError) as caught:
        load().require("live", ["polymarket", "kalshi"], "real")
    assert len(caught.value.problems) == 3
    text = str(caught.value)
    for part in ("POLYMARKET_PRIVATE_KEY", "KALSHI_API_KEY_ID", "KALSHI_PRIVATE_KEY_PATH", "KALSHI_PRIVATE_KEY"):
        assert part in text
    assert text.count("Get it: ") == 3
    assert "live on polymarket and kalshi (real)" in text


@pytest.mark.parametrize("name", [*LIVE_POLYMARKET, *LIVE_KALSHI])
def test_cf_02_each_variable_in_turn(name: str) -> None:
    complete = {**LIVE_POLYMARKET, **LIVE_KALSHI}
    load(**complete).require(Mode.LIVE, [Venue.POLYMARKET, Venue.KALSHI], Where.REAL)
    del complete[name]
    with pytest.raises(ConfigError, match=name):
        load(**complete).require("live", ["polymarket", "kalshi"], "real")


def test_only_what_the_choice_needs_is_asked_for() -> None:
    load().require("dry-run", ["polymarket", "kalshi"], "real")
    load().require("live", ["polymarket", "kalshi"], "local")
    load().require("dry-run", ["kalshi"], "demo")
    load(**LIVE_POLYMARKET).require("live", ["polymarket"], "real")
    load(**LIVE_KALSHI).require("live", ["kalshi"], "demo")
    with pytest.raises(ConfigError, match="no demo"):
        load(**LIVE_POLYMARKET).require("dry-run", ["polymarket"], "demo")
    with pytest.raises(ConfigError, match="no such choice"):
        load().require("paper", ["polymarket"], "real")


def test_no_kind_of_wallet_needs_the_funder() -> None:
    for kind in "0123":
        load(**LIVE_POLYMARKET, POLYMARKET_SIGNATURE_TYPE=kind).require("live", ["polymarket"], "real")


def test_half_a_set_of_credentials_warns_and_live_refuses() -> None:
    settings = load(**LIVE_POLYMARKET, POLYMARKET_API_KEY="abcd-efgh")
    assert any("POLYMARKET_API_SECRET, POLYMARKET_API_PASSPHRASE missing" in warning for warning in settings.warnings)
    settings.require("dry-run", ["polymarket"], "real")
    with pytest.raises(ConfigError, match="POLYMARKET_API_SECRET") as caught:
        settings.require("live", ["polymarket"], "real")
    assert len(caught.value.problems) == 2


def rsa_pem(bits: int) -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


BAD_KEYS = {
    "a directory": None,
    "not UTF-8": b"\x30\x82\x04\xbe\xff" + b"CANARYBODY",
    "PEM text": b"CANARYBODY",
    "public key": ED25519_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "encrypted": ED25519_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"CANARYBODY")),
    "OpenSSH": ED25519_KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
    "another kind": ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ),
    "not a readable": b"-----BEGIN PRIVATE KEY-----\nCANARYBODYCANARYBODY\n-----END PRIVATE KEY-----\n",
    "1024 bits": rsa_pem(1024),
    "-----END": PEM.encode()[: len(PEM) // 2],
}


@pytest.mark.parametrize("kind", BAD_KEYS)
def test_sx_05_ten_bad_key_files_are_found_at_the_start(kind: str, empty_directory: Path) -> None:
    path = empty_directory / "kalshi.pem"
    content = BAD_KEYS[kind]
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    settings = load(KALSHI_API_KEY_ID="abcd-efgh", KALSHI_PRIVATE_KEY_PATH=str(path))
    for mode in ("live", "dry-run"):
        with pytest.raises(ConfigError) as caught:
            settings.require(mode, ["kalshi"], "real")
        text = everything_about(caught.value)
        assert "KALSHI_PRIVATE_KEY_PATH" in text
        assert kind in text
        assert "CANARYBODY" not in text
        lines = [line for line in (content or b"").split(b"\n") if len(line) > 30 and not line.startswith(b"-----")]
        assert not any(line.decode("latin-1") in text for line in lines)
    secrets_of(settings)


def test_sx_05_a_missing_or_forbidden_key_file(empty_directory: Path) -> None:
    settings = load(KALSHI_API_KEY_ID="abcd-efgh", KALSHI_PRIVATE_KEY_PATH=str(empty_directory / "none.pem"))
    with pytest.raises(ConfigError, match=r"none\.pem cannot be read: there is no such file"):
        settings.require("live", ["kalshi"], "real")
    settings.require("live", ["polymarket"], "local")
    path = empty_directory / "forbidden.pem"
    path.write_text(PEM)
    path.chmod(0)
    settings = load(KALSHI_API_KEY_ID="abcd-efgh", KALSHI_PRIVATE_KEY_PATH=str(path))
    user = os.geteuid()
    try:
        if user == 0:
            empty_directory.parent.chmod(0o755)
            empty_directory.chmod(0o755)
            os.seteuid(65534)  # root may read everything
        with pytest.raises(ConfigError, match="KALSHI_PRIVATE_KEY_PATH"):
            settings.require("live", ["kalshi"], "real")
    finally:
        os.seteuid(user)
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)


@pytest.mark.parametrize("name", ["throwaway_ed25519_pkcs8.pem", "throwaway_rsa_pkcs1.pem", "throwaway_rsa_pkcs8.pem"])
def test_sx_05_keys_of_every_form_load(name: str, recordings: Path, empty_directory: Path) -> None:
    text = (recordings / "kalshi" / "auth" / name).read_text()
    path = empty_directory / "key.pem"
    path.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    path.chmod(0o600)
    spellings = [{"KALSHI_PRIVATE_KEY": form} for form in (text, text.replace("\n", "\\n"), text.replace("\n", " "))]
    for variables in (*spellings, {"KALSHI_PRIVATE_KEY_PATH": str(path)}):
        settings = load(KALSHI_API_KEY_ID="abcd-efgh", **variables)
        settings.require("live", ["kalshi"], "real")
        pem = settings.kalshi_pem()
        assert pem is not None
        assert pem.reveal().split() == text.split()
        assert settings.warnings == ()
        redactor = Redactor(secrets_of(settings))
        body = text.split("\n")[1]
        assert body not in redactor(f"{text} and {body}")


def test_require_does_not_write_into_the_environment_or_need_a_file() -> None:
    assert Settings.load(environ={}).kalshi_pem() is None
    assert secrets_of(Settings()) == ()


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("https://polygon-rpc.example", ()),
        ("https://node.example/v2/a1b2c3d4e5f6a7b8c9", ("a1b2c3d4e5f6a7b8c9",)),
        ("https://user:passw0rd@node.example/x?key=k1k2k3&z=1", ("user", "passw0rd", "k1k2k3")),
    ],
)
def test_sx_07_keys_inside_a_node_address_are_secrets(url: str, secrets: tuple[str, ...]) -> None:
    settings = load(POLYGON_RPC_URL=url)
    assert secrets_of(settings) == secrets
    assert url not in repr(settings)

# ruff: noqa: E501
"""Secrets out of texts: vendors' formats, names that they are assigned to, randomness.

Every search here takes time linear in the length of the text: patterns begin with fixed letters and
their repeats are bounded.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

Span = tuple[int, int, str]
"""Where a secret begins and ends, and what stands for it."""

_WORD = r"[A-Za-z0-9_-]"
_PLAIN = r"[A-Za-z0-9]"
_HEX = r"[0-9a-fA-F]"
_PREFIXES = {
    # LLM and search vendors
    "sk-": rf"{_WORD}{{16,200}}", "gsk_": rf"{_PLAIN}{{20,100}}", "xai-": rf"{_WORD}{{20,120}}",
    "pplx-": rf"{_WORD}{{20,100}}", "r8_": rf"{_PLAIN}{{20,60}}", "hf_": r"\w{20,60}",
    "api_org_": rf"{_PLAIN}{{20,60}}", "nvapi-": rf"{_WORD}{{20,100}}", "csk-": rf"{_WORD}{{20,80}}",
    "fw_": rf"{_PLAIN}{{16,60}}", "jina_": rf"{_WORD}{{20,100}}", "tvly-": rf"{_WORD}{{16,80}}",
    "pa-": rf"{_WORD}{{30,80}}", "lsv2_": r"\w{20,100}", "pcsk_": r"\w{20,120}",
    "pk-lf-": rf"{_WORD}{{16,60}}", "llx-": rf"{_WORD}{{20,100}}", "AIza": rf"{_WORD}{{30,60}}",
    "tgp_v1_": rf"{_WORD}{{20,80}}", "BSA": rf"{_WORD}{{24,40}}", "fc-": rf"{_HEX}{{32}}",
    # clouds and code hosts
    **{f"{kind}{'IA' if kind in ('AK', 'AS', 'AB') else ''}": rf"{_PLAIN}{{16}}" for kind in
       ("AK", "AS", "AB")},
    "ACCA": r"[A-Z0-9]{16}", "ya29.": rf"{_WORD}{{20,300}}", "GOCSPX-": rf"{_WORD}{{20,60}}",
    "1//0": rf"{_WORD}{{30,150}}", "dop_v1_": rf"{_HEX}{{40,80}}", "doo_v1_": rf"{_HEX}{{40,80}}",
    "dor_v1_": rf"{_HEX}{{40,80}}", "ghp_": r"\w{20,255}", "gho_": r"\w{20,255}",
    "ghu_": r"\w{20,255}", "ghs_": r"\w{20,255}", "ghr_": r"\w{20,255}",
    "github_pat_": r"\w{20,255}", "glpat-": rf"{_WORD}{{16,100}}", "gldt-": rf"{_WORD}{{16,100}}",
    "glrt-": rf"{_WORD}{{16,100}}", "glptt-": rf"{_WORD}{{16,100}}", "glcbt-": rf"{_WORD}{{16,100}}",
    "glsoat-": rf"{_WORD}{{16,100}}", "glft-": rf"{_WORD}{{16,100}}", "gloas-": rf"{_WORD}{{16,100}}",
    "glagent-": rf"{_WORD}{{16,200}}", "glimt-": rf"{_WORD}{{16,100}}", "GR1348941": rf"{_WORD}{{16,60}}",
    "ATATT3": r"[A-Za-z0-9_=-]{20,300}", "ATCTT3": r"[A-Za-z0-9_=-]{20,300}",
    "ATBB": rf"{_PLAIN}{{24,60}}", "BBDC-": r"[A-Za-z0-9+/=]{30,60}", "dapi": rf"{_HEX}{{32}}(?:-\d)?",
    "hvs.": rf"{_WORD}{{20,200}}", "hvb.": rf"{_WORD}{{20,300}}", "tskey-": rf"{_WORD}{{16,100}}",
    "dckr_pat_": rf"{_WORD}{{20,60}}", "npm_": rf"{_PLAIN}{{30,60}}", "pypi-": rf"{_WORD}{{40,400}}",
    "rubygems_": rf"{_HEX}{{40,60}}", "oy2": r"[a-z0-9]{43}", "cio": rf"{_PLAIN}{{32}}",
    "pul-": rf"{_HEX}{{40}}", "FlyV1 ": r"[A-Za-z0-9_,=+/-]{20,400}", "fo1_": rf"{_WORD}{{30,60}}",
    "vercel_": rf"{_PLAIN}{{20,60}}", "sbp_": rf"{_HEX}{{40}}", "HRKU-": rf"{_WORD}{{30,100}}",
    "nfp_": rf"{_PLAIN}{{30,60}}", "pscale_": r"[\w.-]{20,100}", "rnd_": rf"{_PLAIN}{{20,60}}",
    # payment, mail, chat, monitoring
    "sk_live_": r"\w{10,200}", "sk_test_": r"\w{10,200}", "rk_live_": r"\w{10,200}",
    "rk_test_": r"\w{10,200}", "pk_live_": r"\w{10,200}", "whsec_": r"[A-Za-z0-9+/=_-]{20,100}",
    "sq0atp-": rf"{_WORD}{{20,60}}", "sq0csp-": rf"{_WORD}{{20,60}}", "EAAA": rf"{_WORD}{{56,90}}",
    "EAAC": rf"{_PLAIN}{{30,300}}", "shpat_": rf"{_HEX}{{32}}", "shpss_": rf"{_HEX}{{32}}",
    "shpca_": rf"{_HEX}{{32}}", "shppa_": rf"{_HEX}{{32}}", "SG.": r"[\w-]{16,40}\.[\w-]{20,60}",
    "key-": rf"{_HEX}{{32}}", "xkeysib-": rf"{_WORD}{{40,120}}", "AC": r"[a-f0-9]{32}",
    "SK": r"[a-f0-9]{32}", **{f"xox{kind}-": rf"{_WORD}{{10,200}}" for kind in "abeoprs"},
    "xapp-": rf"{_WORD}{{20,200}}", "xoxe.": r"[\w.-]{20,300}",
    "hooks.slack.com/services/": r"[\w/]{20,100}", "discord.com/api/webhooks/": r"[\w/-]{20,200}",
    "glc_": r"[A-Za-z0-9+/=]{30,400}", "glsa_": r"\w{30,60}", "NRAK-": rf"{_PLAIN}{{20,60}}",
    "NRJS-": rf"{_PLAIN}{{16,60}}", "sntrys_": r"[A-Za-z0-9_+/=-]{40,400}", "sntryu_": rf"{_HEX}{{60,70}}",
    "phc_": rf"{_PLAIN}{{30,60}}", "phx_": rf"{_PLAIN}{{30,60}}", "PMAK-": rf"{_WORD}{{40,80}}",
    "lin_api_": rf"{_PLAIN}{{30,60}}", "secret_": rf"{_PLAIN}{{40,50}}", "ntn_": rf"{_PLAIN}{{30,60}}",
    "figd_": rf"{_WORD}{{30,60}}", "pat": rf"{_PLAIN}{{14}}\.{_HEX}{{64}}",
    "ops_eyJ": rf"{_WORD}{{40,2000}}", "sdk-": rf"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}",
    "LTAI": rf"{_PLAIN}{{12,30}}", "dt0c01.": r"[A-Z2-7]{20,30}\.[A-Z2-7]{40,80}",
    "sk_": rf"{_HEX}{{40,64}}", "sb_secret_": rf"{_WORD}{{20,60}}", "access_token$": r"\w{4,20}\$\w{8,40}\$\w{16,64}",
    "hooks.zapier.com/hooks/catch/": r"[\w/]{8,100}", "webhook.office.com/webhookb2/": r"[\w@/-]{20,300}",
    "AGE-SECRET-KEY-1": r"[A-Z0-9]{40,70}", "eyJ": r"[\w-]{8,2000}\.[\w-]{8,4000}(?:\.[\w-]{0,1000})?",
    "-----BEGIN": r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[^-]*(?:-----END[^-\n]{0,60}-----)?",
}  # fmt: skip
# Not inside a word: the many starts of "eyJeyJeyJ…" would each be followed to their end.
VENDORS = [
    (
        prefix,
        re.compile(("(?<![A-Za-z0-9-])" if prefix == "eyJ" else "") + re.escape(prefix) + body),
    )
    for prefix, body in _PREFIXES.items()
]

SHORTEST = 15
"""Characters of the shortest vendor's key."""
_SPACED = {prefix for prefix in _PREFIXES if " " in prefix or prefix == "-----BEGIN"}
"""Keys of several words."""

_STRONG = {"password", "passwd", "passwort", "passphrase", "passcode", "pwd", "pass", "secret"}
_STRONG |= {"credential", "credentials", "senha", "contraseña", "kennwort", "wachtwoord", "пароль"}
_STRONG |= {"密码", "密碼", "パスワード", "비밀번호", "mot de passe", "parola d'ordine", "hasło", "heslo"}  # fmt: skip
_STRONG |= {"lösenord", "adgangskode", "passord", "salasana", "jelszó", "şifre", "parola", "κωδικός"}  # fmt: skip
_STRONG |= {"סיסמה", "كلمة المرور", "كلمة السر", "पासवर्ड", "รหัสผ่าน", "mật khẩu", "kata sandi"}
_BASE_NAMES = {"key", "token", "authorization", "auth", "sig", "signature", "sas", "apikey"}
_BASE_NAMES |= {"sessionid", "jwt"}
_HEAD = re.compile(
    rf"(?P<name>{'|'.join(sorted({*_STRONG, *_BASE_NAMES}, key=len, reverse=True))})"
    r"(?P<tail>[_-]?\d{0,2}\\?[\"'`\]]{0,2})"
    r"(?P<sign>\s{0,4}(?::=|=>|={1,3}|[:：])|\s{1,3}(?:is|ist|es|est|lautet)(?::|(?=\s))"
    r"|\s{1,4}value\s{0,2}=|%3d|(?<=\w)>(?=[^\s<])"  # of an HTML form, a URL, XML
    r"|(?<=\w)\s(?=\S))\s{0,4}(?P<open>\\?[\"'`]?)"
    r"(?P<scheme>(?:basic|bearer|token|apikey|digest)\s{1,3})?",
    re.IGNORECASE,
)
_ELEMENT = re.compile(r"[^\s<]{3,200}")
_VALUE = re.compile(r"[^\s\"'`<>&,;\\]{3,200}")
_DIGIT, _LETTER = re.compile(r"\d"), re.compile(r"[^\W\d_]")
_BEFORE = (
    "api access secret private auth account master encryption shared storage db user my root admin "
    "client refresh bearer id csrf session service signing license bot app"
)
_BEFORE_NAMES = tuple(_BEFORE.split())
_NO_SECRETS = ("primary", "foreign", "sort", "partition", "cache", "public", "unique", "object")
"""What a key is of, where it is none to a door."""
_PLACEHOLDER = re.compile(
    r"(?:none|null|nil|true|false|undefined|str|string|bytes|int|bool|optional\W?.*|required|any"
    r"|\[.*|\$.*|%.*|\{.*|<.*|\*{3,}|x{3,}|\.{2,}|your.*|my[_-].*|example.*|changeme|redacted.*"
    r"|os\..*|env\..*|process\..*|self\..*|config\..*|settings\..*|getenv.*|lambda.*|[\w.]+\(.*)\Z",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(?:basic|bearer)\s{1,3}(?=[\w.~+/-])", re.IGNORECASE)
_CREDENTIAL = re.compile(r"[\w.~+/-]{6,4000}={0,2}")
_URL = re.compile(
    r"://(?P<user>[^\s/:@\"'<>]{0,100}):(?!\d{1,5}[/?#])(?P<word>[^\s@\"'<>]{1,200})@"
)
_URL_TOKEN = re.compile(r"://(?P<word>[\w.~%-]{16,200})@")
_USER = re.compile(
    r"\s(?:-u|--user|--proxy-user)[ =][\"']?[^\s:\"']{1,64}:(?P<word>[^\s\"']{3,128})"
)
_MYSQL = re.compile(r"\bmysql(?:dump|admin)?\b[^\n]{0,200}?\s-p(?P<word>[^\s-]\S{3,64})")
_LOGIN = re.compile(
    r"\b(?:sshpass|(?:docker|podman|nerdctl|buildah|skopeo|registry|az|oc|cf|argocd)\s{1,3}login)\b"
    r"[^\n]{0,200}?\s(?:-p|--password)[ =]?[\"']?(?P<word>[^\s\"'-][^\s\"']{2,64})"
)
# `elastic:changeme@localhost:9200`, without a scheme
_HOST = re.compile(
    r"(?<![\w.:/-])[\w.-]{1,64}:(?P<word>[^\s@:/\"'<>]{3,100})@[\w.-]{1,100}:\d{2,5}(?!\w)"
)
_DISCORD = re.compile(r"\.[\w-]{6}\.[\w-]{27,38}(?![\w-])")
_LONG = re.compile(r"[A-Za-z0-9+/]{32,}")
_DOMAIN = re.compile(r"@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_LOCAL = re.compile(r"[\w.%+'-]{1,64}")
_TELEGRAM = re.compile(r":AA[A-Za-z0-9_-]{33}(?![\w-])")
_MAILCHIMP = re.compile(r"-us\d{1,2}\b")

NAMES_WITHIN = sorted(
    {
        "@", "mysql", "login", "-u", "--user", "--proxy-user", "mot de passe", "parola", "hasło", "heslo", "lösenord",
        "adgangskode", "jelszó", "salasana", "şifre", "κωδικός", "סיסמה", "كلمة المرور", "كلمة السر", "पासवर्ड",
        "รหัสผ่าน", "mật khẩu", "kata sandi", "bearer", "basic", "key", "token", "auth", "sig", "sas", "sessionid", "jwt",
        "secret", "pass", "pwd", "credential", "senha", "contraseña", "kennwort", "wachtwoord",
        "пароль", "密码", "密碼", "パスワード", "비밀번호",
    }
)  # fmt: skip


# What a vendor's key holds at least, in its own case; 32 letters and digits in a row tell the rest.
FORMATS_WITHIN = [
    ":AA",
    *(prefix for prefix in _PREFIXES if prefix not in ("AC", "SK", "pat", "cio", "oy2")),
]


def is_assigned_secret(name: str, value: str) -> str | None:
    """What stands for a value that is stored under a name, if it is a secret."""
    found = _HEAD.match(f"{_last_word(name)}=x")
    if found is None or found["name"].casefold() != _last_word(name).casefold():
        return None
    start = len(name) - len(found["name"])
    if not _is_name(name, start):
        return None
    return _label(name[:start], found["name"], "=", "'", value)


def _last_word(name: str) -> str:
    low = name.casefold().rstrip("_-0123456789")
    return next(
        (name[len(low) - len(word) : len(low)] for word in _ALL_NAMES if low.endswith(word)), ""
    )


_ALL_NAMES = sorted({*_STRONG, *_BASE_NAMES}, key=len, reverse=True)


def assigned_spans(text: str, within: Sequence[str]) -> Iterator[Span]:
    """Values behind a name such as `GROQ_API_KEY=`, `"password": ` or `--token `.

    Args:
        text: where to look.
        within: those of `NAMES_WITHIN` that occur in it.
    """
    names = [name for name in _ALL_NAMES if any(part in name for part in within)]
    for found in _heads(text, names):
        start = found.start("name")
        if not _is_name(text, start):
            continue
        sign = found["sign"].strip().casefold()
        if not sign and not _is_flag(text, start):
            continue
        begin, quote = found.end(), found["open"]
        if quote:
            close = text.find(quote, begin, begin + 400)
            line = text.find("\n", begin, begin + 400)
            if close < 0 or -1 < line < close:
                continue
            end = close
        else:
            value = (_ELEMENT if sign == ">" else _VALUE).match(text, begin)
            if value is None:
                continue
            end = begin + len(value.group().rstrip(".:!?)]}"))
        before = text[max(0, start - 12) : start]
        label = _label(before, found["name"], sign or "=", quote, text[begin:end])
        if label:
            yield begin, end, label


def _heads(text: str, names: Iterable[str]) -> Iterator[re.Match[str]]:
    """What `_HEAD.finditer` finds, tried only where a name stands: plain search is much faster."""
    low = text.lower()
    if len(low) != len(text) or "ſ" in text:  # places differ, or a letter that stands for another
        yield from _HEAD.finditer(text)
        return
    end = 0
    for place in sorted({at for name in names for at in _places(low, name)}):
        if place >= end and (found := _HEAD.match(text, place)) is not None:
            end = found.end()
            yield found


def _places(text: str, word: str) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + len(word))


def _is_name(text: str, start: int) -> bool:
    """Whether a word begins at a place: `apiKey`, `API_KEY`, `api-key`; not "monkey"."""
    before = text[max(0, start - 12) : start]
    if not before or not before[-1].isalpha() or (text[start].isupper() and before[-1].islower()):
        return True
    if text[start : start + 6].casefold() in ("passwo", "passwd", "passph"):  # PGPASSWORD
        return True
    return before.casefold().endswith(_BEFORE_NAMES) or ord(text[start]) > 0x2E80


_VALUE_FOLLOWS = re.compile(
    r"(?:(?:^|\s)--?[\w-]*|(?:^|\n)\s{0,8}(?:ENV|ARG|SET|setx?)\s{1,4}\w*|\blogin\s{1,4}\S{1,40}\s{1,4})\Z"
)


def _is_flag(text: str, start: int) -> bool:
    """Whether a value follows after a space: a flag, a line of a Dockerfile or shell, netrc."""
    return _VALUE_FOLLOWS.search(text[max(0, start - 60) : start]) is not None


def _label(before: str, name: str, sign: str, quote: str, value: str) -> str | None:
    """What stands for the value, or `None` where it is no secret."""
    name, bare = name.casefold(), value.strip().rstrip(".,!?")[:128]
    if len(bare) < 3 or _PLACEHOLDER.match(bare):
        return None
    digits = _DIGIT.search(bare) is not None
    letters = _LETTER.search(bare) is not None
    if name in _STRONG:
        assigned = bool(quote) or sign.startswith(("=", ":="))
        odd = digits or not bare.isalnum() or not (bare.islower() or bare.istitle())
        spaced = " " in bare and not (quote and sign.startswith("="))
        found = (assigned and not spaced) or (odd and len(bare) >= 4 and " " not in bare)
        qualified = assigned and before.endswith(("_", "-"))  # SMTP_PASS=
        if name == "pass" and not (digits and letters) and not qualified:
            return None
        return "[PASSWORD]" if found else None
    if name == "key" and before.casefold().rstrip("_- ").endswith(_NO_SECRETS):
        return None
    qualified = before.casefold().rstrip("_- ").endswith(_BEFORE_NAMES) or name != "key"
    shortest = 6 if qualified else 12
    if " " in bare or len(bare) < shortest or not letters:
        return "[API KEY]" if qualified and bare.isdigit() and len(bare) >= 12 else None
    if digits or (len(bare) >= 16 and not bare.islower() and _entropy(bare) >= 3.5):
        return "[API KEY]"
    return None


def scheme_spans(text: str, low: str) -> Iterator[Span]:
    """`Bearer …`, `Basic …`, and the password of `scheme://user:password@host`."""
    spans: list[Span] = []
    for found in _SCHEME.finditer(text) if "basic" in low or "bearer" in low else ():
        value = _CREDENTIAL.match(text, found.end())
        if value and (
            _is_basic(value.group())
            if found.group()[:5].casefold() == "basic"
            else len(value.group()) >= 8 and any(map(str.isdigit, value.group()))
        ):
            spans.append((value.start(), value.end(), "[API KEY]"))
    for found in _URL.finditer(text):
        spans.append((found.start("word"), found.end("word"), "[PASSWORD]"))
    for found in _URL_TOKEN.finditer(text):
        if any(map(str.isdigit, found["word"])):
            spans.append((found.start("word"), found.end("word"), "[API KEY]"))
    for pattern in (
        *((_USER,) if ":" in text else ()),
        *((_HOST,) if "@" in text and ":" in text else ()),
        *((_MYSQL,) if "mysql" in low else ()),
        *((_LOGIN,) if "login" in low or "sshpass" in low else ()),
    ):
        for found in pattern.finditer(text):
            spans.append((found.start("word"), found.end("word"), "[PASSWORD]"))
    for found in _DISCORD.finditer(text):
        user = re.search(
            r"(?<![\w-])[MNO][\w-]{23,27}\Z", text[max(0, found.start() - 29) : found.start()]
        )
        if user:
            spans.append((found.start() - len(user.group()), found.end(), "[API KEY]"))
    for found in _TELEGRAM.finditer(text):
        number = re.search(r"(?<!\w)\d{8,10}\Z", text[max(0, found.start() - 11) : found.start()])
        if number:
            spans.append((found.start() - len(number.group()), found.end(), "[API KEY]"))
    for found in _MAILCHIMP.finditer(text):
        if re.fullmatch(r"[0-9a-f]{32}", text[max(0, found.start() - 32) : found.start()]):
            spans.append((found.start() - 32, found.end(), "[API KEY]"))
    yield from sorted(spans)


def _is_basic(word: str) -> bool:
    """Whether it is base64 of `user:password`."""
    try:
        plain = base64.b64decode(word.rstrip("=") + "=" * (-len(word.rstrip("=")) % 4))
    except (ValueError, binascii.Error):
        return False
    return b":" in plain and all(byte >= 32 for byte in plain)


def random_spans(text: str) -> Iterator[Span]:
    """Runs of 32 to 200 letters and digits, capitals among them, that look drawn at random."""
    for found in _LONG.finditer(text):
        run = found.group()
        if len(run) > 200 or text[found.start() - 1 : found.start()] in ("/", ","):
            continue
        kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in run]
        changes = sum(one != next_ for one, next_ in pairwise(kinds))
        common = min(Counter(kinds)[kind] for kind in "dul")
        if common >= 3 and changes >= len(run) / 3 and _entropy(run) >= 4.0 and "/" not in run[:2]:
            yield found.start(), found.end(), "[API KEY]"


def _entropy(text: str) -> float:
    """Bits a character."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def address_spans(text: str) -> Iterator[Span]:
    """E-mail addresses: from each `@` outwards."""
    if "@" not in text:
        return
    for found in _DOMAIN.finditer(text):
        local = _LOCAL.match(text[max(0, found.start() - 64) : found.start()][::-1])
        if local and local.group().strip("."):
            name = local.group()
            begin = found.start() - len(name.rstrip("'-%.") if name[-1] in "'-%." else name)
            yield begin, found.end(), "[EMAIL]"


Redact = Callable[[str], str]


_NAMES = {"kind", "trace", "span", "id", "tool_call_id"}
_LONG_RUN = re.compile(rb"[A-Za-z0-9+/]{32}|\.[\w-]{6}\.[\w-]{27}")


def mask_secrets(text: str) -> str:
    """The text with keys and tokens as `[API KEY]`, passwords as `[PASSWORD]` and e-mail
    addresses as `[EMAIL]`; docs/data/collect.md says what is found and what is not.

    The recorder's default `redact=` hook; a hook of one's own may call it first. It takes time in
    proportion to the length of the text, whatever the text is.

    Example:
        >>> mask_secrets("I am ann@example.com, my key is sk-abcdefghijklmnop1234")
        'I am [EMAIL], my key is [API KEY]'
        >>> mask_secrets("GROQ_API_KEY=gsk_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5 postgres://bob:pw@host/db")
        'GROQ_API_KEY=[API KEY] postgres://bob:[PASSWORD]@host/db'
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a text, got {type(text).__name__}")
    long = [word for word in text.split() if len(word) >= SHORTEST]  # few, in prose
    likely = " ".join(long)
    for prefix, pattern in VENDORS:
        if prefix in (text if prefix in _SPACED else likely):
            text = _replaced(text, _vendor_spans(text, pattern))
    text = _replaced(text, scheme_spans(text, text.lower()))
    low = text.lower()
    within = [name for name in NAMES_WITHIN if name in low]
    if within:
        text = _replaced(text, assigned_spans(text, within))
    if any(len(word) >= 32 for word in long):
        text = _replaced(text, random_spans(text))
    return _replaced(text, address_spans(text))


def may_hold_secrets(text: bytes) -> bool:
    """Whether `mask_secrets` could change a UTF-8 text, or one in its JSON; never wrongly no."""
    low = text.lower()
    return (
        any(name in low for name in _NAMES_WITHIN)
        or any(part in text for part in _FORMATS_WITHIN)
        or _LONG_RUN.search(text) is not None
    )


_NAMES_WITHIN = {  # capitals, which bytes know of ASCII alone; and as JSON escapes them
    text.encode().lower()
    for name in NAMES_WITHIN
    for each in (name, name.title(), name.upper())
    for text in (each, json.dumps(each)[1:-1])
}
_FORMATS_WITHIN = [part.encode() for part in FORMATS_WITHIN]


def _vendor_spans(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, int, str]]:
    for found in pattern.finditer(text):
        before = text[found.start() - 1 : found.start()]
        if not (before.isascii() and before.isalnum()):
            yield found.start(), found.end(), "[API KEY]"


def _replaced(text: str, spans: Iterator[tuple[int, int, str]]) -> str:
    parts: list[str] = []
    end = 0
    for start, stop, label in spans:
        if start >= end:
            parts += [text[end:start], label]
            end = stop
    return "".join([*parts, text[end:]]) if parts else text


def redacted(value: Any, redact: Redact) -> Any:
    """Plain data with `redact` applied to every string in it; keys and ids stay as they are.

    By `mask_secrets`, a value whose key names a secret (`{"password": "…"}`) goes as a whole.
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _entry(key, item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, redact) for item in value]
    return value


def _entry(key: Any, item: Any, redact: Redact) -> Any:
    if key in _NAMES:
        return item
    if redact is mask_secrets and isinstance(item, str) and isinstance(key, str):
        label = is_assigned_secret(key, item)
        if label:
            return label
    return redacted(item, redact)

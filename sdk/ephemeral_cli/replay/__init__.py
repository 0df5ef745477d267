"""Recorded tasks through the whole path: a provider that replays answers, clients that hold the conversations, a report."""

"""A corpus of hostile requests, made and not stored: `python -m tests.hostile` lists it or writes it to a folder."""

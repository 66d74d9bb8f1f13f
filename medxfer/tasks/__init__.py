"""Kinds of question: everything that differs between them, in one object each."""

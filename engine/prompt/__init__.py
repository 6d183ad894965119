"""Prompt syntax: what people write between parentheses, commas and line breaks."""

"""The fal face; its routes come with it."""

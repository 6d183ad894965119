"""The pocket model: a world of drawings, the training on them, and the measuring of what was learnt."""

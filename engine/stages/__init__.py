"""The stages of a picture, one feature a file. Each runs alone and can be tested alone."""

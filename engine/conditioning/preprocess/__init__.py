"""From a picture to the drawing a ControlNet follows; each preprocessor is a pure function of pixels."""

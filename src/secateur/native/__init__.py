"""The compiled module, for all rooms above: the engine's sessions, the packed format's coder, methods' inner loops."""

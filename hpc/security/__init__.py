"""Key pairs, connection files, and who may do what."""

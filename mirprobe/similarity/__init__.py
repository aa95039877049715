"""How the layers of a backbone relate to its input and to each other, from moments of frames."""

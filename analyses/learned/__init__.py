"""How much of a position bias training has made, and how much is the draw that it started from."""

"""Token mixers, a module each; every one takes (x `b t d`, grid) and returns `b t d`."""

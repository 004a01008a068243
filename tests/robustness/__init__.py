"""Attacks of many thousand inputs and kills: a short run in the tests, the long one by `make robustness`."""

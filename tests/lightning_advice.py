"""Lightning's advice that is known here, as filters of warnings."""

LIGHTNING_ADVICE = [
    "ignore:.*does not have many workers.*",
    "ignore:.*treespec, LeafSpec.*",
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:.*litlogger.*",
    "ignore:GPU available but not used",
]
